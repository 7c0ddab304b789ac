"""What the latent says of the data: quadrature, a linear-Gaussian model, collapse, every recipe."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from helpers import ONE_MODALITY, built, random_images, tiny
from test_bounds import only, small, vectors
from test_information import LOC, SCALE
from test_information import quadrature as parts_of_two_dimensions
from test_iwae import linear_model, marginal, true_posterior
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaekit.evaluation.information import LatentInformation, kl_by_dimension, latent_information, log_aggregate
from vaekit.evaluation.readout import latent
from vaekit.evaluation.subsets import estimate

# Log-variances that are not clamped, so that a variance may be 1 exactly.
FREE = tiny("vae", posterior={"log_variance_range": None})


def gaussian(loc: Tensor, scale: Any = 1.0) -> Any:
    return dist.Normal(loc, scale * torch.ones_like(loc)).to_event(1)


def standard(dimensions: int) -> Any:
    return gaussian(torch.zeros(dimensions))


def many(loc: Tensor, scale: Tensor, p: Any, count: int = 700) -> LatentInformation:
    """What a mixture of a few Gaussians says, from `count` draws of each: the same mixture, and more draws."""
    q = gaussian(loc.repeat(count, 1), scale.repeat(count, 1))
    return latent_information([q], p, [q.sample()])


@pytest.mark.usefixtures("float64")
def test_log_aggregate_is_the_mixture() -> None:
    z, loc, scale = torch.randn(11, 2), torch.randn(9, 2), torch.rand(9, 2) + 0.2
    batches = [gaussian(a, b) for a, b in zip(loc.split(4), scale.split(4), strict=True)]
    uniform = Categorical(torch.ones(9))
    joint = MixtureSameFamily(uniform, Independent(Normal(loc, scale), 1)).log_prob(z)
    found, marginals = log_aggregate(batches, z)
    torch.testing.assert_close(found, joint, rtol=0, atol=1e-10)
    each = [MixtureSameFamily(uniform, Normal(loc[:, d], scale[:, d])).log_prob(z[:, d]) for d in (0, 1)]
    torch.testing.assert_close(marginals, torch.stack(each, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("recipe", [name for name in ONE_MODALITY if name not in ("rae", "wae-mmd")])
def test_log_aggregate_of_every_posterior(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one posterior after the other; pieces of 5 points."""
    model = built(small(recipe))[0].eval()
    if model.posterior.__class__.__name__ == "Delta":
        pytest.skip("a point has no density")
    x = 2 * torch.rand(7, 1, 8, 8) - 1
    with torch.no_grad():
        q, z = model.encode(x), model.encode(torch.rand(12, 1, 8, 8)).sample()
        each = torch.stack([model.encode(one.expand(12, *one.shape)).log_prob(z).double() for one in x])
        monkeypatch.setattr("vaekit.evaluation.information._NUMBERS", 5 * 3 * z.shape[1])
        found, _ = log_aggregate([model.encode(x[:3]), model.encode(x[3:])], z)
    assert q.batch_shape == (7,)
    torch.testing.assert_close(found, each.logsumexp(0) - math.log(7), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_one_dimension_is_quadrature() -> None:
    """A mixture of three Gaussians and a Laplace prior."""
    loc, scale = torch.tensor([[-2.0], [0.5], [3.0]]), torch.tensor([[0.5], [1.0], [0.8]])
    p = dist.Laplace(torch.zeros(1), 1.5 * torch.ones(1)).to_event(1)
    line = torch.linspace(-15, 15, 30001)
    density = Normal(loc, scale).log_prob(line).exp().mean(0)
    step, own = 1e-3, (0.5 + 0.5 * math.log(2 * math.pi) + scale.log()).mean().item()
    entropy = -torch.special.xlogy(density, density).sum().item() * step
    cross = -(density * p.base_dist.log_prob(line)).sum().item() * step
    expected = {"rate": cross - own, "mutual_information": entropy - own, "marginal_kl": cross - entropy}
    found = many(loc, scale, p)
    for name, value in expected.items():
        figure = found.estimates[name]
        assert abs(figure.mean - value) < 4 * figure.standard_error + 1e-9, name
        assert figure.standard_error < 0.03 < value
    assert found.estimates["rate"].standard_error > 0.0
    assert found.estimates["rate"].mean == pytest.approx(expected["rate"], abs=1e-6), "in closed form"
    assert found.estimates["total_correlation"].mean == pytest.approx(0.0, abs=1e-12), "of one dimension"
    assert found.by_dimension["kl_by_dimension"] == pytest.approx([expected["rate"]])


@pytest.mark.usefixtures("float64")
def test_two_dimensions_are_quadrature() -> None:
    found = many(LOC, SCALE, standard(2))
    information, correlation, by_dimension = parts_of_two_dimensions()
    expected = {
        "mutual_information": information,
        "total_correlation": correlation,
        "marginal_kl": correlation + by_dimension,
        "rate": information + correlation + by_dimension,
    }
    for name, value in expected.items():
        figure = found.estimates[name]
        assert abs(figure.mean - value) < 4 * figure.standard_error + 1e-6, name
        assert figure.standard_error < 0.03 < value
    assert sum(found.by_dimension["marginal_kl_by_dimension"]) == pytest.approx(by_dimension, abs=0.05)
    assert sum(found.by_dimension["kl_by_dimension"]) == pytest.approx(found.estimates["rate"].mean)


@pytest.mark.usefixtures("float64")
def test_a_linear_gaussian_model_has_the_closed_forms() -> None:
    """x ~ N(0, C), q(z|x) = N(A x, S): the aggregate is N(0, ACA' + S)."""
    torch.manual_seed(4)
    gain = torch.tensor([[0.8, 0.3, 0.0], [0.9, 0.2, 0.3]])
    noise, count = torch.tensor([0.3, 0.4]), 3000
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, -0.4, 0.8]])
    x = torch.randn(count, 3) @ mixing.T
    posteriors = [gaussian(part @ gain.T, noise.sqrt()) for part in x.split(64)]
    found = latent_information(posteriors, standard(2), [q.sample() for q in posteriors])
    signal = gain @ mixing @ mixing.T @ gain.T
    total = signal + noise.diag()
    information = 0.5 * (total.logdet() - noise.log().sum())
    marginal = 0.5 * (total.trace() - 2 - total.logdet())
    correlation = 0.5 * (total.diagonal().log().sum() - total.logdet())
    by_dimension = 0.5 * (total.diagonal() - 1 - total.diagonal().log())
    expected = {
        "rate": information + marginal,
        "mutual_information": information,
        "marginal_kl": marginal,
        "total_correlation": correlation,
    }
    for name, value in expected.items():
        # The rows are random as well, and N posteriors stand for all: a little more than the draws' own errors.
        assert found.estimates[name].mean == pytest.approx(value.item(), abs=0.05), name
        assert value > 0.08, name
    assert found.by_dimension["marginal_kl_by_dimension"] == pytest.approx(by_dimension.tolist(), abs=0.04)
    assert found.aggregate.active_units == 2
    torch.testing.assert_close(found.aggregate.variance_of_means, signal.diagonal(), rtol=0.06, atol=0)


