"""The Poisson posterior, whose rates are relative to the prior's."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.distributed import all_max
from vaekit.distributions import RelaxedPoisson, events_for
from vaekit.errors import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors
from vaekit.schedules import Scalar, as_schedule

__all__ = ["Poisson", "soft_ceiling"]

_EVERY = 100
_ACTIVE = 0.01


def soft_ceiling(x: Tensor, ceiling: float) -> Tensor:
    r"""Return $c-\log(1+e^{c-x})$: nearly x well below the ceiling c, never above it, with a gradient everywhere.

    Examples:
        >>> soft_ceiling(torch.tensor([0.0, 5.0, 100.0]), 5.0)
        tensor([-0.0067,  4.3069,  5.0000])
    """
    return ceiling - F.softplus(ceiling - x)


@posteriors.register(
    "poisson",
    about="Poisson counts, relaxed in training, with rates relative to the prior's",
    source="H. Vafaii, D. Galor and J. L. Yates, Poisson Variational Autoencoder, 2024, arXiv 2405.14473",
    supports=("reparameterised", "moments", "factorised"),
    support="counts",
    closed_kl=("poisson",),
    only_with={"priors": ("poisson",)},
)
class Poisson(Posterior):
    r"""$q(z|x) = \prod_d \mathrm{Pois}(z_d; r_d\,\delta r_d(x))$ with the prior's rates r.

    The head gives $\log\delta r$, and

    $$\log\lambda=c_m\bigl(\log r+c_{10}(\log\delta r)\bigr),\qquad c_a(x)=a-\log(1+e^{a-x}),$$

    with m the `max_log_rate`. Draws and KL use the same clamped rate. The KL is $r\,f(\lambda/r)$ with
    $f(y)=1-y+y\log y$: silence costs r, and firing more than linearly in the rate.

    In training the counts are relaxed (`RelaxedPoisson`); in evaluation mode they are exact, so that every evaluation
    speaks of the true model. Training takes memory for `events` numbers for each count. A temperature of 0 in training
    gives exact counts without a gradient: right with the objective's option `exact`, which needs none.

    Where `events` is left out, the number follows the rates: on every 100th step it is set to what is needed until time
    $1+\tau$ at twice the largest rate of the batch, plus two, which waits for the device once. What comes later is cut
    off: larger counts, should the rates more than double until the next look, and the tail of the sigmoid.

    Source: H. Vafaii, D. Galor and J. L. Yates, Poisson Variational Autoencoder, 2024, arXiv 2405.14473.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        temperature: The temperature of training, a number or a schedule.
        indicator: The soft indicator: `"sigmoid"`, `"linear"`, `"cubic"`, `"quintic"` or `"cosine"`.
        estimator: `"relaxed"` decodes soft counts, `"straight_through"` exact ones with the gradient of the soft ones.
        events: The number of events that are drawn; None for a number that follows the rates.
        max_log_rate: The log-rate stays below this number.
        bias: Whether the head has a bias.
        init_std: The standard deviation of the head's first weights, its bias then zero; None for PyTorch's own.

    Raises:
        VaekitError: `events` is below 1, or `init_std` not above 0.

    Examples:
        >>> from vaekit.priors import Poisson as Prior
        >>> q = Poisson(16, 3)(torch.randn(8, 16), Prior(3)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    relaxes = True

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        temperature: Scalar = 0.1,
        indicator: Literal["sigmoid", "linear", "cubic", "quintic", "cosine"] = "sigmoid",
        estimator: Literal["relaxed", "straight_through"] = "relaxed",
        events: int | None = None,
        max_log_rate: float = 5.0,
        bias: bool = True,
        init_std: float | None = None,
    ) -> None:
        super().__init__(features, latent_dim)
        if events is not None and events < 1:
            raise VaekitError(f"the poisson posterior needs 1 or more events, not {events}")
        if init_std is not None and not init_std > 0.0:
            raise VaekitError(f"init_std of the poisson posterior must be above 0, not {init_std:g}")
        self.temperature = as_schedule(temperature)
        self.indicator = indicator
        self.estimator = estimator
        self.events = events
        self.max_log_rate = max_log_rate
        self.log_ratio = nn.Linear(features, latent_dim, bias=bias)
        if init_std is not None:
            nn.init.normal_(self.log_ratio.weight, std=init_std)
            if bias:
                nn.init.zeros_(self.log_ratio.bias)
        self._followed = events_for(2.0)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        log_ratio = at_least_float32(self.log_ratio(features.to(self.log_ratio.weight.dtype)))
        log_rate = soft_ceiling(_each(prior).log_rate + soft_ceiling(log_ratio, 10.0), self.max_log_rate)
        temperature = self.temperature(self.step) if self.training else 0.0
        return RelaxedPoisson(
            log_rate,
            temperature,
            self._count_events(log_rate, temperature) if temperature > 0.0 else None,
            self.indicator,
            self.estimator == "straight_through",
            validate_args=False,
        ).to_event(1)

    def _count_events(self, log_rate: Tensor, temperature: float) -> int:
        """Return how many events to draw; all ranks must come here together."""
        if self.events is not None:
            return self.events
        if self.step % _EVERY == 0:
            largest = all_max(log_rate.max()).exp().item()
            if math.isfinite(largest):  # else the loss is not finite either, which the trainer reports
                self._followed = events_for(2.0 * (1.0 + temperature) * largest + 2.0)
        return self._followed

    def get_extra_state(self) -> Tensor:
        """Return the number of events, which a resumed run goes on with."""
        return torch.tensor(self._followed)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with the number of events of a checkpoint."""
        self._followed = int(state)

    def monitor(
        self, q: torch.distributions.Distribution, prior: torch.distributions.Distribution
    ) -> dict[str, Tensor]:
        """Return the expected events per sample, and the share of dimensions of a mean KL above 0.01 in the batch."""
        own, other = _each(q), _each(prior)
        kl = torch.distributions.kl_divergence(own, other).mean(0)
        return {"metabolic_cost": own.rate.sum(-1).mean(), "active_neurons": (kl > _ACTIVE).float().mean()}

    def extra_repr(self) -> str:
        """Show the options."""
        return f"temperature={self.temperature!r}, indicator={self.indicator!r}, estimator={self.estimator!r}"


def _each(joint: Any) -> RelaxedPoisson:
    """Return the counts of a joint distribution of independent ones."""
    return joint.base_dist
