"""Likelihoods of several modalities, of some of them, and of some given others, by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.distributions import require_density
from vaekit.errors import VaekitError
from vaekit.evaluation.subsets import Estimate, Subset, by_size, covered, list_subsets, require_shared
from vaekit.models.multimodal import MultimodalVAE
from vaekit.observed import Observed

__all__ = ["Conditionals", "conditional_log_likelihood", "multimodal_log_likelihood", "subset_log_likelihood"]


@torch.no_grad()
def multimodal_log_likelihood(model: MultimodalVAE, x: Observed, *, particles: int = 512, chunk: int = 32) -> Tensor:
    r"""Return the importance-sampled log-likelihood of what is there, in nats, shape (B,) in float64.

    $$\log\frac1K\sum_{k=1}^K\frac{p(z_k)\prod_{m\in a}p(x_m\mid z_k)}{q(z_k\mid x_a)},\qquad z_k\sim q(z\mid x_a),$$

    with a the modalities that are available, and the private latents within z where there are any. The mean over the
    particles is taken sample by sample. Its expectation is at most $\log p(x_a)$ and rises to it with K. A posterior
    whose draws are weighted (a mixture) gives K of its rounds. A sample without any modality has 0.

    The likelihood of a subset S is that of `x.only(*S)`: then the proposal is $q(z\mid x_S)$.

    References:
        Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519.

    Arguments:
        model: The model, in evaluation mode.
        x: The samples, on the model's device.
        particles: The number K of particles per sample.
        chunk: Particles that are decoded at a time.

    Raises:
        VaekitError: The model has no shared latent, the posterior's draws have no density, or `particles` or `chunk`
            is below 1.

    Examples:
        >>> import vaekit as vk
        >>> backbone, shapes = vk.backbones.MLP(hidden=[8]), {"left": (6,), "right": (4,)}
        >>> modalities = {
        ...     name: vk.models.Modality(backbone.encoder(s), backbone.decoder(2, s), vk.likelihoods.Gaussian(s))
        ...     for name, s in shapes.items()
        ... }
        >>> fusion = vk.fusions.ProductOfExperts([8, 8], 2, lambda features: vk.posteriors.Gaussian(features, 2))
        >>> vae = vk.models.MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(2)).eval()
        >>> x = Observed({"left": torch.randn(5, 6), "right": torch.randn(5, 4)})
        >>> both, left = multimodal_log_likelihood(vae, x), multimodal_log_likelihood(vae, x.only("left"))
        >>> (both - left).shape  # log p(right | left)
        torch.Size([5])
    """
    require_shared(model, "the likelihood")
    if particles < 1 or chunk < 1:
        raise VaekitError(f"particles and chunk must be 1 or more, not {particles} and {chunk}")
    encoded = model.encode(x)
    q, p = encoded.posterior(), encoded.prior
    require_density(q.shared, "the likelihood by importance sampling")
    # Decoding what no sample has would be for nothing.
    there = [number for number, found in enumerate(x.available.any(0).tolist()) if found]
    parts = []
    for start in range(0, particles, chunk):
        count = min(chunk, particles - start)
        draws = q.draw(count)
        latents = draws.for_modalities(len(model.names))
        ratio = p.log_prob(draws).double() - q.log_prob(draws).double()
        for number in there:
            name = model.names[number]
            log_likelihood = model.parts[name].decode(latents[:, :, number]).log_prob(x.values[name])
            ratio = ratio + torch.where(x.available[:, number], log_likelihood.double(), 0.0)
        parts.append((ratio + draws.weights.double().log() + math.log(count)).logsumexp(0))
    found = torch.stack(parts).logsumexp(0) - math.log(particles)
    return torch.where(x.available.any(1), found, 0.0)


def subset_log_likelihood(
    model: MultimodalVAE,
    batches: Iterable[Observed],
    subsets: Sequence[Subset],
    *,
    particles: int = 512,
    chunk: int = 32,
) -> Tensor:
    r"""Return $\log p(x_S)$ of every sample and subset, each with its own proposal $q(z\mid x_S)$: shape (N, n).

    NaN where a subset is not all there.

    Arguments:
        model: The model, in evaluation mode.
        batches: The samples, on the model's device.
        subsets: The subsets.
        particles: The number K of particles per sample.
        chunk: Particles that are decoded at a time.

    Raises:
        VaekitError: As `multimodal_log_likelihood`.
    """
    rows = []
    for x in batches:
        columns = [
            multimodal_log_likelihood(model, x.only(*subset), particles=particles, chunk=chunk) for subset in subsets
        ]
        rows.append(torch.where(covered(subsets, x), torch.stack(columns, 1), torch.nan).cpu())
    return torch.cat(rows)


@dataclass(frozen=True)
class Conditionals:
    r"""Conditional log-likelihoods in nats per sample, by the size of the given subset S.

    Arguments:
        rest: $\log p(x_{a\setminus S}\mid x_S)$ of all that is there besides S; for size 0 it is $\log p(x)$.
        targets: Modality m to $\log p(x_m\mid x_S)$, averaged over the subsets without m.
    """

    rest: dict[int, Estimate]
    targets: dict[str, dict[int, Estimate]]


def conditional_log_likelihood(
    model: MultimodalVAE,
    batches: Iterable[Observed],
    *,
    particles: int = 512,
    chunk: int = 32,
    per_size: int = 20,
    seed: int = 0,
) -> Conditionals:
    r"""Return conditional log-likelihoods as differences of two estimates, each with its own proposal:

    $$\log p(x_T\mid x_S)=\log p(x_{S\cup T})-\log p(x_S).$$

    Each term errs downwards with few particles, so that their difference may err to either side.

    Arguments:
        model: The model, in evaluation mode.
        batches: The samples, on the model's device.
        particles: The number K of particles per sample.
        chunk: Particles that are decoded at a time.
        per_size: Given subsets of one size at most, as in `list_subsets`.
        seed: Seed of the choice of subsets where there are more.

    Raises:
        VaekitError: As `multimodal_log_likelihood`.
    """
    require_shared(model, "the conditional likelihood")
    names = model.names
    given = [subset for subset in list_subsets(names, per_size=per_size, seed=seed) if len(subset) < len(names)]
    joined = {(s, m): tuple(n for n in names if n in s or n == m) for s in given for m in names if m not in s}
    needed = sorted({*given, *joined.values()}, key=lambda subset: [len(subset), *map(names.index, subset)])
    rows, whole, more = [], [], []
    for x in batches:
        rows.append(subset_log_likelihood(model, [x], needed, particles=particles, chunk=chunk))
        whole.append(multimodal_log_likelihood(model, x, particles=particles, chunk=chunk).cpu())
        sizes = torch.tensor([len(subset) for subset in given])
        more.append(x.available.sum(1).cpu().unsqueeze(1) > sizes)
    table = dict(zip(needed, torch.cat(rows).unbind(1), strict=True))
    rest = torch.stack([torch.cat(whole) - table[subset] for subset in given], 1)
    targets = {}
    for name in names:
        without = [subset for subset in given if name not in subset]
        differences = torch.stack([table[joined[subset, name]] - table[subset] for subset in without], 1)
        targets[name] = by_size(differences, without)
    return Conditionals(by_size(torch.where(torch.cat(more), rest, torch.nan), given), targets)
