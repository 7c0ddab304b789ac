"""The files of MNIST and of the sets in its format."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = ["find_idx", "has_mnist", "read_idx"]

#: The four files of a set.
IDX_FILES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]

_LARGEST = 2**28  # bytes; the largest file of these sets has 47 million


def has_mnist(root: Path) -> bool:
    """Return whether the files of MNIST are under the data root."""
    return all(find_idx(root / "MNIST" / "raw" / file) for file in IDX_FILES)


def find_idx(path: Path) -> Path | None:
    """Return the file itself or its gzipped twin, None where neither is there."""
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def read_idx(path: Path) -> Tensor:
    """Return the array of an idx file: two zero bytes, type 8 (uint8), the number of axes, their sizes, the bytes.

    Raises:
        VaekitError: It is missing or damaged.
    """
    file = find_idx(path)
    if file is None:
        raise VaekitError(f"{path} is missing")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            start = opened.read(4)
            shape = np.frombuffer(opened.read(4 * start[3]), ">u4", start[3]).tolist()
            size = math.prod(shape)
            if start[:3] != b"\0\0\x08" or size > _LARGEST:
                raise ValueError("it is no such file, or far too large")
            content = opened.read(size + 1)  # No more than that: what is packed may be of any size.
        if len(content) != size:
            raise ValueError("its header does not fit its size")
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise VaekitError(f"{file} is damaged ({error}): delete it and fetch it again") from error
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())
