"""What is read from the representation: probes, neighbours, sparseness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import built, random_images, tiny
from test_bounds import only
from test_pvae import LINEAR, pvae

from vaekit.data import Dataset, Split
from vaekit.errors import VaekitError
from vaekit.evaluation.readout import neighbours, probe, responses, sparsity


def classes(seed: int = 0, separable: bool = True) -> Dataset:
    """Three classes of images, which differ in one row where they can be told apart."""
    torch.manual_seed(seed)
    labels = torch.arange(240) % 3
    samples = torch.randint(0, 60, (240, 1, 8, 8), dtype=torch.uint8)
    if separable:
        samples[torch.arange(240), :, labels] += 190
    parts = [Split(samples[start : start + 80], labels[start : start + 80]) for start in (0, 80, 160)]
    return Dataset("classes", *parts)


@pytest.mark.parametrize("recipe", ["vae", "pvae", "categorical-vae", "hyperspherical-vae", "gamix", "rae"])
@pytest.mark.parametrize("metric", [probe, neighbours])
def test_classes_that_differ_are_found(metric: Any, recipe: str) -> None:
    model = built(tiny(recipe, latent_dim=20))[0].eval()
    found = only(metric, model, classes(), split="test")
    assert found.values["accuracy"] > 0.9
    assert found.protocol["fitted_on"] == 80
    assert not found.notes
    assert only(metric, model, classes(separable=False)).values["accuracy"] < 0.6


@pytest.mark.parametrize("metric", [probe, neighbours])
def test_labels_are_needed_and_training_samples_are_no_test(metric: Any) -> None:
    model = built(tiny("vae"))[0].eval()
    with pytest.raises(VaekitError, match="needs labels"):
        only(metric, model, random_images())
    assert any("fitted to" in note for note in only(metric, model, classes(), split="train").notes)


def test_one_class_cannot_be_told_from_others() -> None:
    split = Split(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.zeros(9, dtype=torch.long))
    with pytest.raises(VaekitError, match="two classes"):
        only(probe, built(tiny("vae"))[0].eval(), Dataset("one", split, split))


@pytest.mark.parametrize("metric", [probe, neighbours, sparsity])
def test_figures_do_not_depend_on_the_batch_size(metric: Any) -> None:
    model = built(tiny("vae"))[0].eval()
    first, other = (only(metric, model, classes(), batch_size=size, binarize=True).values for size in (64, 9))
    assert first == other


def test_sparsity_of_counts() -> None:
    """Rates e^(a x): one dimension that responds to a single sample, one to all alike, one to none."""
    model = pvae(LINEAR, (2,), 3, max_log_rate=500.0).eval()
    with torch.no_grad():
        model.posterior.log_ratio.weight.copy_(torch.tensor([[40.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        model.posterior.log_ratio.bias.copy_(torch.tensor([-38.0, 0.0, -60.0]))
        model.prior.log_rate.zero_()
    split = Split(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    found = only(sparsity, model, Dataset("rates", split, split, is_image=False))
    rate = torch.e**2
    assert found.protocol == {"responses": "mean counts"}
    assert found.values["lifetime"] == pytest.approx((1.0 + 0.0 + 0.0) / 3, abs=1e-3)
    loud = 1.5 - 0.5 * (rate + 1) ** 2 / (rate**2 + 1)
    assert found.values["population"].mean == pytest.approx((loud + 1 + 1) / 3, abs=1e-3)
    silent = 2.718281828**-1
    expected = (2 * 1.0 + 3 * silent + 3 * 1.0 + torch.tensor(-rate).exp().item()) / 9
    assert found.values["zeros"].mean == pytest.approx(expected, abs=1e-3)


def test_sparsity_of_means() -> None:
    model = built(tiny("vae"))[0].eval()
    found = only(sparsity, model, random_images())
    assert found.protocol == {"responses": "absolute posterior means"}
    assert set(found.values) == {"lifetime", "population"}
    assert 0.0 < found.values["lifetime"] < 1.0
    with torch.no_grad():
        for parameter in model.posterior.parameters():
            parameter.fill_(0.5)
        model.posterior.loc.weight.zero_()
    alike = only(sparsity, model, random_images()).values
    assert alike["lifetime"] == pytest.approx(0.0, abs=1e-6)
    assert alike["population"].mean == pytest.approx(0.0, abs=1e-6)
    assert responses(model, [torch.rand(3, 1, 8, 8)]).values.tolist() == [[0.5] * 4] * 3


def test_one_dimension_has_no_population() -> None:
    found = only(sparsity, built(tiny("vae", latent_dim=1))[0].eval(), random_images())
    assert set(found.values) == {"lifetime"}
    assert any("population" in note for note in found.notes)
