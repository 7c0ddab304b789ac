"""Grids of images as PNG files."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.files import atomic

__all__ = ["Images", "save_grid", "side_by_side", "to_uint8", "tile"]


def to_uint8(images: Tensor, data_range: tuple[float, float]) -> Tensor:
    """Map images from `data_range` to bytes; values outside are clipped.

    Examples:
        >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 3.0]), (-1.0, 1.0)).tolist()
        [0, 128, 255, 255]
    """
    low, high = data_range
    scaled = (images.detach().float() - low) / (high - low) * 255.0
    return scaled.round().nan_to_num(0.0).clamp(0, 255).to(torch.uint8).cpu()


def side_by_side(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Interleave two batches, so that each original has its reconstruction to its right, shape (2B, C, H, W)."""
    return torch.stack([originals, reconstructions], 1).flatten(0, 1)


def tile(images: Tensor, columns: int | None = None, gap: int = 2, least: int = 64) -> Tensor:
    """Arrange byte images (N, C, H, W) in rows on a white ground, shape (3, H', W').

    Arguments:
        images: The images, with 1 or 3 channels.
        columns: Images in a row; the even number nearest to a square if not given.
        gap: Pixels between images.
        least: Images smaller than this are enlarged by a whole factor, so that a reader can see them.
    """
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    factor = max(1, least // max(images.shape[2:]))
    images = images[:, :3].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, _, height, width = images.shape
    columns = columns or max(1, 2 * round(math.sqrt(count) / 2))
    rows = math.ceil(count / columns)
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = (
            gap + where * (size + gap) for where, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def save_grid(
    path: str | Path, images: Tensor, data_range: tuple[float, float] = (-1.0, 1.0), columns: int | None = None
) -> None:
    """Write images (N, C, H, W) as one PNG, atomically."""
    from PIL import Image

    sheet = tile(to_uint8(images, data_range), columns)
    buffer = io.BytesIO()
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    with atomic(path) as file:
        file.write(buffer.getvalue())


class Images:
    """Decoded samples that know their range.

    Arguments:
        tensor: Samples (N, *X).
        data_range: The interval their values are meant to lie in.
        columns: Images in a row of a grid; the even number nearest to a square if not given.
    """

    def __init__(self, tensor: Tensor, data_range: tuple[float, float], columns: int | None = None) -> None:
        self.tensor = tensor.cpu()
        self.data_range = data_range
        self.columns = columns

    def __len__(self) -> int:
        return len(self.tensor)

    def save(self, path: str | Path, columns: int | None = None) -> Path:
        """Write a PNG grid of images, or an `.npy` file of vectors; return where it is.

        Raises:
            VaekitError: The samples are not images and the path does not end in `.npy`.
        """
        path = Path(path)
        if path.suffix == ".npy":
            import numpy as np

            buffer = io.BytesIO()
            np.save(buffer, self.tensor.numpy())
            with atomic(path) as file:
                file.write(buffer.getvalue())
        elif self.tensor.dim() == 4 and self.tensor.shape[1] in (1, 3):
            save_grid(path, self.tensor, self.data_range, columns or self.columns)
        else:
            raise VaekitError(f"samples of shape {tuple(self.tensor.shape[1:])} are not images: save them as .npy")
        return path
