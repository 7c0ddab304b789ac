"""Two folders of images, compared by their features as the command `fidelity` of torch-fidelity does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.data.dataset import Progress
from vaekit.data.images import ENDINGS, quiet, read_pixels
from vaekit.errors import VaekitError
from vaekit.evaluation.extractors import Extractor
from vaekit.evaluation.features import FeatureStore
from vaekit.evaluation.fidelity_metrics import Figure, figure
from vaekit.evaluation.protocol import Result
from vaekit.evaluation.samplers import BLOCK

__all__ = ["compare_images"]


def compare_images(
    first: str | Path,
    second: str | Path,
    extractor: Extractor,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Result:
    """Return Fréchet and kernel distance, precision and recall of two folders of images, and the score of the first.

    Files are read at their own size, in three channels; those of one folder have one size. EXIF rotation, transparency
    and 16 bits are dealt with as in data sets. Figures are those of `fidelity --input1 FIRST --input2 SECOND` with the
    same extractor, with a KID subset of 1,000 images or all.

    Arguments:
        first: The folder of generated images.
        second: The folder of real ones.
        extractor: What compares them. The inception score of the first folder is left out where it is no classifier.
        batch_size: Images at a time; figures do not depend on it.
        progress: Called as `progress(done, total, what)`.

    Raises:
        VaekitError: A folder has too few images, images of several sizes, or a file that cannot be read.
    """
    store = FeatureStore()
    rows: list[Tensor] = []
    sides: list[dict[str, Any]] = []
    for folder in (Path(first), Path(second)):
        files = _files(folder)
        size = tuple(_pixels(files[0], None).shape[1:])
        blocks = partial(_blocks, files, size, batch_size)
        key, what = {"side": len(sides)}, f"features of {folder}"
        rows.append(store.rows(key, blocks, len(files), extractor, progress=progress, what=what))
        sides.append({"images": len(files), "image_size": list(size)})
    figures: list[Figure] = ["frechet", "kid", "precision_recall"]
    notes = extractor.notes()
    if extractor.classes:
        figures.append("inception_score")
    else:
        notes.append(f"there is no inception score: '{extractor.name}' is no classifier")
    values: dict[str, float] = {}
    parameters: dict[str, Any] = {}
    for which in figures:
        found, used = figure(which, extractor, *rows)
        values |= found
        parameters |= used
    protocol = {"first": sides[0], "second": sides[1], "extractor": extractor.protocol(), "torch_fidelity": parameters}
    return Result(values, protocol, notes)


def _files(folder: Path) -> list[Path]:
    """Return the images of a folder by name, those of its folders not counted."""
    if not folder.is_dir():
        raise VaekitError(f"{folder} is no folder: give a folder of images")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not files:
        raise VaekitError(f"{folder} holds no images: give a folder of PNG or JPEG files")
    return files


def _blocks(files: Sequence[Path], size: tuple[int, ...], batch_size: int, start: int) -> Iterator[Iterable[Tensor]]:
    for first in range(start * BLOCK, len(files), BLOCK):
        block = files[first : first + BLOCK]
        parts = [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
        yield (torch.stack([_pixels(file, size) for file in part]) for part in parts)


def _pixels(file: Path, size: tuple[int, ...] | None) -> Tensor:
    """Return one image (3, H, W), which has the size of the others where that is given."""
    try:
        with quiet():
            pixels = read_pixels(file, 3)
    except Exception as error:  # Pillow raises many types for an unreadable file
        raise VaekitError(f"{file} cannot be read as an image: {error}") from error
    if size is not None and pixels.shape[1:] != size:
        raise VaekitError(
            f"{file} has {pixels.shape[2]} x {pixels.shape[1]} pixels and the first image of its folder {size[1]} x "
            f"{size[0]}: give images of one size"
        )
    return pixels
