"""Image files of every kind, most of them broken: each knows whether it can be read."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

__all__ = ["Picture", "pictures"]

_GREEN = (0, 128, 0)


@dataclass(frozen=True)
class Picture:
    """A file that ends like an image.

    Arguments:
        name: Its name; bytes that are no text stand as lone surrogates.
        write: Puts it at a path.
        good: Whether its pixels can be read.
        colour: What a good one looks like in the middle of its upper half; `None` where that is not said.
    """

    name: str
    write: Callable[[Path], Any]
    good: bool
    colour: tuple[int, int, int] | None = None


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _of(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _noise(draw: random.Random, size: int = 48) -> Image.Image:
    pixels = np.frombuffer(draw.randbytes(3 * size * size), np.uint8).reshape(size, size, 3)
    return Image.fromarray(pixels)


def _png(width: int, height: int, body: bytes = b"", depth: int = 8, kind: int = 2, spoil: str = "") -> bytes:
    """Return a PNG file written by hand; the checksum of the chunk `spoil` is wrong."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content) ^ (name.decode() == spoil)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


# ---- good ones -------------------------------------------------------------------------------------------------------


def _good(draw: random.Random) -> Iterator[Picture]:
    plain = Image.new("RGB", (20, 20), _GREEN)
    formats: list[tuple[str, str, dict[str, Any]]] = [
        ("png", "PNG", {}), ("bmp", "BMP", {}), ("gif", "GIF", {}), ("ppm", "PPM", {}), ("tif", "TIFF", {}),
        ("webp", "WEBP", {"lossless": True}), ("jpg", "JPEG", {"quality": 100, "subsampling": 0}),
        ("jpeg", "JPEG", {"quality": 100, "progressive": True}), ("tiff", "TIFF", {"compression": "tiff_lzw"}),
        ("tiff", "TIFF", {"compression": "tiff_deflate"}), ("png", "PNG", {"compress_level": 0}),
    ]  # fmt: skip
    for number, (ending, form, options) in enumerate(formats):
        yield Picture(f"plain{number}.{ending}", _of(_saved(plain, form, **options)), True, _GREEN)
    for mode, ending, form, colour in (
        ("L", "png", "PNG", (77, 77, 77)), ("1", "bmp", "BMP", (255, 255, 255)), ("CMYK", "jpg", "JPEG", None),
        ("LA", "png", "PNG", None), ("RGBA", "webp", "WEBP", None), ("I;16", "png", "PNG", None),
        ("I;16", "tif", "TIFF", None), ("I", "tif", "TIFF", None), ("YCbCr", "jpg", "JPEG", None),
    ):  # fmt: skip
        image = Image.new(mode, (20, 20), 77 if mode == "L" else 1 if mode == "1" else 0)
        yield Picture(f"mode-{mode.replace(';', '')}.{ending}", _of(_saved(image, form)), True, colour)
    palette = plain.quantize(4)
    yield Picture("palette.png", _of(_saved(palette, "PNG")), True, _GREEN)
    clear = Image.new("RGBA", (20, 20), (0, 128, 0, 0))
    yield Picture("clear.png", _of(_saved(clear, "PNG")), True, (255, 255, 255))
    others = [Image.new("RGB", (20, 20), "red")] * 3
    for form, ending in (("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
        options = {"save_all": True, "append_images": others, **({"lossless": True} if form == "WEBP" else {})}
        yield Picture(f"moving.{ending}", _of(_saved(plain, form, **options)), True, _GREEN)
    upright = Image.new("RGB", (20, 20), "black")
    upright.paste(_GREEN, (0, 0, 20, 10))
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for number, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = number
        content = _saved(upright.transpose(turn), "JPEG", exif=exif, quality=100, subsampling=0)
        yield Picture(f"turned{number}.jpg", _of(content), True, _GREEN)
    yield Picture("a photograph.png", _of(_saved(plain, "JPEG", quality=100, subsampling=0)), True, _GREEN)
    yield Picture("UPPER.PNG", _of(_saved(plain, "GIF")), True, _GREEN)
    yield Picture("thin.png", _of(_saved(Image.new("RGB", (1, 700), _GREEN), "PNG")), True, _GREEN)
    yield Picture("dot.bmp", _of(_saved(Image.new("RGB", (1, 1), _GREEN), "BMP")), True, _GREEN)
    said = PngImagePlugin.PngInfo()
    said.add_text("Comment", "<script>alert(1)</script>" * 50)
    yield Picture("said.png", _of(_saved(plain, "PNG", pnginfo=said)), True, _GREEN)
    yield Picture("naïve 损失 🙂.png", _of(_saved(plain, "PNG")), True, _GREEN)


# ---- bad ones --------------------------------------------------------------------------------------------------------


def _bad(draw: random.Random) -> Iterator[Picture]:
    whole = {
        ending: _saved(_noise(draw), form, **options)
        for ending, form, options in (
            ("png", "PNG", {}), ("jpg", "JPEG", {}), ("webp", "WEBP", {"lossless": True}), ("gif", "GIF", {}),
            ("bmp", "BMP", {}), ("tif", "TIFF", {"compression": "tiff_lzw"}), ("ppm", "PPM", {}),
        )
    }  # fmt: skip
    for ending, content in whole.items():
        for number in range(4):
            length = draw.randrange(1, int(0.7 * len(content)))
            yield Picture(f"cut{number}.{ending}", _of(content[:length]), False)
        length = {"tif": 8, "ppm": 3}.get(ending, 12)
        yield Picture(f"noise.{ending}", _of(content[:length] + draw.randbytes(400)), False)
        yield Picture(f"zeros.{ending}", _of(bytes(len(content))), False)
        yield Picture(f"nothing.{ending}", _of(b""), False)
    texts = {
        "page.jpg": b"<!doctype html><title>404</title>", "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "program.gif": b"\x7fELF" + draw.randbytes(200), "archive.png": b"PK\x03\x04" + draw.randbytes(200),
        "pickle.tif": b"\x80\x04\x95" + draw.randbytes(50), "words.bmp": b"BMade of words" * 9,
        # Pillow would give PostScript to another program.
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n",
        "document.jpg": b"%PDF-1.4\n" + draw.randbytes(100),
    }  # fmt: skip
    for name, content in texts.items():
        yield Picture(name, _of(content), False)
    line = b"\0" + b"\x10" * 60
    yield Picture("header.png", _of(_png(20, 20, line * 20, spoil="IHDR")), False)
    yield Picture("checksum.png", _of(_png(20, 20, line * 20, spoil="IDAT")), False)
    yield Picture("no pixels.png", _of(_png(0, 20)), False)
    yield Picture("depth.png", _of(_png(20, 20, line * 20, depth=3)), False)
    yield Picture("squeezed.png", _of(_png(20, 20).replace(b"IDAT", b"IDAX")), False)
    yield Picture("bomb.png", _of(_png(60_000, 60_000, bytes(10_000))), False)
    yield Picture("small bomb.png", _of(_png(12_000, 9_000, bytes(10_000))), False)
    yield Picture("bomb.gif", _of(b"GIF89a" + struct.pack("<HH", 65535, 65535) + whole["gif"][10:]), False)
    yield Picture("bomb.bmp", _of(whole["bmp"][:18] + struct.pack("<ii", 90_000, 90_000) + whole["bmp"][26:]), False)
    yield Picture("bomb.ppm", _of(b"P6\n60000 60000\n255\n" + bytes(1000)), False)
    yield Picture("backwards.bmp", _of(whole["bmp"][:18] + struct.pack("<ii", -5, 0) + whole["bmp"][26:]), False)
    yield Picture("folder.png", lambda path: path.mkdir(), False)
    yield Picture("nowhere.jpg", lambda path: path.symlink_to(path.with_name("not there.jpg")), False)
    yield Picture("circle.jpg", lambda path: path.symlink_to(path), False)
    yield Picture("pipe.png", os.mkfifo, False)
    yield Picture("two\nlines.png", _of(b"x"), False)
    yield Picture("\x1b[31mred.png", _of(b"x"), False)
    yield Picture("odd\udcff\udcfebytes.jpg", _of(b"x"), False)
    floats = Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20))
    yield Picture("floats.tif", _of(_saved(floats, "TIFF")), False)


def pictures(seed: int) -> list[Picture]:
    """Return the files; one seed gives the same ones always."""
    draw = random.Random(seed)
    return [*_good(draw), *_bad(draw)]
