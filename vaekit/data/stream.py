"""Samples that are read from shards while a model trains, for sets larger than memory or disk."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from vaekit.data.dataset import at_least_one
from vaekit.data.images import attempt
from vaekit.errors import VaekitError

__all__ = ["BLOCK", "Source", "Stream", "hold_out", "some_of", "threads"]

#: Samples that lie side by side and are read together, where a format does not say itself what is read together.
BLOCK = 64


class Source(Protocol):
    """Encoded images in shards, read by any number of threads.

    The samples come in units: stretches of one shard that are worth a read of their own.

    Attributes:
        sizes: Samples in each unit, int64 of shape (U,).
        key: What decides the samples, as JSON values: equal for the same shards, another for changed ones.
    """

    sizes: np.ndarray
    key: Any

    def read(self, unit: int, first: int, last: int) -> Iterator[bytes]:
        """Yield the encoded images of rows `first` to `last` (without it) of a unit.

        Raises:
            VaekitError: The shard cannot be read.
        """

    def labels(self, unit: int, first: int, last: int) -> np.ndarray:
        """Return the labels of these rows, int64; -1 where there is none.

        Raises:
            VaekitError: The shard cannot be read.
        """

    def name(self, unit: int, row: int) -> str:
        """Say in words which sample a row of a unit is."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Part of a source, as images of one size: what a split is where samples are not kept.

    Arguments:
        source: Where the samples come from.
        runs: Which of them: int64 of shape (M, 3), rows of unit, first row, and the row after the last.
        pixels: The options of `vaekit.data.images.decode`.
        window: Batches that are read and mixed together: memory holds twice as many.
        workers: Threads that read and decode.

    Raises:
        VaekitError: An option is below 1.

    Examples:
        >>> class Three:
        ...     sizes, key = np.array([2, 1]), "three"
        >>> len(Stream.whole(Three(), {"channels": 3, "image_size": 8}))
        3
    """

    source: Source
    runs: np.ndarray
    pixels: dict[str, Any]
    window: int = 64
    workers: int = 1

    def __post_init__(self) -> None:
        at_least_one(image_size=self.pixels["image_size"], crop=self.pixels.get("crop"))
        at_least_one(window=self.window, workers=self.workers)

    @classmethod
    def whole(cls, source: Source, pixels: dict[str, Any], window: int = 64, workers: int = 1) -> Stream:
        """Return all samples of a source."""
        units = np.arange(len(source.sizes))
        runs = np.stack([units, np.zeros_like(units), source.sizes], axis=1)
        return cls(source, runs, pixels, window, workers)

    def __len__(self) -> int:
        return int((self.runs[:, 2] - self.runs[:, 1]).sum())

    def __repr__(self) -> str:
        return f"Stream({len(self):,} x {self.shape} uint8)"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.pixels["channels"], self.pixels["image_size"], self.pixels["image_size"]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the samples, uint8."""
        return torch.uint8

    def cut(self, count: int) -> tuple[Stream, Stream]:
        """Return the first `count` samples, or all where there are fewer, and the rest."""
        ends = (self.runs[:, 2] - self.runs[:, 1]).cumsum()
        whole = int(np.searchsorted(ends, count, side="right"))
        first, rest = self.runs[:whole], self.runs[whole:].copy()
        if len(rest) and (more := count - int(ends[whole - 1] if whole else 0)):
            unit, begin, _ = rest[0]
            first = np.concatenate([first, [[unit, begin, begin + more]]])
            rest[0, 1] += more
        return replace(self, runs=first), replace(self, runs=rest)

    def sorted(self) -> Stream:
        """Return the samples in the order in which they lie."""
        return replace(self, runs=self.runs[np.lexsort((self.runs[:, 1], self.runs[:, 0]))])

    def shuffled(self, order: np.ndarray) -> Stream:
        """Return the samples with their runs in another order."""
        return replace(self, runs=self.runs[order])

    def decode(self, unit: int, first: int, last: int) -> Iterator[np.ndarray | str]:
        """Yield the pixels of rows of a unit, uint8 of shape (C, S, S), or in words why there are none.

        Raises:
            VaekitError: The shard cannot be read.
        """
        for content in self.source.read(unit, first, last):
            yield attempt(io.BytesIO(content), **self.pixels)


def threads(workers: int | None) -> int:
    """Return how many threads to read and decode with: what is asked for, or one for each core but at most 8."""
    return min(os.cpu_count() or 1, 8) if workers is None else workers


def hold_out(stream: Stream, count: int) -> tuple[Stream, Stream]:
    """Split a stream into what is trained on and `count` samples held out, always the same ones.

    They are chosen in whole runs, for samples that lie side by side may be nearly the same.

    Raises:
        VaekitError: Nothing would be left on one side.
    """
    if not 0 < count < len(stream):
        raise VaekitError(
            f"{len(stream):,} samples cannot be split into training and validation: two or more are needed"
        )
    held, kept = stream.shuffled(np.random.RandomState(0).permutation(len(stream.runs))).cut(count)
    return kept.sorted(), held.sorted()


def some_of(stream: Stream, count: int) -> Stream:
    """Return `count` samples of a stream (all where there are fewer), always the same ones, in whole runs."""
    if count >= len(stream):
        return stream
    return stream.shuffled(np.random.RandomState(1).permutation(len(stream.runs))).cut(count)[0].sorted()