def test_the_true_posterior_on_data_of_the_model_has_the_prior_as_its_aggregate() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = linear_model()
        true_posterior(model)
        x, variance = marginal(model).sample((3000,)), model.encode(torch.zeros(1, 5)).variance.detach()[0]
    finally:
        torch.set_default_dtype(torch.float32)
    found = only(latent, model.float(), vectors(x.float()), samples=3000).values
    information = -0.5 * variance.log().sum().item()
    assert found["mutual_information"].mean == pytest.approx(information, abs=0.04)
    assert found["rate"].mean == pytest.approx(information, abs=0.04)
    assert information > 1.0
    assert found["marginal_kl"].mean == pytest.approx(0.0, abs=0.03)
    assert found["marginal_kl_by_dimension"] == pytest.approx([0.0, 0.0], abs=0.02)
    assert found["mean_variance"] == pytest.approx(variance.tolist())
    assert found["variance_of_means"] == pytest.approx((1 - variance).tolist(), abs=0.05)


def test_rate_is_information_plus_marginal_kl() -> None:
    for recipe in ("vae", "gamix", "hyperspherical-vae", "pvae", "categorical-vae", "iaf-vae"):
        found = only(latent, built(small(recipe))[0].eval(), random_images()).values
        total = found["mutual_information"].mean + found["marginal_kl"].mean
        assert found["rate"].mean == pytest.approx(total, abs=1e-9), recipe


def test_a_collapsed_model_says_nothing() -> None:
    model = built(FREE)[0].eval()
    with torch.no_grad():
        for parameter in model.posterior.parameters():
            parameter.zero_()
    found = only(latent, model, random_images(400)).values
    for name in ("rate", "mutual_information", "marginal_kl", "total_correlation"):
        assert found[name].mean == pytest.approx(0.0, abs=2e-6), name
    assert found["active_units"] == 0
    assert found["kl_by_dimension"] == found["variance_of_means"] == [0.0] * 4
    assert found["mean_variance"] == pytest.approx([1.0] * 4)


