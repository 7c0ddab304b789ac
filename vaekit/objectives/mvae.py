"""MVAE: ELBOs of everything, of each modality and of random subsets, added up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vaekit.distributions import Draws, draw, kl_divergence
from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["MVAE", "proper_subsets"]


@objectives.register(
    "mvae",
    about="Several modalities: the ELBOs of all, of each one and of random subsets, added up",
    source="Wu and Goodman, Multimodal Generative Models for Scalable Weakly-Supervised Learning, 2018, "
    "arXiv 1802.05335",
    needs=("several modalities", "a fusion"),
)
class MVAE(MultimodalObjective):
    r"""The sum of the negative ELBOs of several subsets, each of its own modalities alone:

    $$-\mathcal L(x)-\sum_m\mathcal L(x_m)-\sum_{k=1}^K\mathcal L(x_{S_k}),\qquad
    \mathcal L(x_S)=\mathbb E_{q(z\mid x_S)}\Bigl[\sum_{m\in S}\log p(x_m\mid z)\Bigr]
    -\beta\,\mathrm{KL}(q(z\mid x_S)\,\|\,p(z))\quad\text{[nats per sample].}$$

    A product of experts that is trained on all modalities alone leaves it open which expert knows what; the other
    terms settle that. The sum bounds no likelihood: it is about $2+K/2$ times as large as the joint ELBO. Any fusion
    will do.

    Every sample draws subsets of its own, uniform among the non-empty proper subsets of what it has; one that has a
    single modality draws none. All subsets are fused at once, and every decoder is run once, on $2+K$ latents of each
    sample.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning, Wu and Goodman, 2018, arXiv 1802.05335.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of every KL, a number or a schedule; the paper raises it from 0 to 1.
        draws: Draws per sample from each posterior.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        subsets: The number K of random subsets per sample.

    Raises:
        VaekitError: There are regularizers or an adversary, `draws` is below 1, or `subsets` below 0; in `compute`, the
            model has private latents or no fusion.

    Examples:
        >>> MVAE(subsets=2).label
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
        subsets: int = 1,
    ) -> None:
        super().__init__(regularizers, adversary, beta=beta, draws=draws, weights=weights)
        if subsets < 0:
            raise VaekitError(f"objective.subsets must be 0 or more, not {subsets}")
        self.subsets = subsets

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return distortions and rates, summed over the subsets."""
        if model.private is not None:
            raise VaekitError("the objective 'mvae' is for a shared latent alone: set private to null, or use 'joint'")
        encoded, count = model.encode(x), len(x.names)
        singles = torch.eye(count, dtype=torch.bool, device=x.device)[:, None] & x.available
        masks = torch.cat([x.available[None], singles, proper_subsets(x.available, self.subsets)])
        q = encoded.fuse(masks)
        with without_autocast(x.device):
            z, weights = draw(q, self.draws)  # (S, 1 + M + K, B, D), (S, 1 + M + K, B)
            rates = kl_divergence(q, encoded.prior_of_shared, Draws(z, weights))
            rates = torch.where(masks.any(-1), rates, 0.0)
        # Decoder m takes its own single posterior's draw: the M singles are one row of latents, not M.
        latents, weights = _rows(z, count), _rows(weights.unsqueeze(-1), count).squeeze(-1)
        used = torch.cat([x.available[None], x.available[None], masks[1 + count :]])
        distortions = self.distortions(model, x, latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        distortion = torch.where(used, weights * distortions, 0.0).sum((0, 1))
        return self.sum_up(
            model, distortion, rates.sum(0), step, full_rate=rates[0], single_rate=rates[1 : 1 + count].sum(0)
        )


def _rows(values: Tensor, count: int) -> Tensor:
    """Return what every decoder takes in each of the 2 + K rows: (S, 1 + M + K, B, D) to (S, 2 + K, B, M, D)."""
    full, singles, others = values[:, :1], values[:, 1 : 1 + count], values[:, 1 + count :]
    full, others = (part.unsqueeze(-2).expand(*part.shape[:-1], count, -1) for part in (full, others))
    return torch.cat([full, singles.movedim(1, -2).unsqueeze(1), others], 1)


def proper_subsets(available: Tensor, count: int) -> Tensor:
    """Draw masks uniformly among the non-empty proper subsets of what each sample has, shape (count, B, M).

    The mask of a sample that has fewer than two modalities is empty.

    Arguments:
        available: Which modalities are there, bool of shape (B, M), M at most 60.
        count: How many to draw for each sample.

    Examples:
        >>> masks = proper_subsets(torch.tensor([[True, True, False], [True, False, False]]), 4)
        >>> masks.shape, masks.sum(-1)[:, 0].tolist(), masks.sum(-1)[:, 1].tolist()
        (torch.Size([4, 2, 3]), [1, 1, 1, 1], [0, 0, 0, 0])
    """
    size = available.sum(-1)
    # The proper subsets of n modalities are the numbers 1 to 2^n - 2 in binary, a digit for each one that is there.
    number = torch.randint(2**62, (count, len(available)), device=available.device)
    number = 1 + number % (2**size - 2).clamp_min(1)
    digit = (number.unsqueeze(-1) >> (available.cumsum(-1) - 1).clamp_min(0)) & 1
    return (digit == 1) & available & (size > 1).unsqueeze(-1)
