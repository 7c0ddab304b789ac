"""Arrays of the user's own: `.npy` and `.npz`."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.cache import block_rows, build
from vaekit.data.dataset import Dataset, Progress, Split, finish, holdout
from vaekit.data.images import prepare
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = [
    "LABELS",
    "SAMPLES",
    "Layout",
    "arrays",
    "as_samples",
    "find_layout",
    "loading_errors",
    "read_array",
    "read_labels",
]

SAMPLES = ("images", "x", "data", "arr_0")
LABELS = ("labels", "y")

Layout = Literal["auto", "nchw", "nhwc", "plain"]


@datasets.register("arrays", about="A .npy or .npz file: uint8 images, float images or vectors (give its path)")
def arrays(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    layout: Layout = "auto",
    image_size: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] | None = None,
    valid_fraction: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Return the samples of one array file; a fixed random part of them is held out for validation.

    An `.npz` holds the samples as `images`, `x`, `data` or `arr_0`, and labels, if any, as `labels` or `y`.

    - uint8 or bool of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3 are images.
    - Floats of the same shapes are images kept as float32, unscaled.
    - Everything else, such as (N, D), is kept as float32 samples of its shape.

    Arguments:
        root: The file.
        progress: Called with (rows done, rows, words) where the array is too large for memory.
        offline: Nothing is ever downloaded.
        layout: Where the channels are. `auto` looks for the axis of size 1 or 3, and takes (N, C, H, W) where both
            could be; `plain` says that the samples are not images.
        image_size: Side to crop and resize images to; None keeps their size.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 1 or 3 converts the images.
        valid_fraction: The part held out.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: Not a readable array of numbers, non-finite values, or no axis that could be the channels.
    """
    array, labels = read_array(root)
    if array.dtype.kind not in "biuf":
        raise VaekitError(f"{root} holds values of type {array.dtype}: save numbers (uint8 images or floats)")
    if array.ndim < 2 or not array.size:
        raise VaekitError(f"{root} has shape {array.shape}: samples need the shape (N, ...) with two or more axes")
    if labels is not None and len(labels) != len(array):
        raise VaekitError(f"{root} has {len(array):,} samples but {len(labels):,} labels")
    order = find_layout(root, array, layout)
    is_image = order != "plain"
    pixels: dict[str, Any] = {"image_size": image_size, "antialias": antialias, "channels": channels}
    if not is_image and (image_size or channels):
        raise VaekitError(
            f"{root} holds samples of shape {array.shape[1:]}, not images: image_size and channels are for images"
        )

    parts = dict(zip(("train", "valid"), holdout(len(array), valid_fraction), strict=True))
    if limit is not None:
        parts = {name: rows[:limit] for name, rows in parts.items()}
    rows = np.concatenate(list(parts.values()))
    first = as_samples(array[rows[:1]], order, **pixels)
    shape, dtype = tuple(first.shape[1:]), str(first.dtype).removeprefix("torch.")

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        strange = 0
        step = block_rows(first.nbytes)
        for start in range(0, len(rows), step):
            block = as_samples(array[rows[start : start + step]], order, **pixels)
            if block.is_floating_point():
                strange += int((~block.isfinite()).sum())
            yield block.numpy()
            if progress is not None:
                progress(min(start + step, len(rows)), len(rows), f"reading {root.name}")
        if strange:
            raise VaekitError(f"{root} has {strange:,} non-finite values: replace or remove them")

    stat = root.stat()
    key = [str(root.resolve()), stat.st_size, stat.st_mtime_ns, order, pixels, valid_fraction, limit]
    stored = build(key, blocks, rows=len(rows), shape=shape, dtype=dtype)
    notes = stored.notes
    if layout == "auto" and array.ndim == 4 and {array.shape[1], array.shape[3]} <= {1, 3}:
        notes.append(f"shape {array.shape} is read as (N, C, H, W); set layout to nhwc if the channels come last")
    if is_image and first.is_floating_point():
        notes.append("float images are used as they are, unscaled")
    split = len(parts["train"])
    known = None if labels is None else torch.from_numpy(labels[rows])
    whole = Split(torch.from_numpy(stored.array), known, stored.mapped)
    splits = {"train": whole.rows(slice(0, split)), "valid": whole.rows(slice(split, None))}
    protocol = {"layout": order, **pixels, "split": f"seeded, {valid_fraction:g} held out"}
    return finish(str(root), splits, is_image=is_image, limit=limit, notes=notes, **protocol)


