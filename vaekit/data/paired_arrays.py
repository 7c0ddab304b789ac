"""Several modalities of the user's own in one `.npz` file, each an array."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.array_files import LABELS, SAMPLES, entry, loading_errors, read_labels, refuse_large
from vaekit.data.arrays import as_samples, find_layout
from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split, finish, holdout
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["holds_modalities", "paired_arrays"]

_AVAILABLE = "available"


@datasets.register("paired-arrays", about="A .npz file whose arrays are several modalities (give its path)")
def paired_arrays(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    valid_fraction: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Return the modalities of one file under the names of their arrays; a fixed random part is held out.

    - uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3 are images.
    - bool of any other shape are bits.
    - Everything else is kept as float32 of its shape; (N,) becomes (N, 1).
    - `labels` or `y` holds one integer a sample, `available` says which modality of which sample is there: bool of
      shape (N, M), its columns in the order of the arrays in the file.

    Arguments:
        root: The file.
        progress: Never called.
        offline: Nothing is ever downloaded.
        image_size: Side to crop and resize images to; None keeps their size.
        channels: 1 or 3 converts the images.
        valid_fraction: The part held out.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: Not a readable file of numbers, fewer than two modalities, arrays of different lengths, non-finite
            values, or a sample of which nothing is available.
    """
    with loading_errors(root), np.load(root, allow_pickle=False) as file:
        refuse_large(file)
        names = _modalities(file.files)
        if len(names) < 2:
            raise VaekitError(f"{root} holds {len(names)} modalities: put two arrays or more into it, one for each")
        if wrong := [name for name in names if not name.isidentifier()]:
            raise VaekitError(f"{root} has an array named '{wrong[0]}': use letters, digits and _ for a modality")
        raw = {name: entry(root, file, name) for name in names}
        labels = read_labels(root, file)
        available = _availability(root, entry(root, file, _AVAILABLE), len(names)) if _AVAILABLE in file.files else None
    modalities = {
        name: _modality(
            f"'{name}' of {root}",
            array,
            None if available is None else available[:, number],
            {"image_size": image_size, "channels": channels},
        )
        for number, (name, array) in enumerate(raw.items())
    }
    whole = PairedSplit(modalities, None if labels is None else torch.from_numpy(labels), available)
    rows = map(torch.from_numpy, holdout(len(whole), valid_fraction))
    splits = {name: whole.rows(part) for name, part in zip(("train", "valid"), rows, strict=True)}
    protocol: dict[str, Any] = {"image_size": image_size, "channels": channels}
    protocol["split"] = f"seeded, {valid_fraction:g} held out"
    return finish(str(root), splits, is_image=False, limit=limit, **protocol)


def holds_modalities(path: Path) -> bool:
    """Return whether a `.npz` file holds two modalities or more, and not the samples of one under their usual names."""
    try:
        with zipfile.ZipFile(path) as file:
            names = [name.removesuffix(".npy") for name in file.namelist()]
    except Exception:  # a damaged file fails in many ways
        return False  # the reader of arrays says what is wrong with it
    return not set(names) & set(SAMPLES) and len(_modalities(names)) > 1


def _modalities(names: list[str]) -> list[str]:
    return [name for name in names if name not in (*LABELS, _AVAILABLE)]


def _availability(root: Path, table: np.ndarray, modalities: int) -> Tensor:
    if table.dtype != bool or table.ndim != 2 or table.shape[1] != modalities:
        raise VaekitError(
            f"{root} has 'available' of shape {table.shape} and type {table.dtype}: use bool of shape "
            f"(N, {modalities}), a column for each modality"
        )
    return torch.from_numpy(table)


def _modality(where: str, array: np.ndarray, there: Tensor | None, pixels: dict[str, Any]) -> Split:
    """Return one array as a split; what is not available is set to zero."""
    if array.dtype.kind not in "biuf":
        raise VaekitError(f"{where} holds values of type {array.dtype}: save numbers")
    if not array.ndim or not array.size:
        raise VaekitError(f"{where} has shape {array.shape}: give it one row a sample")
    is_image = array.dtype == np.uint8 and array.ndim in (3, 4)
    order = find_layout(where, array, "auto") if is_image else "plain"
    samples = as_samples(array if array.ndim > 1 else array[:, None], order, **pixels)
    if there is not None and len(there) == len(samples):
        samples[~there] = 0
    if not is_image and (strange := int((~samples.isfinite()).sum())):
        raise VaekitError(f"{where} has {strange:,} non-finite values: replace them, or mark them in 'available'")
    return Split(samples, values="binary" if array.dtype == bool else "real")
