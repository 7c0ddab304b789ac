"""Several modalities of the user's own as a table: a `.csv` file with a row for each sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.columns import Column, numbers, one_hot, read_columns, vectors
from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split, at_least_one, finish, holdout
from vaekit.data.files import decode_files, named
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["table"]

_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


@datasets.register("table", about="A .csv file: a row for each sample, a column for each modality (give its path)")
def table(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int = 64,
    channels: Literal[1, 3] = 3,
    valid_fraction: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Return the modalities that the columns of a table hold.

    What most cells of a column look like decides what it is:

    - names of image files: images, cropped to the centre square and resized;
    - names of `.npy` files: float32 arrays of one shape;
    - numbers: a vector of one number, and `gene.x`, `gene.y`, ... together one vector `gene`; kept as they are,
      neither centred nor scaled;
    - words: classes in one-hot form, in alphabetical order; their names are in the protocol.

    Files are relative to the table. A column `label` (integers or words) is the label, and a column `split` (`train`,
    `valid`, `test`) says where a sample belongs. An empty cell means that the modality of this sample is missing.

    Arguments:
        root: The file.
        progress: Called with (files done, files, words) while images are decoded for the first time.
        offline: Nothing is ever downloaded.
        image_size: Side of the images.
        channels: 3, or 1 for grey.
        valid_fraction: The part of the training samples held out where no sample is of the split `valid`.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: The table or what it names cannot be used; the sentence names the line.
    """
    at_least_one(limit=limit, image_size=image_size)
    columns = read_columns(root)
    special = {name: columns.pop(name, None) for name in ("label", "split")}
    if not columns:
        raise VaekitError(f"{root} has no column beside label and split: give each modality a column")
    groups: dict[str, list[Column]] = {}
    for name, column in columns.items():
        groups.setdefault(name.partition(".")[0], []).append(column)
    available = torch.stack([_there(group) for group in groups.values()], 1)
    if len(empty := (~available.any(1)).nonzero()):
        line = next(iter(columns.values())).lines[int(empty[0])]
        raise VaekitError(f"{len(empty):,} rows of {root} have no modality, the first on line {line}: delete them")
    notes: list[str] = []
    parts, how = _parts(root, special["split"], len(available), valid_fraction)
    order = np.concatenate([rows[:limit] for rows in parts.values()])
    classes: dict[str, list[str]] = {}
    pixels: dict[str, Any] = {"image_size": image_size, "crop": None, "antialias": True, "channels": channels}
    modalities = {
        name: _modality(name, group, there, order, classes, pixels, notes, progress)
        for (name, group), there in zip(groups.items(), available.unbind(1), strict=True)
    }
    labels = None if special["label"] is None else _labels(special["label"], classes)[order]
    whole = PairedSplit(modalities, labels, None if available.all() else available[order])
    splits, begin = {}, 0
    for split, rows in parts.items():
        splits[split] = whole.rows(slice(begin, begin := begin + len(rows[:limit])))
    protocol: dict[str, Any] = {"image_size": image_size, "channels": channels, "split": how, "classes": classes}
    return finish(str(root), splits, is_image=False, limit=limit, notes=notes, **protocol)


def _there(group: list[Column]) -> Tensor:
    """Return for each row whether no column of a modality is empty there."""
    return torch.tensor([all(cells) for cells in zip(*(column.cells for column in group), strict=True)])


def _modality(
    name: str,
    group: list[Column],
    there: Tensor,
    order: np.ndarray,
    classes: dict[str, list[str]],
    pixels: dict[str, Any],
    notes: list[str],
    progress: Progress | None,
) -> Split:
    """Return the rows `order` of one modality, zero where it is missing."""
    first = group[0]
    if not there.any():
        raise VaekitError(f"{first.where} is empty in every row: fill it or take it out")
    kinds = {column.kind for column in group}
    if len(group) > 1 and kinds != {"numbers"}:
        odd = next(column for column in group if column.kind != "numbers")
        raise VaekitError(
            f"{odd.where} holds {odd.kind}: only numbers can share the vector '{name}', so give it a name of its own"
        )
    if kinds == {"numbers"}:
        some = torch.tensor([any(cells) for cells in zip(*(column.cells for column in group), strict=True)]) & ~there
        if some.any():
            notes.append(f"'{name}' counts as missing in {int(some.sum()):,} rows, where some of its cells are empty")
        samples = np.stack([numbers(column) for column in group], 1)
        samples[~there.numpy()] = 0.0
        return Split(torch.from_numpy(samples[order]))
    if kinds == {"words"}:
        classes[name], samples = one_hot(first)
        return Split(torch.from_numpy(samples[order]), values="classes")
    first.check_files()
    if kinds == {"arrays"}:
        return Split(torch.from_numpy(vectors(first)[order]))
    files = [first.cells[row] for row in order]
    stored = decode_files(name, first.table.parent, files, pixels, progress)
    notes += stored.notes
    if stored.skipped:
        raise VaekitError(
            f"{len(stored.skipped):,} images in {first.where} cannot be read: {named(files, stored.skipped)}; "
            "replace them, or leave their cells empty"
        )
    return Split(torch.from_numpy(stored.array), mapped=stored.mapped)


def _parts(root: Path, column: Column | None, count: int, valid_fraction: float) -> tuple[dict[str, np.ndarray], str]:
    """Return the rows of each split, and how they came about."""
    named = ["train"] * count
    if column is not None:
        column.check_complete()
        for line, cell in zip(column.lines, column.cells, strict=True):
            if cell.lower() not in _SPLITS:
                raise VaekitError(f"line {line} of {root} has the split '{cell}': use train, valid or test")
        named = [_SPLITS[cell.lower()] for cell in column.cells]
    parts = {split: np.flatnonzero(np.array(named) == split) for split in ("train", "valid", "test")}
    parts = {split: rows for split, rows in parts.items() if len(rows) or split == "train"}
    how = "named in the table"
    if "valid" not in parts:
        kept, held = holdout(len(parts["train"]), valid_fraction)
        parts["train"], parts["valid"] = parts["train"][kept], parts["train"][held]
        how = f"{'named in the table, ' if column is not None else ''}seeded, {valid_fraction:g} held out"
    return parts, how


def _labels(column: Column, classes: dict[str, list[str]]) -> Tensor:
    """Return the labels as they are where all are integers, otherwise numbered in alphabetical order."""
    column.check_complete()
    try:
        return torch.tensor([int(cell) for cell in column.cells])
    except (ValueError, RuntimeError):  # words, or numbers of too many digits
        classes["label"] = sorted(set(column.cells))
        number = {word: index for index, word in enumerate(classes["label"])}
        return torch.tensor([number[cell] for cell in column.cells])
