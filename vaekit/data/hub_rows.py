"""Images in the columns of tables: those of the Hugging Face `datasets` package, and Parquet files read from afar."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data.dataset import Progress
from vaekit.data.remote import Place, unreadable
from vaekit.data.stream import BLOCK
from vaekit.errors import VaekitError

__all__ = ["MappedRows", "ParquetRows"]

_KEPT = 2**28  # bytes of row groups that are kept for those who read the rest of them


class MappedRows:
    """The rows of a `datasets.Dataset`, which lie memory-mapped on this machine.

    Arguments:
        rows: The data set, a `datasets.Dataset`.
        column: The column that holds the images.
        label: The column that holds whole numbers, where there is one of that name.

    Raises:
        VaekitError: The column is missing or holds no images.
    """

    def __init__(self, rows: Any, column: str, label: str) -> None:
        from datasets import Image

        if column not in rows.column_names:
            raise _no_column(column, rows.column_names)
        kind = rows.features[column]
        if not isinstance(kind, Image) and getattr(kind, "dtype", "") not in ("binary", "large_binary"):
            raise _no_images(column, kind)
        self._label = label if getattr(rows.features.get(label), "dtype", "") in _WHOLE else None
        self.key = ["rows", rows._fingerprint, column, self._label]
        columns = [column, *([self._label] if self._label else [])]
        self._rows = rows.select_columns(columns).cast_column(column, Image(decode=False)).with_format("arrow")
        self._column = column
        self.sizes = _blocks(len(rows))

    def read(self, unit: int, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes of the images of these rows."""
        for row, cell in enumerate(self._part(unit, first, last).column(self._column).to_pylist(), first):
            yield _content(cell, self.name(unit, row))

    def labels(self, unit: int, first: int, last: int) -> np.ndarray:
        """Return the labels of these rows; -1 where there is none."""
        return _numbers(self._part(unit, first, last), self._label)

    def name(self, unit: int, row: int) -> str:
        """Say which sample this is."""
        return f"row {unit * BLOCK + row:,}"

    def _part(self, unit: int, first: int, last: int) -> Any:
        return self._rows[unit * BLOCK + first : unit * BLOCK + last]


class ParquetRows:
    """The rows of Parquet files, on this machine or another one, read one row group at a time.

    A row group is what such a file gives at once: large ones take memory and are read again for each part of them that
    is asked for, unless they are among the last that were read.

    Arguments:
        names: Paths and URLs.
        column: The column that holds the images.
        label: The column that holds whole numbers, where there is one of that name.
        progress: Called with (files done, files, words) while their footers are read.

    Raises:
        VaekitError: A file cannot be read, or the column is missing or holds no images.
    """

    def __init__(self, names: Sequence[str], column: str, label: str, progress: Progress | None = None) -> None:
        self.places, self._footers = [], []
        with ThreadPoolExecutor(16) as pool:
            for place, footer in pool.map(_footer, names):
                self.places.append(place)
                self._footers.append(footer)
                if progress is not None:
                    progress(len(self.places), len(names), "reading the footers of Parquet files")
        schema = self._footers[0].schema.to_arrow_schema()
        if column not in schema.names:
            raise _no_column(column, schema.names)
        kind = schema.field(column).type
        if not any(str(kind).startswith(images) for images in ("binary", "large_binary", "struct<bytes: ")):
            raise _no_images(column, kind)
        self._column = column
        self._label = label if label in schema.names and str(schema.field(label).type) in _WHOLE else None
        self._groups = [
            (file, group) for file, footer in enumerate(self._footers) for group in range(footer.num_row_groups)
        ]
        self.sizes = np.array([self._footers[file].row_group(group).num_rows for file, group in self._groups])
        stamps = json.dumps([[place.name, *place.stamp] for place in self.places])
        self.key = ["parquet", hashlib.sha256(stamps.encode()).hexdigest(), column, self._label]
        self._kept: OrderedDict[int, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, unit: int, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes of the images of these rows."""
        cells = self._table(unit).column(self._column).slice(first, last - first).to_pylist()
        for row, cell in enumerate(cells, first):
            yield _content(cell, self.name(unit, row))

    def labels(self, unit: int, first: int, last: int) -> np.ndarray:
        """Return the labels of these rows; -1 where there is none."""
        if self._label is None:
            return np.full(last - first, -1)
        return _numbers(self._load(unit, [self._label]).slice(first, last - first), self._label)

    def name(self, unit: int, row: int) -> str:
        """Say which sample this is."""
        file, group = self._groups[unit]
        return f"row {row:,} of row group {group:,} of {self.places[file].name}"

    def _table(self, unit: int) -> Any:
        """Return the images of a row group; threads that want the same one wait for the first of them."""
        with self._lock:
            found = self._kept.get(unit)
            mine = found is None
            if found is None:
                found = self._kept[unit] = Future()
            self._kept.move_to_end(unit)
        if mine:
            try:
                found.set_result(self._load(unit, [self._column]))
                self._forget()
            except BaseException as error:
                with self._lock:
                    self._kept.pop(unit, None)
                found.set_exception(error)
        return found.result()

    def _forget(self) -> None:
        """Let go of the row groups that were read first, down to the last few."""
        with self._lock:
            read = [(unit, future.result().nbytes) for unit, future in self._kept.items() if future.done()]
            excess = sum(size for _, size in read) - _KEPT
            for unit, size in read[:-1]:
                if excess <= 0:
                    break
                del self._kept[unit]
                excess -= size

    def _load(self, unit: int, columns: list[str]) -> Any:
        from pyarrow.parquet import ParquetFile

        file, group = self._groups[unit]
        place = self.places[file]

        def load() -> Any:
            with place.open() as opened:
                return ParquetFile(opened, metadata=self._footers[file]).read_row_group(group, columns=columns)

        return place.patiently(load)


_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def _footer(name: str) -> tuple[Place, Any]:
    from pyarrow.parquet import read_metadata

    place = Place.of(name)

    def load() -> Any:
        with place.open() as file:
            return read_metadata(file)

    return place, place.patiently(load)


def _blocks(count: int) -> np.ndarray:
    """Return the sizes of units of 64 rows, the last one smaller."""
    sizes = np.full(-(-count // BLOCK), BLOCK)
    sizes[-1:] -= -count % BLOCK
    return sizes


def _content(cell: Any, name: str) -> bytes:
    """Return the bytes of an image, from the cell itself or from the file on this machine that it names."""
    if isinstance(cell, dict):
        cell = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, str):
        try:
            return Path(cell).read_bytes()
        except OSError as error:
            raise unreadable(f"{cell}, which {name} names,", error) from error
    return cell or b""  # nothing is no image, and is skipped as one


def _numbers(table: Any, label: str | None) -> np.ndarray:
    if label is None:
        return np.full(len(table), -1)
    return np.array([-1 if number is None else number for number in table.column(label).to_pylist()], np.int64)


def _no_column(column: str, names: Sequence[str]) -> VaekitError:
    return VaekitError(f"there is no column '{column}': set data.column to one of {', '.join(names)}")


def _no_images(column: str, kind: Any) -> VaekitError:
    return VaekitError(f"the column '{column}' holds no images but {kind}: set data.column to one that does")
