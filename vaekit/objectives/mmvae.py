"""MMVAE: the importance-weighted bound of a mixture of experts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from vaekit.distributions import location_scale, stopped
from vaekit.errors import VaekitError
from vaekit.models.encoded import Encoded
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["MMVAE"]

Distribution = torch.distributions.Distribution


@objectives.register(
    "mmvae",
    about="Several modalities, a mixture of experts: the importance-weighted bound with draws of each expert",
    source="Shi, Siddharth, Paige and Torr, Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep "
    "Generative Models, 2019, arXiv 1911.03393",
    needs=("several modalities", "fusion: moe"),
)
class MMVAE(MultimodalObjective):
    r"""The importance-weighted bound of a mixture of M experts, K draws of each, negated:

    $$-\frac1M\sum_m\mathbb E_{z_1,\dots,z_K\sim q_m}\log\frac1K\sum_k
    \Bigl[\frac{p(z_k)}{q(z_k\mid x)}\Bigr]^\beta\prod_np(x_n\mid z_k),\qquad
    q(z\mid x)=\frac1M\sum_nq_n(z\mid x_n)\quad\text{[nats per sample].}$$

    M counts the modalities that a sample has. At beta 1 it is a bound on -log p(x); for one draw it is the ELBO of the
    mixture, its KL estimated. More draws tighten it, and yet it does not tend to -log p(x), because the draws of one
    expert stand in for the whole mixture; only where all experts agree. The mixture is that of the experts themselves,
    so that the model's fusion should be `moe`. Every decoder is run on K M latents of each sample: M² K passes.

    `kl` in the log is the mean log-ratio of the draws; for several draws the loss is less than reconstruction plus beta
    times `kl`.

    With the estimator `dreg` (doubly reparameterised) a draw's gradient is weighted by its importance $w_k$ and the
    parameters of the densities are held fixed. For draws of one expert and the density of another law, here the
    mixture, this alone is biased as soon as there are several draws and several experts; what it lacks is
    $\beta\sum_k(w_k-\frac1K)\nabla_\phi\log\frac{q_m(z_k)}{q(z_k)}$ at fixed $z_k$, which is put back. It vanishes for
    one draw and for one expert. The decoders' gradient is the same as with `standard`.

    References:
        Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models, Shi, Siddharth, Paige and
        Torr, 2019, arXiv 1911.03393.
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, Tucker, Lawson, Gu and Maddison, 2018,
        arXiv 1810.04152.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The exponent of p(z) / q(z|x), a number or a schedule.
        draws: The number K of draws from each expert.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        estimator: `"standard"`, or `"dreg"` for doubly reparameterised gradients.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1; in `compute`, the model has no
            experts that are Gaussian or Laplace, no shared latent, or private latents.

    Examples:
        >>> MMVAE(draws=1).label, MMVAE(draws=10, estimator="dreg").label
        ('negative ELBO', 'negative importance-weighted bound')
    """

    is_bound = True
    #: Whether the model has to have private latents.
    private: bool = False

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        beta: Scalar = 1.0,
        draws: int = 1,
        weights: dict[str, float] | None = None,
        estimator: Literal["standard", "dreg"] = "standard",
    ) -> None:
        super().__init__(regularizers, adversary, beta=beta, draws=draws, weights=weights)
        self.estimator = estimator

    @property
    def label(self) -> str:
        """`"negative importance-weighted bound"` where the loss is that, else as for other objectives."""
        return "negative importance-weighted bound" if self.bound and self.draws > 1 else super().label

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return the mean distortion of the draws, and what the bound adds to it."""
        self._check(model)
        encoded, available, beta = model.encode(x), x.available, self.beta(step)
        experts = encoded.experts
        location_scale(experts)  # Refuses what has other draws or densities.
        with without_autocast(x.device):
            z = experts.rsample(torch.Size([self.draws])).transpose(1, 2)  # (K, M, B, D): z[k, m] is a draw of q_m.
            own, mixture = _densities(self._held(experts), z, available)
            latents, log_ratio, drawn = self._complete(model, encoded, z)
            log_ratio = log_ratio + encoded.prior_of_shared.log_prob(z) - mixture
        distortions = self.distortions(model, x, latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        log_weight = beta * log_ratio - distortions.sum(-1)
        bound = log_weight.logsumexp(0) - math.log(self.draws)  # (M, B)
        if self.estimator == "dreg":
            importance = log_weight.detach().softmax(0)
            for draws in drawn:
                _scale_gradient(draws, 1.0 - beta * (1.0 - importance))
            own, mixture = _densities(experts, z.detach(), available)
            surrogate = importance * log_weight + beta * (importance - 1.0 / self.draws) * (own - mixture)
            bound = surrogate.sum(0) + (bound - surrogate.sum(0)).detach()

        share = (available / available.sum(-1, keepdim=True).clamp_min(1)).T  # (M, B): 0 for what is missing.
        distortion = (share.unsqueeze(-1) * distortions.mean(0)).sum(0)
        by_modality = distortion.mean(0)
        reconstruction, rate = by_modality.sum(), -(share * log_ratio.mean(0)).sum(0).mean()
        named = {f"reconstruction_{name}": by_modality[number] for number, name in enumerate(model.names)}
        return Terms(reconstruction, -(share * bound).sum(0).mean() - reconstruction, {"kl": rate, **named})

    def _check(self, model: MultimodalVAE) -> None:
        """Raise where the model has no shared latent, or private ones where there must be none, or the reverse."""
        if not model.shared:
            raise VaekitError(f"the objective {type(self).__name__} joins experts in one latent: set fusion to moe")
        if (model.private is not None) is not self.private:
            raise VaekitError(
                "the objective 'mmvae_plus' needs private latents: set private to independent, or use 'mmvae'"
                if self.private
                else "the objective 'mmvae' has no private latents: set private to null, or use 'mmvae_plus'"
            )

    def _complete(self, model: MultimodalVAE, encoded: Encoded, z: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Return what the decoders take, the log-ratio of further latents, and all draws that have a density.

        Arguments:
            model: The model.
            encoded: The batch, encoded.
            z: Shared latents, shape (K, M, B, D).
        """
        count = len(model.names)
        return z.unsqueeze(-2).expand(*z.shape[:-1], count, -1), z.new_zeros(()), [z]

    def _held(self, q: Distribution) -> Distribution:
        """Return a law whose parameters the log-weights may be differentiated by: held fixed for `dreg`."""
        return stopped(q) if self.estimator == "dreg" else q


def _densities(experts: Distribution, z: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q_m(z[k, m]) and log q(z[k, m]|x) of the mixture of what is there, each of shape (K, M, B)."""
    log_q = experts.log_prob(z.unsqueeze(-2))  # (K, M, B, N): every draw under every expert.
    # Where nothing is there all experts count, so that values stay finite; such a sample has no share in the loss.
    among = available | ~available.any(-1, keepdim=True)
    mixture = torch.where(among, log_q, -math.inf).logsumexp(-1) - among.sum(-1).to(log_q.dtype).log()
    return log_q.diagonal(dim1=1, dim2=3).movedim(-1, 1), mixture


def _scale_gradient(draws: Tensor, factor: Tensor) -> None:
    """Multiply the gradient that reaches draws (K, M, B, ...) by a factor (K, M, B)."""
    if draws.requires_grad:
        draws.register_hook(lambda gradient: gradient * factor.reshape(*factor.shape, *[1] * (gradient.dim() - 3)))
