"""Rates and distortions of a multimodal model by how many modalities are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.evaluation.subsets import Estimate, by_size, covered, estimate, list_subsets, require_shared, subset_mask
from vaekit.models.multimodal import MultimodalVAE
from vaekit.observed import Observed

__all__ = ["Rates", "rates"]


@dataclass(frozen=True)
class Rates:
    r"""Rates and distortions, each in nats per sample; those of subsets S by the size of S.

    With a the modalities that are there:

    Arguments:
        full_rate: $\mathrm{KL}(q(z\mid x_a)\,\|\,p(z))$.
        full_distortion: $\mathbb E_{q(z\mid x_a)}[-\log p(x_a\mid z)]$.
        partial_rate: $\mathrm{KL}(q(z\mid x_S)\,\|\,p(z))$.
        cross_rate: $\mathrm{KL}(q(z\mid x_a)\,\|\,q(z\mid x_S))$, what the rest tells that S does not.
        marginal_distortion: $\mathbb E_{q(z\mid x_S)}[-\log p(x_S\mid z)]$.
        cross_distortion: $\mathbb E_{q(z\mid x_S)}[-\log p(x_{a\setminus S}\mid z)]$.
    """

    full_rate: Estimate
    full_distortion: Estimate
    partial_rate: dict[int, Estimate]
    cross_rate: dict[int, Estimate]
    marginal_distortion: dict[int, Estimate]
    cross_distortion: dict[int, Estimate]


@torch.no_grad()
def rates(
    model: MultimodalVAE, batches: Iterable[Observed], *, draws: int = 1, per_size: int = 20, seed: int = 0
) -> Rates:
    """Return rates and distortions over all subsets of the modalities, or a sample of them where there are many.

    A rate is exact where the KL has a closed form and otherwise estimated from the draws. A subset counts for the
    samples that have all of it.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.

    Arguments:
        model: The model, in evaluation mode.
        batches: The samples, on the model's device.
        draws: Draws per sample and posterior.
        per_size: Subsets of one size at most, as in `list_subsets`.
        seed: Seed of the choice of subsets where there are more.

    Raises:
        VaekitError: The model has no shared latent, or there is no sample.
    """
    require_shared(model, "rates and distortions")
    subsets = list_subsets(model.names, per_size=per_size, seed=seed)
    full: list[Tensor] = []
    partial: list[Tensor] = []
    for x in batches:
        encoded = model.encode(x)
        q, p = encoded.posterior(), encoded.prior
        z = q.draw(draws)
        distortion = -z.expect(model.log_likelihood(x, z.for_modalities(len(x.names)))).sum(-1)
        full.append(torch.stack([q.kl(p, z), distortion], 1).cpu())
        columns = []
        for mask in subset_mask(subsets, x):
            chosen = mask.expand_as(x.available)
            q_s = encoded.posterior(chosen)
            z_s = q_s.draw(draws)
            distortions = -z_s.expect(model.log_likelihood(x, z_s.for_modalities(len(x.names))))
            inside, outside = (distortions * mask).sum(-1), (distortions * ~mask).sum(-1)
            columns.append(torch.stack([q_s.kl(p, z_s), q.kl(q_s, z), inside, outside]))
        there = covered(subsets, x)
        partial.append(torch.where(there, torch.stack(columns, -1), torch.nan).cpu())
    full_rate, full_distortion = torch.cat(full).unbind(1)
    return Rates(
        estimate(full_rate),
        estimate(full_distortion),
        *(by_size(table, subsets) for table in torch.cat(partial, 1).unbind(0)),
    )
