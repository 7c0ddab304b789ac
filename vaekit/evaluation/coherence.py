"""Coherence: whether what a model generates is of the class that it was given, and of one class in all modalities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.evaluation.classifiers import Classifiers
from vaekit.evaluation.subsets import Estimate, Subset, by_size, covered, estimate, list_subsets
from vaekit.models.multimodal import MultimodalVAE
from vaekit.observed import Observed

__all__ = ["Coherence", "coherence"]


@dataclass(frozen=True)
class Coherence:
    """Shares of generated samples that classifiers find right, between 0 and 1.

    Arguments:
        conditional: Size of the given subset to the share of generated modalities, those outside the subset, that have
            the label's class.
        pairs: Given modality to generated modality to that share; for a modality given itself, of its reconstructions.
        joint: The share of prior draws of which all modalities have the same class.
        joint_classes: The exponential of the entropy of the classes of those draws: the number of classes, if they are
            equally frequent. 1 says that the model always generates the same; 0 that no draw was coherent.
    """

    conditional: dict[int, Estimate]
    pairs: dict[str, dict[str, Estimate]]
    joint: Estimate
    joint_classes: float


@torch.no_grad()
def coherence(
    model: MultimodalVAE,
    classifiers: Classifiers,
    batches: Iterable[Observed],
    labels: Tensor,
    *,
    prior_draws: int = 10_000,
    per_size: int = 20,
    seed: int = 0,
) -> Coherence:
    """Generate from every subset and from the prior, and classify the means of the likelihoods.

    Given a subset, one latent is drawn from its posterior for each sample (`MultimodalVAE.generate`); what is generated
    counts whether or not the data have that modality. A model without a shared latent passes on that of a modality
    that is given, chosen at random.

    References:
        Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models, Shi, Siddharth, Paige and
        Torr, 2019, arXiv 1911.03393.
        Generalized Multimodal ELBO, Sutter, Daunhawer and Vogt, 2021, arXiv 2105.02470.

    Arguments:
        model: The model, in evaluation mode.
        classifiers: Classifiers of all modalities, on the model's device.
        batches: The samples, in the order of the labels.
        labels: Their classes (N,).
        prior_draws: Draws from the prior for the joint coherence.
        per_size: Subsets of one size at most, as in `list_subsets`.
        seed: Seed of the choice of subsets where there are more.

    Raises:
        VaekitError: Classifiers and model do not fit together, there are no draws, or not as many labels as samples.
    """
    classifiers.check(model.data_shape)
    if prior_draws < 1:
        raise VaekitError(f"prior_draws must be 1 or more, not {prior_draws}")
    names = model.names
    proper = [s for s in list_subsets(names, per_size=per_size, seed=seed) if 0 < len(s) < len(names)]
    singles = [(name,) for name in names]
    subsets = list(dict.fromkeys([*singles, *proper]))
    rows, start = [], 0
    for x in batches:
        truth = labels[start : start + len(x)].to(x.device)
        start += len(x)
        if len(truth) < len(x):
            break
        right = torch.stack([_right(model, classifiers, x, subset, truth) for subset in subsets], 1)
        rows.append(torch.where(covered(subsets, x).unsqueeze(-1), right, torch.nan).cpu())
    if start != len(labels):
        raise VaekitError(f"there are {len(labels):,} labels, and not as many samples: give one label a sample")
    table = torch.cat(rows)  # (N, subsets, M)
    outside = torch.tensor([[name not in subset for name in names] for subset in subsets])
    conditional = torch.where(outside, table, torch.nan).nanmean(-1)
    pairs = {
        given: {name: estimate(table[:, subsets.index((given,)), number]) for number, name in enumerate(names)}
        for given in names
        if not table[:, subsets.index((given,)), 0].isnan().all()
    }
    joint, classes = _joint(model, classifiers, prior_draws)
    return Coherence(by_size(conditional, subsets) if len(names) > 1 else {}, pairs, joint, classes)


def _classes(model: MultimodalVAE, classifiers: Classifiers, generated: dict[str, Tensor]) -> Tensor:
    """Return the classes of generated modalities, shape (B, M)."""
    found = []
    for name, values in generated.items():
        images = classifiers.networks[name].kind == "conv"
        found.append(classifiers.classify(name, values, model.data_range[name] if images else None))
    return torch.stack(found, 1)


def _right(model: MultimodalVAE, classifiers: Classifiers, x: Observed, subset: Subset, truth: Tensor) -> Tensor:
    """Return 1 where what is generated given a subset has the true class and 0 elsewhere, shape (B, M)."""
    generated = model.generate(x.only(*subset))
    return (_classes(model, classifiers, generated) == truth.unsqueeze(1)).double()


def _joint(model: MultimodalVAE, classifiers: Classifiers, draws: int) -> tuple[Estimate, float]:
    sizes: Sequence[int] = [min(256, draws - start) for start in range(0, draws, 256)]
    classes = torch.cat([_classes(model, classifiers, model.sample(size)).cpu() for size in sizes])
    agree = (classes == classes[:, :1]).all(1)
    shares = classes[agree, 0].bincount().double() / max(int(agree.sum()), 1)
    entropy = torch.special.entr(shares).sum()
    return estimate(agree.double()), float(entropy.exp()) if bool(agree.any()) else 0.0
