"""One-hot vectors that can be relaxed: differentiable draws of categorical variables, and their KL."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl

from vaekit.distributions.draws import exponentials
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32

__all__ = ["RelaxedOneHot", "check_groups"]


class RelaxedOneHot(TorchDistribution):
    r"""V independent categorical variables of K categories, as one vector of V K numbers: one-hot, or softly so.

    With standard Gumbel noise $g$, each variable is $\mathrm{softmax}((l+g)/\tau)$; at temperature $\tau=0$ it is the
    one-hot vector of the largest $l_k+g_k$, an exact draw without a gradient.

    `log_prob`, `mean`, `variance`, `entropy` and the KL are those of the exact draws, whatever the temperature. At soft
    vectors `log_prob` is $\sum_kz_k\log\pi_k$, which is no density.

    References:
        Categorical Reparameterization with Gumbel-Softmax, Jang, Gu and Poole, 2016, arXiv 1611.01144.
        The Concrete Distribution, Maddison, Mnih and Teh, 2016, arXiv 1611.00712.

    Arguments:
        logits: Unnormalised log-probabilities l, shape (..., V, K).
        temperature: The temperature $\tau$.
        straight_through: Whether draws are one-hot, with the gradient of the soft ones.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: The temperature is negative.

    Examples:
        >>> q = RelaxedOneHot(torch.zeros(8, 3, 4))
        >>> q.batch_shape, q.event_shape, q.sample().sum(-1)
        (torch.Size([8]), torch.Size([12]), tensor([3., 3., 3., 3., 3., 3., 3., 3.]))
    """

    arg_constraints = {"logits": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.unit_interval, 1)
    has_rsample = True
    #: What the values stand for: soft vectors are one-hot to a KL.
    space: ClassVar[str] = "one-hot"
    #: Read by `vaekit.distributions.require_density`.
    has_density: ClassVar[bool] = False

    def __init__(
        self,
        logits: Tensor,
        temperature: float = 0.0,
        straight_through: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        if temperature < 0.0:
            raise VaekitError(f"a relaxed one-hot vector needs a temperature of 0 or more, not {temperature:g}")
        self.logits = at_least_float32(logits)
        self.temperature = float(temperature)
        self.straight_through = straight_through
        super().__init__(logits.shape[:-2], Size([logits.shape[-2:].numel()]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RelaxedOneHot:
        """Return the same distribution with its logits expanded to a larger batch shape."""
        new = self._get_checked_instance(RelaxedOneHot, _instance)
        new.temperature, new.straight_through = self.temperature, self.straight_through
        new.logits = self.logits.expand(Size(batch_shape) + self.logits.shape[-2:])
        super(RelaxedOneHot, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def categories(self) -> int:
        """The number K of categories of each variable."""
        return self.logits.shape[-1]

    @property
    def log_probs(self) -> Tensor:
        """The normalised log-probabilities, shape (..., V, K)."""
        return self.logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The probabilities, shape (..., V K)."""
        return self.logits.softmax(-1).flatten(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each number, shape (..., V K); the numbers of one variable are correlated."""
        return self.mean * (1.0 - self.mean)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (...)."""
        return -(self.log_probs.exp() * self.log_probs).sum((-2, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of one-hot vectors (..., V K), shape (...); no density at soft ones."""
        if self._validate_args:
            self._validate_sample(value)
        return (value.unflatten(-1, self.logits.shape[-2:]) * self.log_probs).sum((-2, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws without gradient, shape sample_shape + (..., V K): one-hot at temperature 0, else soft ones."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return soft draws with a gradient, shape sample_shape + (..., V K); at temperature 0 exact ones."""
        shape = Size(sample_shape) + self.logits.shape
        # Minus the logarithm of an exponential is a Gumbel.
        noisy = self.logits - exponentials(shape, self.logits).log_()
        if self.temperature > 0.0:
            sharp = noisy / self.temperature
            # A softmax, written out: torch's own is several times slower on rows as short as these.
            soft = (sharp - sharp.logsumexp(-1, keepdim=True)).exp()
            if not self.straight_through:
                return soft.flatten(-2)
        largest = noisy.detach().argmax(-1, keepdim=True)
        hard = torch.zeros_like(noisy).scatter_(-1, largest, 1.0)
        if self.temperature > 0.0:
            hard = hard + (soft - soft.detach())
        return hard.flatten(-2)


def check_groups(latent_dim: int, categories: int) -> None:
    """Raise VaekitError unless `latent_dim` numbers make groups of `categories`."""
    if categories < 1 or latent_dim % categories:
        raise VaekitError(
            f"latent_dim {latent_dim} cannot be split into variables of {categories} categories: make it a multiple"
        )


@register_kl(RelaxedOneHot, RelaxedOneHot)
def _kl_one_hot(q: RelaxedOneHot, p: RelaxedOneHot) -> Tensor:
    log_q = q.log_probs
    return (log_q.exp() * (log_q - p.log_probs)).sum((-2, -1))
