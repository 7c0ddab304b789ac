"""The standard small data sets, read whole into memory, and downloaded where that is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.array_files import read_array
from vaekit.data.dataset import Dataset, Progress, Split, finish, holdout
from vaekit.data.downloads import fetch, unpack
from vaekit.data.idx import IDX_FILES, find_idx, read_idx
from vaekit.data.images import prepare
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["cifar10", "digits", "fashion_mnist", "mnist", "svhn"]

_IDX_URLS = {
    "MNIST": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
}
_SVHN = "https://ufldl.stanford.edu/housenumbers/"


@datasets.register(
    "digits",
    about="1,797 handwritten digits, 8x8, grey; embedded in scikit-learn",
    source="Optical Recognition of Handwritten Digits, Alpaydin and Kaynak, 1998, UCI Machine Learning Repository",
)
def digits(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return scikit-learn's digits, 0..16 scaled to 0..255, with a fixed random 80/10/10 split (none is official)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    kept, test = holdout(len(images), 0.1)
    train, valid = holdout(len(kept), 1 / 9)
    pixels: dict[str, Any] = {"image_size": image_size, "antialias": antialias, "channels": channels}
    whole = Split(prepare(images, **pixels), labels)
    splits = {
        name: whole.rows(torch.from_numpy(rows))
        for name, rows in {"train": kept[train], "valid": kept[valid], "test": test}.items()
    }
    return finish("digits", splits, limit=limit, split="seeded 80/10/10", **pixels)


@datasets.register(
    "mnist",
    about="70,000 handwritten digits, 28x28, grey",
    source="Gradient-Based Learning Applied to Document Recognition, LeCun et al., 1998",
    needs=("a download of 11 MB, or MNIST/raw under the data root",),
)
def mnist(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return MNIST: 50,000 to train, the last 10,000 of the official training images to validate, 10,000 to test."""
    pixels: dict[str, Any] = {"image_size": image_size, "antialias": antialias, "channels": channels}
    return _idx_set("mnist", "MNIST", root, progress, offline, limit, pixels)


