"""Arrays of the user's own: `.npy` and `.npz`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.array_files import read_array
from vaekit.data.cache import block_rows, build
from vaekit.data.dataset import Dataset, Progress, Split, finish, holdout
from vaekit.data.images import prepare
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["Layout", "arrays", "as_samples", "find_layout"]

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

    An `.npz` holds the samples as `images`, `x`, `data` or `arr_0`, and labels, if any, as `labels` or `y`. Values of
    generative factors, if any, are its `factors` (integers of shape (N, K)), and their names its `factor_names`. The
    file of dSprites is read as it is, its shapes being the labels.

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
    array, labels, factors, names = read_array(root)
    if array.dtype.kind not in "biuf":
        raise VaekitError(f"{root} holds values of type {array.dtype}: save numbers (uint8 images or floats)")
    if array.ndim < 2 or not array.size:
        raise VaekitError(f"{root} has shape {array.shape}: samples need the shape (N, ...) with two or more axes")
    for found, what in ((labels, "labels"), (factors, "rows of factors")):
        if found is not None and len(found) != len(array):
            raise VaekitError(f"{root} has {len(array):,} samples but {len(found):,} {what}")
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
    known, made = (None if table is None else torch.from_numpy(table[rows]) for table in (labels, factors))
    whole = Split(torch.from_numpy(stored.array), known, stored.mapped, factors=made)
    splits = {"train": whole.rows(slice(0, split)), "valid": whole.rows(slice(split, None))}
    protocol = {"layout": order, **pixels, "split": f"seeded, {valid_fraction:g} held out"}
    if factors is not None:
        protocol["factors"] = {name: len(np.unique(column)) for name, column in zip(names, factors.T, strict=True)}
    return finish(str(root), splits, is_image=is_image, limit=limit, notes=notes, factor_names=names, **protocol)


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