def test_a_dead_dimension_is_seen() -> None:
    model = built(FREE)[0].eval()
    with torch.no_grad():
        model.posterior.loc.weight.mul_(20.0)
        for parameter in model.posterior.parameters():
            parameter[1] = 0.0
    result = only(latent, model, random_images(400))
    found = result.values
    assert found["active_units"] == 3
    assert [value > 0.01 for value in found["kl_by_dimension"]] == [True, False, True, True]
    assert found["kl_by_dimension"][1] == found["variance_of_means"][1] == 0.0
    assert found["marginal_kl_by_dimension"][1] == pytest.approx(0.0, abs=0.3)
    assert found["mean_variance"][1] == pytest.approx(1.0)


def test_information_has_a_cap_and_the_note_says_so() -> None:
    model = built(tiny("vae"))[0].eval()
    assert not any("at least what is given" in note for note in only(latent, model, random_images(400)).notes)
    with torch.no_grad():
        model.posterior.loc.weight.mul_(1e4)
    result = only(latent, model, random_images(400))
    assert result.values["mutual_information"].mean == pytest.approx(math.log(100), abs=1e-5)
    assert any("100 samples can show, 4.61 nats" in note for note in result.notes)
    assert result.protocol["samples"] == 100


def test_figures_do_not_depend_on_the_batch_size() -> None:
    model, data = built(tiny("vae"))[0].eval(), random_images(600)
    first, *others = (only(latent, model, data, batch_size=size).values for size in (64, 7, 200))
    assert all(first == other for other in others)
    assert first["rate"] == only(latent, model, data, seed=1).values["rate"], "in closed form"
    assert first["mutual_information"] != only(latent, model, data, seed=1).values["mutual_information"]


MOMENTS = {"active_units", "variance_of_means", "mean_variance"}
JOINT = {"mutual_information"}
RATE = {"rate", "marginal_kl"}
BY_DIMENSION = {"kl_by_dimension", "marginal_kl_by_dimension"}
LEFT_OUT: dict[str, set[str]] = {
    "rae": JOINT | RATE | BY_DIMENSION | {"total_correlation"},
    "wae-mmd": JOINT | RATE | BY_DIMENSION | {"total_correlation"},
    "evae": RATE | BY_DIMENSION,
    "noise-matched-ae": RATE | BY_DIMENSION,
    "vampprior": BY_DIMENSION,
    "flow-prior": BY_DIMENSION,
    **dict.fromkeys(
        ("gamix", "gamix-small", "gamix-author", "hyperspherical-vae", "categorical-vae", "iaf-vae",
         "full-gaussian-vae"),
        BY_DIMENSION | {"total_correlation"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("recipe", ONE_MODALITY)
def test_every_recipe_has_its_figures_or_is_told_why_not(recipe: str) -> None:
    result = only(latent, built(small(recipe))[0].eval(), random_images(60))
    missing = LEFT_OUT.get(recipe, set())
    assert set(result.values) == (MOMENTS | JOINT | RATE | BY_DIMENSION | {"total_correlation"}) - missing
    reasons = [note for note in result.notes if note.startswith("there is no figure of")]
    assert bool(reasons) == bool(missing)
    for value in result.values.values():
        numbers = value if isinstance(value, list) else [getattr(value, "mean", value)]
        assert all(math.isfinite(number) for number in numbers)


def test_dimensions_without_a_closed_form_are_estimated() -> None:
    """EVAE with a Gaussian prior: the mean over draws is the rate."""
    model = built(tiny("evae-gaussian"))[0].eval()
    q, p = model.encode(torch.rand(500, 1, 8, 8)), model.prior()
    z = q.sample()
    found = kl_by_dimension(q, p, z).detach()
    torch.testing.assert_close(found.sum(1).float(), q.log_prob(z) - p.log_prob(z), rtol=1e-4, atol=1e-3)
    assert estimate(found.sum(1)).mean > 0.0


def test_samples_beyond_the_most_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.evaluation.readout._MOST", 40)
    model, done = built(tiny("vae"))[0].eval(), []
    data = replace(random_images(400))
    result = only(latent, model, data, progress=lambda *arguments: done.append(arguments))
    assert result.protocol["samples"] == result.values["rate"].count == 40
    assert {what for _, _, what in done} == {"latent", "aggregate posterior"}
