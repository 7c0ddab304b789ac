"""The loader of a training run on several modalities, and the choice among the loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vaekit.data.batches import Batches
from vaekit.data.dataset import Dataset, PairedSplit, Split
from vaekit.data.stream import Stream
from vaekit.data.stream_batches import StreamedBatches
from vaekit.errors import VaekitError
from vaekit.observed import Observed

__all__ = ["PairedBatches", "make_batches"]


class PairedBatches:
    """Batches of several modalities: one `Batches` for each, all in the same order.

    Arguments:
        split: The samples.
        batch_size: Samples per batch and rank.
        data_range: Modality to what 0 and 255 become; images only.
        flip: Mirror images at random, all images of one sample together.
        binarize: Draw the grey values of images as black or white.
        options: The other options of `Batches`.

    Raises:
        VaekitError: As `Batches`.

    Examples:
        >>> split = PairedSplit({"a": Split(torch.zeros(5, 3)), "b": Split(torch.ones(5, 2))})
        >>> [len(x) for x in PairedBatches(split, 2, data_range={}, drop_last=False).epoch(0)]
        [2, 2, 1]
    """

    def __init__(
        self,
        split: PairedSplit,
        batch_size: int,
        *,
        data_range: Mapping[str, tuple[float, float]],
        flip: bool = False,
        binarize: bool = False,
        **options: Any,
    ) -> None:
        images = {name for name, part in split.modalities.items() if part.samples.dtype == torch.uint8}
        if (flip or binarize) and not images:
            raise VaekitError("flip and binarize are for images, and none of the modalities holds images")
        self._modalities = {
            name: Batches(
                part,
                batch_size,
                data_range=data_range.get(name),
                flip=flip and name in images,
                binarize=binarize and name in images,
                stream=number,
                **options,
            )
            for number, (name, part) in enumerate(split.modalities.items())
        }
        self._available = (
            None
            if split.available is None
            else Batches(Split(split.available.float()), batch_size, data_range=None, **options)
        )
        self.batch_size = batch_size

    def __len__(self) -> int:
        """The number of batches in an epoch, the same on every rank."""
        return len(next(iter(self._modalities.values())))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Observed]:
        """Yield the batches of an epoch from number `start` on."""
        values = zip(*(part.epoch(epoch, start) for part in self._modalities.values()), strict=True)
        if self._available is None:
            for batch in values:
                yield Observed(dict(zip(self._modalities, batch, strict=True)))
            return
        for batch, available in zip(values, self._available.epoch(epoch, start), strict=True):
            yield Observed(dict(zip(self._modalities, batch, strict=True)), available > 0.5)


def make_batches(
    data: Dataset, split: Split | PairedSplit | Stream, batch_size: int, data_range: Any, **options: Any
) -> Any:
    """Return the batches of a split of a data set.

    They are `Batches`, `PairedBatches` for several modalities, or `StreamedBatches` for a stream.

    Arguments:
        data: The data set.
        split: One of its splits, some rows of one, or its stream.
        batch_size: Samples per batch and rank.
        data_range: What the model takes: an interval, or modality to interval.
        options: The other options of `Batches`.

    Raises:
        VaekitError: As `Batches`, or as `StreamedBatches`.
    """
    if isinstance(split, PairedSplit):
        return PairedBatches(split, batch_size, data_range=data_range, **options)
    if isinstance(split, Stream):
        return StreamedBatches(split, batch_size, data_range=data_range, **options)
    return Batches(split, batch_size, data_range=data_range if data.is_image else None, **options)
