"""`.npy` and `.npz` files of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vaekit.data import cache, load
from vaekit.errors import VaekitError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.RandomState(0)
    return random.randint(0, 256, shape).astype(np.uint8) if dtype is np.uint8 else random.randn(*shape).astype(dtype)


@pytest.mark.parametrize(
    ("array", "options", "shape", "dtype", "is_image"),
    [
        (noise(10, 6, 5, 3), {}, (3, 6, 5), torch.uint8, True),
        (noise(10, 3, 6, 5), {}, (3, 6, 5), torch.uint8, True),
        (noise(10, 6, 5, 1), {}, (1, 6, 5), torch.uint8, True),
        (noise(10, 6, 5), {}, (1, 6, 5), torch.uint8, True),
        (noise(10, 3, 5, 3), {}, (3, 5, 3), torch.uint8, True),
        (noise(10, 3, 5, 3), {"layout": "nhwc"}, (3, 3, 5), torch.uint8, True),
        (noise(10, 6, 5, 3) > 100, {}, (3, 6, 5), torch.uint8, True),
        (noise(10, 6, 5, 3, dtype=np.float64), {}, (3, 6, 5), torch.float32, True),
        (noise(10, 6, 5, dtype=np.float16), {"layout": "plain"}, (6, 5), torch.float32, False),
        (noise(10, 7, dtype=np.float32), {}, (7,), torch.float32, False),
        (noise(10, 7), {}, (7,), torch.float32, False),
        (np.arange(70).reshape(10, 7), {}, (7,), torch.float32, False),
        (noise(10, 64, 8, 8, dtype=np.float32), {}, (64, 8, 8), torch.float32, False),
        (noise(10, 2, 3, 4, 5, dtype=np.float32), {}, (2, 3, 4, 5), torch.float32, False),
        (noise(10, 6, 9, 3), {"image_size": 4, "channels": 1}, (1, 4, 4), torch.uint8, True),
    ],
)
def test_shapes(
    tmp_path: Path, array: np.ndarray, options: dict, shape: tuple, dtype: torch.dtype, is_image: bool
) -> None:
    np.save(tmp_path / "a.npy", array)
    data = load(tmp_path / "a.npy", **options)
    assert data.shape == shape
    assert data.train.samples.dtype == dtype
    assert data.is_image == is_image
    assert (len(data.train), len(data.valid), data.test) == (9, 1, None)


def test_values_survive(tmp_path: Path) -> None:
    images, labels = noise(20, 6, 5, 3), np.arange(20)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    data = load(tmp_path / "a.npz")
    for split in data.splits.values():
        assert split.labels is not None
        expected = torch.from_numpy(images[split.labels.numpy()]).permute(0, 3, 1, 2)
        assert torch.equal(split.samples, expected)
    both = torch.cat([split.labels for split in data.splits.values() if split.labels is not None])
    assert sorted(both.tolist()) == list(range(20))


@pytest.mark.parametrize("key", ["images", "x", "data", "arr_0"])
def test_keys(tmp_path: Path, key: str) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{key: noise(10, 6, 5), "y": np.arange(10, dtype=np.uint8)})
    data = load(tmp_path / "a.npz", limit=2)
    assert data.train.labels is not None
    assert data.train.labels.dtype == torch.int64
    assert len(data.train) == 2


def test_boolean_images_become_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(10, 6, 5) > 100)
    assert load(tmp_path / "a.npy").train.samples.unique().tolist() == [0, 255]


def test_notes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(10, 3, 5, 3, dtype=np.float32))
    assert load(tmp_path / "a.npy").notes == [
        "shape (10, 3, 5, 3) is read as (N, C, H, W); set layout to nhwc if the channels come last",
        "float images are used as they are, unscaled",
    ]


def test_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", noise(3000, 6, 5, 3))
    inside = load(tmp_path / "a.npy", image_size=4)
    monkeypatch.setattr(cache, "available_memory", lambda: 10)
    seen: list[tuple] = []
    outside = load(tmp_path / "a.npy", image_size=4, progress=lambda *step: seen.append(step))
    assert outside.train.mapped
    assert not inside.train.mapped
    assert seen[-1] == (3000, 3000, "reading a.npy")
    for name, split in inside.splits.items():
        assert torch.equal(split.samples, outside.splits[name].samples)


def bad(tmp_path: Path, case: str) -> Path:
    file = tmp_path / f"{case}.npy"
    if case == "object":
        np.save(file, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    elif case == "object_npz":
        file = tmp_path / "object.npz"
        np.savez(file, images=np.array([{"a": 1}, None], dtype=object))
    elif case == "keys":
        file = tmp_path / "keys.npz"
        np.savez(file, photographs=noise(4, 4, 4))
    elif case == "damaged":
        file = tmp_path / "damaged.npz"
        file.write_bytes(b"PK\x03\x04 and no more")
    elif case == "truncated":
        np.save(file, noise(10, 6, 5))
        file.write_bytes(file.read_bytes()[:200])
    elif case == "pickle":
        file.write_bytes(b"\x80\x04K\x01.")
    elif case == "labels":
        file = tmp_path / "labels.npz"
        np.savez(file, x=noise(10, 6, 5), y=np.arange(9))
    elif case == "soft_labels":
        file = tmp_path / "soft_labels.npz"
        np.savez(file, x=noise(10, 6, 5), y=np.ones(10))
    elif case == "nan":
        array = noise(10, 7, dtype=np.float64)
        array[0, :3], array[9, 0], array[5, 5] = np.nan, np.inf, 1e300
        np.save(file, array)
    else:
        arrays = {
            "strings": np.array([["a"], ["b"]]),
            "complex": noise(10, 7).astype(np.complex64),
            "flat": noise(10),
            "none": noise(0, 7),
            "single": noise(1, 7),
            "rgba": noise(10, 6, 5, 4),
            "deep": noise(10, 6, 5, 3).astype(np.uint16),
        }
        np.save(file, arrays[case])
    return file


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("object", "holds Python objects, which vaekit never unpickles"),
        ("object_npz", "holds Python objects, which vaekit never unpickles"),
        ("pickle", "cannot be read as a NumPy array"),
        ("keys", "holds photographs: name the samples images or x or data or arr_0"),
        ("damaged", "cannot be read as a NumPy array"),
        ("truncated", "cannot be read as a NumPy array"),
        ("labels", "has 10 samples but 9 labels"),
        ("soft_labels", "use one integer a sample"),
        ("nan", "has 5 non-finite values"),
        ("strings", "holds values of type <U1"),
        ("complex", "holds values of type complex64"),
        ("flat", "two or more axes"),
        ("none", "has shape (0, 7)"),
        ("single", "two or more are needed"),
        ("rgba", "images need 1 or 3 channels"),
        ("deep", "save them as uint8 (0 to 255) or float32"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, case: str, words: str) -> None:
    file = bad(tmp_path, case)
    with pytest.raises(VaekitError) as raised:
        load(file)
    assert words in str(raised.value)
    assert str(file) in str(raised.value) or case == "single"
    assert "\n" not in str(raised.value)


def test_options_that_do_not_suit(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise(10, 7))
    with pytest.raises(VaekitError, match="image_size and channels are for images"):
        load(tmp_path / "a.npy", image_size=4)
    with pytest.raises(VaekitError, match="layout 'nchw' needs images"):
        load(tmp_path / "a.npy", layout="nchw")
    with pytest.raises(VaekitError, match="there is no file"):
        load("arrays", tmp_path / "b.npy")
