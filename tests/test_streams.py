"""Streams: order, ranks, resume, memory, and what is kept of them."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import numbered_image, numbers_of, streamed, streamed_numbers, write_shards, write_tar
from PIL import Image

from vaekit.data import StreamedBatches, check, load
from vaekit.data.remote import locate
from vaekit.data.shards import TarShards
from vaekit.data.stream import Stream, hold_out, some_of
from vaekit.errors import VaekitError
from vaekit.registry import datasets


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


# ---- order -----------------------------------------------------------------------------------------------------------


def test_epoch_has_every_sample_once_in_an_order_of_seed_and_epoch(tmp_path: Path) -> None:
    data = streamed(tmp_path)
    first = streamed_numbers(data, 16)
    assert len(flat(first)) == 304  # of 307: those that do not fill a batch are left out
    assert len(set(flat(first))) == 304
    assert not set(flat(first)) & set(numbers_of(data.valid.samples.float()))
    torch.manual_seed(1)
    assert streamed_numbers(data, 16) == first, "the global random state must not matter"
    second = streamed_numbers(data, 16, epoch=1)
    assert second != first
    assert streamed_numbers(data, 16, seed=1) != first
    seen = [frozenset(flat(streamed_numbers(data, 16, epoch))) for epoch in range(6)]
    assert len(set(seen)) > 1, "other samples are left out in other epochs"


def test_batches_take_samples_from_everywhere(tmp_path: Path) -> None:
    """A batch holds a sample from each sixteenth of the epoch's line: few of them are neighbours in a shard."""
    found = streamed_numbers(streamed(tmp_path, 640, 640), 16)
    shares = [sum(number < 640 for number in batch) / 16 for batch in found]
    assert min(shares) > 0.2
    assert max(shares) < 0.8
    close = sum(abs(a - b) < 16 for batch in found for a, b in itertools.combinations(batch, 2))
    assert close / (len(found) * 120) < 0.05, "in a shuffled order 2.5% of pairs are this close"


