"""Shapes whose generative factors are known, drawn here."""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaekit.data.cache import block_rows, build
from vaekit.data.dataset import Dataset, Progress, Split, check_seed, finish
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["shapes"]

_FACTORS = {"shape": 3, "scale": 4, "orientation": 8, "x": 12, "y": 12}
_LEAST = 8  # pixels; in smaller images some of the samples look the same


@datasets.register("shapes", about="13,824 images of one shape each, grey, drawn here, whose five factors are known")
def shapes(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    image_size: int = 32,
    seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Return every combination of five factors once, white on black, with smooth edges, in a random split 80/10/10.

    The factors are shape (a triangle, a half disc, a corner: each looks different in every orientation), scale (4),
    orientation (8 of the whole circle), x and y (12 each). Labels are the shapes.

    References:
        After dSprites - Disentanglement testing Sprites dataset, Matthey, Higgins, Hassabis and Lerchner, 2017, whose
        squares and ellipses look the same in several orientations.

    Arguments:
        root: Not used.
        progress: Called with (images done, images, words) while they are drawn.
        offline: Nothing is ever downloaded.
        image_size: Side of the images.
        seed: Seed of the split.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: An option out of its range.
    """
    check_seed(seed)
    if image_size < _LEAST:
        raise VaekitError(f"image_size must be {_LEAST} or more, not {image_size}")
    sizes = tuple(_FACTORS.values())
    count = math.prod(sizes)
    order = np.random.RandomState(seed).permutation(count)
    held = round(0.1 * count)
    parts = {"train": order[2 * held :], "valid": order[:held], "test": order[held : 2 * held]}
    # Cut before they are drawn.
    parts = {name: part[:limit] for name, part in parts.items()}
    factors = np.stack(np.unravel_index(np.concatenate(list(parts.values())), sizes), 1)

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        step = block_rows(image_size**2)
        for start in range(0, len(factors), step):
            yield _drawn(factors[start : start + step], image_size)
            if progress is not None:
                progress(min(start + step, len(factors)), len(factors), "drawing shapes")

    key = ["shapes", image_size, seed, limit]
    stored = build(key, blocks, rows=len(factors), shape=(1, image_size, image_size))
    table = torch.from_numpy(factors)
    whole = Split(torch.from_numpy(stored.array), table[:, 0].contiguous(), stored.mapped, factors=table)
    splits, begin = {}, 0
    for name, part in parts.items():
        splits[name] = whole.rows(slice(begin, begin := begin + len(part)))
    protocol: dict[str, Any] = {"image_size": image_size, "seed": seed, "factors": _FACTORS, "split": "seeded 80/10/10"}
    return finish("shapes", splits, limit=limit, notes=stored.notes, factor_names=tuple(_FACTORS), **protocol)


def _drawn(factors: np.ndarray, side: int) -> np.ndarray:
    """Return the images (n, 1, side, side) of rows of factors (n, 5)."""
    shape, scale, orientation, x, y = factors.T[:, :, None, None]
    radius = np.linspace(0.12, 0.22, _FACTORS["scale"])[scale]  # of the circle around a shape; the image has side 1
    angle = 2 * np.pi * orientation / _FACTORS["orientation"]
    centre = np.linspace(0.24, 0.76, _FACTORS["x"])  # nothing is cut off by the frame
    pixel = (np.arange(side) + 0.5) / side
    across, down = (pixel - centre[x]) / radius, (pixel[:, None] - centre[y]) / radius
    right = np.cos(angle) * across + np.sin(angle) * down
    up = np.sin(angle) * across - np.cos(angle) * down
    distance = np.select([shape == number for number in range(len(_OUTLINES))], [to(right, up) for to in _OUTLINES])
    covered = (0.5 - distance * radius * side).clip(0, 1)  # the part of a pixel that is inside
    return np.rint(255 * covered).astype(np.uint8)[:, None]


# Signed distances to outlines within the unit circle, negative inside; none has a rotation that leaves it as it is.


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = np.hypot(0.6, 1.8)
    return np.maximum((1.8 * np.abs(x) + 0.6 * (y - 1)) / slope, -0.8 - y)


def _half_disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y + 0.4) - 0.9, -0.4 - y)


def _corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    upright = np.maximum(np.abs(x + 0.35) - 0.25, np.abs(y) - 0.75)
    foot = np.maximum(np.abs(x) - 0.6, np.abs(y + 0.5) - 0.25)
    return np.minimum(upright, foot)


_OUTLINES = (_triangle, _half_disc, _corner)
