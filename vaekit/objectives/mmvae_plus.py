"""MMVAE+: a mixture of experts for what modalities share, private latents for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.models.encoded import Encoded
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.mmvae import MMVAE
from vaekit.registry import objectives

__all__ = ["MMVAEPlus"]


@objectives.register(
    "mmvae_plus",
    about="Several modalities, a mixture of experts and private latents: others are decoded without one's own details",
    source="Palumbo, Daunhawer and Vogt, MMVAE+: Enhancing the Generative Quality of Multimodal VAEs without "
    "Compromises, 2023, ICLR",
    needs=("several modalities", "fusion: moe", "private: independent"),
)
class MMVAEPlus(MMVAE):
    r"""MMVAE with a private latent $w_m$ for each modality, which helps to decode that modality from itself alone:

    $$-\frac1M\sum_m\mathbb E\log\frac1K\sum_kp(x_m\mid z_k,w_{m,k})
    \Bigl[\frac{p(z_k)\,p(w_{m,k})}{q(z_k\mid x)\,q_m(w_{m,k}\mid x_m)}\Bigr]^\beta
    \prod_{n\ne m}p(x_n\mid z_k,\tilde w_{n,k})\quad\text{[nats per sample]}$$

    with $z_k\sim q_m(z\mid x_m)$, $w_{m,k}\sim q_m(w\mid x_m)$ and $\tilde w_{n,k}\sim r_n$, the auxiliary prior of the
    private fusion. What decodes other modalities is z alone, so that z has to hold what they share. $q(z\mid x)$ is the
    mixture of the experts.

    At beta 1 it bounds -log p(x) where $r_n$ is the private prior. Where the scales of $r_n$ are learned, it bounds no
    likelihood of one model: a modality's prior is $p(w)$ in its own term and $r_n$ in the others'. It is called a
    surrogate for that.

    References:
        MMVAE+: Enhancing the Generative Quality of Multimodal VAEs without Compromises, Palumbo, Daunhawer and Vogt,
        2023, ICLR.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The exponent of prior over posterior, a number or a schedule.
        draws: The number K of draws from each expert.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        estimator: `"standard"`, or `"dreg"` for doubly reparameterised gradients, which have no part in the draws from
            the auxiliary prior: no density of theirs occurs.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1; in `compute`, the model has no
            experts that are Gaussian or Laplace, no shared latent or no private ones, or `dreg` meets a private
            posterior that depends on z.

    Examples:
        >>> MMVAEPlus(beta=2.5).label
        'surrogate loss'
    """

    is_bound = False
    draws_auxiliary = True
    private = True

    def _complete(self, model: MultimodalVAE, encoded: Encoded, z: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Return what the decoders take, log p(w) - log q(w), and all draws that have a density."""
        q, p = encoded.posterior().private, encoded.prior.private
        assert q is not None
        assert p is not None
        assert model.private is not None
        if self.estimator == "dreg" and model.private.sees_shared:
            raise VaekitError(
                "the estimator 'dreg' is for private posteriors that do not depend on z: set private to independent, "
                "or objective.estimator to standard"
            )
        at = z.flatten(0, 1)
        law = q(at)
        w = law.rsample().unflatten(0, z.shape[:2])  # (K, M, B, M, P): of every modality, beside every expert's draw.
        flat = w.flatten(0, 1)
        log_ratio = (p(at).log_prob(flat) - self._held(law).log_prob(flat)).unflatten(0, z.shape[:2])
        others = model.private.auxiliary().rsample(w.shape[:3])
        # Expert m's draw has its own private latent; the other modalities' come from the auxiliary prior.
        own = torch.eye(len(model.names), dtype=torch.bool, device=z.device).unsqueeze(1)  # (M, 1, M)
        private = torch.where(own.unsqueeze(-1), w, others)
        latents = torch.cat([z.unsqueeze(-2).expand(*private.shape[:-1], -1), private], -1)
        return latents, torch.where(own, log_ratio, 0.0).sum(-1), [z, w]
