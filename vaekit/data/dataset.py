"""What a data set is: named splits of samples, and the words to say about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import VaekitError

if TYPE_CHECKING:
    from vaekit.data.stream import Stream

__all__ = ["Dataset", "PairedSplit", "Progress", "Split", "Values", "at_least_one", "check_seed", "finish", "holdout"]

Progress: TypeAlias = Callable[[int, int, str], None]

#: What the numbers of a sample are: measurements (or grey values), one of several classes in one-hot form, or bits.
Values: TypeAlias = Literal["real", "classes", "binary"]


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set.

    Arguments:
        samples: uint8 of shape (N, C, H, W) for images, otherwise float32 of shape (N, *shape).
        labels: int64 of shape (N,), or None where the data set has none.
        mapped: Whether `samples` lies in a memory-mapped file instead of in memory.
        values: What the numbers are; `"classes"` and `"binary"` for float samples only.
        factors: int64 of shape (N, K), the values of the K factors that each sample was made from, or None where they
            are not known.

    Examples:
        >>> import torch
        >>> len(Split(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)))
        5
    """

    samples: Tensor
    labels: Tensor | None = None
    mapped: bool = False
    values: Values = "real"
    factors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return (
            f"Split({len(self):,} x {tuple(self.samples.shape[1:])} {str(self.samples.dtype).removeprefix('torch.')})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.samples.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the samples, uint8 or float32."""
        return self.samples.dtype

    def rows(self, index: Tensor | slice) -> Split:
        """Return the split that holds only these rows."""
        labels, factors = (None if part is None else part[index] for part in (self.labels, self.factors))
        return replace(self, samples=self.samples[index], labels=labels, factors=factors)


@dataclass(frozen=True, eq=False)
class PairedSplit:
    """One split of a data set of several modalities: row i of every one belongs to sample i.

    Arguments:
        modalities: Name to samples, all of one length.
        labels: int64 of shape (N,), or None where the data set has none.
        available: Which modalities of each sample are there, bool of shape (N, M); None where all are.

    Raises:
        VaekitError: Lengths differ, or a sample has no modality at all.

    Examples:
        >>> import torch
        >>> split = PairedSplit({"left": Split(torch.zeros(5, 3)), "right": Split(torch.zeros(5, 2))})
        >>> len(split), split.shape
        (5, {'left': (3,), 'right': (2,)})
    """

    modalities: Mapping[str, Split]
    labels: Tensor | None = None
    available: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(split) for name, split in self.modalities.items()}
        for name, tensor in (("labels", self.labels), ("availability", self.available)):
            if tensor is not None:
                lengths[name] = len(tensor)
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise VaekitError(f"the modalities have different numbers of samples ({found}): give one of each a sample")
        if self.available is not None and len(empty := (~self.available.any(1)).nonzero()):
            raise VaekitError(
                f"{len(empty):,} samples have no modality at all, the first of them is number {int(empty[0])}: give "
                "each sample one modality or more"
            )

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    @property
    def shape(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of each modality."""
        return {name: tuple(split.samples.shape[1:]) for name, split in self.modalities.items()}

    @property
    def values(self) -> dict[str, str]:
        """What each modality holds: `image`, `vector`, `classes` or `binary`."""
        return {name: _kind(split) for name, split in self.modalities.items()}

    def rows(self, index: Tensor | slice) -> PairedSplit:
        """Return the split that holds only these rows."""
        return PairedSplit(
            {name: split.rows(index) for name, split in self.modalities.items()},
            None if self.labels is None else self.labels[index],
            None if self.available is None else self.available[index],
        )


def _kind(split: Split) -> str:
    if split.values != "real":
        return split.values
    return "image" if split.samples.ndim == 4 else "vector"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: what `vaekit.data.load` returns.

    Arguments:
        name: The registered name or the path.
        train: What a model is fitted to; where there is a `stream`, some samples of it, for all else that looks at
            training samples.
        valid: The official validation split where there is one, otherwise held out of the training samples.
        test: The official test split, or None.
        is_image: Whether a sample is an image (C, H, W); False for several modalities.
        notes: Sentences to announce: a partial copy, skipped files, the licence.
        protocol: How the samples were made (crop, size, numbers per split), to be recorded beside every figure.
        factor_names: What the columns of the splits' `factors` are; empty where they are not known.
        stream: What a model is fitted to where the samples are read from shards as it trains; None otherwise.

    Raises:
        VaekitError: A split has another number of factors than there are names.
    """

    name: str
    train: Split | PairedSplit
    valid: Split | PairedSplit
    test: Split | PairedSplit | None = None
    is_image: bool = True
    notes: list[str] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    factor_names: tuple[str, ...] = ()
    stream: Stream | None = None

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            factors = getattr(split, "factors", None)
            if factors is not None and factors.shape[1:] != (len(self.factor_names),):
                raise VaekitError(
                    f"the split '{name}' has factors of shape {tuple(factors.shape)} and there are "
                    f"{len(self.factor_names)} factor_names: give one for each column"
                )

    @property
    def shape(self) -> Any:
        """The shape of one sample, e.g. (3, 64, 64); of one of each modality by name where there are several."""
        return self.train.shape

    @property
    def fitted_to(self) -> Split | PairedSplit | Stream:
        """What a model is fitted to: the stream where there is one, otherwise the training split."""
        return self.train if self.stream is None else self.stream

    @property
    def paired(self) -> bool:
        """Whether the data set has several modalities."""
        return isinstance(self.train, PairedSplit)

    @property
    def values(self) -> dict[str, str] | None:
        """What each of several modalities holds (`PairedSplit.values`); None for one."""
        return self.train.values if isinstance(self.train, PairedSplit) else None

    @property
    def splits(self) -> dict[str, Any]:
        """The splits that exist, by name."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}


def holdout(count: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split `count` rows into those kept and those held out, both in their first order.

    The choice is random with a fixed seed, the same on every machine (NumPy keeps the stream of `RandomState` fixed).

    Raises:
        VaekitError: The fraction is not between 0 and 1, or there are fewer than two rows.

    Examples:
        >>> kept, held = holdout(10, 0.2)
        >>> len(kept), len(held)
        (8, 2)
    """
    if not 0.0 < fraction < 1.0:
        raise VaekitError(f"valid_fraction must lie between 0 and 1, not {fraction:g}")
    if count < 2:
        raise VaekitError(f"{count} sample(s) cannot be split into training and validation: two or more are needed")
    size = min(max(round(count * fraction), 1), count - 1)
    order = np.random.RandomState(0).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])


