"""The ten classes of digits that multimodal sets are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from vaekit.data.dataset import Dataset
from vaekit.data.idx import has_mnist
from vaekit.data.standard import digits, mnist

__all__ = ["DigitSource", "load_digits"]

#: `digits` are the 1,797 of scikit-learn, enlarged; `auto` is MNIST where its files lie under the data root.
DigitSource: TypeAlias = Literal["auto", "mnist", "digits"]


def load_digits(source: DigitSource, root: Path, offline: bool, image_size: int = 28) -> tuple[str, Dataset, str]:
    """Return the name of the source, its digits in grey, and a sentence that says which they are.

    `auto` never downloads anything: what it gives depends on the files under the data root alone.

    Arguments:
        source: Which digits.
        root: The data root.
        offline: Forbid the download of MNIST.
        image_size: Side of the images.

    Raises:
        VaekitError: As the data sets `mnist` and `digits`.
    """
    if source == "mnist" or (source == "auto" and has_mnist(root)):
        return "mnist", mnist(root, None, offline, image_size=image_size), "the digits are those of MNIST"
    why = f" (MNIST is not under {root}; digits=mnist fetches it)" if source == "auto" else ""
    found = digits(root, None, offline, image_size=image_size)
    return "digits", found, f"the digits are the 1,797 of scikit-learn, 8x8 enlarged to {image_size}x{image_size}{why}"
