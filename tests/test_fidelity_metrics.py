"""Metrics of generated images: what they are computed from, what they say, and what is not computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fidelity_helpers import CLASSIFIER, SMALL, patch_means
from helpers import random_images

import vaekit as vk
from vaekit import VaekitError
from vaekit.data import Dataset, Split
from vaekit.evaluation import Extractor, frechet_distance
from vaekit.evaluation.extractors import FID_WEIGHTS
from vaekit.evaluation.fidelity_metrics import figure, frechet, inception_score, kid, precision_recall
from vaekit.evaluation.protocol import Options, Result
from vaekit.evaluation.samplers import Sampler
from vaekit.evaluation.weights import INCEPTION
from vaekit.reporting.images import to_uint8

COUNT = 620


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def model() -> vk.VAE:
    torch.manual_seed(0)
    return vk.recipe("vae", data="digits", latent_dim=3, backbone={"hidden": [16]}).model.eval()


@pytest.fixture(scope="module")
def data() -> Dataset:
    images = random_images(COUNT * 4 // 3 + 4)
    return replace(images, train=images.train.rows(slice(COUNT)))


def options(model: vk.VAE, data: Dataset, **changes: Any) -> Options:
    return Options(split="train", samples=COUNT, extractor=SMALL, sampler=Sampler(model, data), **changes)


class Counting:
    """An extractor that knows how many images it was given."""

    def __init__(self) -> None:
        self.images = 0
        self.extractor = Extractor("counting", "3" * 64, self)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return patch_means(images)


@torch.no_grad()
def test_what_is_compared(model: vk.VAE, data: Dataset) -> None:
    """Generated images are means of the decoder in 8 bits, of blocks of 500 latents; real ones the split's bytes."""
    chosen = options(model, data, samplers=("prior", "reconstructions"), seed=3)
    samples, reconstructions = frechet(model, data, chosen)
    sampler = Sampler(model, data)
    z = torch.cat([sampler.draw("prior", 500, 3, block=0), sampler.draw("prior", COUNT - 500, 3, block=1)])
    x = data.train.samples.float() / 255
    real = SMALL.features(data.train.samples)
    for found, images in ((samples, model.decode(z).mean), (reconstructions, model.reconstruct(x))):
        expected = frechet_distance(SMALL.features(to_uint8(images, (0.0, 1.0))), real)
        assert found.values == pytest.approx({"frechet_distance": expected}, rel=1e-4)
    assert samples.values["frechet_distance"] != pytest.approx(reconstructions.values["frechet_distance"], rel=1e-3)


