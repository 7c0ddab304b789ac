"""From streams to a data set: what is held out, what is kept, and what is said about it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from vaekit.data.cache import block_rows, build_once
from vaekit.data.dataset import Dataset, Progress, Split, at_least_one, finish
from vaekit.data.images import quiet
from vaekit.data.stream import Stream, hold_out, some_of
from vaekit.errors import VaekitError

__all__ = ["assemble", "keep"]

_NAMED = 10  # skipped samples named in a note; the rest are counted
_TASK = 32  # samples that one thread decodes in a row


def assemble(
    name: str,
    streams: Mapping[str, Stream],
    *,
    streaming: bool,
    most: Mapping[str, int],
    limit: int | None,
    notes: Sequence[str],
    progress: Progress | None,
    **protocol: Any,
) -> Dataset:
    """Return a data set of streams, of which all but the training samples are decoded and kept.

    Where there is no stream for validation, a fixed part of the training samples is held out: the most that `most`
    allows, or a tenth where that is fewer.

    Arguments:
        name: The data set.
        streams: `train`, and where they are given `valid` and `test`.
        streaming: Whether the training samples are read as a model trains; otherwise all of them are kept.
        most: How many samples of each split are kept; of the training samples of a stream, some from all over it.
        limit: Keep the first so many samples of each split.
        notes: What there is to announce.
        progress: Called with (samples done, samples, words) while they are decoded for the first time.
        protocol: What else to record.

    Raises:
        VaekitError: An option is below 1, a shard cannot be read, or there are no samples.
    """
    at_least_one(limit=limit, valid_samples=most["valid"], test_samples=most["test"], examples=most["train"])
    parts, split = dict(streams), "given"
    if "valid" not in parts:
        whole = parts["train"]
        parts["train"], parts["valid"] = hold_out(whole, min(most["valid"], max(len(whole) // 10, 1)))
        split = f"seeded, {len(parts['valid']):,} held out"
    if limit is not None:
        parts = {key: part.cut(limit)[0] for key, part in parts.items()}
    train = parts["train"]
    said = list(notes)
    splits: dict[str, Split | None] = {}
    for key, part in parts.items():
        first = part.cut(most[key])[0] if key != "train" else some_of(part, most[key]) if streaming else part
        splits[key], found = keep(first, f"{key} samples of {name}", progress)
        said += found
        if key != "train" and len(first) < len(part):
            said.append(f"the first {len(first):,} of {len(part):,} {key} samples are taken")
    if streaming:
        said.append(
            f"training reads {len(train):,} samples as a stream; what else looks at training samples looks at "
            f"{len(splits['train'] or ()):,} of them, always the same"
        )
    return finish(
        name,
        splits,
        limit=limit,
        notes=said,
        stream=train if streaming else None,
        split=split,
        **train.pixels,
        **protocol,
    )


def keep(stream: Stream, what: str, progress: Progress | None = None) -> tuple[Split, list[str]]:
    """Decode all samples of a stream, once, into the cache.

    Arguments:
        stream: The samples.
        what: What they are, in words.
        progress: Called with (samples done, samples, words).

    Returns:
        The samples, without those that cannot be decoded, and what there is to announce.

    Raises:
        VaekitError: A shard cannot be read, or no sample can be decoded.
    """
    tasks = [
        (unit, begin, min(begin + _TASK, last))
        for unit, first, last in stream.runs.tolist()
        for begin in range(first, last, _TASK)
    ]
    count, step = len(stream), max(block_rows(int(np.prod(stream.shape))) // _TASK, 1)

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        row = 0
        with ThreadPoolExecutor(stream.workers) as pool, quiet():
            for start in range(0, len(tasks), step):
                results = [
                    image
                    for images in pool.map(lambda task: list(stream.decode(*task)), tasks[start : start + step])
                    for image in images
                ]
                skipped.update({row + i: why for i, why in enumerate(results) if isinstance(why, str)})
                row += len(results)
                if good := [image for image in results if not isinstance(image, str)]:
                    yield np.stack(good)
                if progress is not None:
                    progress(row, count, f"decoding {what}")

    chosen = hashlib.sha256(np.ascontiguousarray(stream.runs, np.int64).tobytes()).hexdigest()
    key = ["stream", stream.source.key, chosen, stream.pixels, Image.MAX_IMAGE_PIXELS]
    stored = build_once(key, blocks, rows=count, shape=stream.shape)
    notes = list(stored.notes)
    if stored.skipped:
        notes.append(
            f"{len(stored.skipped):,} {what} cannot be decoded and are left out: {_named(stream, stored.skipped)}"
        )
    if not len(stored.array):
        raise VaekitError(f"none of the {count:,} {what} can be decoded: {notes[-1] if notes else 'there are none'}")
    labels = np.concatenate([stream.source.labels(*run) for run in stream.runs.tolist()])
    labels = np.delete(labels, list(stored.skipped))
    known = None if (labels < 0).any() else torch.from_numpy(labels.astype(np.int64))
    return Split(torch.from_numpy(stored.array), known, stored.mapped), notes


def _named(stream: Stream, skipped: Mapping[int, str]) -> str:
    """Return the first skipped samples with their reasons, and how many more there are."""
    ends = (stream.runs[:, 2] - stream.runs[:, 1]).cumsum()
    said = []
    for row in sorted(skipped)[:_NAMED]:
        run = int(np.searchsorted(ends, row, side="right"))
        unit, _, last = stream.runs[run].tolist()
        said.append(f"{stream.source.name(unit, last - (int(ends[run]) - row))} ({skipped[row]})")
    rest = f" and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    return f"{', '.join(said)}{rest}"
