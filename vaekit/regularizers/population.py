"""Terms of the aggregate posterior of a batch: the GAMIX population KL and its sampled counterpart."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vaekit.distributed import all_mean, world_size
from vaekit.distributions import pairwise_log_prob
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["AggregateKL", "PopulationKL", "population_kl_floor", "population_moments"]


def population_moments(
    q: torch.distributions.Distribution, variance: Literal["means", "total"] = "total"
) -> tuple[Tensor, Tensor]:
    r"""Return mean and variance, shape (D,) each, of the aggregate posterior of the batch over all ranks.

    $$m=\frac1B\sum_i\mathbb E_{q_i}[z],\qquad v^{\text{means}}=\frac1B\sum_i(\mathbb E_{q_i}[z]-m)^2,\qquad
    v^{\text{total}}=v^{\text{means}}+\frac1B\sum_i\operatorname{Var}_{q_i}[z].$$

    Under several ranks these are the moments of the global batch, with exact gradients.
    """
    means = q.mean
    mean = all_mean(means.mean(0))
    spread = (means - mean).square().mean(0)
    if variance == "total":
        spread = spread + q.variance.mean(0)
    return mean, all_mean(spread)


def population_kl_floor(batch_size: int, latent_dim: int) -> float:
    r"""Return the population KL (variance `means`) that perfectly standard normal means give on average.

    $\frac D2\bigl(\log\frac B2-\psi(\frac{B-1}2)\bigr)$ nats: the sample variance of B draws is not exactly 1, and the
    logarithm turns its scatter into a bias.

    Examples:
        >>> round(population_kl_floor(10, 1), 3)
        0.11
    """
    half = torch.tensor((batch_size - 1) / 2, dtype=torch.float64)
    return 0.5 * latent_dim * (math.log(batch_size / 2) - torch.digamma(half).item())


@regularizers.register(
    "population_kl",
    about="GAMIX: KL of the moment-matched aggregate posterior of the batch to N(0, I); a surrogate, not a bound",
    source="Rivera, How to train your VAE, 2024, arXiv 2309.13160",
    needs=("batch of two or more",),
    requires=("moments",),
    only_with={"priors": ("standard_normal",)},
)
class PopulationKL(Regularizer):
    r"""The KL from the batch's aggregate posterior, moment-matched by one diagonal Gaussian, to N(0, I):

    $$\mathcal L_{\text{pop}}=\tfrac12\sum_d\bigl(m_d^2+v_d-1-\log(v_d+\varepsilon)\bigr)\quad\text{[nats]}$$

    with the moments of `population_moments`. It already speaks of a whole batch: it is summed over dimensions and not
    averaged over samples. With `variance="total"` it is a lower bound of the KL of the true in-batch mixture; with
    `"means"` (the author's) it is neither bound. Either way it replaces the KL of each posterior, so the objective is
    a surrogate: never an ELBO.

    References:
        How to train your VAE, Rivera, 2024, arXiv 2309.13160.

    Arguments:
        weight: A number or a schedule.
        variance: `"means"` for the variance of the posterior means (the author's), `"total"` for the law of total
            variance.
        eps: Added to the variance inside the logarithm; a dead dimension would otherwise give an infinite gradient.

    Raises:
        VaekitError: `eps` is negative, or the global batch holds one sample.

    Examples:
        >>> import torch, pyro.distributions as dist
        >>> from vaekit.latents import Latents
        >>> q = dist.Normal(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1)).to_event(1)
        >>> p = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
        >>> z, weights = q.rsample((1,)), torch.ones(1, 2)
        >>> round(PopulationKL(variance="means", eps=0.0)(Latents(q, p, z, weights)).item(), 6)
        0.0
    """

    least_batch = 2

    def __init__(
        self, *, weight: Scalar = 1.0, variance: Literal["means", "total"] = "means", eps: float = 1e-6
    ) -> None:
        super().__init__(weight=weight)
        self.variance = variance
        if eps < 0:
            raise VaekitError(f"population_kl: eps must be 0 or more, not {eps:g}")
        self.eps = eps

    def extra_repr(self) -> str:
        """Show the weight and the variance."""
        return f"{super().extra_repr()}, variance={self.variance}"

    def forward(self, latents: Latents) -> Tensor:
        """Return the KL of the moment match, in nats."""
        if latents.q.batch_shape[0] * world_size() < self.least_batch:
            raise VaekitError("population_kl is not defined for a single sample: give a batch of two or more")
        mean, variance = population_moments(latents.q, self.variance)
        return 0.5 * (mean.square() + variance - 1.0 - (variance + self.eps).log()).sum()

    def notes(self, batch_size: int, latent_dim: int) -> list[str]:
        """Say what perfectly normal posterior means would give at this batch size."""
        floor = population_kl_floor(batch_size, latent_dim)
        return [
            f"population_kl has a floor of {floor:.2f} nats at batch {batch_size}: the scatter of so few samples, "
            "were the posterior means standard normal and the posterior variances near 0"
        ]


@regularizers.register(
    "aggregate_kl",
    about="Sampled KL of the batch's aggregate posterior (a mixture over the batch) to the prior",
    source="Hoffman and Johnson, ELBO surgery, 2016 (the aggregate posterior); Rivera, How to train your VAE, 2024, "
    "arXiv 2309.13160",
    needs=("gaussian or gmm posterior", "batch of two or more"),
    requires=("finite KL", "gaussian components"),
)
class AggregateKL(Regularizer):
    r"""The KL of the uniform mixture over the batch's posteriors to the prior, estimated from one draw each:

    $$\frac1B\sum_i\Bigl[\log\frac1B\sum_j q(z_i\mid x_j)-\log p(z_i)\Bigr]\quad\text{[nats].}$$

    In many dimensions the components hardly overlap and this is the mean KL minus log B: doing the mixture KL by Monte
    Carlo gives an ordinary VAE back. Under several ranks each rank uses its own part of the batch.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound, Hoffman and Johnson, 2016.

    Arguments:
        weight: A number or a schedule.
    """

    least_batch = 2

    def forward(self, latents: Latents) -> Tensor:
        """Return the estimate."""
        log_q = pairwise_log_prob(latents.q, latents.z).logsumexp(-1) - math.log(latents.z.shape[1])
        return latents.expect(log_q - latents.p.log_prob(latents.z)).mean()
