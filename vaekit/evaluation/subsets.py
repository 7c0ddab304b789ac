"""What evaluations of several modalities share: the subsets, and averages over samples by the size of a subset.

Figures of samples and subsets lie in a table (N, n), N samples by n subsets, with NaN where a subset is not all there
for a sample: every average leaves those out.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.observed import Observed

__all__ = ["Estimate", "Subset", "by_size", "covered", "estimate", "list_subsets", "require_shared", "subset_mask"]

#: Names of modalities, in the model's order.
Subset: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """A mean over samples and how sure it is.

    Arguments:
        mean: The mean.
        standard_error: The standard deviation over samples divided by the root of their number; NaN for one sample.
        count: The number of samples.
    """

    mean: float
    standard_error: float
    count: int


def estimate(values: Tensor) -> Estimate:
    """Return the mean of one value per sample (N,), samples with NaN left out.

    Raises:
        VaekitError: No sample is left.

    Examples:
        >>> estimate(torch.tensor([1.0, 3.0, float("nan")]))
        Estimate(mean=2.0, standard_error=1.0, count=2)
    """
    values = values[~values.isnan()].double()
    if not len(values):
        raise VaekitError("there is no sample to average over: take more samples, or another split")
    return Estimate(
        float(values.mean()), float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan, len(values)
    )


def by_size(table: Tensor, subsets: Sequence[Subset]) -> dict[int, Estimate]:
    """Return the mean of a table (N, n) for each size of subset.

    Each sample is averaged over its subsets first: the subsets of one sample are no independent evidence, and a
    standard error that counts them as such is too small. Sizes that no sample has are left out.

    Examples:
        >>> table = torch.tensor([[1.0, 3.0, 7.0], [2.0, float("nan"), float("nan")]])
        >>> {size: found.mean for size, found in by_size(table, [("a",), ("b",), ("a", "b")]).items()}
        {1: 2.0, 2: 7.0}
    """
    sizes = torch.tensor([len(subset) for subset in subsets])
    means = {int(size): table[:, sizes == size].nanmean(1) for size in sizes.unique()}
    return {size: estimate(values) for size, values in means.items() if not values.isnan().all()}


def list_subsets(names: Sequence[str], *, per_size: int = 20, seed: int = 0) -> list[Subset]:
    """Return subsets of modalities in the order of their sizes, the empty one and the whole included.

    Arguments:
        names: The modalities.
        per_size: How many of one size at most: all of them for up to six modalities by default, otherwise different
            ones chosen at random.
        seed: Seed of the choice.

    Examples:
        >>> list_subsets(["a", "b"])
        [(), ('a',), ('b',), ('a', 'b')]
        >>> len(list_subsets([*"abcdef"])), len(list_subsets([*"abcdefghij"]))
        (64, 162)
    """
    generator, found = random.Random(seed), []
    for size in range(len(names) + 1):
        if math.comb(len(names), size) <= per_size:
            found += list(itertools.combinations(names, size))
            continue
        chosen: set[Subset] = set()
        while len(chosen) < per_size:
            chosen.add(tuple(names[index] for index in sorted(generator.sample(range(len(names)), size))))
        found += sorted(chosen, key=lambda subset: [names.index(name) for name in subset])
    return found


def subset_mask(subsets: Sequence[Subset], x: Observed) -> Tensor:
    """Return the masks of n subsets, bool of shape (n, M)."""
    rows = [[name in subset for name in x.names] for subset in subsets]
    return torch.tensor(rows, dtype=torch.bool, device=x.device)


def covered(subsets: Sequence[Subset], x: Observed) -> Tensor:
    """Return whether all modalities of each subset are there, bool of shape (B, n).

    Examples:
        >>> x = Observed({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, torch.tensor([[True, False]]))
        >>> covered([(), ("a",), ("a", "b")], x).tolist()
        [[True, True, False]]
    """
    return (x.available.unsqueeze(1) | ~subset_mask(subsets, x)).all(-1)


def require_shared(model: MultimodalVAE, what: str) -> None:
    """Refuse a model whose modalities share no latent.

    Arguments:
        model: The model.
        what: What needs the shared latent, for the message.

    Raises:
        VaekitError: Every modality has a latent of its own.
    """
    if not model.shared:
        raise VaekitError(
            f"{what} needs a latent that the modalities share, and in this model each has its own, so that there is no "
            "p(x) of all: take the metrics 'probe' and 'coherence', or a model with a fusion"
        )
