"""What tests of fidelity share: small extractors, weights for the Inception network, and folders of images."""

from __future__ import annotations

import io
import math
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaekit.evaluation import Extractor


def patch_means(images: torch.Tensor) -> torch.Tensor:
    """Features (B, 8): means of four patches of an image, and of their squares."""
    patches = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True) / 255, 2).flatten(1)
    return torch.cat([patches, patches.square()], 1)


#: A small extractor, and one whose last four columns are logits.
SMALL = Extractor("patch means", "1" * 64, patch_means)
CLASSIFIER = Extractor("patch classes", "2" * 64, lambda images: 4 * patch_means(images), classes=4)


def inception_state() -> dict[str, torch.Tensor]:
    """Return weights of torch-fidelity's Inception network, at random but of a size that keeps features alive."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Keep the weights that the network was made with."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    state = Random("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing).state_dict()
    for value in state.values():
        if value.ndim == 4:
            torch.nn.init.normal_(value, 0.0, math.sqrt(2.0 / value[0].numel()))
    state["fc.weight"] *= 30.0  # for classes that differ
    return state


def write_images(folder: Path, count: int, seed: int, size: int = 12, most: int = 255) -> Path:
    """Write blocks of colour as PNG files, the first ten grey."""
    generator = np.random.RandomState(seed)
    folder.mkdir()
    for number in range(count):
        pixels = generator.randint(0, most + 1, (3, 3, 3), np.uint8).repeat(size // 3, 0).repeat(size // 3, 1)
        image = Image.fromarray(pixels).convert("L" if number < 10 else "RGB")
        image.save(folder / f"{number:03d}.png")
    return folder


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection, and every look-up of a name, an error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


def renamed(theirs: Mapping[str, float]) -> dict[str, float]:
    """Return torch-fidelity's figures under the names that they have with an extractor that does not define the FID."""
    names = {
        "frechet_inception_distance": "frechet_distance",
        "kernel_inception_distance_mean": "kernel_distance",
        "kernel_inception_distance_std": "kernel_distance_std",
        "inception_score_mean": "class_score",
        "inception_score_std": "class_score_std",
    }
    return {names.get(name, name): value for name, value in theirs.items()}
