"""PolyMNIST: the same digit, written by several hands, each on a ground of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.cache import block_rows, build
from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split, at_least_one, check_seed, finish
from vaekit.data.digit_source import DigitSource, load_digits
from vaekit.data.images import prepare
from vaekit.data.textures import photographs, textures
from vaekit.errors import VaekitError
from vaekit.registry import datasets

__all__ = ["missing_table", "pairing", "polymnist", "translated_polymnist"]

_SIDE = 28
_SMALL = 21  # three quarters
_MOST = 100


@datasets.register(
    "polymnist",
    about="Several images of one digit, each by another hand and on another ground: modalities m0, m1, ...",
    source="Generalized Multimodal ELBO, Sutter, Daunhawer and Vogt, 2021, arXiv 2105.02470",
)
def polymnist(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    digits: DigitSource = "auto",
    modalities: int = 5,
    backgrounds: str | None = None,
    missing: float = 0.0,
    missing_in: Literal["train", "all"] = "train",
    seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    r"""Return PolyMNIST-like samples, made here: digits of one class, inverted into crops of several grounds.

    In each modality the digits of a class are in an order of their own, so that a sample's modalities share their label
    and nothing else, and each digit occurs once in each modality. Of the ground of modality m a random 28x28 part is
    taken, and every colour \(v\) becomes \(1 - v\) where the digit is brighter than 128 of 255. Splits are those of
    the digits.

    Arguments:
        root: The data root, for MNIST and for `backgrounds`.
        progress: Called with (images done, images, words) while they are made.
        offline: Forbid the download of MNIST.
        digits: `mnist` (downloaded where it is missing), `digits` (scikit-learn's 8x8 digits, enlarged), or `auto`:
            MNIST where its files lie under the data root, otherwise scikit-learn's.
        modalities: How many, two or more.
        backgrounds: A folder of photographs, of which the first by name are used, one for each modality; None makes
            textures.
        missing: The part of all modalities of all samples that is not available. Each sample keeps one or more.
        missing_in: Whether only training samples lack modalities, or those of every split.
        seed: Seed of the pairing, the crops and of what is missing.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: An option out of its range, no digits, or too few photographs.
    """
    options: dict[str, Any] = {"modalities": modalities, "missing": missing, "missing_in": missing_in}
    return _make("polymnist", root, progress, offline, digits, backgrounds, seed, limit, **options)


@datasets.register(
    "translated-polymnist",
    about="polymnist with digits of three quarters of the size, each somewhere else: harder to align",
    source="On the Limitations of Multimodal VAEs, Daunhawer et al., 2022, arXiv 2110.04121",
)
def translated_polymnist(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    digits: DigitSource = "auto",
    modalities: int = 5,
    backgrounds: str | None = None,
    missing: float = 0.0,
    missing_in: Literal["train", "all"] = "train",
    seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Return `polymnist` with digits of 21x21, moved by 0 to 7 pixels along each axis in each modality.

    The options are those of `polymnist`.
    """
    options: dict[str, Any] = {"modalities": modalities, "missing": missing, "missing_in": missing_in}
    return _make("translated-polymnist", root, progress, offline, digits, backgrounds, seed, limit, **options)


def pairing(labels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return for each sample the row of a digit of its class, such that every row occurs once.

    Examples:
        >>> labels = np.array([0, 1, 0, 1, 1])
        >>> rows = pairing(labels, np.random.RandomState(0))
        >>> sorted(rows.tolist()), (labels[rows] == labels).all()
        ([0, 1, 2, 3, 4], np.True_)
    """
    table = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        (rows,) = np.nonzero(labels == label)
        table[rows] = random.permutation(rows)
    return table


def missing_table(count: int, modalities: int, missing: float, random: np.random.RandomState) -> Tensor:
    """Return which modalities of `count` samples are available, bool (N, M).

    One modality of each sample, drawn at random, stays; of all others as many as asked for are taken away at random.

    Examples:
        >>> table = missing_table(1000, 4, 0.5, np.random.RandomState(0))
        >>> int(table.sum()), bool(table.any(1).all())
        (2000, True)
    """
    table = np.ones((count, modalities), bool)
    others = np.ones_like(table)
    others[np.arange(count), random.randint(0, modalities, count)] = False
    places = np.flatnonzero(others)
    gone = round(missing * table.size)
    table.flat[random.permutation(places)[:gone]] = False
    return torch.from_numpy(table)


def _make(
    name: str,
    root: Path,
    progress: Progress | None,
    offline: bool,
    digits: DigitSource,
    backgrounds: str | None,
    seed: int,
    limit: int | None,
    *,
    modalities: int,
    missing: float,
    missing_in: str,
) -> Dataset:
    at_least_one(limit=limit)
    most = (modalities - 1) / max(modalities, 1)
    if not 2 <= modalities <= _MOST:
        raise VaekitError(f"modalities must be 2 to {_MOST}, not {modalities}")
    if not 0.0 <= missing <= most:
        raise VaekitError(
            f"missing must lie between 0 and {most:g}, not {missing:g}: each sample keeps one of its {modalities} "
            "modalities"
        )
    check_seed(seed)
    if backgrounds is None:
        grounds, pictures = textures(modalities)
        said = "the backgrounds are textures; data.backgrounds takes a folder of photographs"
    else:
        given = Path(backgrounds).expanduser()
        folder = given if given.is_dir() else root / given
        grounds, pictures = photographs(folder, modalities, _SIDE)
        said = f"the backgrounds are the photographs {', '.join(grounds)} of {folder}"
    source, data, which = load_digits(digits, root, offline)
    translated = name == "translated-polymnist"
    work = [(split, modality) for split in data.splits for modality in range(modalities)]
    sizes = [min(len(data.splits[split]), limit or len(data.splits[split])) for split, _ in work]

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        done = 0
        for (split, modality), size in zip(work, sizes, strict=True):
            number = list(data.splits).index(split)
            random = np.random.RandomState([seed, number, modality])
            for block in _images(data.splits[split], pictures[modality], size, translated, random):
                yield block
                done += len(block)
                if progress is not None:
                    progress(done, sum(sizes), f"making {name}")

    sums = [
        hashlib.sha256(picture.tobytes()).hexdigest() for picture in (*pictures, data.splits["train"].samples.numpy())
    ]
    key = [name, source, modalities, seed, limit, sums]
    stored = build(key, blocks, rows=sum(sizes), shape=(3, _SIDE, _SIDE))
    parts = iter(torch.from_numpy(stored.array).split(sizes))
    splits = {}
    for number, (split, digit) in enumerate(data.splits.items()):
        images = {f"m{modality}": Split(next(parts), mapped=stored.mapped) for modality in range(modalities)}
        rows = len(images["m0"])
        available = None
        if missing and (split == "train" or missing_in == "all"):
            # Drawn for all samples and then cut, so that the first samples stay the same whatever the limit is.
            available = missing_table(len(digit), modalities, missing, np.random.RandomState([seed, number]))[:rows]
        splits[split] = PairedSplit(images, digit.labels[:rows], available)
    protocol: dict[str, Any] = {"digits": source, "modalities": modalities, "backgrounds": grounds, "seed": seed}
    protocol |= {"missing": missing, "missing_in": missing_in, "split": data.protocol["split"]}
    return finish(name, splits, is_image=False, limit=limit, notes=[*stored.notes, which, said], **protocol)


def _images(
    digits: Split, ground: np.ndarray, size: int, translated: bool, random: np.random.RandomState
) -> Generator[np.ndarray]:
    """Yield the first `size` images of one modality in blocks (n, 3, 28, 28)."""
    assert digits.labels is not None
    rows = pairing(digits.labels.numpy(), random)
    windows = np.lib.stride_tricks.sliding_window_view(ground, (_SIDE, _SIDE), (1, 2)).transpose(1, 2, 0, 3, 4)
    corner = random.randint(0, windows.shape[:2], (len(rows), 2))
    offset = random.randint(0, _SIDE - _SMALL + 1, (len(rows), 2)) if translated else None
    step = block_rows(3 * _SIDE * _SIDE)
    for start in range(0, size, step):
        part = slice(start, min(start + step, size))
        marks = digits.samples[torch.from_numpy(rows[part])]
        digit = moved(marks, offset[part]) if offset is not None else marks.numpy()
        # Bytes: 255 - v is v with every bit turned over.
        yield windows[corner[part, 0], corner[part, 1]] ^ np.where(digit > 128, np.uint8(255), np.uint8(0))


def moved(marks: Tensor, offset: np.ndarray) -> np.ndarray:
    """Return digits (n, 1, 28, 28) at three quarters of their size, on black, with their corners at `offset` (n, 2)."""
    small = prepare(marks, image_size=_SMALL, antialias=False).numpy()
    result = np.zeros((len(small), 1, _SIDE, _SIDE), np.uint8)
    along = np.arange(_SMALL)
    down, right = offset[:, 0, None] + along, offset[:, 1, None] + along
    result[np.arange(len(small))[:, None, None], 0, down[:, :, None], right[:, None, :]] = small[:, 0]
    return result
