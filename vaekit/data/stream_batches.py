"""The loader of a training run on a stream: read, decoded and mixed in the background."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vaekit.data.batches import Batches, mixed_seed
from vaekit.data.dataset import Split
from vaekit.data.stream import Stream
from vaekit.errors import VaekitError

__all__ = ["StreamedBatches"]

_LOG = logging.getLogger(__name__)
_NAMED = 10  # broken samples named in the log; the rest are counted
_TRIES = 64  # samples in a row that may be broken
_PLACES = 1  # tells the seeds of places within a window from those of flips

_Window = tuple[Tensor, list[Future[None]]]


class StreamedBatches(Batches):
    r"""Batches of a stream on one rank, in an order that depends on `(seed, epoch)` only.

    The runs of the stream are shuffled anew in every epoch and laid end to end. With G = batch_size * world, this line
    of N samples is cut into G lanes of $\lfloor N/G\rfloor$ samples each, and every global batch takes one sample from
    each lane: batch b is made of samples from G different places of the set. Within a lane, each `window` of samples is
    permuted. Rank r reads lanes r * batch_size to (r + 1) * batch_size, and no others.

    So all ranks together see what one rank with batch size G would see, ranks read disjoint parts of the shards and
    have equally many batches, and any batch of any epoch can be found without reading those before it. Fewer than G
    samples are left out of an epoch, other ones in each.

    Threads read and decode the window after the one that is being trained on. A sample that cannot be decoded is
    replaced by the next one in the epoch's line that can, and named in the log.

    Arguments:
        split: The stream; its `window` and `workers` say how much is read ahead, and by how many threads.
        batch_size: Samples per batch and rank.
        options: The other options of `Batches`. `shuffle` and `drop_last` must be true; nothing is ever `resident`.

    Raises:
        VaekitError: As `Batches`, or an order or a last batch that a stream does not have.
    """

    def __init__(self, split: Stream, batch_size: int, **options: Any) -> None:
        if not (options.get("shuffle", True) and options.get("drop_last", True)):
            raise VaekitError(
                "a stream is read in shuffled order and in full batches: set shuffle and drop_last to true, or take "
                "the samples of it that are kept as data.train"
            )
        self.samples = split
        self.skipped: dict[str, str] = {}
        # The base asks no more of the split than its length, shape and type.
        super().__init__(cast(Split, split), batch_size, **options)

    def _hold(self, resident: bool) -> None:
        """Nothing is kept."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield the batches of an epoch from number `start` on: float32 of shape (B, *shape) on the device.

        Raises:
            VaekitError: A shard cannot be read, or 64 samples in a row cannot be decoded.
        """
        line, window = _Line(self.samples, mixed_seed(self.seed, epoch)), self.samples.window
        known = len(self.skipped)
        with ThreadPoolExecutor(self.samples.workers, "vaekit-stream") as pool:
            try:
                coming: _Window | None = None
                for begin in range(start - start % window, len(self), window):
                    rows, reading = coming or self._begin(pool, line, epoch, begin)
                    end = min(begin + window, len(self))
                    coming = self._begin(pool, line, epoch, end) if end < len(self) else None
                    for lane in reading:
                        lane.result()
                    for batch in range(max(start, begin), end):
                        yield self._finish(rows[batch - begin].to(self.device, non_blocking=True), epoch, batch)
            finally:
                pool.shutdown(cancel_futures=True)
        if len(self.skipped) > max(known, _NAMED):
            _LOG.warning("%d samples so far cannot be decoded: others take their places", len(self.skipped))

    def _begin(self, pool: ThreadPoolExecutor, line: _Line, epoch: int, begin: int) -> _Window:
        """Fill a window that begins with this batch, in the threads: uint8 of shape (batches, B, *shape)."""
        size = min(self.samples.window, len(self) - begin)
        # Allocated here, because a new thread would pin memory through the first GPU, whichever one is ours.
        pinned = self.device.type == "cuda"
        rows = torch.empty(size, self.batch_size, *self.samples.shape, dtype=torch.uint8, pin_memory=pinned)
        lanes = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        return rows, [
            pool.submit(self._fill, rows[:, column], line, lane * len(self) + begin, (epoch, begin, lane))
            for column, lane in enumerate(lanes)
        ]

    def _fill(self, rows: Tensor, line: _Line, first: int, seed: tuple[int, ...]) -> None:
        """Decode the samples of the line from `first` on, as many as there are rows, in random order."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, *seed, _PLACES))
        places = torch.randperm(len(rows), generator=generator).tolist()
        broken = []
        decoded = line.decode(first, first + len(rows))
        for number, (place, (where, image)) in enumerate(zip(places, decoded, strict=True)):
            if isinstance(image, str):
                broken.append((number, place))
                self._skip(line.stream.source.name(*where), image)
            else:
                rows[place] = torch.from_numpy(image)
        for number, place in broken:
            rows[place] = torch.from_numpy(line.after(first + number))

    def _skip(self, name: str, reason: str) -> None:
        """Note a broken sample, once."""
        if name not in self.skipped:
            self.skipped[name] = reason
            if len(self.skipped) <= _NAMED:
                _LOG.warning("%s cannot be decoded (%s): the next sample takes its place", name, reason)


class _Line:
    """The samples of a stream in the order of one epoch, before they are mixed."""

    def __init__(self, stream: Stream, seed: int) -> None:
        order = torch.randperm(len(stream.runs), generator=torch.Generator().manual_seed(seed))
        self.stream = stream.shuffled(order.numpy())
        runs = self.stream.runs
        self.ends = (runs[:, 2] - runs[:, 1]).cumsum()

    def decode(self, first: int, last: int) -> Iterator[tuple[tuple[int, int], np.ndarray | str]]:
        """Yield unit and row, and the pixels or what is wrong with them, of the samples at these places of the line."""
        while first < last:
            run = int(np.searchsorted(self.ends, first, side="right"))
            unit, _, end = self.stream.runs[run].tolist()
            row = end - (int(self.ends[run]) - first)
            stop = min(end, row + last - first)
            for place, image in enumerate(self.stream.decode(unit, row, stop), row):
                yield (unit, place), image
            first += stop - row

    def after(self, place: int) -> np.ndarray:
        """Return the pixels of the first sample after a place that can be decoded."""
        total = int(self.ends[-1])
        for number in range(place + 1, place + 1 + _TRIES):
            for where, image in self.decode(number % total, number % total + 1):
                if not isinstance(image, str):
                    return image
                name = self.stream.source.name(*where)
        raise VaekitError(
            f"{name} cannot be decoded ({image}), nor can the {_TRIES - 1} samples before it: mend these shards or "
            "leave them out"
        )