def at_least_one(**options: int | None) -> None:
    """Raise VaekitError for a given option below 1."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise VaekitError(f"{name} must be 1 or more, not {value}")


def check_seed(seed: int) -> None:
    """Raise VaekitError for a seed that NumPy's `RandomState` does not take."""
    if not 0 <= seed < 2**32:
        raise VaekitError(f"seed must lie between 0 and {2**32 - 1}, not {seed}")


def finish(
    name: str,
    splits: Mapping[str, Split | PairedSplit | None],
    *,
    is_image: bool = True,
    limit: int | None = None,
    notes: Sequence[str] = (),
    factor_names: Sequence[str] = (),
    stream: Stream | None = None,
    **protocol: Any,
) -> Dataset:
    """Cut every split to its first `limit` samples, say so, and record the protocol; a stream is cut already."""
    at_least_one(limit=limit)
    said = list(notes)
    if limit is not None:
        splits = {key: None if split is None else split.rows(slice(limit)) for key, split in splits.items()}
        said.append(f"limited to the first {limit:,} samples of each split")
    train, valid, test = splits["train"], splits["valid"], splits.get("test")
    if train is None or valid is None or not len(train) or not len(valid):
        raise VaekitError(f"data set '{name}' has no sample left in its training or its validation split")
    counts = {key: 0 if split is None else len(split) for key, split in splits.items()}
    if stream is not None:
        counts, protocol = {**counts, "train": len(stream)}, {**protocol, "examples": len(train)}
    protocol = {"data": name, **protocol, "limit": limit, "samples": counts}
    return Dataset(name, train, valid, test, is_image, said, protocol, tuple(factor_names), stream)
