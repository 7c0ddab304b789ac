"""MVTCAE: the joint posterior is drawn to every modality's own, not to the prior alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vaekit.distributions import Draws, draw, kl_divergence, stack
from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["MVTCAE"]


@objectives.register(
    "mvtcae",
    about="Several modalities: the joint posterior is drawn to the prior and to each modality's own posterior",
    source="Hwang et al., Multi-View Representation Learning via Total Correlation Objective, 2021, NeurIPS",
    needs=("several modalities", "fusion: poe or average"),
)
class MVTCAE(MultimodalObjective):
    r"""Distortion, the KL to the prior and the KLs to the experts:

    $$-\frac{M-\alpha}M\,\mathbb E_q\Bigl[\sum_m\log p(x_m\mid z)\Bigr]+\beta\Bigl[(1-\alpha)\,\mathrm{KL}(q\,\|\,p)
    +\frac\alpha M\sum_m\mathrm{KL}(q\,\|\,q_m)\Bigr]\quad\text{[nats per sample].}$$

    It is $1-\alpha$ times the joint objective plus $\alpha/M$ times, for each m, what a conditional VAE of the other
    modalities given $x_m$ minimises, $-\mathbb E_q[\sum_{n\ne m}\log p(x_n\mid z)]+\beta\,\mathrm{KL}(q\,\|\,q_m)$. The
    latter bounds $-\log p(x_{\setminus m}\mid x_m)$ only where $q_m$ is the true posterior: the sum is no bound, unless
    $\alpha=0$. M counts the modalities that a sample has.

    It is meant for `poe` with `prior_expert: false`: $q\propto\prod_mq_m$.

    References:
        Multi-View Representation Learning via Total Correlation Objective, Hwang, Kim, Hong and Kim, 2021, NeurIPS.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of all KLs, a number or a schedule.
        draws: Draws per sample.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        alpha: The share of the conditional terms, from 0 (the objective `joint`) to 1.

    Raises:
        VaekitError: There are regularizers or an adversary, `draws` is below 1, or `alpha` is not within [0, 1]; in
            `compute`, the model has private latents, or a fusion without experts or whose posterior is no Gaussian.

    Examples:
        >>> MVTCAE().label, MVTCAE(alpha=0.0).label
        ('surrogate loss', 'negative ELBO')
    """

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        beta: Scalar = 1.0,
        draws: int = 1,
        weights: dict[str, float] | None = None,
        alpha: float = 5.0 / 6.0,
    ) -> None:
        super().__init__(regularizers, adversary, beta=beta, draws=draws, weights=weights)
        if not 0.0 <= alpha <= 1.0:
            raise VaekitError(f"objective.alpha is a share, from 0 to 1, not {alpha:g}")
        self.alpha = alpha
        self.is_bound = alpha == 0.0

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return the distortion, and the rates to the prior and to the experts."""
        if model.private is not None:
            raise VaekitError(
                "the objective 'mvtcae' is for a shared latent alone: set private to null, or use 'joint'"
            )
        encoded = model.encode(x)
        q, present = encoded.fuse(x.available), x.available.any(-1)
        with without_autocast(x.device):
            count = x.available.sum(-1).clamp_min(1)
            z, weights = draw(q, self.draws)
            full = torch.where(present, kl_divergence(q, encoded.prior_of_shared, Draws(z, weights)), 0.0)
            to_experts = kl_divergence(stack([q] * len(x.names)), encoded.experts)
            cross = torch.where(x.available, to_experts, 0.0).sum(-1) / count
        latents = z.unsqueeze(-2).expand(*z.shape[:-1], len(x.names), -1)
        distortion = (weights.unsqueeze(-1) * self.distortions(model, x, latents)).sum(0)
        distortion = (1.0 - self.alpha / count).unsqueeze(-1) * distortion
        rate = (1.0 - self.alpha) * full + self.alpha * cross
        return self.sum_up(model, distortion, rate, step, full_rate=full, cross_rate=cross)
