"""Fréchet distance, features and sharpness."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vaekit import VaekitError
from vaekit.evaluation import features_of, frechet_distance, load_extractor, sharpness


class Means(nn.Module):
    """A feature for every channel: its mean."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


def test_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(1)
    rows = torch.randn(2000, 2, dtype=torch.float64)
    rows = (rows - rows.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.T))).T  # exactly N(0, I)
    other = rows * torch.tensor([2.0, 3.0]) + torch.tensor([1.0, -1.0])
    assert frechet_distance(rows, other) == pytest.approx(2.0 + 1.0 + 4.0, rel=1e-9)
    assert frechet_distance(other, rows) == pytest.approx(7.0, rel=1e-9)
    assert abs(frechet_distance(other, other)) < 1e-3


def test_features_do_not_depend_on_the_batches() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    whole = features_of(Means(), [images])
    torch.testing.assert_close(features_of(Means(), images.split(7)), whole)


def test_an_extractor_from_a_file(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning):
        torch.jit.script(Means()).save(tmp_path / "means.ts")
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(features_of(load_extractor(tmp_path / "means.ts"), [images]), Means()(images))


@pytest.mark.parametrize("content", [None, b"no network"])
def test_no_extractor(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "file.ts").write_bytes(content)
    with pytest.raises(VaekitError, match=r"file\.ts is not a TorchScript file"):
        load_extractor(tmp_path / "file.ts")


def test_wrong_shapes_are_refused() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(VaekitError, match="images, features"):
        features_of(lambda x: x.float(), [images])
    with pytest.raises(VaekitError, match="equally many features"):
        frechet_distance(torch.zeros(4, 2), torch.zeros(4, 3))


def test_sharpness_falls_when_an_image_is_blurred() -> None:
    images = torch.rand(4, 1, 16, 16)
    blurred = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    assert (sharpness(blurred) < sharpness(images)).all()
    impulse = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    impulse[..., 2, 2] = 1.0
    assert sharpness(impulse).item() == pytest.approx(20 / 9, abs=1e-12)
