"""What is in a data set: the figures behind `vaekit data check`."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.data.cache import block_rows
from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split
from vaekit.data.loading import load
from vaekit.errors import VaekitError

__all__ = ["PairedReport", "Report", "Statistics", "check"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistics:
    """What the samples of a training split are, in their stored units (0 to 255 for images).

    Arguments:
        shape: The shape of one sample.
        dtype: How samples are stored: `uint8` or `float32`.
        is_image: Whether samples are images.
        low: The smallest value.
        high: The largest value.
        mean: The mean, per channel for images, otherwise one number.
        std: The standard deviation, likewise.
        mean_sample: The mean of the samples, float32 of shape `shape`.
        first: The first samples, as stored, of shape (n, *shape); zero where the modality is not available.
    """

    shape: tuple[int, ...]
    dtype: str
    is_image: bool
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_sample: Tensor
    first: Tensor

    @property
    def range(self) -> str:
        """Range, mean and standard deviation in words."""
        means, stds = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.low:g} to {self.high:g}, mean {means}, standard deviation {stds}"


@dataclass(frozen=True, eq=False, kw_only=True)
class _Findings:
    """What `check` finds in any data set.

    Arguments:
        name: The data set.
        counts: Samples per split.
        labels: Per split, how often each label occurs; empty without labels.
        duplicates: Per other split, how many of its samples are also in the training split, to the last bit.
        notes: What there is to announce.
        protocol: How the samples were made.
    """

    name: str
    counts: dict[str, int]
    labels: dict[str, dict[int, int]]
    duplicates: dict[str, int]
    notes: list[str]
    protocol: dict[str, Any]

    def _lines(self, *about: str) -> list[str]:
        lines = [f"samples: {_listed(self.counts)}", *about]
        for split, labels in self.labels.items():
            lines.append(f"labels of {split}: {_listed(labels, ': ')}")
        if factors := self.protocol.get("factors"):
            lines.append(f"values of factors: {_listed(factors)}")
        for split, count in self.duplicates.items():
            lines.append(f"samples of {split} that are also in train: {count:,}")
        return [*lines, *(f"note: {note}" for note in self.notes)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(_Findings, Statistics):
    """The findings of `check` in a data set of one modality; their parts are those of `Statistics` and these.

    Arguments:
        name: The data set.
        counts: Samples per split.
        labels: Per split, how often each label occurs; empty without labels.
        duplicates: Per other split, how many of its samples are also in the training split, to the last bit.
        notes: What there is to announce.
        protocol: How the samples were made.
    """

    def lines(self) -> list[str]:
        """Return the findings as lines of text."""
        first = f"data set {self.name}: samples of shape {tuple(self.shape)}, {self.dtype}"
        return [first, *self._lines(f"values: {self.range}")]


@dataclass(frozen=True, eq=False, kw_only=True)
class PairedReport(_Findings):
    """The findings of `check` in a data set of several modalities.

    Arguments:
        name: The data set.
        modalities: What each modality is; where a modality is not available, it does not count.
        available: Per split, how many samples have each modality.
        patterns: Per split, how many samples have exactly these modalities, the most frequent first.
        counts: Samples per split.
        labels: Per split, how often each label occurs; empty without labels.
        duplicates: Per other split, how many of its samples are also in the training split, to the last bit.
        notes: What there is to announce.
        protocol: How the samples were made.
    """

    modalities: dict[str, Statistics]
    available: dict[str, dict[str, int]]
    patterns: dict[str, dict[tuple[str, ...], int]]

    @property
    def is_image(self) -> bool:
        """Whether one of the modalities or more are images."""
        return any(found.is_image for found in self.modalities.values())

    def lines(self) -> list[str]:
        """Return the findings as lines of text."""
        about = []
        for name, found in self.modalities.items():
            about.append(f"modality {name}: shape {tuple(found.shape)}, {found.dtype}, values {found.range}")
        about += [f"classes of {name}: {', '.join(words)}" for name, words in self.protocol.get("classes", {}).items()]
        for split, counts in self.available.items():
            if all(count == self.counts[split] for count in counts.values()):
                about.append(f"available in {split}: all modalities of all samples")
                continue
            patterns = {"+".join(names): count for names, count in self.patterns[split].items()}
            about.append(f"available in {split}: {_listed(counts)}; together: {_listed(patterns)}")
        return [f"data set {self.name}: {len(self.modalities)} modalities", *self._lines(*about)]


def check(
    name_or_path: str | Path,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    offline: bool = False,
    samples: int = 64,
    **options: Any,
) -> Report | PairedReport:
    """Load a data set and look at every sample.

    Arguments:
        name_or_path: As for `load`.
        root: As for `load`.
        progress: As for `load`.
        offline: As for `load`.
        samples: How many first samples to return.
        options: The options of the data set.

    Raises:
        VaekitError: As for `load`.

    Examples:
        >>> report = check("digits")
        >>> report.shape, report.counts, report.low, report.high
        ((1, 8, 8), {'train': 1437, 'valid': 180, 'test': 180}, 0.0, 255.0)
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 0:
        raise VaekitError(f"samples must be a whole number of 0 or more, not {samples!r}")
    data: Dataset = load(name_or_path, root, progress=progress, offline=offline, **options)
    known = set(_digests(data.train))
    others = {name: split for name, split in data.splits.items() if name != "train"}
    found: dict[str, Any] = {
        "name": data.name,
        "counts": {name: len(split) for name, split in {**data.splits, "train": data.fitted_to}.items()},
        "labels": {name: _counts(split.labels) for name, split in data.splits.items() if split.labels is not None},
        "duplicates": {name: sum(digest in known for digest in _digests(split)) for name, split in others.items()},
        "notes": data.notes,
        "protocol": data.protocol,
    }
    if isinstance(data.train, Split):
        return Report(**found, **_statistics(data.train, data.is_image, samples))
    there = data.train.available
    return PairedReport(
        **found,
        modalities={
            name: Statistics(**_statistics(part, kind == "image", samples, None if there is None else there[:, number]))
            for number, ((name, part), kind) in enumerate(
                zip(data.train.modalities.items(), data.train.values.values(), strict=True)
            )
        },
        available={name: _available(split) for name, split in data.splits.items()},
        patterns={name: _patterns(split) for name, split in data.splits.items()},
    )


