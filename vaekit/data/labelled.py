"""Digits paired with what they are."""

from __future__ import annotations

from pathlib import Path

import torch

from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split, finish
from vaekit.data.digit_source import DigitSource, load_digits
from vaekit.registry import datasets

__all__ = ["mnist_labels"]


@datasets.register(
    "mnist-labels",
    about="A digit, 28x28, grey, and which of ten it is, one-hot: modalities image and label",
    source="Joint Multimodal Learning with Deep Generative Models, Suzuki, Nakayama and Matsuo, 2016, arXiv 1611.01891",
)
def mnist_labels(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    digits: DigitSource = "auto",
    image_size: int = 28,
    limit: int | None = None,
) -> Dataset:
    """Return pairs of a digit and its label as ten numbers, one of them 1 and the others 0.

    Arguments:
        root: The data root, for MNIST.
        progress: Never called.
        offline: Forbid the download of MNIST.
        digits: As for `polymnist`.
        image_size: Side of the images.
        limit: Keep the first so many pairs of each split.

    Raises:
        VaekitError: MNIST is asked for and is not there.
    """
    source, data, which = load_digits(digits, root, offline, image_size)
    splits = {}
    for name, split in data.splits.items():
        one_hot = Split(torch.nn.functional.one_hot(split.labels, 10).float(), values="classes")
        splits[name] = PairedSplit({"image": Split(split.samples), "label": one_hot}, split.labels)
    protocol = {"digits": source, "image_size": image_size, "split": data.protocol["split"]}
    return finish("mnist-labels", splits, is_image=False, limit=limit, notes=[which], **protocol)
