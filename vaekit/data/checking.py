"""What is in a data set: the figures behind `vaekit data check`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.data.cache import block_rows
from vaekit.data.dataset import Dataset, Progress, Split
from vaekit.data.loading import load

__all__ = ["Report", "check"]


@dataclass(frozen=True, eq=False)
class Report:
    """The findings of `check`; statistics are those of the training split, in its stored units (0 to 255 for images).

    Arguments:
        name: The data set.
        shape: The shape of one sample.
        dtype: How samples are stored: `uint8` or `float32`.
        is_image: Whether samples are images.
        counts: Samples per split.
        low: The smallest value.
        high: The largest value.
        mean: The mean, per channel for images, otherwise one number.
        std: The standard deviation, likewise.
        labels: Per split, how often each label occurs; empty without labels.
        duplicates: Per other split, how many of its samples are also in the training split, to the last bit.
        notes: What there is to announce.
        mean_sample: The mean of the training samples, float32 of shape `shape`.
        first: The first samples of the training split, as stored, of shape (n, *shape).
        protocol: How the samples were made.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_image: bool
    counts: dict[str, int]
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: dict[str, dict[int, int]]
    duplicates: dict[str, int]
    notes: list[str]
    mean_sample: Tensor
    first: Tensor
    protocol: dict[str, Any]

    def lines(self) -> list[str]:
        """Return the findings as lines of text."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        means, stds = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        lines = [
            f"data set {self.name}: samples of shape {tuple(self.shape)}, {self.dtype}",
            f"samples: {counts}",
            f"values: {self.low:g} to {self.high:g}, mean {means}, standard deviation {stds}",
        ]
        for split, labels in self.labels.items():
            shown = ", ".join(f"{label}: {count:,}" for label, count in list(labels.items())[:20])
            lines.append(f"labels of {split}: {shown}{', ...' if len(labels) > 20 else ''}")
        for split, count in self.duplicates.items():
            lines.append(f"samples of {split} that are also in train: {count:,}")
        return [*lines, *(f"note: {note}" for note in self.notes)]


def check(
    name_or_path: str | Path,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    offline: bool = False,
    samples: int = 64,
    **options: Any,
) -> Report:
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
    data: Dataset = load(name_or_path, root, progress=progress, offline=offline, **options)
    low, high, mean, second = _statistics(data.train.samples)
    axes = tuple(range(1, mean.ndim)) if data.is_image else tuple(range(mean.ndim))
    centre = mean.mean(axes)
    spread = (second.mean(axes) - centre.square()).clamp(min=0.0).sqrt()
    known = set(_digests(data.train))
    others = {name: split for name, split in data.splits.items() if name != "train"}
    return Report(
        name=data.name,
        shape=data.shape,
        dtype=str(data.train.samples.dtype).removeprefix("torch."),
        is_image=data.is_image,
        counts={name: len(split) for name, split in data.splits.items()},
        low=low,
        high=high,
        mean=tuple(centre.reshape(-1).tolist()),
        std=tuple(spread.reshape(-1).tolist()),
        labels={name: _label_counts(split.labels) for name, split in data.splits.items() if split.labels is not None},
        duplicates={name: sum(digest in known for digest in _digests(split)) for name, split in others.items()},
        notes=data.notes,
        mean_sample=mean.float(),
        first=data.train.samples[:samples].clone(),
        protocol=data.protocol,
    )


def _statistics(samples: Tensor) -> tuple[float, float, Tensor, Tensor]:
    """Return minimum, maximum, and per element the mean and the mean square, read in blocks."""
    low, high = float("inf"), float("-inf")
    total = torch.zeros(samples.shape[1:], dtype=torch.float64)
    square = torch.zeros_like(total)
    for block in samples.split(block_rows(samples[0].nbytes)):
        low, high = min(low, block.min().item()), max(high, block.max().item())
        values = block.double()
        total += values.sum(0)
        square += values.square().sum(0)
    return float(low), float(high), total / len(samples), square / len(samples)


def _digests(split: Split) -> list[bytes]:
    return [hashlib.blake2b(row, digest_size=16).digest() for row in split.samples.numpy()]


def _label_counts(labels: Tensor) -> dict[int, int]:
    values, counts = labels.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
