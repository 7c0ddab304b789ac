"""CelebA: the faces alone, and the faces with their attributes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split, holdout
from vaekit.data.files import decode_splits
from vaekit.documents import read_text
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["celeba", "celeba_attributes"]


@datasets.register(
    "celeba",
    about="202,599 aligned faces, 64x64 after a centre crop of 140; partial copies accepted",
    source="Deep Learning Face Attributes in the Wild, Liu et al., 2015, arXiv 1411.7766",
    needs=("celeba/img_align_celeba and celeba/list_eval_partition.txt under the data root, placed by hand",),
)
def celeba(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int = 64,
    crop: int | None = 140,
    antialias: bool = True,
    channels: Literal[1, 3] = 3,
    limit: int | None = None,
) -> Dataset:
    """Return the CelebA faces that are there, in their official partition.

    Arguments:
        root: The data root, which holds `celeba/img_align_celeba/*.jpg` and `celeba/list_eval_partition.txt`.
        progress: Called with (files done, files, words) while the images are decoded for the first time.
        offline: Nothing is ever downloaded.
        image_size: Side of the images.
        crop: Side of the centre crop of the 178x218 photographs; None takes the largest square, 178.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 3, or 1 for grey.
        limit: Keep the first so many images of each split.

    Raises:
        VaekitError: The images or the partition file are missing.
    """
    pixels = {"image_size": image_size, "crop": crop, "antialias": antialias, "channels": channels}
    return _faces("celeba", root, pixels, limit, progress)


@datasets.register(
    "celeba-attributes",
    about="The faces of celeba, each with 40 binary attributes: modalities image and attributes",
    source="Deep Learning Face Attributes in the Wild, Liu et al., 2015, arXiv 1411.7766",
    needs=("what celeba needs, and celeba/list_attr_celeba.txt, placed by hand",),
)
def celeba_attributes(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int = 64,
    crop: int | None = 140,
    antialias: bool = True,
    channels: Literal[1, 3] = 3,
    limit: int | None = None,
) -> Dataset:
    """Return pairs of a face and its attributes, 1 for what is there and 0 for what is not.

    The names of the attributes, such as `Eyeglasses`, are in the protocol, in the order of the numbers.

    Arguments:
        root: The data root, with what `celeba` needs and `celeba/list_attr_celeba.txt`.
        progress: Called with (files done, files, words) while the images are decoded for the first time.
        offline: Nothing is ever downloaded.
        image_size: Side of the images.
        crop: Side of the centre crop of the 178x218 photographs; None takes the largest square, 178.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 3, or 1 for grey.
        limit: Keep the first so many pairs of each split.

    Raises:
        VaekitError: The images, the partition or the attributes are missing, or the attributes are damaged.
    """
    names, rows, bits = _attributes(root / "celeba" / "list_attr_celeba.txt")
    pixels = {"image_size": image_size, "crop": crop, "antialias": antialias, "channels": channels}
    faces = _faces("celeba-attributes", root, pixels, limit, progress, rows)
    table = torch.from_numpy(bits)
    splits = {
        name: PairedSplit(
            {
                "image": Split(split.samples, mapped=split.mapped),
                "attributes": Split(table[split.labels], values="binary"),
            }
        )
        for name, split in faces.splits.items()
    }
    protocol = {**faces.protocol, "attributes": names}
    return Dataset(faces.name, splits["train"], splits["valid"], splits.get("test"), False, faces.notes, protocol)


def _faces(
    name: str,
    root: Path,
    pixels: dict[str, Any],
    limit: int | None,
    progress: Progress | None,
    numbers: Mapping[str, int] | None = None,
) -> Dataset:
    """Return the images in the official partition, labelled with their `numbers` and without those that have none."""
    place = root / "celeba"
    images, partition = place / "img_align_celeba", place / "list_eval_partition.txt"
    if not images.is_dir() or not partition.is_file():
        raise VaekitError(
            f"CelebA has no automatic download: put its images as {images / '000001.jpg'} and so on, and the list of "
            f"its splits as {partition} (both from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), or name another "
            "folder as the data root"
        )
    present = set(os.listdir(images))
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "valid": [], "test": []}
    listed = unnumbered = 0
    for line in read_text(partition).splitlines():
        file, _, part = line.partition(" ")
        if part.strip() not in ("0", "1", "2"):
            raise VaekitError(f"{partition} has the line '{line[:60]}', where 'NAME.jpg 0', 1 or 2 is expected")
        listed += 1
        if file not in present:
            continue
        if numbers is not None and file not in numbers:
            unnumbered += 1
            continue
        number = -1 if numbers is None else numbers[file]
        splits[("train", "valid", "test")[int(part)]].append((f"img_align_celeba/{file}", number))
    found = sum(map(len, splits.values()))
    notes = ["CelebA is for non-commercial research only"]
    if found + unnumbered < listed:
        notes.append(f"{found + unnumbered:,} of {listed:,} images found")
    if unnumbered:
        notes.append(f"{unnumbered:,} images without attributes left out")
    if not found:
        raise VaekitError(
            f"{images} holds none of the images that {partition} lists: put {images / '000001.jpg'} there"
        )
    split = "official"
    if not splits["valid"]:
        files = splits["train"]
        splits["train"], splits["valid"] = ([files[row] for row in rows] for rows in holdout(len(files), 0.1))
        split = "official, a tenth of training held out"
        notes.append("no image of the official validation split found: a tenth of the training images is held out")
    return decode_splits(name, place, splits, pixels, limit, notes, progress, split=split)


def _attributes(file: Path) -> tuple[list[str], dict[str, int], np.ndarray]:
    """Return the names of the attributes, the row of each image by name, and the attributes (N, 40) as 0 and 1.

    The file has the number of images on its first line, the names on its second, then `NAME.jpg` and -1 or 1 for each.
    """
    if not file.is_file():
        raise VaekitError(
            f"the attributes of CelebA have no automatic download: put them as {file} "
            "(from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), or use the data set 'celeba'"
        )
    lines = read_text(file).splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    rows: dict[str, int] = {}
    values: list[list[str]] = []
    for number, line in enumerate(lines[2:], 3):
        image, *signs = line.split() or [""]
        if not image or len(signs) != len(names) or not set(signs) <= {"1", "-1"}:
            raise VaekitError(f"line {number} of {file} is not an image's name and {len(names)} times 1 or -1")
        rows[image] = len(values)
        values.append(signs)
    return names, rows, (np.array(values) == "1").reshape(len(values), -1).astype(np.float32)
