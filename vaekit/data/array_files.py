"""What `.npy` and `.npz` files hold: samples, labels and the generative factors that samples were made from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaekit.data.cache import available_memory
from vaekit.errors import VaekitError

__all__ = [
    "LABELS",
    "SAMPLES",
    "Contents",
    "entry",
    "loading_errors",
    "read_array",
    "read_factors",
    "read_labels",
    "refuse_large",
]

SAMPLES = ("images", "x", "data", "arr_0", "imgs")
LABELS = ("labels", "y")

# The file's own names lie in a pickled array, which is never read.
_DSPRITES: tuple[str, ...] = ("color", "shape", "scale", "orientation", "posX", "posY")


class Contents(NamedTuple):
    """What an array file holds.

    Attributes:
        samples: One row a sample.
        labels: int64 of shape (N,), or None.
        factors: int64 of shape (N, K), the values of generative factors, or None.
        factor_names: The names of the factors.
    """

    samples: np.ndarray
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None
    factor_names: tuple[str, ...] = ()


def read_array(path: Path) -> Contents:
    """Return what a `.npy` or `.npz` file holds, without ever running pickled code.

    The file of dSprites is known by its keys. Its images are black and white, and their shapes are the labels.

    References:
        dSprites - Disentanglement testing Sprites dataset, Matthey, Higgins, Hassabis and Lerchner, 2017,
        https://github.com/google-deepmind/dsprites-dataset

    Raises:
        VaekitError: Missing, damaged, made of Python objects, or without a key for the samples.
    """
    with loading_errors(path):
        if path.suffix == ".npy":
            return Contents(np.lib.format.open_memmap(path, mode="r"))
        with path.open("rb") as handle:
            file = np.load(handle, allow_pickle=False)
            if isinstance(file, np.ndarray):
                return Contents(file)
            refuse_large(file)
            key = next((name for name in SAMPLES if name in file), None)
            if key is None:
                raise VaekitError(
                    f"{path} holds {', '.join(file) or 'nothing'}: name the samples "
                    f"{' or '.join(SAMPLES)}, and labels {' or '.join(LABELS)}"
                )
            found = Contents(entry(path, file, key), read_labels(path, file), *read_factors(path, file))
            return _dsprites(found, found.factors) if found.factors is not None and _is_dsprites(file) else found


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
    except Exception as error:  # a damaged file fails in many ways
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise VaekitError(
                f"{path} holds Python objects, which vaekit never unpickles: save plain numbers"
            ) from None
        raise VaekitError(f"{path} cannot be read as a NumPy array: {str(error) or type(error).__name__}") from error


def entry(path: Path, file: Mapping[str, Any], key: str) -> np.ndarray:
    """Return an array of an open `.npz` file.

    Raises:
        VaekitError: What lies under the key is no array.
    """
    found = file[key]
    if not isinstance(found, np.ndarray):
        raise VaekitError(f"{path} holds '{key}', which is no NumPy array: save it with numpy.savez")
    return found


def refuse_large(file: Any) -> None:
    """Refuse an open `.npz` file that would not fit in memory: what is packed may be of any size.

    Raises:
        MemoryError: It would not.
    """
    size, free = sum(part.file_size for part in file.zip.infolist()), available_memory()
    if 0 < free < size:
        raise MemoryError


def read_labels(path: Path, file: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the labels of an open `.npz` file as int64, None where it has none.

    Raises:
        VaekitError: They are not one integer a sample.
    """
    key = next((name for name in LABELS if name in file), None)
    if key is None:
        return None
    labels = entry(path, file, key)
    if labels.ndim != 1 or labels.dtype.kind not in "biu":
        raise VaekitError(
            f"{path} has labels of shape {labels.shape} and type {labels.dtype}: use one integer a sample"
        )
    return labels.astype(np.int64)


def read_factors(path: Path, file: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the factors of an open `.npz` file as int64 (N, K) and their names; None and no name where it has none.

    They are its `factors`, and their names, if any, its `factor_names`. Those of dSprites come under that file's own
    key, without the colour, which is the same in all samples.

    Raises:
        VaekitError: They are not one row of integers a sample, or there is not one name for each.
    """
    key = "latents_classes" if _is_dsprites(file) else "factors"
    if key not in file:
        return None, ()
    table = entry(path, file, key)
    if table.ndim != 2 or table.dtype.kind not in "biu":
        raise VaekitError(
            f"{path} has factors of shape {table.shape} and type {table.dtype}: use one row of integers a sample, one "
            "column a factor"
        )
    if key == "latents_classes":
        names = _DSPRITES
    elif "factor_names" in file:
        names = tuple(map(str, np.atleast_1d(entry(path, file, "factor_names"))))
    else:
        names = tuple(f"factor{number}" for number in range(table.shape[1]))
    if len(set(names)) != table.shape[1] or len(names) != table.shape[1]:
        raise VaekitError(f"{path} has {table.shape[1]} factors, named {', '.join(names)}: give each a name of its own")
    if key == "latents_classes" and len(np.unique(table[:, 0])) < 2:
        table, names = table[:, 1:], names[1:]
    return table.astype(np.int64), names


def _is_dsprites(file: Mapping[str, np.ndarray]) -> bool:
    return "imgs" in file and "latents_classes" in file


def _dsprites(found: Contents, factors: np.ndarray) -> Contents:
    """Return the contents of dSprites with 0 and 1 as bools, for they are no grey values, and shapes as labels."""
    if found.samples.dtype == np.uint8 and found.samples.max(initial=0) <= 1:
        found = found._replace(samples=found.samples.view(bool))
    return found._replace(labels=factors[:, found.factor_names.index("shape")])
