"""Data whose generative factors are known: the factors follow the samples, in `shapes` and in files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vaekit.cli.main import app
from vaekit.data import Dataset, Split, cache, check, load
from vaekit.data.shapes import _drawn
from vaekit.errors import VaekitError

NAMES = ("shape", "scale", "orientation", "x", "y")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def small() -> Dataset:
    """All shapes at 16x16."""
    return load("shapes", image_size=16)


def factors_of(split: Split) -> torch.Tensor:
    assert split.factors is not None
    return split.factors


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_every_combination_is_there_once_and_looks_like_no_other(small: Dataset) -> None:
    assert {name: len(split) for name, split in small.splits.items()} == {"train": 11060, "valid": 1382, "test": 1382}
    assert small.factor_names == NAMES
    everything = torch.cat([factors_of(split) for split in small.splits.values()])
    assert len(everything.unique(dim=0)) == len(everything) == 3 * 4 * 8 * 12 * 12
    assert everything.amin(0).tolist() == [0, 0, 0, 0, 0]
    assert everything.amax(0).tolist() == [2, 3, 7, 11, 11]
    images = torch.cat([split.samples for split in small.splits.values()])
    assert len(np.unique(images.flatten(1).numpy(), axis=0)) == len(images)


def test_factors_follow_the_images(small: Dataset) -> None:
    for split in small.splits.values():
        factors = factors_of(split)[:100]
        assert np.array_equal(_drawn(factors.numpy(), 16), split.samples[:100].numpy())
        assert torch.equal(factors[:, 0], split.labels[:100])
        chosen = torch.tensor([7, 3, 50])
        assert torch.equal(factors_of(split.rows(chosen)), factors[chosen])
        assert torch.equal(factors_of(split.rows(slice(2, 5))), factors[2:5])


def test_what_the_factors_do() -> None:
    grid = torch.arange(32, dtype=torch.float64)

    def middle(*factors: int) -> tuple[float, float, float]:
        image = torch.from_numpy(_drawn(np.array([factors]), 32)[0, 0]).double()
        mass = image.sum()
        return float(mass) / 255, float((image.sum(0) * grid).sum() / mass), float((image.sum(1) * grid).sum() / mass)

    step = 0.52 * 32 / 11
    for shape in range(3):
        areas = [middle(shape, scale, 0, 5, 5)[0] for scale in range(4)]
        # Lengths go from 0.12 to 0.22 of the side.
        assert areas[3] / areas[0] == pytest.approx((0.22 / 0.12) ** 2, rel=0.05)
        here, right, down = (middle(shape, 3, 1, *at) for at in ((4, 4), (7, 4), (4, 7)))
        assert right[1] - here[1] == pytest.approx(3 * step, abs=0.1)
        assert down[2] - here[2] == pytest.approx(3 * step, abs=0.1)
        assert right[2] == pytest.approx(here[2], abs=0.1)
        # Two eighths of a turn are a quarter, clockwise, of shape and place.
        turned = _drawn(np.array([[shape, 2, 3, 11 - 8, 4], [shape, 2, 1, 4, 8]]), 32)[:, 0].astype(int)
        assert np.abs(turned[0] - np.rot90(turned[1], -1)).max() <= 1
    edge = _drawn(np.array([[s, 3, k, x, y] for s in range(3) for k in range(8) for x in (0, 11) for y in (0, 11)]), 32)
    assert max(edge[..., 0].max(), edge[..., -1].max(), edge[..., 0, :].max(), edge[..., -1, :].max()) < 128


def test_options_of_shapes(small: Dataset) -> None:
    cut = load("shapes", image_size=16, limit=5)
    for name, split in small.splits.items():
        assert torch.equal(split.rows(slice(5)).samples, cut.splits[name].samples)
        assert torch.equal(factors_of(split)[:5], factors_of(cut.splits[name]))
    assert not torch.equal(factors_of(load("shapes", limit=5, seed=1).train), factors_of(cut.train))
    assert load("shapes", limit=2, image_size=64).shape == (1, 64, 64)
    for wrong in ({"image_size": 7}, {"seed": -1}, {"limit": 0}):
        with pytest.raises(VaekitError, match=f"{next(iter(wrong))} must"):
            load("shapes", **wrong)


def test_shapes_too_large_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "available_memory", lambda: 10)
    seen: list[tuple] = []
    data = load("shapes", image_size=16, limit=700, progress=lambda *step: seen.append(step))
    assert data.train.mapped
    assert seen[-1] == (2100, 2100, "drawing shapes")
    assert np.array_equal(_drawn(factors_of(data.test).numpy(), 16), data.test.samples.numpy())


def test_check_tells_of_factors() -> None:
    report = check("shapes", image_size=16)
    assert report.duplicates == {"valid": 0, "test": 0}
    said = CliRunner().invoke(app, ["data", "check", "shapes", "--set", "image_size=16", "--set", "limit=100"])
    assert said.exit_code == 0, said.output
    assert "values of factors: shape 3, scale 4, orientation 8, x 12, y 12" in " ".join(said.output.split())


# ---- files -----------------------------------------------------------------------------------------------------------


def table(count: int) -> np.ndarray:
    """Two factors that can be read from the number of the sample."""
    return np.stack([np.arange(count) % 7, np.arange(count) // 7], 1)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_factors_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool, dtype: type) -> None:
    if not in_memory:
        monkeypatch.setattr(cache, "available_memory", lambda: 10)
    images = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 6, 5))
    np.savez(tmp_path / "a.npz", images=images, factors=table(200).astype(dtype), factor_names=["left", "right"])
    data = load(tmp_path / "a.npz", valid_fraction=0.3)
    assert data.factor_names == ("left", "right")
    assert data.protocol["factors"] == {"left": 7, "right": 29}
    for split in data.splits.values():
        number = split.samples[:, 0, 0, 0].long()
        assert factors_of(split).dtype == torch.int64
        assert torch.equal(factors_of(split), torch.stack([number % 7, number // 7], 1))
    cut = load(tmp_path / "a.npz", valid_fraction=0.3, limit=4)
    assert torch.equal(factors_of(cut.valid), factors_of(data.valid)[:4])


def test_files_without_names_and_without_factors(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((14, 3)), factors=table(14))
    assert load(tmp_path / "a.npz").factor_names == ("factor0", "factor1")
    np.savez(tmp_path / "b.npz", x=np.ones((14, 3)))
    data = load(tmp_path / "b.npz")
    assert (data.factor_names, data.train.factors, "factors" in data.protocol) == ((), None, False)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"factors": np.zeros(14, int)}, "use one row of integers a sample"),
        ({"factors": np.zeros((14, 2))}, "use one row of integers a sample"),
        ({"factors": table(13)}, "14 samples but 13 rows of factors"),
        ({"factors": table(14), "factor_names": ["a"]}, "give each a name of its own"),
        ({"factors": table(14), "factor_names": ["a", "a"]}, "give each a name of its own"),
        ({"factors": table(14), "factor_names": "a"}, "give each a name of its own"),
        ({"factors": np.zeros((14, 2), object)}, "never unpickles"),
    ],
)
def test_wrong_factors_are_one_sentence(tmp_path: Path, held: dict, words: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((14, 3)), **held)
    with pytest.raises(VaekitError, match=words) as raised:
        load(tmp_path / "a.npz")
    assert "\n" not in str(raised.value)


def write_dsprites(folder: Path, colours: int = 1, **arrays: np.ndarray) -> Path:
    """Write a file with the keys and the types of dSprites: 2 x 3 x 2 samples, metadata pickled."""
    classes = np.stack(np.unravel_index(np.arange(12), (1, 2, 3, 2, 1, 1)), 1).astype(np.int64)
    classes[:, 0] = np.arange(12) % colours
    images = (np.arange(12)[:, None, None] >> np.arange(4).reshape(2, 2)).astype(np.uint8) % 2
    np.savez(
        folder / "dsprites.npz",
        metadata=np.array({"date": "April 2017"}, dtype=object),
        **{"imgs": images, "latents_classes": classes, "latents_values": classes.astype(float), **arrays},
    )
    return folder / "dsprites.npz"


def test_dsprites(tmp_path: Path) -> None:
    data = load(write_dsprites(tmp_path))
    assert data.is_image
    assert data.shape == (1, 2, 2)
    assert data.factor_names == ("shape", "scale", "orientation", "posX", "posY")
    for split in data.splits.values():
        assert set(split.samples.unique().tolist()) <= {0, 255}
        number = (split.samples.flatten(1) > 0).long() @ torch.tensor([1, 2, 4, 8])
        expected = torch.stack([number // 6, number // 2 % 3, number % 2, 0 * number, 0 * number], 1)
        assert torch.equal(factors_of(split), expected)
        assert torch.equal(split.labels, expected[:, 0])


def test_coloured_and_grey_relatives_of_dsprites(tmp_path: Path) -> None:
    grey = np.full((12, 2, 2), 200, np.uint8)
    data = load(write_dsprites(tmp_path, colours=2, imgs=grey))
    assert data.factor_names[0] == "color"
    assert data.train.samples.unique().tolist() == [200]
    assert torch.equal(data.train.labels, factors_of(data.train)[:, 1])


def test_a_data_set_has_a_name_for_each_factor(small: Dataset) -> None:
    with pytest.raises(VaekitError, match=r"split 'train' has factors of shape \(11060, 5\) and there are 2"):
        dataclasses.replace(small, factor_names=("a", "b"))
    unlabelled = Split(torch.zeros(4, 2))
    assert Dataset("plain", unlabelled, unlabelled).factor_names == ()
