"""Two folders of images: figures against those of torch-fidelity's command, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fidelity_helpers import CLASSIFIER, SMALL, patch_means, renamed, write_images
from PIL import Image

from vaekit import VaekitError
from vaekit.evaluation import compare_images


@pytest.fixture(scope="module")
def theirs() -> str:
    """The name of an extractor that torch-fidelity knows and that is `CLASSIFIER`."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import register_feature_extractor

    class Patches(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features, logits = (4 * patch_means(images)).split(4, 1)
            return tuple({"features": features, "logits": logits}[name] for name in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

    register_feature_extractor("vaekit-test-patches", Patches)
    return "vaekit-test-patches"


def test_figures_are_those_of_torch_fidelity(theirs: str, tmp_path: Path) -> None:
    """For more images than a block, of another number in each folder."""
    from torch_fidelity import calculate_metrics

    first, second = write_images(tmp_path / "a", 530, seed=0), write_images(tmp_path / "b", 510, seed=1, most=200)
    (first / "notes.txt").write_text("no image")
    expected = calculate_metrics(
        input1=str(first), input2=str(second), cuda=False, cache=False, save_cpu_ram=True, verbose=False,
        isc=True, fid=True, kid=True, prc=True, kid_subset_size=510, feature_extractor=theirs,
    )  # fmt: skip
    found = compare_images(first, second, CLASSIFIER, batch_size=33)
    assert found.values == pytest.approx(renamed(expected), rel=1e-4, abs=1e-6)
    assert 0.0 < found.values["recall"] < 1.0
    assert found.values["class_score"] > 1.02
    again = compare_images(first, second, CLASSIFIER, batch_size=200)
    assert again.values == pytest.approx(found.values, rel=1e-5)
    assert found.protocol == again.protocol
    assert found.protocol["first"] == {"images": 530, "image_size": [12, 12]}
    assert found.protocol["second"] == {"images": 510, "image_size": [12, 12]}
    assert found.protocol["torch_fidelity"]["kid_subset_size"] == 510
    assert found.protocol["extractor"] == {"name": "patch classes", "sha256": "2" * 64, "defines_fid": False}


def test_a_folder_and_itself(tmp_path: Path) -> None:
    folder, said = write_images(tmp_path / "a", 20, seed=0), []
    found = compare_images(folder, folder, SMALL, progress=lambda *report: said.append(report))
    assert abs(found.values["frechet_distance"]) < 1e-3
    assert (found.values["precision"], found.values["recall"]) == (1.0, 1.0)
    assert "class_score" not in found.values
    assert found.notes == ["there is no inception score: 'patch means' is no classifier"]
    assert said[-1] == (20, 20, f"features of {folder}")


def test_what_is_no_folder_of_images(tmp_path: Path) -> None:
    good, other, empty = write_images(tmp_path / "a", 12, seed=0), tmp_path / "b", tmp_path / "c"
    write_images(other, 12, seed=1)
    empty.mkdir()
    with pytest.raises(VaekitError, match="nowhere is no folder"):
        compare_images(good, tmp_path / "nowhere", SMALL)
    with pytest.raises(VaekitError, match="holds no images"):
        compare_images(good, empty, SMALL)
    write_images(tmp_path / "few", 3, seed=0)
    with pytest.raises(VaekitError, match="precision and recall, each set needs 4 or more"):
        compare_images(good, tmp_path / "few", SMALL)
    Image.new("RGB", (9, 7)).save(other / "011.png")
    with pytest.raises(VaekitError, match=r"011\.png has 9 x 7 pixels and the first image of its folder 12 x 12"):
        compare_images(good, other, SMALL)
    (other / "011.png").write_bytes(b"damaged")
    with pytest.raises(VaekitError, match=r"011\.png cannot be read as an image"):
        compare_images(good, other, SMALL)
