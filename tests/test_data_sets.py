"""The named data sets: real copies where they are at hand, forged ones otherwise; what is said when missing."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image

from vaekit.data import downloads, load
from vaekit.data.dataset import holdout
from vaekit.data.loading import data_root
from vaekit.errors import VaekitError
from vaekit.registry import datasets


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    if file.suffix == ".gz":
        content = gzip.compress(content)
    file.write_bytes(content)


def forge_mnist(root: Path, ending: str = "") -> dict[str, np.ndarray]:
    random = np.random.RandomState(1)
    made = {}
    for part, count in (("train", 60), ("t10k", 20)):
        made[part] = random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        write_idx(root / f"MNIST/raw/{part}-images-idx3-ubyte{ending}", made[part])
        write_idx(root / f"MNIST/raw/{part}-labels-idx1-ubyte{ending}", np.arange(count, dtype=np.uint8) % 10)
    return made


def forge_celeba(root: Path, parts: list[int]) -> None:
    images = root / "celeba/img_align_celeba"
    images.mkdir(parents=True)
    for number, _ in enumerate(parts, 1):
        Image.new("RGB", (178, 218), (number * 20, 0, 0)).save(images / f"{number:06d}.jpg")
    rows = [f"{number:06d}.jpg {part}" for number, part in enumerate([*parts, 0, 1, 2], 1)]
    (root / "celeba/list_eval_partition.txt").write_text("\n".join(rows) + "\n")


def test_import_is_light() -> None:
    code = "import sys, vaekit.data; sys.exit(bool({'torchvision', 'sklearn', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digits() -> None:
    data = load("digits")
    assert data.shape == (1, 8, 8)
    assert [len(split) for split in data.splits.values()] == [1437, 180, 180]
    assert data.train.samples.dtype == torch.uint8
    assert int(data.train.samples.max()) == 255
    assert data.test is not None
    assert data.test.labels is not None
    assert set(data.test.labels.tolist()) == set(range(10))
    assert torch.equal(data.train.samples, load("digits").train.samples)
    assert json.loads(json.dumps(data.protocol)) == data.protocol


def test_common_options() -> None:
    data = load("digits", image_size=16, channels=3, limit=5)
    assert data.shape == (3, 16, 16)
    assert [len(split) for split in data.splits.values()] == [5, 5, 5]
    assert data.notes == ["limited to the first 5 samples of each split"]
    assert data.protocol["image_size"] == 16
    assert data.protocol["samples"] == {"train": 5, "valid": 5, "test": 5}
    sharp = load("digits", image_size=4, antialias=False).train.samples
    assert not torch.equal(sharp, load("digits", image_size=4).train.samples)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_sets_equal_torchvision(real_data: Path, name: str, folder: str) -> None:
    data = load(name, real_data, offline=True)
    assert [len(split) for split in data.splits.values()] == [50_000, 10_000, 10_000]
    theirs = getattr(torchvision.datasets, folder)(real_data, train=True)
    ours = torch.cat([data.train.samples, data.valid.samples]).squeeze(1)
    assert torch.equal(ours, theirs.data)
    assert data.train.labels is not None
    assert torch.equal(data.train.labels, theirs.targets[:50_000])
    assert data.notes == []


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_file_formats(tmp_path: Path, ending: str) -> None:
    made = forge_mnist(tmp_path, ending)
    data = load("mnist", tmp_path, offline=True)
    assert torch.equal(data.train.samples[:, 0], torch.from_numpy(made["train"][:50]))
    assert data.test is not None
    assert torch.equal(data.test.samples[:, 0], torch.from_numpy(made["t10k"]))


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08\x03", b"\0\0\x0d\x01" + bytes(8)])
def test_damaged_idx_file(tmp_path: Path, damage: bytes) -> None:
    forge_mnist(tmp_path)
    (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(damage)
    with pytest.raises(VaekitError, match="t10k-images-idx3-ubyte is damaged"):
        load("mnist", tmp_path, offline=True)


def test_cifar10_part_is_announced(real_data: Path) -> None:
    data = load("cifar10", real_data, offline=True)
    assert [len(split) for split in data.splits.values()] == [18_000, 2_000, 5_000]
    assert "20,000 of 50,000 training and 5,000 of 10,000 test images found" in data.notes[0]
    with np.load(real_data / "cifar10/test.npz") as file:
        expected = torch.from_numpy(file["images"]).permute(0, 3, 1, 2)
    assert data.test is not None
    assert torch.equal(data.test.samples, expected)


def test_cifar10_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (10, 3072)).astype(np.uint8)
    sums = {}
    for name in ["batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))]:
        content = pickle.dumps({"data": pixels, "labels": list(range(10)), "label_names": list("abcdefghij")})
        (place / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    with pytest.raises(VaekitError, match="missing or damaged"):  # the sums are not the official ones
        load("cifar10", tmp_path, offline=True)
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(theirs, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": sums["batches.meta"]})
    data = load("cifar10", tmp_path, offline=True)
    assert [len(split) for split in data.splits.values()] == [45, 5, 10]
    assert data.test is not None
    assert torch.equal(data.test.samples, torch.from_numpy(pixels).view(10, 3, 32, 32))


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "svhn"
    place.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 20)).astype(np.uint8)
    entries = {}
    for part in ("train", "test"):
        file = place / f"{part}_32x32.mat"
        scipy.io.savemat(file, {"X": pixels, "y": np.arange(20)[:, None] % 10 + 1})
        entries[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", entries)
    data = load("svhn", tmp_path, offline=True, valid_fraction=0.25)
    assert [len(split) for split in data.splits.values()] == [15, 5, 20]
    assert data.test is not None
    assert torch.equal(data.test.samples, torch.from_numpy(pixels).permute(3, 2, 0, 1))
    assert data.test.labels is not None
    assert data.test.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_partial_celeba(real_data: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    data = load("celeba", real_data, limit=40, progress=lambda *step: seen.append(step))
    assert "6,000 of 202,599 images found" in data.notes
    assert "CelebA is for non-commercial research only" in data.notes
    assert data.shape == (3, 64, 64)
    assert [len(split) for split in data.splits.values()] == [40, 40, 40]
    assert seen[-1] == (120, 120, "decoding celeba")
    assert data.protocol["crop"] == 140
    # The first training face is 000002.jpg, whose crop and resize torchvision computes in its own way.
    image = Image.open(real_data / "celeba/img_align_celeba/000002.jpg")
    transforms = torchvision.transforms
    steps = [transforms.PILToTensor(), transforms.CenterCrop(140), transforms.Resize(64, antialias=True)]
    expected = transforms.Compose(steps)(image)
    assert (data.train.samples[0].int() - expected.int()).abs().max() <= 1


def test_celeba_keeps_the_official_partition(real_data: Path) -> None:
    data = load("celeba", real_data, image_size=8)
    assert [len(split) for split in data.splits.values()] == [4_560, 780, 660]


def test_celeba_without_validation_images(tmp_path: Path) -> None:
    forge_celeba(tmp_path, [0] * 9 + [2])
    data = load("celeba", tmp_path, image_size=8)
    assert [len(split) for split in data.splits.values()] == [8, 1, 1]
    assert any("validation" in note for note in data.notes)


def test_celeba_partition_of_another_kind(tmp_path: Path) -> None:
    forge_celeba(tmp_path, [0, 1])
    (tmp_path / "celeba/list_eval_partition.txt").write_text("image_id,partition\n")
    with pytest.raises(VaekitError, match="'image_id,partition', where 'NAME.jpg 0'"):
        load("celeba", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("svhn", "train_32x32.mat"),
        ("celeba", "img_align_celeba/000001.jpg"),
    ],
)
def test_missing_data_says_what_to_put_where(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(VaekitError) as raised:
        load(name, tmp_path, offline=True)
    assert words in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir()), "a refused load left something behind"


def test_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(downloads, "_open", no_network)
    with pytest.raises(VaekitError, match=r"could not be downloaded \(no route to host\): put train-images"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("minst", {}, "did you mean 'mnist'"),
        ("folder", {}, "needs a path"),
        ("no/such/place", {}, "no file or folder no/such/place"),
        (__file__, {}, "is no data set"),
        ("digits", {"image_sze": 8}, "'data.image_sze' of dataset 'digits': did you mean 'image_size'"),
        ("digits", {"image_size": "wide"}, "data.image_size = 'wide' is not valid"),
        ("digits", {"channels": 2}, "data.channels = 2 is not valid"),
        ("digits", {"image_size": 0}, "image_size must be 1 or more"),
        ("digits", {"limit": 0}, "limit must be 1 or more"),
        ("digits", {"crop": 4}, "unknown option 'data.crop'"),
    ],
)
def test_user_errors(name: str, options: dict, words: str) -> None:
    with pytest.raises(VaekitError) as raised:
        load(name, **options)
    assert words in str(raised.value)


def test_registry_knows_them_without_importing() -> None:
    assert set(datasets.names()) >= {
        "digits",
        "mnist",
        "fashion-mnist",
        "cifar10",
        "svhn",
        "celeba",
        "folder",
        "arrays",
    }
    assert all(datasets.info(name).about for name in datasets.names())
    for name in datasets.names():
        assert "limit" in datasets.options(name)


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path / "env"))
    assert data_root("given") == Path("given")
    assert data_root() == tmp_path / "env"
    monkeypatch.delenv("VAEKIT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data_root() == tmp_path / "xdg/vaekit/data"


def test_holdout_is_fixed_and_disjoint() -> None:
    kept, held = holdout(10, 0.3)
    assert sorted([*kept, *held]) == list(range(10))
    assert held.tolist() == [2, 4, 8]  # NumPy promises this stream; a change would mix training and validation data
    for fraction in (0.0, 1.0, -1.0):
        with pytest.raises(VaekitError, match="valid_fraction"):
            holdout(10, fraction)
    with pytest.raises(VaekitError, match="two or more"):
        holdout(1, 0.5)
