"""Nearest training images: the search against all pairs, and models that copy, mirror or draw afresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaekit.data import Dataset, Split
from vaekit.errors import VaekitError
from vaekit.evaluation import memorisation as module
from vaekit.evaluation.extractors import Extractor
from vaekit.evaluation.memorisation import memorisation, nearest, suspects
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.records import plain

SHAPE, LATENT = (1, 8, 8), 12
BASIS = torch.randn(LATENT, 64, generator=torch.Generator().manual_seed(0)) / 4


def fresh(count: int) -> Tensor:
    """Draw images in [0, 1] from the distribution of the data."""
    return (torch.randn(count, LATENT) @ BASIS).sigmoid().view(count, *SHAPE)


class Model(nn.Module):
    """A model whose latents are the images that it decodes to, and whose reconstructions are the originals."""

    data_range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.last_layer = nn.Parameter(torch.zeros(1))

    def reconstruct(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Normal(z, 1.0)


class Draws:
    """A sampler of a data set whose sources are functions from a count to images."""

    seed, binarize = 0, False

    def __init__(self, data: Dataset, **sources: Callable[[int], Tensor]) -> None:
        self.data = data
        self.sources = sources

    def draw(self, source: str, count: int, seed: int, block: int = 0) -> Tensor:
        torch.manual_seed(10_000 + 1000 * seed + block)  # another seed than that of the data
        return self.sources[source](count)


def to_bytes(images: Tensor) -> Tensor:
    return (255 * images).round().to(torch.uint8)


@pytest.fixture
def data() -> Dataset:
    train, valid, test = (Split(to_bytes(fresh(count))) for count in (2000, 100, 600))
    return Dataset("made", train, valid, test)


def copies(data: Dataset) -> Callable[[int], Tensor]:
    """A decoder by lookup: training images, one for each latent."""
    images: Tensor = data.splits["train"].samples / 255.0
    return lambda count: images[torch.randint(len(images), (count,))]


def check(data: Dataset, sources: dict[str, Callable[[int], Tensor]], **options: object) -> list[dict]:
    asked = Options(sampler=Draws(data, **sources), samplers=tuple(sources), samples=600, **options)  # type: ignore[arg-type]
    found = [
        {**plain(result.values), **plain(result.protocol), "notes": result.notes}
        for result in memorisation(Model(), data, asked)  # type: ignore[arg-type]
    ]
    json.dumps(found, allow_nan=False)
    return found


def test_the_search_is_that_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, training = (torch.randint(0, 256, (count, 33), dtype=torch.uint8) for count in (120, 1000))
    queries[:3] = training[[999, 500, 0]]
    pairs = torch.cdist(queries.double(), training.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)
    for block, size in ((500, 1000), (17, 1), (50, 333)):
        monkeypatch.setattr(module, "_BLOCK", block)
        distances, numbers = nearest(queries, iter(training.split(size)))
        torch.testing.assert_close(distances, pairs.values, rtol=1e-12, atol=0.0)
        assert torch.equal(numbers, pairs.indices)
    assert distances[:3].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(VaekitError, match="no training sample"):
        nearest(queries, [])


def test_a_model_that_copies_is_flagged_and_fresh_draws_are_not(data: Dataset) -> None:
    copied = copies(data)

    def half(count: int) -> Tensor:
        return torch.cat([copied(count // 2), fresh(count - count // 2)])

    all_, half_, none = check(data, {"copies": copied, "half": half, "fresh": fresh})
    assert [found["sampler"] for found in (all_, half_, none)] == ["copies", "half", "fresh"]
    assert all_["samples"] == {
        "median_distance": 0.0,
        "ratio": 0.0,
        "near": {"mean": 1.0, "standard_error": 0.0, "count": 600},
    }
    assert 0.5 <= half_["samples"]["near"]["mean"] < 0.55
    # Six of 600 are expected, give or take those of the quantile itself: five standard errors.
    assert none["samples"]["near"]["mean"] < 0.03
    assert none["samples"]["ratio"] == pytest.approx(1.0, abs=0.05)
    assert none["unseen"]["near"]["mean"] == pytest.approx(0.01, abs=1e-9)
    assert none["unseen"]["ratio"] == 1.0
    # This model's reconstructions are the unseen images themselves.
    assert none["reconstructions"] == none["unseen"]
    assert (none["training"], none["space"], none["notes"]) == (2000, "pixels of 8 bits", [])


def test_features_see_copies_that_pixels_do_not(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path))
    copied = copies(data)
    symmetric = Extractor("symmetric", "3" * 64, lambda x: (x + x.flip(-1).int()).flatten(1))
    sources = {"mirrored": lambda count: copied(count).flip(-1)}
    pixels, features = check(data, sources, extractor=symmetric)
    assert pixels["samples"]["near"]["mean"] < 0.03
    assert features["samples"]["near"]["mean"] == 1.0
    assert features["space"]["name"] == "symmetric"
    assert features["reconstructions"]["near"]["mean"] == pytest.approx(0.01, abs=1e-9)


def test_logits_of_an_extractor_are_no_features(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path))
    noisy = Extractor(
        "noisy", "4" * 64, lambda x: torch.cat([x.flatten(1) / 255, torch.randn(len(x), 2)], 1), classes=2
    )
    pixels, features = check(data, {"copies": copies(data)}, extractor=noisy)
    assert features["samples"]["median_distance"] == pytest.approx(0.0, abs=1e-6)
    assert features["unseen"]["median_distance"] == pytest.approx(pixels["unseen"]["median_distance"], rel=1e-6)


def test_reconstructions_may_be_asked_for_as_samples(data: Dataset) -> None:
    (found,) = check(data, {"reconstructions": fresh})
    assert found["samples"] == found["reconstructions"]


def test_suspects_are_the_nearest_samples_beside_their_neighbours(data: Dataset) -> None:
    train = data.splits["train"].samples

    def few(count: int) -> Tensor:
        images = fresh(count)
        images[[5, 77]] = train[[1999, 3]] / 255.0
        return images

    options = Options(sampler=Draws(data, prior=few), samples=300)  # type: ignore[arg-type]
    samples, neighbours, distances = suspects(Model(), data, options, count=4)  # type: ignore[arg-type]
    assert samples.dtype == neighbours.dtype == torch.uint8
    assert samples.shape == neighbours.shape == (4, *SHAPE)
    assert torch.equal(samples[:2], neighbours[:2])
    assert {tuple(image.flatten().tolist()) for image in samples[:2]} == {
        tuple(image.flatten().tolist()) for image in train[[1999, 3]]
    }
    assert distances[:2].tolist() == [0.0, 0.0]
    assert 0 < distances[2] <= distances[3]
    apart = (samples[2:] / 255.0 - neighbours[2:] / 255.0).flatten(1).norm(dim=1)
    torch.testing.assert_close(distances[2:].float(), apart, rtol=1e-5, atol=1e-6)


def test_float_images_are_compared_as_bytes(data: Dataset) -> None:
    splits = {name: Split(split.samples / 255.0) for name, split in data.splits.items()}
    floats = Dataset("floats", **splits)
    for first, second in zip(check(data, {"fresh": fresh}), check(floats, {"fresh": fresh}), strict=True):
        assert first == second


def test_what_cannot_be_judged(data: Dataset) -> None:
    options = Options(sampler=Draws(data, prior=fresh), split="train")  # type: ignore[arg-type]
    with pytest.raises(VaekitError, match="take the split 'test' or 'valid'"):
        next(memorisation(Model(), data, options))  # type: ignore[arg-type]
    table = Dataset("table", Split(torch.rand(9, 4)), Split(torch.rand(9, 4)), is_image=False)
    with pytest.raises(VaekitError, match="compares images"):
        next(memorisation(Model(), table, Options(split="valid")))  # type: ignore[arg-type]
    asked = Options(sampler=Draws(data, prior=fresh), samples=50)  # type: ignore[arg-type]
    (few,) = memorisation(Model(), data, asked)  # type: ignore[arg-type]
    assert "1 % quantile of 50 distances" in few.notes[0]
