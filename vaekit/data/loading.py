"""From what the user names to a data set."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vaekit.data.cache import user_cache
from vaekit.data.dataset import Dataset, PairedSplit, Progress
from vaekit.data.paired_arrays import holds_modalities
from vaekit.errors import VaekitError, memory_errors, suggest
from vaekit.registry import datasets

__all__ = ["content_of", "data_root", "load", "reader_of", "refuse_own"]

_OF_A_PATH = ("arrays", "folder", "paired-arrays", "table")
# Named by options that say where the samples lie.
_OF_A_USER = ("hf", "webdataset")
# Samples of a split that are looked at to tell it from others.
_SEEN = 256
_HELP = "a folder of images, or a .npy, .npz or .csv file"


def data_root(root: str | Path | None = None) -> Path:
    """Return where data sets are looked for: `root`, otherwise `$VAEKIT_DATA`, otherwise the user's cache."""
    given = root or os.environ.get("VAEKIT_DATA")
    return _expanded(given) if given else user_cache() / "vaekit" / "data"


def load(
    name_or_path: str | Path,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    offline: bool = False,
    **options: Any,
) -> Dataset:
    """Load a data set by its registered name or from a path.

    Arguments:
        name_or_path: A name of `vaekit list datasets`, a folder of images, or a `.npy`, `.npz` or `.csv` file. A
            registered name comes first (write `./mnist` for a folder of that name). A relative path is looked for
            under `root` too.
        root: Where named data sets lie or are downloaded to; `$VAEKIT_DATA`, then the user's cache, by default.
        progress: Called as `progress(done, total, what)` while files are decoded for the first time.
        offline: Forbid downloads.
        options: The options of the data set, such as `image_size`; `vaekit show datasets/NAME` lists them.

    Raises:
        VaekitError: An unknown name, a missing data set (the sentence says what to put where) or a wrong option.

    Examples:
        >>> data = load("digits")
        >>> data.shape, len(data.train), len(data.valid), len(data.test)
        ((1, 8, 8), 1437, 180, 180)
    """
    name, place = str(name_or_path), data_root(root)
    if name not in datasets.names():
        name, place = _from_path(_expanded(name_or_path), place)
    elif name in _OF_A_PATH and root is None:
        raise VaekitError(f"data set '{name}' needs a path: name the {'folder' if name == 'folder' else 'file'} itself")
    checked = datasets.check(name, options, where="data")
    with memory_errors("make data.image_size or data.limit smaller"):
        data: Dataset = datasets.get(name)(place, progress, offline, **checked)
    if name not in (*_OF_A_PATH, *_OF_A_USER):
        return data
    # Where the samples lie says nothing of them, and another machine has them elsewhere.
    said = place.name if name in _OF_A_PATH else name
    return replace(data, protocol={**data.protocol, "data": said, "content": content_of(data)})


def refuse_own(options: Iterable[str]) -> None:
    """Refuse options that are arguments of `load` itself.

    Arguments:
        options: The names of what was given as options of a data set.

    Raises:
        VaekitError: One of them is.

    Examples:
        >>> refuse_own(["image_size", "progress"])
        Traceback (most recent call last):
        vaekit.errors.VaekitError: unknown option 'data.progress': no data set has one of this name
    """
    for key in options:
        if key in ("name_or_path", "root", "progress", "offline"):
            raise VaekitError(f"unknown option 'data.{key}': no data set has one of this name")


def content_of(data: Dataset) -> str:
    """Return sixteen digits of a SHA-256 over 256 evenly spaced samples of every split, or all where there are fewer.

    Examples:
        >>> content_of(load("digits")) == content_of(load("digits")) != content_of(load("digits", limit=100))
        True
    """
    found = hashlib.sha256()
    for split in data.splits.values():
        for part in split.modalities.values() if isinstance(split, PairedSplit) else [split]:
            rows = torch.linspace(0, len(part) - 1, min(len(part), _SEEN), dtype=torch.float64).round().long()
            found.update(repr((tuple(part.samples.shape), part.samples.dtype)).encode())
            found.update(part.samples[rows].numpy().tobytes())
    return found.hexdigest()[:16]


def _expanded(path: str | Path) -> Path:
    with contextlib.suppress(RuntimeError):  # There is no such user.
        return Path(path).expanduser()
    return Path(path)


def _exists(place: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # No file can have such a name.
        return place.exists()
    return False


def _from_path(path: Path, root: Path) -> tuple[str, Path]:
    """Return which reader suits a path, and where the path leads."""
    found = next((place for place in (path, root / path) if _exists(place)), None)
    if found is not None and (found.is_dir() or (found.is_file() and found.suffix in (".npy", ".npz", ".csv"))):
        return reader_of(found), found
    if found is not None:
        raise VaekitError(f"{found} is no data set: give a registered name, {_HELP}")
    if len(path.parts) > 1 or path.suffix:
        raise VaekitError(f"there is no file or folder {path}: give a registered name, {_HELP}")
    valid = suggest(str(path), datasets.names())
    raise VaekitError(f"unknown data set '{path}': {valid} Or give the path of {_HELP}.")


def reader_of(path: Path) -> str:
    """Return the name of the data set that reads a path, from its ending and, for `.npz`, from what it holds.

    Examples:
        >>> reader_of(Path("samples.csv")), reader_of(Path("photographs"))
        ('table', 'folder')
    """
    if path.suffix == ".npz" and holds_modalities(path):
        return "paired-arrays"
    return {".npy": "arrays", ".npz": "arrays", ".csv": "table"}.get(path.suffix, "folder")
