"""The loader: order, ranks, resume, flips, ranges, and memory-mapped data."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vaekit.data import Batches, Split, check, load
from vaekit.errors import VaekitError


def numbered(count: int) -> Split:
    """Images that say which they are: the row number in the left column, zero elsewhere."""
    samples = torch.zeros(count, 1, 2, 4, dtype=torch.uint8)
    samples[:, :, :, 0] = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1)
    return Split(samples)


def loader(split: Split, size: int, **options: object) -> Batches:
    given = {"data_range": None, "device": "cpu", "shuffle": True, "flip": False, "seed": 3, "drop_last": True}
    return Batches(split, size, **{**given, "resident": False, **options})


def numbers(batch: Tensor) -> list[int]:
    return batch.amax((1, 2, 3)).int().tolist()


def test_epoch_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    def order(epoch: int, **options: object) -> list[int]:
        return [n for batch in loader(numbered(60), 5, **options).epoch(epoch) for n in numbers(batch)]

    assert sorted(order(0)) == list(range(60))
    torch.manual_seed(1)
    first = order(0)
    torch.manual_seed(2)
    assert order(0) == first, "the global random state must not matter"
    assert order(1) != first
    assert order(0, seed=4) != first
    assert order(0, shuffle=False) == list(range(60))


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(loader(numbered(60), 5, flip=True).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_joint_batch(world: int, drop_last: bool) -> None:
    split = numbered(62)
    joint = loader(split, 4 * world, flip=True, drop_last=drop_last)
    ranks = [loader(split, 4, flip=True, drop_last=drop_last, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(joint)}
    parts = zip(joint.epoch(2), *(rank.epoch(2) for rank in ranks), strict=True)
    for whole, *shares in parts:
        assert torch.equal(whole, torch.cat(shares))


@pytest.mark.parametrize("mapped", [True, False])
def test_start_resumes_exactly(mapped: bool) -> None:
    batches = loader(Split(numbered(60).samples, mapped=mapped), 7, flip=True)
    whole = list(batches.epoch(5))
    for start in range(len(batches) + 1):
        rest = list(batches.epoch(5, start=start))
        assert len(rest) == len(batches) - start
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_mapped_and_resident_give_the_same_batches() -> None:
    split = load("digits").train
    plain = list(loader(split, 64, flip=True).epoch(0))
    for other in (
        loader(Split(split.samples, mapped=True), 64, flip=True),
        loader(Split(split.samples, mapped=True), 64, flip=True, resident=True),
        loader(split, 64, flip=True, resident=True),
    ):
        assert all(torch.equal(a, b) for a, b in zip(plain, other.epoch(0), strict=True))


def test_reading_thread_ends_with_the_epoch() -> None:
    before = threading.active_count()
    epoch = loader(Split(numbered(60).samples, mapped=True), 5).epoch(0)
    next(epoch)
    assert threading.active_count() == before + 1
    epoch.close()
    assert threading.active_count() == before


def test_batches_that_leave_nothing_out() -> None:
    assert len(loader(numbered(10), 4)) == 2
    smaller = loader(numbered(10), 4, drop_last=False, shuffle=False)
    assert [len(batch) for batch in smaller.epoch(0)] == [4, 4, 2]
    assert len(smaller) == 3
    even = loader(numbered(10), 4, drop_last=False, even=True, shuffle=False)
    assert [numbers(batch) for batch in even.epoch(0)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    for count, size, world in ((4001, 5, 1), (61, 5, 2), (100, 8, 3)):  # No last batch of one.
        ranks = [
            loader(numbered(count), size, drop_last=False, even=True, rank=rank, world=world) for rank in range(world)
        ]
        sizes = [[len(batch) for batch in rank.epoch(0)] for rank in ranks]
        assert sum(map(sum, sizes)) == count
        assert size / 2 - 1 < min(map(min, sizes)) <= max(map(max, sizes)) <= size
    # An evaluation may be smaller than one batch; ranks without a sample get an empty batch, so that all keep step.
    assert [len(batch) for batch in loader(numbered(1), 4, drop_last=False, rank=1, world=2).epoch(0)] == [0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flips(dtype: torch.dtype) -> None:
    split = Split(torch.arange(64 * 2 * 4).view(64, 1, 2, 4).remainder(256).to(dtype))
    plain = loader(split, 16, shuffle=False)
    flipped = loader(split, 16, shuffle=False, flip=True)
    decisions = []
    for epoch in range(4):
        for before, after in zip(plain.epoch(epoch), flipped.epoch(epoch), strict=True):
            same = (before == after).flatten(1).all(1)
            mirrored = (before.flip(-1) == after).flatten(1).all(1)
            assert bool((same ^ mirrored).all()), "every image is either kept or mirrored"
            decisions.append(mirrored)
    chosen = torch.stack(decisions).float()
    assert 0.35 < chosen.mean() < 0.65
    assert len({tuple(row.tolist()) for row in chosen}) == len(chosen), "every batch of every epoch has its own draw"


def test_binary_draws() -> None:
    split = Split(torch.arange(256).view(1, 1, 16, 16).repeat(4000, 1, 1, 1).to(torch.uint8))
    binary = loader(split, 2000, shuffle=False, data_range=(-1.0, 1.0), binarize=True)
    first, second = binary.epoch(0)
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(first, second), "every batch has its own draws"
    assert torch.equal(first, next(iter(binary.epoch(0)))), "an epoch repeats itself"
    assert not torch.equal(first, next(iter(binary.epoch(1)))), "the next one does not"
    share = (torch.cat([first, second]) > 0).float().mean(0).flatten()
    assert (share - torch.arange(256) / 255).abs().max() < 5 * 0.5 / 4000**0.5
    assert share[0] == 0.0
    assert share[255] == 1.0


def test_binary_draws_of_ranks_are_those_of_the_global_batch() -> None:
    split = numbered(64)
    joint = next(iter(loader(split, 16, binarize=True).epoch(2)))
    parts = [next(iter(loader(split, 8, binarize=True, rank=rank, world=2).epoch(2))) for rank in range(2)]
    assert torch.equal(joint, torch.cat(parts))


def test_binary_draws_need_grey_values() -> None:
    with pytest.raises(VaekitError, match="grey values"):
        loader(Split(torch.zeros(4, 3)), 2, binarize=True)


@pytest.mark.parametrize("data_range", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), None])
def test_ranges(data_range: tuple[float, float] | None) -> None:
    split = Split(torch.arange(256).view(256, 1, 1, 1).to(torch.uint8))
    (batch,) = loader(split, 256, data_range=data_range, shuffle=False).epoch(0)
    low, high = data_range or (0.0, 255.0)
    assert batch.dtype == torch.float32
    assert batch.min() == low  # to the last bit: a Bernoulli refuses 1.0000001
    assert batch.max() == high
    assert torch.allclose(batch.flatten(), torch.linspace(low, high, 256), atol=1e-6)


def test_vectors_are_unchanged() -> None:
    vectors = torch.randn(20, 5)
    batches = loader(Split(vectors), 10, data_range=(0.0, 1.0), shuffle=False)
    assert torch.equal(torch.cat(list(batches.epoch(0))), vectors)


def test_batches_may_be_changed_by_the_caller() -> None:
    split = Split(torch.ones(8, 3))
    for batch in loader(split, 8, shuffle=False, resident=True).epoch(0):
        batch.zero_()
    assert bool((split.samples == 1).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "batch_size must be 1 or more"),
        ({"size": 11}, "batch_size 11 needs 11 samples, but the split has 10: lower batch_size"),
        ({"size": 6, "world": 2}, "batch_size 6 on 2 devices needs 12 samples"),
        ({"size": 6, "even": True}, "set drop_last to false"),
        ({"size": 2, "seed": -1}, "seed 0 or more"),
    ],
)
def test_user_errors(options: dict, words: str) -> None:
    with pytest.raises(VaekitError) as raised:
        loader(numbered(10), options.pop("size"), **options)
    assert words in str(raised.value)


def test_flip_needs_images() -> None:
    with pytest.raises(VaekitError, match="flip is for images"):
        loader(Split(torch.zeros(4, 3)), 2, flip=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    split = load("digits").train
    plain = list(loader(split, 64, data_range=(-1.0, 1.0)).epoch(0))
    expected = None
    for resident, mapped in itertools.product((True, False), repeat=2):
        options = {"device": "cuda", "resident": resident, "data_range": (-1.0, 1.0)}
        cuda = loader(Split(split.samples, mapped=mapped), 64, **options)
        assert all(torch.allclose(a, b.cpu()) for a, b in zip(plain, cuda.epoch(0), strict=True))
        assert max(float(batch.max()) for batch in cuda.epoch(0)) == 1.0
        flipped = list(loader(Split(split.samples, mapped=mapped), 64, flip=True, **options).epoch(0))
        expected = expected or flipped
        assert all(torch.equal(a, b) for a, b in zip(expected, flipped, strict=True))
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(loader(split, 64, flip=True, device="cuda", resident=True).epoch(1, start=3))
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- the report behind `vaekit data check` -------------------------------------------------------------------------


def test_check_digits() -> None:
    report = check("digits", samples=9)
    data = load("digits")
    values = data.train.samples.double()
    assert report.shape == (1, 8, 8)
    assert report.dtype == "uint8"
    assert report.first.shape == (9, 1, 8, 8)
    assert report.mean == pytest.approx((values.mean().item(),))
    assert report.std == pytest.approx((values.std(correction=0).item(),))
    assert torch.allclose(report.mean_sample, values.mean(0).float())
    assert sum(report.labels["train"].values()) == 1437
    assert report.duplicates == {"valid": 0, "test": 0}


def test_check_counts_duplicates_and_channels(tmp_path: Path) -> None:
    array = np.random.RandomState(0).randint(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    array[:] = np.where(np.arange(20)[:, None, None, None] < 19, array[:1], array)  # nineteen are the same
    np.save(tmp_path / "a.npy", array)
    report = check(tmp_path / "a.npy", valid_fraction=0.25)
    assert report.duplicates["valid"] >= 4
    assert len(report.mean) == len(report.std) == 3
    assert report.labels == {}


def test_check_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.RandomState(0).randn(3000, 5) * 2 + 7)
    report = check(tmp_path / "a.npy")
    assert not report.is_image
    assert report.mean_sample.shape == (5,)
    assert report.mean == pytest.approx((7.0,), abs=0.1)
    assert report.std == pytest.approx((2.0,), abs=0.1)
    assert report.low < 7 < report.high