@datasets.register(
    "fashion-mnist",
    about="70,000 garments, 28x28, grey",
    source="Fashion-MNIST, Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747",
    needs=("a download of 30 MB, or FashionMNIST/raw under the data root",),
)
def fashion_mnist(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return Fashion-MNIST: 50,000 to train, the last 10,000 training images to validate, 10,000 to test."""
    pixels: dict[str, Any] = {"image_size": image_size, "antialias": antialias, "channels": channels}
    return _idx_set("fashion-mnist", "FashionMNIST", root, progress, offline, limit, pixels)


@datasets.register(
    "cifar10",
    about="60,000 photographs of ten classes, 32x32, colour",
    source="Learning Multiple Layers of Features from Tiny Images, Krizhevsky, 2009",
    needs=("a download of 163 MB, or cifar-10-batches-py (or cifar10/{train,test}.npz) under the data root",),
)
def cifar10(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] | None = None,
    valid_fraction: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Return CIFAR-10 with a fixed random part of the training images held out, and the official test images.

    torchvision's layout is looked for first, then `cifar10/{train,test}.npz` with `images` and `labels`.
    """
    arrays = [root / "cifar10" / f"{part}.npz" for part in ("train", "test")]
    if not (root / "cifar-10-batches-py").is_dir() and all(file.is_file() for file in arrays):
        parts = [_npz_part(file) for file in arrays]
    else:
        layout = f"the folder cifar-10-batches-py (cifar-10-python.tar.gz unpacked) into {root}"
        # torchvision compares the MD5 of every pickled file with the official one before it opens it.
        splits = [{"train": True}, {"train": False}]
        loaded = _from_torchvision("cifar10", "CIFAR10", root, offline, layout, splits, partial(_get_cifar, progress))
        parts = [(_nchw(part.data), torch.tensor(part.targets)) for part in loaded]
    found = [len(labels) for _, labels in parts]
    notes = []
    if found != [50_000, 10_000]:
        notes.append(
            f"{found[0]:,} of 50,000 training and {found[1]:,} of 10,000 test images found: figures from a part of "
            "CIFAR-10 are not comparable with published ones"
        )
    pixels: dict[str, Any] = {"image_size": image_size, "antialias": antialias, "channels": channels}
    return _with_test("cifar10", parts, valid_fraction, limit, notes, pixels)


@datasets.register(
    "svhn",
    about="99,289 house-number digits, 32x32, colour",
    source="Reading Digits in Natural Images with Unsupervised Feature Learning, Netzer et al., 2011",
    needs=("a download of 246 MB, or svhn/{train,test}_32x32.mat under the data root",),
)
def svhn(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] | None = None,
    valid_fraction: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Return SVHN (cropped digits, without `extra`) with a fixed random part held out, and the official test images."""
    place = root / "svhn"
    layout = f"train_32x32.mat and test_32x32.mat into {place}"
    splits = [{"split": "train"}, {"split": "test"}]
    loaded = _from_torchvision("svhn", "SVHN", place, offline, layout, splits, partial(_get_svhn, progress))
    parts = [(torch.from_numpy(np.ascontiguousarray(part.data)), torch.from_numpy(part.labels)) for part in loaded]
    pixels: dict[str, Any] = {"image_size": image_size, "antialias": antialias, "channels": channels}
    notes = ["SVHN is for non-commercial use only"]
    return _with_test("svhn", parts, valid_fraction, limit, notes, pixels)


# ---- shared --------------------------------------------------------------------------------------------------------


def _with_test(
    name: str,
    parts: list[tuple[Tensor, Tensor]],
    valid_fraction: float,
    limit: int | None,
    notes: list[str],
    pixels: dict[str, Any],
) -> Dataset:
    """Hold validation samples out of the first part; the second is the test split."""
    known, test = (Split(prepare(images, **pixels), labels) for images, labels in parts)
    train, valid = (known.rows(torch.from_numpy(rows)) for rows in holdout(len(known), valid_fraction))
    splits = {"train": train, "valid": valid, "test": test}
    split = f"official test, {valid_fraction:g} of training held out"
    return finish(name, splits, limit=limit, notes=notes, split=split, **pixels)


def _from_torchvision(
    name: str,
    class_name: str,
    root: Path,
    offline: bool,
    layout: str,
    parts: list[dict[str, Any]],
    get: Callable[[Any, Path], None],
) -> list[Any]:
    """Return torchvision's data set once per entry of `parts`, downloaded first where that is needed and allowed."""
    import torchvision.datasets

    make: Callable[..., Any] = getattr(torchvision.datasets, class_name)
    with contextlib.suppress(RuntimeError, OSError):
        return [make(root, **part) for part in parts]
    with _downloading(name, offline, layout):
        get(make, root)
        return [make(root, **part) for part in parts]


@contextlib.contextmanager
def _downloading(name: str, offline: bool, layout: str) -> Iterator[None]:
    """Say what to put where, if a download is forbidden or fails."""
    if offline:
        raise VaekitError(f"data set '{name}' is missing or damaged and offline forbids a download: put {layout}")
    try:
        yield
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise VaekitError(f"data set '{name}' could not be downloaded ({reason}): put {layout}") from error


def _get_cifar(progress: Progress | None, theirs: Any, root: Path) -> None:
    """Put the batches of CIFAR-10 where torchvision looks for them."""
    archive = root / theirs.filename
    fetch(theirs.url, archive, theirs.tgz_md5, progress)
    files = [name for name, _ in (*theirs.train_list, *theirs.test_list)]
    unpack(archive, [f"{theirs.base_folder}/{name}" for name in (*files, theirs.meta["filename"])], root)
    archive.unlink()


def _get_svhn(progress: Progress | None, theirs: Any, root: Path) -> None:
    """Put the files of SVHN where torchvision looks for them."""
    for part in ("train", "test"):
        _, file, md5, *_ = theirs.split_list[part]
        fetch(_SVHN + file, root / file, md5, progress)


def _nchw(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _npz_part(file: Path) -> tuple[Tensor, Tensor]:
    images, labels, *_ = read_array(file)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or labels is None:
        raise VaekitError(f"{file} must hold uint8 'images' of shape (N, 32, 32, 3) and 'labels'")
    return _nchw(images), torch.from_numpy(labels.astype(np.int64))


def _idx_set(
    name: str,
    folder: str,
    root: Path,
    progress: Progress | None,
    offline: bool,
    limit: int | None,
    pixels: dict[str, Any],
) -> Dataset:
    """Return a set in MNIST's file format, with the last 10,000 training images as validation."""
    raw = root / folder / "raw"
    if missing := [file for file in IDX_FILES if not find_idx(raw / file)]:
        with _downloading(name, offline, f"{', '.join(IDX_FILES)} (each as it is or with .gz) into {raw}"):
            import torchvision.datasets

            sums = dict(getattr(torchvision.datasets, folder).resources)
            for file in missing:
                fetch(f"{_IDX_URLS[folder]}{file}.gz", raw / f"{file}.gz", sums[f"{file}.gz"], progress)
    train_images, train_labels, test_images, test_labels = (read_idx(raw / file) for file in IDX_FILES)
    for images, labels, part in ((train_images, train_labels, "train"), (test_images, test_labels, "t10k")):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise VaekitError(
                f"the files {part}-* in {raw} do not go together, with images of shape {tuple(images.shape)} and "
                f"labels of shape {tuple(labels.shape)}: delete them and fetch them again"
            )
    known = Split(prepare(train_images.unsqueeze(1), **pixels), train_labels.long())
    test = Split(prepare(test_images.unsqueeze(1), **pixels), test_labels.long())
    held = min(10_000, len(known) // 6)
    splits = {"train": known.rows(slice(0, len(known) - held)), "valid": known.rows(slice(len(known) - held, None))}
    split = "official test, the last sixth of training held out"
    return finish(name, {**splits, "test": test}, limit=limit, split=split, **pixels)
