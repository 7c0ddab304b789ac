"""Image files, decoded once, in parallel, into the cache; any folder of them as a data set."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from vaekit.data.cache import Stored, block_rows, build_once
from vaekit.data.dataset import Dataset, Progress, Split, at_least_one, finish, holdout
from vaekit.data.images import ENDINGS, attempt, quiet
from vaekit.errors import VaekitError, one_line
from vaekit.registry import datasets

__all__ = ["decode_files", "decode_splits", "folder", "named"]

_NAMED = 10  # skipped files named in a note; the rest are counted

_Labelled = Sequence[tuple[str, int]]


@datasets.register("folder", about="Any folder of images, with subfolders (give its path)")
def folder(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int = 64,
    crop: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] = 3,
    valid_fraction: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Return every image under a folder, cropped to the centre square and resized.

    Subfolders `train`, `valid` (or `val`) and `test` are the splits where `train` is there; otherwise a fixed random
    part is held out for validation. Any other first subfolder is a class where every image lies in one.

    Arguments:
        root: The folder.
        progress: Called with (files done, files, words) while the images are decoded for the first time.
        offline: Nothing is ever downloaded.
        image_size: Side of the images.
        crop: Side of the centre crop before the resize; None, and any larger value, takes the largest square.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 3, or 1 for grey.
        valid_fraction: The part held out where there is no `valid` subfolder.
        limit: Keep the first so many images of each split.

    Raises:
        VaekitError: No image is found, or none can be read.
    """
    files = _images_under(root)
    if not files:
        raise VaekitError(f"the folder {root} holds no image: files must end in {', '.join(ENDINGS)}")
    alias = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
    tops = {file.partition("/")[0] for file in files if "/" in file}
    named = any(alias.get(top.lower()) == "train" for top in tops)
    found: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    ignored = 0
    for file in files:
        part = alias.get(file.partition("/")[0].lower()) if named and "/" in file else None
        if named and part is None:
            ignored += 1
        else:
            found[part or "train"].append(file)
    notes = [f"{ignored:,} images outside train, valid and test ignored"] if ignored else []
    split = "folders"
    if not found["valid"]:
        kept, held = holdout(len(found["train"]), valid_fraction)
        found["valid"] = [found["train"][row] for row in held]
        found["train"] = [found["train"][row] for row in kept]
        split = f"{'folders, ' if named else ''}seeded, {valid_fraction:g} held out"
    splits, classes = _labelled(found, depth=1 if named else 0)
    pixels = {"image_size": image_size, "crop": crop, "antialias": antialias, "channels": channels}
    return decode_splits(str(root), root, splits, pixels, limit, notes, progress, split=split, classes=classes)


def _images_under(root: Path) -> list[str]:
    """Return the image files below `root` as relative POSIX paths, sorted; links are followed, hidden names are not."""
    seen: set[str] = set()
    found: list[str] = []
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(root)
        found += [(below / name).as_posix() for name in names if name.lower().endswith(ENDINGS) and name[0] != "."]
    return sorted(found)


def _labelled(found: Mapping[str, list[str]], depth: int) -> tuple[dict[str, list[tuple[str, int]]], list[str]]:
    """Number the classes, which are the folders at this depth; -1 and no classes where some file is in none."""
    everything = [file.split("/") for files in found.values() for file in files]
    tops = {parts[depth] for parts in everything if len(parts) > depth + 1}
    complete = len(tops) > 1 and all(len(parts) > depth + 1 for parts in everything)
    classes = sorted(tops) if complete else []
    number = {name: index for index, name in enumerate(classes)}
    splits = {
        split: [(file, number[file.split("/")[depth]] if complete else -1) for file in files]
        for split, files in found.items()
    }
    return splits, classes


