"""Folders of images of every kind, and the cache of decoded images."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import time
import zlib
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaekit.data import cache, files, load
from vaekit.data.images import decode, prepare
from vaekit.errors import VaekitError

PIXELS = {"image_size": 8, "crop": None, "antialias": True, "channels": 3}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve plain images, told apart by their colour."""
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(12):
        Image.new("RGB", (20 + number, 16), (number * 20, 0, 0)).save(place / f"{number:02d}.png")
    return place


def reds(samples: torch.Tensor) -> list[int]:
    return (samples[:, 0, 0, 0].int() // 20).tolist()


def save_png16(file: Path, values: np.ndarray) -> None:
    """A 16-bit grey PNG, written by hand: Pillow versions differ in how they save one."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )


# ---- one file ------------------------------------------------------------------------------------------------------


def test_every_mode(tmp_path: Path) -> None:
    half = Image.new("RGBA", (10, 10), (255, 0, 0, 128))
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([255, 255, 255, 9, 9, 9])
    palette.info["transparency"] = 0
    palette.putpixel((9, 9), 1)
    cases: dict[str, tuple[Image.Image, tuple[int, int, int]]] = {
        "grey.png": (Image.new("L", (10, 10), 77), (77, 77, 77)),
        "bits.png": (Image.new("1", (10, 10), 1), (255, 255, 255)),
        "alpha.png": (half, (255, 127, 127)),
        "grey_alpha.png": (Image.new("LA", (10, 10), (0, 0)), (255, 255, 255)),
        "palette.gif": (Image.new("RGB", (10, 10), (0, 128, 0)).quantize(4), (0, 128, 0)),
        "palette.png": (palette, (255, 255, 255)),
        "cmyk.jpg": (Image.new("CMYK", (10, 10), (0, 255, 255, 0)), (254, 0, 0)),
        "ycbcr.jpg": (Image.new("YCbCr", (10, 10), (128, 128, 128)), (128, 128, 128)),
        "lossless.webp": (Image.new("RGB", (10, 10), (1, 2, 3)), (1, 2, 3)),
        "deep.tiff": (Image.fromarray(np.full((10, 10), 32896, np.uint16)), (128, 128, 128)),
        "deeper.tiff": (Image.fromarray(np.full((10, 10), 32896, np.int32)), (128, 128, 128)),
    }
    for name, (image, expected) in cases.items():
        options = {"lossless": True} if name.endswith("webp") else {}
        image.save(tmp_path / name, **options)
        pixels = decode(tmp_path / name, **PIXELS)
        assert pixels.shape == (3, 8, 8), name
        assert pixels.dtype == np.uint8, name
        assert np.abs(pixels[:, 2, 2].astype(int) - expected).max() <= 2, name


def test_sixteen_bit_png(tmp_path: Path) -> None:
    save_png16(tmp_path / "deep.png", np.linspace(0, 65535, 64).reshape(8, 8))
    pixels = decode(tmp_path / "deep.png", **{**PIXELS, "channels": 1})
    assert np.abs(pixels.reshape(-1) - np.linspace(0, 255, 64)).max() <= 1


def test_exif_rotation(tmp_path: Path) -> None:
    upright = Image.new("RGB", (8, 8), "black")
    upright.paste("white", (0, 0, 8, 4))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    pixels = decode(tmp_path / "turned.jpg", **PIXELS)
    assert pixels[:, :3].min() > 200
    assert pixels[:, 5:].max() < 50


def test_greyscale_matches_pillow(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    from_file = decode(tmp_path / "noise.png", image_size=16, crop=None, antialias=True, channels=1)
    ours = prepare(torch.from_numpy(noise).permute(2, 0, 1)[None], channels=1)[0].numpy()
    assert np.array_equal(from_file, ours)


def test_prepare_crops_the_centre_and_keeps_what_needs_no_change() -> None:
    images = torch.arange(2 * 1 * 6 * 10).view(2, 1, 6, 10).to(torch.uint8)
    assert torch.equal(prepare(images, crop=4), images[:, :, 1:5, 3:7])
    assert torch.equal(prepare(images, image_size=6), images[:, :, :, 2:8])
    assert prepare(images) is images
    assert prepare(images, crop=100, image_size=3).shape == (2, 1, 3, 3)
    assert prepare(images.float() / 255, image_size=3, channels=3).dtype == torch.float32


def test_antialias_matters() -> None:
    stripes = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    stripes[..., ::4] = 255
    smooth = prepare(stripes, image_size=16, antialias=True)
    aliased = prepare(stripes, image_size=16, antialias=False)
    assert smooth.float().std() < 10
    assert aliased.float().std() < 1
    assert (smooth.float().mean() - 63.75).abs() < 2
    assert (aliased.float().mean() - 63.75).abs() > 30


# ---- a folder ------------------------------------------------------------------------------------------------------


def test_mixed_folder(photos: Path) -> None:
    (photos / "deeper").mkdir()
    Image.new("L", (300, 40), 255).save(photos / "deeper/wide.JPEG")
    (photos / "notes.txt").write_text("not an image")
    (photos / "._00.png").write_text("what another system leaves")
    (photos / "deeper/up").symlink_to(photos, target_is_directory=True)
    data = load(photos, image_size=8)
    assert data.shape == (3, 8, 8)
    assert [len(split) for split in data.splits.values()] == [12, 1]
    assert data.train.labels is None
    assert data.notes == []
    again = load(str(photos), image_size=8)
    assert torch.equal(data.train.samples, again.train.samples)
    assert sorted(reds(torch.cat([data.train.samples, data.valid.samples]))) == sorted([*range(12), 12])


def test_the_protocol_says_what_lies_there_and_not_where(photos: Path, tmp_path: Path) -> None:
    there = load(photos, image_size=8).protocol
    elsewhere = Path(shutil.copytree(photos, tmp_path / "elsewhere" / photos.name))
    assert load(elsewhere, image_size=8).protocol == there
    assert there["data"] == "photos"
    Image.new("RGB", (20, 16), (0, 0, 255)).save(elsewhere / "05.png")
    changed = load(elsewhere, image_size=8).protocol
    assert changed == {**there, "content": changed["content"]} != there
    for pixels in (0, 1):
        np.savez(tmp_path / "pairs.npz", a=np.full((9, 2), 1.0), b=np.full((9, 3), float(pixels)))
        content = load(tmp_path / "pairs.npz").protocol["content"]
        assert content != there["content"]
        there = {"content": content}


def test_unreadable_files_are_named_and_skipped(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = photos / "00.png"
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(whole)
    (photos / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.jpg").write_text("<html>404</html>")
    Image.fromarray(np.ones((4, 4), np.float32)).save(photos / "float.tiff")
    (photos / "link.jpg").symlink_to(photos / "nowhere.jpg")
    Image.new("L", (400, 100)).save(photos / "bomb.png")
    Image.new("L", (400, 400)).save(photos / "big_bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    data = load(photos, image_size=8, valid_fraction=0.2)
    assert sum(map(len, data.splits.values())) == 12
    (note,) = data.notes
    assert note.startswith("7 unreadable files skipped: ")
    for words in (
        "cut.png",
        "empty.jpg (not an image)",
        "text.jpg (not an image)",
        "float.tiff (floating-point",
        "link.jpg (No such",
    ):
        assert words in note
    assert "big_bomb.png (more than 30,000 pixels)" in note
    assert " bomb.png (more than 30,000 pixels)" in note
    assert load(photos, image_size=8, valid_fraction=0.2).notes == data.notes, "the note is kept with the cache"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    assert sum(map(len, load(photos, image_size=8).splits.values())) == 14, "a raised limit decodes anew"


def test_long_lists_of_unreadable_files_are_cut(photos: Path) -> None:
    for number in range(14):
        (photos / f"bad{number:02d}.jpg").write_bytes(b"x")
    (note,) = load(photos, image_size=4).notes
    assert note.startswith("14 unreadable files skipped: ")
    assert note.endswith("bad09.jpg (not an image) and 4 more")


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VaekitError, match=r"empty holds no image: files must end in \.bmp, .*\.webp"):
        load(tmp_path / "empty")
    (tmp_path / "empty/a.jpg").write_bytes(b"x")
    (tmp_path / "empty/b.jpg").write_bytes(b"x")
    with pytest.raises(VaekitError, match="none of the 2 images under .*empty can be read: .*a.jpg"):
        load(tmp_path / "empty")


def test_one_image_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "one/a.png")
    with pytest.raises(VaekitError, match="two or more are needed"):
        load(tmp_path / "one")


def test_class_folders_become_labels(tmp_path: Path) -> None:
    for name, shade in (("cat", 20), ("dog", 40)):
        for number in range(4):
            place = tmp_path / f"pets/{name}/more"
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (shade, 0, 0)).save(place / f"{number}.png")
    data = load(tmp_path / "pets", image_size=4, valid_fraction=0.25)
    assert data.protocol["classes"] == ["cat", "dog"]
    for split in (data.train, data.valid):
        assert split.labels is not None
        assert reds(split.samples) == (split.labels + 1).tolist()


def test_split_folders(tmp_path: Path) -> None:
    shades = {"train/a": 1, "train/b": 2, "val/a": 3, "val/b": 4, "Test/a": 5, "Test/b": 6, "drafts": 7}
    for name, shade in shades.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (9, 9), (shade * 20, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    data = load(tmp_path / "set", image_size=4)
    found = {name: (reds(split.samples), split.labels.tolist()) for name, split in data.splits.items()}
    labels = [0, 0, 1, 1]
    assert found == {
        "train": ([1, 1, 2, 2], labels),
        "valid": ([3, 3, 4, 4], labels),
        "test": ([5, 5, 6, 6], labels),
    }
    assert data.notes == ["2 images outside train, valid and test ignored"]
    assert data.protocol["split"] == "folders"


def test_relative_path_below_the_root(photos: Path) -> None:
    assert len(load("photos", photos.parent, image_size=4, limit=3).train) == 3


# ---- the cache -----------------------------------------------------------------------------------------------------


def cached(tmp_path: Path, ending: str = ".npy") -> list[Path]:
    return sorted((tmp_path / "cache/decoded").glob(f"*{ending}"))


def test_decoded_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(photos, image_size=8)
    (file,) = cached(tmp_path)
    assert np.load(file).shape == (12, 3, 8, 8)
    with monkeypatch.context() as patch:
        patch.setattr(files, "attempt", None)  # calling it would fail
        again = load(photos, image_size=8)
    assert torch.equal(first.train.samples, again.train.samples)
    assert again.notes == []
    load(photos, image_size=8, antialias=False)
    load(photos, image_size=4)
    assert len(cached(tmp_path)) == 3
    os.utime(photos / "03.png", (1, 1))
    load(photos, image_size=8)
    assert len(cached(tmp_path)) == 4, "a changed file means another key"
    assert cached(tmp_path, ".tmp") == []


def test_memory_mapped_when_memory_is_short(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = load(photos, image_size=8)
    assert not inside.train.mapped
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    outside = load(photos, image_size=8)
    assert outside.train.mapped
    assert torch.equal(inside.train.samples, outside.train.samples)
    outside.train.samples.zero_()  # copy-on-write: the file keeps its content
    assert torch.equal(inside.train.samples, load(photos, image_size=8).train.samples)


def test_interrupted_build_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(photos, image_size=8, progress=stop)
    assert list((tmp_path / "cache/decoded").iterdir()) == []
    assert len(load(photos, image_size=8).train) == 11


@pytest.mark.parametrize("damage", ["short", "no json", "no npy", "bad json"])
def test_damaged_cache_is_rebuilt(photos: Path, tmp_path: Path, damage: str) -> None:
    first = load(photos, image_size=8)
    (array,), (words,) = cached(tmp_path), cached(tmp_path, ".json")
    if damage == "short":
        array.write_bytes(array.read_bytes()[:500])
    elif damage == "bad json":
        words.write_text("{")
    else:
        (array if damage == "no npy" else words).unlink()
    assert torch.equal(first.train.samples, load(photos, image_size=8).train.samples)


def test_stale_temporary_files_are_cleared(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache/decoded"
    place.mkdir(parents=True)
    for name, age in (("old.tmp", 2 * 86400), ("new.tmp", 0)):
        (place / name).write_bytes(b"x")
        os.utime(place / name, (time.time() - age,) * 2)
    load(photos, image_size=8)
    assert [file.name for file in cached(tmp_path, ".tmp")] == ["new.tmp"]


def test_full_disk_falls_back_to_memory(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    data = load(photos, image_size=8)
    assert len(data.train) == 11
    assert not data.train.mapped
    assert "cannot be written (No space left on device), so the images are in memory" in data.notes[0]
    assert list((tmp_path / "cache/decoded").iterdir()) == []
    monkeypatch.setattr(cache, "available_memory", lambda: 10)
    with pytest.raises(VaekitError, match="set VAEKIT_CACHE to a folder with room"):
        load(photos, image_size=8)


def test_unwritable_cache(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "file"))
    data = load(photos, image_size=8)
    assert "cannot be written" in data.notes[0]
    assert len(data.train) == 11


def test_concurrent_builds_agree(tmp_path: Path) -> None:
    def blocks_of_another(skipped: dict[int, str]) -> Generator[np.ndarray]:
        yield np.ones((3, 3), np.uint8)

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        yield np.ones((2, 3), np.uint8)
        if not cached(tmp_path):  # while this build is under way, another begins and ends
            assert cache.build_once("key", blocks_of_another, rows=3, shape=(3,)).array.shape == (3, 3)
        yield np.ones((1, 3), np.uint8)

    assert cache.build_once("key", blocks, rows=3, shape=(3,)).array.tolist() == np.ones((3, 3)).tolist()
    assert len(cached(tmp_path)) == 1


def test_available_memory_is_plausible() -> None:
    assert 0 <= cache.available_memory() < 2**60
    assert cache.fits(0)
