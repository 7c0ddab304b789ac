"""Pixels: one image file to uint8, and the crop, resize and channel conversion that all image sets share."""

from __future__ import annotations

import contextlib
import math
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vaekit.data.dataset import at_least_one
from vaekit.errors import VaekitError, one_line

__all__ = ["ENDINGS", "attempt", "decode", "prepare", "quiet", "read_images", "read_pixels"]

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# What such files may hold. Pillow would try all that it knows, and give PostScript to a program of its own.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# ITU-R 601 luma in 16-bit fixed point: what Pillow's conversion to greyscale uses.
_LUMA = (19595, 38470, 7471)


def prepare(
    images: Tensor,
    *,
    image_size: int | None = None,
    crop: int | None = None,
    antialias: bool = True,
    channels: int | None = None,
) -> Tensor:
    """Return images (N, C, H, W) after channel conversion, centre crop and bilinear resize, in their own dtype.

    Arguments:
        images: uint8 or float32 of shape (N, C, H, W) with C = 1 or 3.
        image_size: Side of the square result; None keeps the size that the crop leaves.
        crop: Side of the centre crop, at most the shorter side; None means the shorter side where `image_size`
            is given, and no crop where it is not.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 1 (luma, ITU-R 601) or 3 (grey repeated); None keeps the channels.

    Examples:
        >>> import torch
        >>> prepare(torch.zeros(2, 3, 218, 178, dtype=torch.uint8), image_size=64, crop=140, channels=1).shape
        torch.Size([2, 1, 64, 64])
    """
    at_least_one(image_size=image_size, crop=crop)
    if channels == 3 and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1).contiguous()
    elif channels == 1 and images.shape[1] == 3:
        images = _luma(images)
    if image_size is None and crop is None:
        return images
    height, width = images.shape[-2:]
    side = min(height, width, crop or height)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[..., top : top + side, left : left + side].contiguous()
    if image_size is None or image_size == side:
        return images
    size = (image_size, image_size)
    return torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=antialias)


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    if images.is_floating_point():
        return ((red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]) / 65536).unsqueeze(1)
    total = red.int() * _LUMA[0] + green.int() * _LUMA[1] + blue.int() * _LUMA[2]
    return ((total + 32768) >> 16).to(torch.uint8).unsqueeze(1)


def decode(file: Path | BinaryIO, *, image_size: int, crop: int | None, antialias: bool, channels: int) -> np.ndarray:
    """Return one image file as uint8 of shape (channels, image_size, image_size). Raises as `read_pixels` does."""
    pixels = read_pixels(file, channels)[None]
    return prepare(pixels, image_size=image_size, crop=crop, antialias=antialias)[0].numpy()


def attempt(file: Path | BinaryIO, **pixels: Any) -> np.ndarray | str:
    """Return what `decode` gives with these options, or in words why there is nothing."""
    try:
        return decode(file, **pixels)
    except UnidentifiedImageError:
        return "not an image"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except Exception as error:  # Pillow's readers raise errors of every type on damaged files
        return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Mute what Pillow remarks about files that are read all the same.

    The filters of warnings belong to the process: to be entered around threads, not within them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_images(
    files: Sequence[str | Path],
    shape: tuple[int, ...],
    data_range: tuple[float, float],
    *,
    crop: int | None,
    antialias: bool,
) -> Tensor:
    """Read image files as a model takes them, shape (N, *shape).

    Arguments:
        files: Image files.
        shape: The model's (C, S, S).
        data_range: The interval that images are scaled to.
        crop: Side of the centre crop in pixels of the file; None for the largest square.
        antialias: Whether the resize averages over the pixels that it drops.

    Raises:
        VaekitError: A file is missing or unreadable, or the model does not take square images.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise VaekitError(f"image files suit models of square images, and this one takes samples of shape {shape}")
    images = []
    for file in files:
        with quiet():
            pixels = attempt(Path(file), image_size=shape[1], crop=crop, antialias=antialias, channels=shape[0])
        if isinstance(pixels, str):
            raise VaekitError(f"{file} cannot be read as an image: {pixels}")
        images.append(torch.from_numpy(pixels))
    low, high = data_range
    return torch.stack(images).float() / 255.0 * (high - low) + low


def read_pixels(file: Path | BinaryIO, channels: int) -> Tensor:
    """Return one image file at its own size, as uint8 of shape (channels, H, W).

    The EXIF rotation is applied, transparency is laid over white, 16 bits are scaled to 8, and of an animation the
    first frame is taken. Any exception means that the file cannot be used.
    """
    if isinstance(file, Path) and not stat.S_ISREG(file.stat().st_mode):  # A pipe would be waited for.
        raise ValueError("no regular file")
    with file.open("rb") if isinstance(file, Path) else contextlib.nullcontext(file) as stream:
        opened = Image.open(stream, formats=_FORMATS)
        if Image.MAX_IMAGE_PIXELS is not None and math.prod(opened.size) > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels")
        if opened.format == "PNG":  # The only format with checksums, which are compared if one asks for it.
            opened.verify()
            stream.seek(0)
            opened = Image.open(stream, formats=_FORMATS)
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):
        deep = np.asarray(image).clip(0, 65535).astype(np.float32)
        image = Image.fromarray((deep / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.array(image.convert("RGB" if channels == 3 else "L"), copy=True)
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)