def decode_splits(
    name: str,
    place: Path,
    splits: Mapping[str, _Labelled],
    pixels: dict[str, Any],
    limit: int | None,
    notes: list[str],
    progress: Progress | None,
    **protocol: Any,
) -> Dataset:
    """Decode the files of all splits, one after the other, into one array and cut it into the splits.

    Arguments:
        name: The data set.
        place: What the names of files are relative to.
        splits: Per split, the files with a number each, which becomes the label; -1 for all where there is none.
        pixels: The options of `decode`.
        limit: Keep the first so many files of each split.
        notes: What there is to announce.
        progress: Called with (files done, files, words).
        protocol: What else to record.

    Raises:
        VaekitError: No file can be read.
    """
    at_least_one(limit=limit)
    splits = {split: files[:limit] for split, files in splits.items()}
    files = [file for part in splits.values() for file, _ in part]
    stored = decode_files(name, place, files, pixels, progress)
    notes += stored.notes
    if stored.skipped:
        notes.append(f"{len(stored.skipped):,} unreadable files skipped: {named(files, stored.skipped)}")
    if not len(stored.array):
        raise VaekitError(f"none of the {len(files):,} images under {place} can be read: {notes[-1]}")
    samples = torch.from_numpy(stored.array)
    labels = torch.tensor([label for part in splits.values() for _, label in part])
    kept = torch.tensor([row not in stored.skipped for row in range(len(files))])
    result: dict[str, Split | None] = {}
    begin = row = 0
    for split, part in splits.items():
        mask = kept[row : row + len(part)]
        count = int(mask.sum())
        known = None if (labels < 0).any() else labels[row : row + len(part)][mask]
        result[split] = Split(samples[begin : begin + count], known, stored.mapped) if count else None
        begin, row = begin + count, row + len(part)
    return finish(name, result, limit=limit, notes=notes, **pixels, **protocol)


def decode_files(
    name: str, place: Path, files: Sequence[str], pixels: dict[str, Any], progress: Progress | None
) -> Stored:
    """Return the pixels of files, in their order, without those that cannot be read; black for an empty name.

    Arguments:
        name: The data set, for the words of `progress`.
        place: What the names are relative to.
        files: The names.
        pixels: The options of `decode`.
        progress: Called with (files done, files, words).
    """
    at_least_one(image_size=pixels["image_size"], crop=pixels["crop"])
    key = [[file, *_stamp(place / file)] if file else [] for file in files]
    shape = (pixels["channels"], pixels["image_size"], pixels["image_size"])

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        decoded = partial(_attempt, place, pixels)
        step = block_rows(math.prod(shape))
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool, quiet():
            for start in range(0, len(files), step):
                results = list(pool.map(decoded, files[start : start + step]))
                skipped.update({start + row: why for row, why in enumerate(results) if isinstance(why, str)})
                good = [result for result in results if not isinstance(result, str)]
                if good:
                    yield np.stack(good)
                if progress is not None:
                    progress(min(start + step, len(files)), len(files), f"decoding {name}")

    return build_once([key, pixels, Image.MAX_IMAGE_PIXELS], blocks, rows=len(files), shape=shape)


def named(files: Sequence[str], skipped: Mapping[int, str]) -> str:
    """Return the first skipped files with their reasons, and how many more there are."""
    named = sorted(one_line(f"{files[row]} ({why})") for row, why in skipped.items())
    rest = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
    return f"{', '.join(named[:_NAMED])}{rest}"


def _stamp(path: Path) -> tuple[int, int, bool]:
    """Return size, time of change and whether we may read it; zeros for a dangling link, which is then skipped."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, False
    return stat.st_size, stat.st_mtime_ns, os.access(path, os.R_OK)


def _attempt(place: Path, pixels: Mapping[str, Any], file: str) -> np.ndarray | str:
    """Return the pixels of a file, or why there are none."""
    if not file:
        return np.zeros((pixels["channels"], pixels["image_size"], pixels["image_size"]), np.uint8)
    return attempt(place / file, **pixels)
