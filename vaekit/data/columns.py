"""The columns of a table: what their cells are, and the cells as arrays."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np

from vaekit.data.array_files import read_array
from vaekit.data.cache import available_memory
from vaekit.data.images import ENDINGS
from vaekit.errors import VaekitError

__all__ = ["Column", "numbers", "one_hot", "read_columns", "vectors"]

_LARGEST = float(np.finfo(np.float32).max)
_TIMES = 20  # a table in memory is about so much larger than its file
_MOST_CLASSES = 20  # any more of them must repeat themselves, or the column is no class but a name


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Arguments:
        table: The file.
        name: What stands in the first row.
        lines: The line of the file on which each cell stands.
        cells: What stands in them, without the space around it; empty where a value is missing.
    """

    table: Path
    name: str
    lines: Sequence[int]
    cells: Sequence[str]

    @property
    def where(self) -> str:
        """How sentences name the column."""
        return f"column '{self.name}' of {self.table}"

    @cached_property
    def kind(self) -> str:
        """What most cells are: `images`, `arrays`, `numbers` or `words`."""
        return Counter(_kind(cell) for cell in self.cells if cell).most_common(1)[0][0]

    def check_complete(self) -> None:
        """Raise VaekitError where a cell is empty."""
        if "" in self.cells:
            line = self.lines[self.cells.index("")]
            raise VaekitError(f"line {line} of {self.table} has no {self.name}: fill it, or take the column out")

    def check_files(self) -> None:
        """Raise VaekitError where a cell names no file, one outside the table's folder, or one of another kind."""
        for line, cell in zip(self.lines, self.cells, strict=True):
            if PurePath(cell).is_absolute() or ".." in PurePath(cell).parts:
                raise VaekitError(
                    f"line {line} of {self.table} names '{cell[:60]}', outside the folder of the table: put the file "
                    "below that folder, or a link to it"
                )
            if cell and _kind(cell) != self.kind:
                raise VaekitError(
                    f"line {line} of {self.table} has '{cell[:60]}' in the column '{self.name}' of {self.kind}: "
                    "name a file of that kind"
                )
        absent = [cell for cell in self.cells if cell and not (self.table.parent / cell).is_file()]
        if absent:
            raise VaekitError(
                f"{len(absent):,} files of {self.where} are missing, the first is {self.table.parent / absent[0]}: "
                "put them there, or leave their cells empty"
            )


def read_columns(path: Path) -> dict[str, Column]:
    """Return the columns of a table by name.

    Raises:
        VaekitError: The file cannot be read, has no rows, a column without a name or two of one name, or a row of
            another length than the first.
    """
    try:
        if 0 < available_memory() < _TIMES * path.stat().st_size:
            raise VaekitError(f"{path} is too large to be read whole: save the samples as .npy, which is read in parts")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            names = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise VaekitError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VaekitError(f"{path} cannot be read as comma-separated text in UTF-8: {error}") from error
    if not rows:
        raise VaekitError(
            f"{path} has no rows: it needs the names of its columns on the first line, then a row for each sample"
        )
    for name in names:
        if not name.partition(".")[0].isidentifier():
            raise VaekitError(
                f"{path} has a column named '{name[:60]}': use letters, digits and _ for a modality, and commas "
                "between columns"
            )
        if names.count(name) > 1:
            raise VaekitError(f"{path} has two columns named '{name}': rename one of them")
    for line, row in rows:
        if len(row) != len(names):
            raise VaekitError(f"line {line} of {path} has {len(row)} cells, but there are {len(names)} columns")
    lines = [line for line, _ in rows]
    return {name: Column(path, name, lines, [row[at].strip() for _, row in rows]) for at, name in enumerate(names)}


def numbers(column: Column) -> np.ndarray:
    """Return the cells as float32 of shape (N,), zero where they are empty.

    Raises:
        VaekitError: A cell is no finite number.
    """
    values = np.zeros(len(column.cells), np.float32)
    for row, cell in enumerate(column.cells):
        if not cell:
            continue
        if _kind(cell) != "numbers" or not abs(value := float(cell)) <= _LARGEST:
            raise VaekitError(
                f"line {column.lines[row]} of {column.table} has '{cell[:60]}' in the column '{column.name}' of "
                "numbers: write a finite number, or nothing where it is missing"
            )
        values[row] = value
    return values


def one_hot(column: Column) -> tuple[list[str], np.ndarray]:
    """Return the classes in alphabetical order and the cells in one-hot form (N, classes), zero where empty.

    Raises:
        VaekitError: The words hardly ever repeat themselves.
    """
    words = sorted({cell for cell in column.cells if cell})
    if len(words) > max(_MOST_CLASSES, sum(map(bool, column.cells)) // 2):
        raise VaekitError(
            f"{column.where} holds {len(words):,} different words, too many to be classes: take the column out"
        )
    number = {word: index for index, word in enumerate(words)}
    samples = np.zeros((len(column.cells), len(words)), np.float32)
    for row, cell in enumerate(column.cells):
        if cell:
            samples[row, number[cell]] = 1.0
    return words, samples


def vectors(column: Column) -> np.ndarray:
    """Return the arrays that the cells name as float32 (N, *shape), zero where they are empty.

    Raises:
        VaekitError: A file cannot be read, or holds no finite numbers, or numbers of another shape than the first.
    """
    samples = np.zeros(0, np.float32)
    for row, cell in enumerate(column.cells):
        if not cell:
            continue
        file = column.table.parent / cell
        array = read_array(file).samples
        if array.dtype.kind not in "biuf" or not array.size or not (np.abs(array) <= _LARGEST).all():
            raise VaekitError(f"{file} (line {column.lines[row]} of {column.table}) must hold finite numbers")
        if not samples.size:
            samples = np.zeros((len(column.cells), *(array.shape or (1,))), np.float32)
        if (array.shape or (1,)) != samples.shape[1:]:
            raise VaekitError(
                f"{file} (line {column.lines[row]} of {column.table}) has shape {array.shape}, but the first has "
                f"{samples.shape[1:]}: give all of a column one shape"
            )
        samples[row] = array
    return samples


def _kind(cell: str) -> str:
    """Return what one cell looks like."""
    try:
        float(cell)
        return "numbers"
    except ValueError:
        lower = cell.lower()
        return "images" if lower.endswith(ENDINGS) else "arrays" if lower.endswith(".npy") else "words"