def as_samples(block: np.ndarray, order: Layout, **pixels: Any) -> Tensor:
    """Return a block of an array as samples: images (n, C, H, W) as bytes or float32, everything else as float32.

    Arguments:
        block: Rows of the array.
        order: Where the channels are, as `find_layout` settled it.
        pixels: The options of `prepare`.
    """
    is_image, block = order != "plain", np.asarray(block)
    if is_image and block.dtype == bool:
        block = block.astype(np.uint8) * 255
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is counted and refused
        tensor = torch.from_numpy(block if is_image and block.dtype == np.uint8 else block.astype(np.float32))
    if not is_image:
        return tensor
    if tensor.ndim == 3:
        tensor = tensor.unsqueeze(1)
    elif order == "nhwc":
        tensor = tensor.permute(0, 3, 1, 2).contiguous()
    return prepare(tensor, **pixels)


def find_layout(root: Path | str, array: np.ndarray, layout: Layout) -> Layout:
    """Settle where the channels are; `root` is how messages name the array.

    Raises:
        VaekitError: No axis could be the channels, or the type is none of an image.
    """
    shape = array.shape
    if layout == "plain" or (layout == "auto" and array.ndim not in (3, 4)):
        return "plain"
    if array.dtype.kind not in "f" and array.dtype not in (np.uint8, bool):
        raise VaekitError(f"{root} holds images of type {array.dtype}: save them as uint8 (0 to 255) or float32")
    if array.ndim == 3:
        return "nchw"
    if array.ndim != 4:
        raise VaekitError(f"{root} has shape {shape}: layout '{layout}' needs images with three or four axes")
    axes: dict[Layout, int] = {"nchw": 1, "nhwc": 3}
    fitting = [name for name, axis in axes.items() if shape[axis] in (1, 3)]
    if layout != "auto" and layout in fitting:
        return layout
    if layout == "auto" and fitting:
        return fitting[0]
    if layout == "auto" and array.dtype.kind == "f":
        return "plain"
    raise VaekitError(
        f"{root} has shape {shape}: images need 1 or 3 channels, as (N, C, H, W) or as (N, H, W, C); "
        "layout 'plain' uses the samples as they are"
    )


def read_array(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the samples and the labels of a `.npy` or `.npz` file, without ever running pickled code.

    Raises:
        VaekitError: Missing, damaged, made of Python objects, or without a key for the samples.
    """
    with loading_errors(path):
        if path.suffix == ".npy":
            return np.lib.format.open_memmap(path, mode="r"), None
        with path.open("rb") as handle:
            file = np.load(handle, allow_pickle=False)
            if isinstance(file, np.ndarray):
                return file, None
            key = next((name for name in SAMPLES if name in file.files), None)
            if key is None:
                raise VaekitError(
                    f"{path} holds {', '.join(file.files) or 'nothing'}: name the samples "
                    f"{' or '.join(SAMPLES)}, and labels {' or '.join(LABELS)}"
                )
            return file[key], read_labels(path, file)


@contextlib.contextmanager
def loading_errors(path: Path) -> Iterator[None]:
    """Turn whatever NumPy raises on a missing, damaged or too large file into one sentence.

    Raises:
        VaekitError: Something was raised within.
    """
    try:
        yield
    except VaekitError:
        raise
    except FileNotFoundError:
        raise VaekitError(f"there is no file {path}") from None
    except MemoryError:
        raise VaekitError(f"{path} does not fit in memory: save the samples as .npy, which is read in parts") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise VaekitError(
                f"{path} holds Python objects, which vaekit never unpickles: save plain numbers"
            ) from None
        raise VaekitError(f"{path} cannot be read as a NumPy array: {error}") from error


def read_labels(path: Path, file: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the labels of an open `.npz` file as int64, None where it has none.

    Raises:
        VaekitError: They are not one integer a sample.
    """
    key = next((name for name in LABELS if name in file), None)
    if key is None:
        return None
    labels = file[key]
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise VaekitError(
            f"{path} has labels of shape {labels.shape} and type {labels.dtype}: use one integer a sample"
        )
    return labels.astype(np.int64)
