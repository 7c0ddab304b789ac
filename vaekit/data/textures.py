"""Grounds for digits to stand on: photographs from a folder, or textures made from nothing."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from vaekit.data.images import ENDINGS, quiet, read_pixels
from vaekit.errors import VaekitError

__all__ = ["photographs", "textures"]

SIDE = 512

# Which of red, green and blue are bright. A channel is bright or dark as a whole, so that inverting it always shows.
_BRIGHT = ((0, 0, 1), (1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 0), (1, 1, 1))


def photographs(folder: Path, count: int, least: int) -> tuple[list[str], list[np.ndarray]]:
    """Return the names and the pixels (3, H, W) of the first `count` photographs of a folder, by name.

    Arguments:
        folder: Where they are.
        count: How many are needed.
        least: The smallest side that will do.

    Raises:
        VaekitError: There is no such folder, it has too few photographs, or one of them is too small or damaged.
    """
    if not folder.is_dir():
        raise VaekitError(f"there is no folder {folder}: name a folder of photographs as backgrounds, or none at all")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.name[0] != ".")
    if len(files) < count:
        raise VaekitError(
            f"the folder {folder} holds {len(files)} photographs, but {count} modalities need one each: "
            "add some, or lower modalities"
        )
    found = []
    for file in files[:count]:
        try:
            with quiet():
                pixels = read_pixels(file, 3).numpy()
        except Exception as error:  # Pillow's readers raise errors of every type on damaged files
            raise VaekitError(f"the background {file} cannot be read as an image ({error}): replace it") from error
        if min(pixels.shape[1:]) < least:
            height, width = pixels.shape[1:]
            raise VaekitError(f"the background {file} has {width}x{height} pixels: {least}x{least} or more are needed")
        found.append(pixels)
    return [file.name for file in files[:count]], found


def textures(count: int) -> tuple[list[str], list[np.ndarray]]:
    r"""Return the names and the pixels (3, 512, 512) of `count` textures, the same on every machine.

    1/f noise, stripes, checkers, Voronoi cells and rings take turns, each time with other sizes and colours. Colours
    lie between two shades that are both dark (up to a third of the range) or both bright in each channel, for a colour
    \(v\) near one half cannot be told from its inverse \(1 - v\).

    Examples:
        >>> names, pixels = textures(2)
        >>> names, pixels[0].shape
        (['noise', 'stripes'], (3, 512, 512))
    """
    numbers = range(count)
    return [_KINDS[number % len(_KINDS)].__name__.removeprefix("_") for number in numbers], [*map(_texture, numbers)]


@lru_cache(maxsize=16)
def _texture(number: int) -> np.ndarray:
    random = np.random.RandomState(number)
    height = _KINDS[number % len(_KINDS)](random)
    bright = np.array(_BRIGHT[number % len(_BRIGHT)])[:, None]
    shades = np.stack([random.uniform(0.0, 0.08, 3), random.uniform(0.25, 0.33, 3)], 1)
    # Each channel takes its shades in its own order, so that the hue changes too, and not only the brightness.
    shades = np.take_along_axis(shades, np.stack([random.permutation(2) for _ in range(3)]), 1)
    low, high = np.where(bright, 1.0 - shades, shades).T[:, :, None, None]
    made = np.rint(255.0 * (low + (high - low) * height)).astype(np.uint8)
    made.flags.writeable = False  # shared by all who ask for it
    return made


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return y, x


def _noise(random: np.random.RandomState) -> np.ndarray:
    """Noise whose power falls with the square of the frequency, from 0 to 1."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(random.standard_normal((SIDE, SIDE))) / frequency, s=(SIDE, SIDE))
    return (field / (4 * field.std()) + 0.5).clip(0, 1)


def _stripes(random: np.random.RandomState) -> np.ndarray:
    """Waves in one direction."""
    y, x = _grid()
    angle, period = random.uniform(0, np.pi), random.uniform(9, 14)
    return 0.5 + 0.5 * np.sin(2 * np.pi / period * (x * np.cos(angle) + y * np.sin(angle)))


def _checkers(random: np.random.RandomState) -> np.ndarray:
    """Squares in turn."""
    y, x = _grid()
    side = random.randint(6, 10)
    return (x // side + y // side) % 2


def _cells(random: np.random.RandomState) -> np.ndarray:
    """Each pixel has the shade of the nearest of 300 points."""
    y, x = _grid()
    nearest, field = np.full((SIDE, SIDE), np.inf, np.float32), np.empty((SIDE, SIDE), np.float32)
    for at_y, at_x, shade in random.uniform(size=(300, 3)).astype(np.float32):
        distance = (y - SIDE * at_y) ** 2 + (x - SIDE * at_x) ** 2
        closer = distance < nearest
        nearest[closer], field[closer] = distance[closer], shade
    return field


def _rings(random: np.random.RandomState) -> np.ndarray:
    """Gradients outwards from a point near the middle, over and over."""
    y, x = _grid()
    centre, period = random.uniform(0.4 * SIDE, 0.6 * SIDE, 2), random.uniform(16, 24)
    return np.hypot(y - centre[0], x - centre[1]) % period / period


_KINDS = (_noise, _stripes, _checkers, _cells, _rings)