def _statistics(split: Split, is_image: bool, samples: int, there: Tensor | None = None) -> dict[str, Any]:
    """Return the fields of `Statistics`, read in blocks, of the samples that are there."""
    low, high, count = float("inf"), float("-inf"), 0
    total = torch.zeros(split.shape, dtype=torch.float64)
    square = torch.zeros_like(total)
    step = block_rows(split.samples[0].nbytes)
    for start in range(0, len(split), step):
        block = split.samples[start : start + step]
        if there is not None:
            block = block[there[start : start + step]]
        if not len(block):
            continue
        low, high, count = min(low, block.min().item()), max(high, block.max().item()), count + len(block)
        values = block.double()
        total += values.sum(0)
        square += values.square().sum(0)
    first = split.samples[:samples].clone()
    if there is not None:
        first[~there[:samples]] = 0
    # A modality that no sample has keeps zeros.
    mean, second = total / max(count, 1), square / max(count, 1)
    axes = tuple(range(1, mean.ndim)) if is_image else tuple(range(mean.ndim))
    centre = mean.mean(axes)
    spread = (second.mean(axes) - centre.square()).clamp(min=0.0).sqrt()
    return {
        "shape": split.shape,
        "dtype": str(split.samples.dtype).removeprefix("torch."),
        "is_image": is_image,
        "low": float(low),
        "high": float(high),
        "mean": tuple(centre.reshape(-1).tolist()),
        "std": tuple(spread.reshape(-1).tolist()),
        "mean_sample": mean.float(),
        "first": first,
    }


def _digests(split: Split | PairedSplit) -> list[bytes]:
    parts = split.modalities.values() if isinstance(split, PairedSplit) else [split]
    rows = zip(*(part.samples.numpy() for part in parts), strict=True)
    return [hashlib.blake2b(b"".join(row.tobytes() for row in sample), digest_size=16).digest() for sample in rows]


def _counts(labels: Tensor) -> dict[int, int]:
    values, counts = labels.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _available(split: PairedSplit) -> dict[str, int]:
    if split.available is None:
        return dict.fromkeys(split.modalities, len(split))
    return dict(zip(split.modalities, split.available.sum(0).tolist(), strict=True))


def _patterns(split: PairedSplit) -> dict[tuple[str, ...], int]:
    names = tuple(split.modalities)
    if split.available is None:
        return {names: len(split)}
    counted = Counter(map(tuple, split.available.tolist())).most_common()
    return {tuple(n for n, there in zip(names, row, strict=True) if there): count for row, count in counted}


def _listed(counts: dict[Any, int], between: str = " ") -> str:
    shown = ", ".join(f"{key}{between}{count:,}" for key, count in list(counts.items())[:20])
    return f"{shown}{', ...' if len(counts) > 20 else ''}"
