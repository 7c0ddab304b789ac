"""MMVM: a latent for each modality, and a prior that is the mean of their posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from vaekit.distributions import draw, kl_divergence, kl_to_each, kl_to_mean
from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar, as_schedule

__all__ = ["MMVM"]


@objectives.register(
    "mmvm",
    about="Several modalities, a latent for each: their posteriors are drawn to one another instead of to a prior",
    source="Sutter et al., Unity by Diversity: Improved Representation Learning in Multimodal VAEs, 2024, "
    "arXiv 2403.05300",
    needs=("several modalities", "fusion: null"),
    requires=("finite KL",),
    only_with={"posteriors": ("gaussian", "laplace")},
)
class MMVM(MultimodalObjective):
    r"""Autoencoders of the modalities, whose posteriors are soft-tied to their mean:

    $$\sum_{m\in O}\mathbb E_{q_m}[-\log p(x_m\mid z_m)]+\beta\sum_{m\in O}
    \bigl[\alpha\,\mathrm{KL}(q_m\,\|\,p)+(1-\alpha)\,D_m\bigr]\quad\text{[nats per sample]}$$

    with O the modalities that are there and one of two divergences:

    - `jensen_shannon`: $D_m=\mathrm{KL}(q_m\,\|\,\frac1{|O|}\sum_{n\in O}q_n)$. Of all priors that all modalities share
      the mean of the posteriors costs least. The sum is |O| times the Jensen-Shannon divergence, at most
      $|O|\ln|O|$; it is always estimated from the draws. Its gradient vanishes where the posteriors lie far apart.
    - `pairwise`: $D_m=\frac1{|O|}\sum_{n\in O}\mathrm{KL}(q_m\,\|\,q_n)$, an upper bound of the former by convexity,
      without an upper bound of its own, in closed form for Gaussian and Laplace posteriors. It is what the authors'
      code computes.

    It is no bound on log p(x): the prior depends on the data. Alpha 1 is the objective `independent`.

    References:
        Unity by Diversity: Improved Representation Learning in Multimodal VAEs, Sutter et al., 2024, arXiv 2403.05300.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of the whole regularizer, a number or a schedule.
        draws: Draws per sample from each posterior.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        divergence: `"pairwise"` or `"jensen_shannon"`.
        alpha: The share of the KL to the prior p, from 0 to 1, a number or a schedule.
        estimator: `"auto"` takes closed forms where they exist; `"sampled"` estimates every term from the draws.

    Raises:
        VaekitError: There are regularizers or an adversary, `draws` is below 1, or `alpha` is a number outside of
            [0, 1].

    Examples:
        >>> MMVM(divergence="jensen_shannon", alpha={"name": "exponential", "steps": 1000}).label
        'surrogate loss'
    """

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        beta: Scalar = 1.0,
        draws: int = 1,
        weights: dict[str, float] | None = None,
        divergence: Literal["pairwise", "jensen_shannon"] = "pairwise",
        alpha: Scalar = 0.0,
        estimator: Literal["auto", "sampled"] = "auto",
    ) -> None:
        super().__init__(regularizers, adversary, beta=beta, draws=draws, weights=weights)
        if isinstance(alpha, int | float) and not 0.0 <= alpha <= 1.0:
            raise VaekitError(f"mmvm: alpha is a share, from 0 to 1, not {alpha:g}")
        self.divergence = divergence
        self.alpha = as_schedule(alpha)
        self.sampled = estimator == "sampled"

    def notes(self, batch_size: int, latent_dim: int) -> list[str]:
        """Say which divergence was used, and what becomes of the prior."""
        used = {
            "pairwise": "the posteriors are tied by the mean of their pairwise KLs, an upper bound of the "
            "Jensen-Shannon divergence",
            "jensen_shannon": "the posteriors are tied by their Jensen-Shannon divergence, estimated from the draws",
        }
        notes = [used[self.divergence]]
        if self.alpha(10**12) == 0.0:
            notes.append(
                "nothing draws the posteriors to the prior once alpha is 0: samples from the prior mean nothing, "
                "generation needs a modality to start from"
            )
        return notes

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return the distortions, and the rates to the prior and among the modalities."""
        if model.private is not None:
            raise VaekitError("mmvm has a latent for each modality and no further private ones: set private to null")
        encoded, alpha = model.encode(x), self.alpha(step)
        experts, available = encoded.experts, x.available
        with without_autocast(x.device):
            drawn = draw(experts, self.draws)
            z, weights = drawn
            if self.sampled:
                to_prior = (weights * (experts.log_prob(z) - encoded.prior_of_shared.log_prob(z))).sum(0)
            else:
                to_prior = kl_divergence(experts, encoded.prior_of_shared, drawn)
            if self.divergence == "jensen_shannon":
                apart = kl_to_mean(experts, available, drawn)
            else:
                apart = kl_to_each(experts, available, drawn if self.sampled else None)
            prior_kl, divergence = (torch.where(available, kl, 0.0).sum(-1) for kl in (to_prior, apart))
        distortion = (weights * self.distortions(model, x, z)).sum(0)
        rate = alpha * prior_kl + (1.0 - alpha) * divergence
        return self.sum_up(model, distortion, rate, step, prior_kl=prior_kl, **{self.divergence: divergence})
