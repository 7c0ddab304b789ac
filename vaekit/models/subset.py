"""The posterior of all latents of a multimodal model given a subset of the modalities.

Shapes: S draws, B samples, M modalities, D shared and P private latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from vaekit.distributions import Draws, draw, kl_divergence, require_density, stopped
from vaekit.errors import VaekitError

__all__ = ["KLEstimator", "LatentDraws", "SubsetPosterior"]

Distribution = torch.distributions.Distribution

KLEstimator: TypeAlias = Literal["auto", "sampled", "sticking_the_landing"]


@dataclass(frozen=True)
class LatentDraws:
    """Weighted draws of the shared latent and, where there are any, of the private ones.

    Arguments:
        z: Shared latents, shape (S, B, D).
        weights: Weights, shape (S, B), as in `vaekit.latents.Latents`.
        private: Private latents, shape (S, B, M, P); `None` for none.
        law: What the private latents were drawn from, so that networks need not be run again; `None` where unknown.
    """

    z: Tensor
    weights: Tensor
    private: Tensor | None = None
    law: Distribution | None = None

    def for_modalities(self, count: int) -> Tensor:
        """Return what each of `count` decoders takes: shape (S, B, M, D + P)."""
        shared = self.z.unsqueeze(-2).expand(*self.z.shape[:-1], count, -1)
        return shared if self.private is None else torch.cat([shared, self.private], -1)

    def expect(self, values: Tensor) -> Tensor:
        """Return the posterior expectation of `values` (S, B, ...), shape (B, ...)."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (values.dim() - 2))
        return (weights * values).sum(0)


class SubsetPosterior:
    r"""The law of all latents given a subset, $q(z\mid x_S)\prod_m q(\tilde z_m\mid z,x_S)$; the prior is one too.

    Arguments:
        shared: The law of the shared latent, `batch_shape (B,)`, or `()` for a prior.
        private: Shared draws (S, B, D) to the law of the private latents, `batch_shape (S, B, M)`; `None` for none.
    """

    def __init__(self, shared: Distribution, private: Callable[[Tensor], Distribution] | None = None) -> None:
        self.shared = shared
        self.private = private

    def draw(self, count: int = 1) -> LatentDraws:
        """Return weighted draws, differentiable in the parameters; the posterior may make more of `count`."""
        z, weights = draw(self.shared, count)
        if self.private is None:
            return LatentDraws(z, weights)
        law = self.private(z)
        return LatentDraws(z, weights, law.rsample(), law)

    def log_prob(self, draws: LatentDraws, *, stop: bool = False) -> Tensor:
        """Return the log-density of draws, shape (S, B).

        Arguments:
            draws: The draws.
            stop: Whether the density's parameters are held fixed, so that a gradient reaches them only through the
                draws.

        Raises:
            VaekitError: `stop` with private latents, whose law depends on the shared draw by way of its parameters.
        """
        if stop and self.private is not None:
            raise VaekitError(
                "the estimator 'sticking_the_landing' is not for private latents: set objective.estimator to auto"
            )
        log_prob = (stopped(self.shared) if stop else self.shared).log_prob(draws.z)
        if self.private is not None:
            assert draws.private is not None
            log_prob = log_prob + self.private(draws.z).log_prob(draws.private).sum(-1)
        return log_prob

    def kl(self, other: SubsetPosterior, draws: LatentDraws, estimator: KLEstimator = "auto") -> Tensor:
        r"""Return $\mathrm{KL}(q\,\|\,\text{other})$ in nats, shape (B,), from draws of q.

        Arguments:
            other: The second law.
            draws: Draws of this law.
            estimator: `"auto"` takes closed forms where they exist; `"sampled"` the mean of the log-ratio;
                `"sticking_the_landing"` the same with this law's parameters held fixed within its density.

        Raises:
            VaekitError: The estimator does not suit the posterior.
        """
        if estimator != "auto":
            require_density(self.shared, f"the estimator '{estimator}'")
            own = self.log_prob(draws, stop=estimator == "sticking_the_landing")
            return draws.expect(own - other.log_prob(draws))
        shared = kl_divergence(self.shared, other.shared, Draws(draws.z, draws.weights))
        return shared + self.private_kl(other, draws)

    def private_kl(self, other: SubsetPosterior, draws: LatentDraws) -> Tensor:
        """Return the private latents' part of the KL in nats, shape (B,): zero where there are none."""
        if self.private is None or other.private is None:
            return draws.z.new_zeros(draws.z.shape[1])
        law = self.private(draws.z) if draws.law is None else draws.law
        return draws.expect(kl_divergence(law, other.private(draws.z)).sum(-1))
