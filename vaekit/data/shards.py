"""Sharded data sets: tar files in WebDataset's layout, read at any place by an index of their samples."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import Literal

import numpy as np

from vaekit.data.cache import Stored
from vaekit.data.dataset import Dataset, Progress
from vaekit.data.remote import Place, locate
from vaekit.data.stream import BLOCK, Stream, threads
from vaekit.data.streaming import assemble
from vaekit.data.tar_index import index_of
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["TarShards", "webdataset"]

_STRETCH = 2**23  # bytes that one read takes at most, unless a sample is larger
_GAP = 2**16  # bytes between two images that are read in passing rather than skipped


@datasets.register(
    "webdataset",
    about="Images in tar shards (WebDataset), streamed: sets larger than memory or disk",
    needs=("data.urls: the shards",),
)
def webdataset(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    urls: str | list[str],
    valid_urls: str | list[str] | None = None,
    test_urls: str | list[str] | None = None,
    samples: int | None = None,
    image: str | None = None,
    label: str = "cls",
    image_size: int = 64,
    crop: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] = 3,
    streaming: bool = True,
    valid_samples: int = 5_000,
    test_samples: int = 50_000,
    examples: int = 10_000,
    window: int = 64,
    workers: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return images in tar shards: read while a model trains, or decoded once as a folder's are.

    A sample is what members of one name before the first dot hold together; its image and its label are read, and
    nothing else is opened. The first time, every shard is read through for an index of its samples, which is kept in
    the cache.

    Arguments:
        root: Where relative paths are looked for too.
        progress: Called with (shards done, shards, words) while they are indexed, and while samples are decoded.
        offline: Whether shards on other machines are refused.
        urls: The training shards: a path or URL with braces such as `train-{000..099}.tar`, a folder, or a list of
            these.
        valid_urls: The validation shards; otherwise a fixed part of the training samples is held out.
        test_urls: The test shards.
        samples: How many the training shards hold together, where another number is to be an error.
        image: What the image's member ends in, after the first dot, where it is not the first one that is an image.
        label: What a label's member ends in: one whole number as text; with a further key, as `json.class`, the number
            under this key of a JSON object.
        image_size: Side of the images.
        crop: Side of the centre crop before the resize; None, and any larger value, takes the largest square.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 3, or 1 for grey.
        streaming: Whether to read the training samples as a model trains; false decodes all of them once into the
            cache.
        valid_samples: The most validation samples, which are kept; a tenth of the samples where none are given and that
            is fewer.
        test_samples: The most test samples, which are kept.
        examples: Training samples that are kept, for all that looks at training samples besides training.
        window: Batches that are read and mixed together; memory holds twice as many.
        workers: Threads that read and decode, one for each core but at most 8 if not given.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: A shard is missing, cannot be read or holds no image.
    """
    pixels = {"image_size": image_size, "crop": crop, "antialias": antialias, "channels": channels}
    streams, notes = {}, []
    named = {"urls": urls, "valid_urls": valid_urls, "test_urls": test_urls}
    for split, (option, given) in zip(("train", "valid", "test"), named.items(), strict=True):
        if given is None:
            continue
        source = TarShards(locate(given, root, offline, option), image=image, label=label, progress=progress)
        notes += source.notes
        streams[split] = Stream.whole(source, pixels, window, threads(workers))
    if samples is not None and samples != len(streams["train"]):
        raise VaekitError(
            f"the shards of data.urls hold {len(streams['train']):,} samples and data.samples says {samples:,}: find "
            "out which of the two is wrong"
        )
    return assemble(
        "webdataset",
        streams,
        streaming=streaming,
        most={"valid": valid_samples, "test": test_samples, "train": examples},
        limit=limit,
        notes=notes,
        progress=progress,
    )


class TarShards:
    """Images in tar files, found by an index: where each begins, its length in bytes, and its label.

    Arguments:
        names: Paths and URLs.
        image: As the option of `webdataset`.
        label: As the option of `webdataset`.
        progress: Called with (shards done, shards, words) while they are indexed.

    Raises:
        VaekitError: A shard cannot be read, or no sample has an image.
    """

    def __init__(
        self, names: Sequence[str], *, image: str | None = None, label: str = "cls", progress: Progress | None = None
    ) -> None:
        self.notes: list[str] = []
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            self.places = list(pool.map(Place.of, names))
            # Each process of a run in an order of its own: they find in the cache what others have made meanwhile.
            order = SystemRandom().sample(range(len(names)), len(names))
            made: dict[int, Stored] = {}
            for number, found in pool.map(lambda n: (n, index_of(self.places[n], image, label)), order):
                made[number] = found
                if progress is not None:
                    progress(len(made), len(names), "looking at shards")
        stored = [made[number] for number in range(len(names))]
        self.index = [found.array for found in stored]
        counts = np.array([len(index) for index in self.index])
        reasons = [
            f"{place.name}: {why}"
            for place, found in zip(self.places, stored, strict=True)
            for why in found.skipped.values()
        ]
        if not counts.sum():
            raise VaekitError(
                f"no sample in {names[0]}{' and the other shards' if names[1:] else ''} has an image: "
                f"{reasons[0] if reasons else 'the shards are empty'}"
            )
        if reasons:
            rest = f" and {len(reasons) - 10:,} more shards" if len(reasons) > 10 else ""
            self.notes.append(f"left out: {'; '.join(reasons[:10])}{rest}")
        units = -(-counts // BLOCK)
        self._first = np.concatenate([[0], units.cumsum()])
        self.sizes = np.full(self._first[-1], BLOCK)
        full = counts > 0
        self.sizes[self._first[1:][full] - 1] = (counts - (units - 1) * BLOCK)[full]
        stamps = json.dumps([[place.name, *place.stamp] for place in self.places])
        self.key = ["tar", hashlib.sha256(stamps.encode()).hexdigest(), image, label]

    def read(self, unit: int, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes of the images of these rows."""
        place, rows = self._rows(unit, first, last)
        starts, ends = rows[:, 0], rows[:, 0] + rows[:, 1]
        begin = 0
        for end in range(1, len(rows) + 1):
            # Images are read together while they lie close, and come to no more than a stretch.
            if end < len(rows) and starts[end] - ends[end - 1] <= _GAP and ends[end] - starts[begin] <= _STRETCH:
                continue
            content = place.read(int(starts[begin]), int(ends[end - 1]))
            for start, size in zip(
                (starts[begin:end] - starts[begin]).tolist(), rows[begin:end, 1].tolist(), strict=True
            ):
                yield content[start : start + size]
            begin = end

    def labels(self, unit: int, first: int, last: int) -> np.ndarray:
        """Return the labels of these rows; -1 where there is none."""
        return self._rows(unit, first, last)[1][:, 2]

    def name(self, unit: int, row: int) -> str:
        """Say which sample this is."""
        place, rows = self._rows(unit, row, row + 1)
        return f"the image at byte {rows[0, 0]:,} of {place.name}"

    def _rows(self, unit: int, first: int, last: int) -> tuple[Place, np.ndarray]:
        """Return the shard of a unit, and what its index says of these rows."""
        shard = int(np.searchsorted(self._first, unit, side="right")) - 1
        begin = (unit - int(self._first[shard])) * BLOCK
        return self.places[shard], np.array(self.index[shard][begin + first : begin + last])