@pytest.mark.parametrize("workers", [1, 5])
def test_order_does_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    assert streamed_numbers(streamed(tmp_path, workers=workers), 16) == streamed_numbers(
        streamed(tmp_path, workers=2), 16
    )


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_joint_batch(tmp_path: Path, world: int) -> None:
    data = streamed(tmp_path)
    joint = streamed_numbers(data, 16, epoch=2)
    ranks = [streamed_numbers(data, 16 // world, epoch=2, rank=rank, world=world) for rank in range(world)]
    assert [flat(list(shares)) for shares in zip(*ranks, strict=True)] == joint
    parts = [set(flat(rank)) for rank in ranks]
    assert sum(map(len, parts)) == len(set.union(*parts)), "ranks read disjoint parts"


def test_ranks_read_only_their_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = streamed(tmp_path, 500, 500)
    read: list[int] = []
    inner = TarShards.read

    def counted(self: TarShards, unit: int, first: int, last: int) -> Iterator[bytes]:
        read.append(last - first)
        return inner(self, unit, first, last)

    monkeypatch.setattr(TarShards, "read", counted)
    streamed_numbers(data, 4, rank=1, world=4)
    assert sum(read) == 4 * (990 // 16)


@pytest.mark.parametrize("window", [1, 7, 64])
def test_start_resumes_exactly(tmp_path: Path, window: int) -> None:
    data = streamed(tmp_path, window=window)
    whole = streamed_numbers(data, 16, epoch=3)
    for start in (0, 1, 6, 7, 18, 19):
        assert streamed_numbers(data, 16, epoch=3, start=start) == whole[start:]


def test_resume_reads_nothing_of_what_it_skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = streamed(tmp_path, 500, 500, window=4)
    read: list[int] = []
    inner = Stream.decode
    monkeypatch.setattr(Stream, "decode", lambda self, u, a, b: read.append(b - a) or inner(self, u, a, b))
    streamed_numbers(data, 16, start=56)  # of 61
    assert sum(read) == 16 * (61 - 56)


def test_flips_binary_draws_and_ranges_are_those_of_other_batches(tmp_path: Path) -> None:
    stream = streamed(tmp_path).stream
    assert stream is not None
    options: dict[str, Any] = {"flip": True, "binarize": True, "data_range": (-1.0, 1.0)}
    joint = next(StreamedBatches(stream, 16, **options).epoch(1))
    assert set(joint.unique().tolist()) == {-1.0, 1.0}
    parts = [next(StreamedBatches(stream, 8, rank=rank, world=2, **options).epoch(1)) for rank in range(2)]
    assert torch.equal(torch.cat(parts), joint)


def test_threads_end_with_the_epoch(tmp_path: Path) -> None:
    stream = streamed(tmp_path, workers=3).stream
    assert stream is not None
    before = threading.active_count()
    epoch = StreamedBatches(stream, 16).epoch(0)
    next(epoch)
    assert threading.active_count() > before
    epoch.close()
    assert threading.active_count() == before


def test_training_does_not_wait_for_what_was_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one window is used the next is read: the wait at its end is short however slow the reading is."""
    data = streamed(tmp_path, window=4, workers=16)
    assert data.stream is not None
    inner = TarShards.read

    def slow(self: TarShards, unit: int, first: int, last: int) -> Iterator[bytes]:
        time.sleep(0.2)
        return inner(self, unit, first, last)

    monkeypatch.setattr(TarShards, "read", slow)
    waits = []
    epoch = StreamedBatches(data.stream, 16).epoch(0)
    for _ in range(12):
        began = time.perf_counter()
        next(epoch)
        waits.append(time.perf_counter() - began)
        time.sleep(0.15)  # a step
    epoch.close()
    assert waits[0] > 0.2, "there is nothing to train on while the first window is read"
    assert max(waits[1:]) < 0.2


def test_needs_shuffled_full_batches(tmp_path: Path) -> None:
    stream = streamed(tmp_path).stream
    assert stream is not None
    with pytest.raises(VaekitError, match="set shuffle and drop_last to true"):
        StreamedBatches(stream, 16, shuffle=False)
    with pytest.raises(VaekitError, match="batch_size 400 needs 400 samples, but the split has 307"):
        StreamedBatches(stream, 400)


def test_cut_held_out_and_chosen_samples(tmp_path: Path) -> None:
    source = TarShards(locate(write_shards(tmp_path, 150, 90), tmp_path, False))
    whole = Stream.whole(source, {"image_size": 8, "crop": None, "antialias": True, "channels": 3})
    assert source.sizes.tolist() == [64, 64, 22, 64, 26]

    def rows(stream: Stream) -> list[tuple[int, int]]:
        return [(unit, row) for unit, first, last in stream.runs.tolist() for row in range(first, last)]

    for count in (0, 1, 64, 100, 150, 151, 240, 500):
        first, rest = whole.cut(count)
        assert len(first) == min(count, 240)
        assert rows(first) + rows(rest) == rows(whole)
    kept, held = hold_out(whole, 70)
    assert len(held) == 70
    assert sorted(rows(kept) + rows(held)) == rows(whole)
    assert rows(hold_out(whole, 70)[1]) == rows(held)
    assert len(some_of(whole, 70)) == 70
    assert rows(some_of(whole, 70)) != rows(held)
    assert rows(some_of(whole, 1000)) == rows(whole)


# ---- memory ----------------------------------------------------------------------------------------------------------

_MEASURE = """
import resource, sys, torch
from vaekit.data import StreamedBatches, load
data = load("webdataset", urls=sys.argv[1], image_size=128, valid_samples=10, examples=10, window=8)
batches = StreamedBatches(data.stream, 16)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = None
for number, x in enumerate(batches.epoch(0)):
    if number == 4 * 8:
        before = peak()
print(peak() - before, len(data.stream) * 3 * 128 * 128 // 1024)
"""


def test_memory_is_that_of_two_windows(tmp_path: Path) -> None:
    """The whole set would take 147 MB. Two windows take 12.6 MB, and after four of 23 little more is taken."""
    image = numbered_image(3)
    write_tar(tmp_path / "train.tar", ((f"{n:06d}.png", image) for n in range(3000)))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "train.tar")], capture_output=True, text=True, check=True
    )
    growth, whole = map(int, done.stdout.split())
    assert whole > 140_000
    assert growth < 50_000, f"{growth} KB more were taken after the first four windows"


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_splits_notes_and_protocol(tmp_path: Path) -> None:
    valid = write_shards(tmp_path, 40, stem="valid", first=1000)
    test = write_shards(tmp_path, 30, stem="test", first=2000)
    data = streamed(tmp_path, valid_urls=valid, test_urls=test, valid_samples=25, examples=50)
    assert data.stream is not None
    assert data.fitted_to is data.stream
    assert (len(data.stream), len(data.train), len(data.valid), data.test and len(data.test)) == (317, 50, 25, 30)
    assert numbers_of(data.valid.samples.float()) == list(range(1000, 1025))
    assert data.valid.labels is not None
    assert data.valid.labels.tolist() == [n % 10 for n in range(1000, 1025)]
    assert "the first 25 of 40 valid samples are taken" in data.notes
    assert any("317 samples as a stream" in note and "looks at 50 of them" in note for note in data.notes)
    assert data.protocol["samples"] == {"train": 317, "valid": 25, "test": 30}
    assert data.protocol["examples"] == 50
    assert len(data.protocol["content"]) == 16
    assert json.loads(json.dumps(data.protocol)) == data.protocol


def test_without_streaming_everything_is_kept(tmp_path: Path) -> None:
    part, kept = streamed(tmp_path), streamed(tmp_path, streaming=False)
    assert kept.stream is None
    assert kept.fitted_to is kept.train
    assert sorted(numbers_of(kept.train.samples.float())) == sorted(
        set(range(317)) - set(numbers_of(part.valid.samples.float()))
    )
    assert torch.equal(kept.valid.samples, part.valid.samples)


def test_check_counts_the_stream(tmp_path: Path) -> None:
    report = check("webdataset", urls=write_shards(tmp_path, 100, 50), image_size=8, examples=20)
    assert report.counts == {"train": 135, "valid": 15}
    assert report.duplicates == {"valid": 0}


def test_limit_of_a_stream(tmp_path: Path) -> None:
    data = streamed(tmp_path, limit=100)
    assert data.stream is not None
    assert (len(data.stream), len(data.train), len(data.valid)) == (100, 100, 10)
    assert set(flat(streamed_numbers(data, 10))) == set(numbers_of(data.train.samples.float()))


def noise_image(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (9, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


OTHERS: dict[str, Any] = {
    "urls": "train-000.tar",
    "valid_urls": "train-001.tar",
    "test_urls": "train-001.tar",
    "image": "other.png",
    "label": "json.class",
    "image_size": 6,
    "crop": 4,
    "antialias": False,
    "channels": 1,
    "streaming": False,
    "valid_samples": 3,
    "test_samples": 3,
    "examples": 20,
    "window": 3,
    "workers": 3,
    "limit": 9,
}


@pytest.mark.parametrize("option", OTHERS)
def test_every_option_changes_something(tmp_path: Path, option: str) -> None:
    assert {*OTHERS, "samples"} == set(datasets.options("webdataset"))  # `samples` is tested below
    images = [{"png": noise_image(n), "other.png": noise_image(n + 300)} for n in range(80)]
    for number, first in enumerate((0, 40)):
        members = [
            (f"{n:03d}.{end}", content)
            for n in range(first, first + 40)
            for end, content in {
                **images[n],
                "cls": str(n).encode(),
                "json": json.dumps({"class": 80 - n}).encode(),
            }.items()
        ]
        write_tar(tmp_path / f"train-{number:03d}.tar", members)

    def seen(**options: Any) -> str:
        given = {"urls": "train-*.tar", "image_size": 8, "examples": 30, "window": 4, "workers": 2, **options}
        data = load("webdataset", tmp_path, **given)
        order = []
        if data.stream is not None:
            order = [x.tolist() for x in StreamedBatches(data.stream, 8, data_range=None).epoch(0)]
        kept = [(split.samples.tolist(), split.labels.tolist()) for split in data.splits.values()]
        return repr((kept, order, getattr(data.stream, "workers", 0)))

    given = {"crop": {"image_size": 6}, "antialias": {"image_size": 5}}.get(option, {})
    given |= {"test_urls": "train-001.tar"} if option == "test_samples" else {}
    assert seen(**given) == seen(**given)
    assert seen(**given) != seen(**{**given, option: OTHERS[option]})


def test_samples_are_counted(tmp_path: Path) -> None:
    assert streamed(tmp_path, 30, 31, samples=61).stream is not None
    with pytest.raises(VaekitError, match="hold 61 samples and data.samples says 62"):
        streamed(tmp_path, 30, 31, samples=62)
