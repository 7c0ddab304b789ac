"""The Inception network, with random weights: loaded offline, and its figures against those of torch-fidelity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fidelity_helpers import inception_state, refuse_network, renamed, write_images
from safetensors.torch import save_file

from vaekit.evaluation import compare_images, frechet_distance, load_extractor
from vaekit.evaluation.weights import INCEPTION, source_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.manual_seed(0)  # The module is set up before any test is seeded.
    torch.save(inception_state(), path)
    return path


def test_offline_from_every_place(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    state = torch.load(weights, weights_only=True)
    extractor = load_extractor("inception", weights=weights, offline=True)
    assert (extractor.name, extractor.classes) == (INCEPTION, 1008)
    assert not extractor.defines_fid
    assert "not the file that the FID is defined by" in extractor.notes()[0]
    features, logits = extractor.split(extractor.rows(torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)))
    assert features.shape == (1, 2048)
    torch.testing.assert_close(logits, features @ state["fc.weight"].T, rtol=1e-4, atol=1e-4)
    # The same tensors as safetensors, and where torch.hub would have put the file.
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "weights.safetensors")
    place = tmp_path / "hub" / "checkpoints" / source_of(INCEPTION)[1]
    place.parent.mkdir(parents=True)
    place.symlink_to(weights)
    for again in (load_extractor("inception", weights=tmp_path / "weights.safetensors"), load_extractor(INCEPTION)):
        assert again.name == INCEPTION
        assert torch.equal(again.network.network.fc.weight, state["fc.weight"])


def test_downloaded_weights_are_used_from_then_on(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(_: str, place: str, *__: object, **___: object) -> None:
        Path(place).symlink_to(weights)

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert load_extractor("inception").sha256 == load_extractor("inception", offline=True).sha256


def test_two_folders_as_torch_fidelity_compares_them(weights: Path, tmp_path: Path) -> None:
    from torch_fidelity import calculate_metrics

    count = 14
    first, second = write_images(tmp_path / "a", count, seed=0), write_images(tmp_path / "b", count, seed=1, most=120)
    theirs = calculate_metrics(
        input1=str(first), input2=str(second), cuda=False, cache=False, save_cpu_ram=True, verbose=False,
        isc=True, fid=True, kid=True, prc=True, kid_subset_size=count, batch_size=7,
        feature_extractor=INCEPTION, feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    extractor = load_extractor("inception", weights=weights, offline=True)
    found = compare_images(first, second, extractor, batch_size=6)
    expected = renamed(theirs)
    # Every subset of the kernel distance is the whole set: there is no spread to report.
    assert expected.pop("kernel_distance_std") == pytest.approx(0.0, abs=1e-6)
    assert found.values == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found.values["frechet_distance"] > 0.1
    assert found.values["class_score"] > 1.001  # 1 is no difference between images
    rows = extractor.features(torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8))
    assert abs(frechet_distance(rows, rows)) < 1e-3