def test_figures_do_not_depend_on_the_batch_size(model: vk.VAE, data: Dataset) -> None:
    """Of binarised data too, whose pixels are drawn."""
    chosen = options(model, data, samplers=("prior", "reconstructions"), binarize=True)
    for metric in (frechet, kid, precision_recall):
        first, second = (
            [result.values for result in metric(model, data, replace(chosen, batch_size=size))] for size in (64, 333)
        )
        for one, other in zip(first, second, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


def results(model: vk.VAE, data: Dataset, chosen: Options) -> Iterator[Result]:
    for metric in (frechet, kid, precision_recall, inception_score):
        yield from metric(model, data, chosen)


def test_protocols_and_names(model: vk.VAE, data: Dataset) -> None:
    found = list(results(model, data, replace(options(model, data), extractor=CLASSIFIER)))
    assert [list(result.values) for result in found] == [
        ["frechet_distance"],
        ["kernel_distance"],  # Every subset is the whole set: no spread.
        ["precision", "recall", "f_score"],
        ["class_score", "class_score_std"],
    ]
    shared = {
        "sampler": "prior",
        "images": "means of the decoder, scaled to 0 to 255, rounded and clipped",
        "image_size": [8, 8],
        "channels": 1,
        "generated": COUNT,
        "extractor": {"name": "patch classes", "sha256": "2" * 64, "defines_fid": False},
    }
    parameters = []
    for result in found:
        protocol = dict(result.protocol)
        parameters.append(protocol.pop("torch_fidelity"))
        assert protocol.pop("real", COUNT) == COUNT
        assert protocol == shared
        assert result.notes == []
    assert parameters[0] == {}
    assert (parameters[1]["kid_subset_size"], parameters[1]["kid_subsets"]) == (COUNT, 100)
    assert parameters[2:] == [
        {"prc_neighborhood": 3},
        {"isc_splits": 10, "samples_shuffle": True, "rng_seed": 2020},
    ]
    assert "real" not in found[3].protocol


def test_fid_is_the_name_of_one_network_with_one_file_of_weights(model: vk.VAE, data: Dataset) -> None:
    chosen = options(model, data)
    names = []
    for sha256 in (FID_WEIGHTS, "4" * 64):
        network = replace(CLASSIFIER, name=INCEPTION, sha256=sha256)
        found = list(results(model, data, replace(chosen, extractor=network)))
        names.append({name for result in found for name in result.values})
        assert all(("is defined by" in "".join(result.notes)) == (sha256 != FID_WEIGHTS) for result in found)
    prc = {"precision", "recall", "f_score"}
    assert names[0] == {"fid", "kid", "isc", "isc_std", *prc}
    assert names[1] == {"frechet_distance", "kernel_distance", "class_score", "class_score_std", *prc}


def test_the_kernel_distance_has_a_spread_where_subsets_differ() -> None:
    rows = torch.randn(1200, 3, generator=torch.Generator().manual_seed(0))
    three = Extractor("three", "3" * 64, lambda images: images)
    values, parameters = figure("kid", three, rows, rows + 0.5)
    assert set(values) == {"kernel_distance", "kernel_distance_std"}
    assert 0.0 < values["kernel_distance_std"] < values["kernel_distance"]
    assert parameters["kid_subset_size"] == 1000


def test_nothing_is_extracted_twice(model: vk.VAE, data: Dataset, tmp_path: Path, cache: Path) -> None:
    counting = Counting()
    chosen = replace(options(model, data, store=tmp_path / "features"), extractor=counting.extractor)
    known = replace(chosen, weights_sha256="5" * 64)
    for metric in (frechet, kid, precision_recall):
        list(metric(model, data, known))
    assert counting.images == 2 * COUNT
    assert len(list(cache.glob("*.f32"))) == 1
    assert len(list((tmp_path / "features").glob("*.f32"))) == 1
    # Other weights, seeds, samplers, fits and training data make other images, of the same data set.
    list(frechet(model, data, replace(known, weights_sha256="6" * 64)))
    list(frechet(model, data, replace(known, samplers=("reconstructions",))))
    list(frechet(model, data, replace(known, samplers=("aggregate-gaussian",))))
    list(frechet(model, data, replace(known, sampler=Sampler(model, data, seed=1))))
    list(frechet(model, replace(data, protocol={"data": "another"}), known))
    assert counting.images == 7 * COUNT
    list(frechet(model, data, replace(known, seed=1)))
    assert counting.images == 8 * COUNT
    # Without the hash of the weights nobody knows whose images they are.
    list(frechet(model, data, chosen))
    assert counting.images == 9 * COUNT
    assert len(list(cache.glob("*.f32"))) == 1


def test_other_images_under_one_name_are_another_reference(model: vk.VAE, data: Dataset) -> None:
    chosen = options(model, data)
    (before,) = frechet(model, data, chosen)
    inverted = replace(data, train=replace(data.train, samples=255 - data.train.samples))
    (after,) = frechet(model, inverted, chosen)
    assert before.values != after.values


def test_float_images_are_taken_to_bytes(model: vk.VAE, data: Dataset) -> None:
    chosen, floats = options(model, data), replace(data, train=Split(data.train.samples.float() / 255))
    (first,), (second,) = frechet(model, data, chosen), frechet(model, floats, chosen)
    assert first.values == second.values


def test_what_cannot_be_computed_says_why(model: vk.VAE, data: Dataset) -> None:
    chosen = options(model, data)
    with pytest.raises(VaekitError, match="needs a feature extractor: give one with --extractor"):
        next(frechet(model, data, replace(chosen, extractor=None)))
    with pytest.raises(VaekitError, match="the extractor 'patch means' has none: take --extractor inception"):
        next(inception_score(model, data, chosen))
    with pytest.raises(VaekitError, match="precision and recall, each set needs 4 or more"):
        next(precision_recall(model, data, replace(chosen, samples=3)))
    with pytest.raises(VaekitError, match="give the options a sampler"):
        next(frechet(model, data, replace(chosen, sampler=None)))
    with pytest.raises(VaekitError, match="no source of latents 'priro': did you mean 'prior'"):
        next(frechet(model, data, replace(chosen, samplers=("priro",))))
    vectors = Dataset("vectors", Split(torch.randn(COUNT, 5)), Split(torch.randn(9, 5)), is_image=False)
    with pytest.raises(VaekitError, match=r"compares images, and samples of 'vectors' have shape \(5,\)"):
        next(frechet(model, vectors, chosen))


def test_images_that_are_not_finite(data: Dataset) -> None:
    broken = vk.recipe("vae", data="digits", latent_dim=3, backbone={"hidden": [16]}).model.eval()
    with torch.no_grad():
        broken.last_layer[:] = torch.nan
    with pytest.raises(VaekitError, match="images of 'prior' hold values that are not finite"):
        next(frechet(broken, data, options(broken, data)))
