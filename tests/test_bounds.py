"""The terms of the ELBO and the importance-sampled likelihood as metrics: closed forms, what is no bound, units."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import built, random_images, tiny
from test_iwae import linear_model, marginal, true_posterior
from torch import Tensor

import vaekit as vk
from vaekit.data import Dataset, Split
from vaekit.distributions import Epanechnikov
from vaekit.errors import VaekitError
from vaekit.evaluation.bounds import elbo, elbo_terms, likelihood, on_levels, why_no_bound
from vaekit.evaluation.likelihood import importance_sampling
from vaekit.evaluation.protocol import Options, Result


def small(recipe: str) -> Any:
    """A recipe at a size that suits its latent."""
    return tiny(recipe, latent_dim=20) if recipe == "categorical-vae" else tiny(recipe)


def vectors(samples: Tensor) -> Dataset:
    split = Split(samples)
    return Dataset("vectors", split, split, split, is_image=False)


def only(metric: Any, model: vk.VAE, data: Dataset, **options: Any) -> Result:
    (result,) = metric(model, data, Options(**{"samples": None, "particles": 20, "split": "valid", **options}))
    return result


def exact_terms(model: vk.VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Distortion and rate of a linear model, in closed form."""
    layer, q = model.decoder.linear, model.encode(x)
    assert layer is not None
    squares = (x - layer(q.mean)).square().sum(1) + (q.variance @ layer.weight.square().T).sum(1)
    distortion = squares / (2 * 0.49) + 2.5 * math.log(2 * math.pi * 0.49)
    rate = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(1)
    return distortion.detach(), rate.detach()


@pytest.mark.usefixtures("float64")
def test_terms_are_those_of_a_linear_model() -> None:
    model, x = linear_model(), torch.randn(200, 5)
    distortion, rate = elbo_terms(model, x, draws=400, chunk=90)
    expected, exact_rate = exact_terms(model, x)
    torch.testing.assert_close(rate, exact_rate, rtol=1e-12, atol=1e-12)
    error = (distortion - expected).std() / math.sqrt(200)
    assert (distortion - expected).mean().abs() < 3 * error < 0.1


@pytest.mark.usefixtures("float64")
def test_the_bound_is_the_likelihood_where_the_posterior_is_true() -> None:
    model, x = linear_model(), torch.randn(200, 5)
    true_posterior(model)
    total = sum(elbo_terms(model, x, draws=100))
    gap = total + marginal(model).log_prob(x).detach()
    assert gap.mean().abs() < 3 * gap.std() / math.sqrt(200) < 0.05


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("estimator", ["stratified", "pathwise", "score"])
def test_weighted_draws_give_the_same_terms(estimator: Any) -> None:
    model, x = linear_model(), torch.randn(100, 5)
    model.posterior = vk.posteriors.GaussianMixture(5, 2, components=3, estimator=estimator).double()
    found = [torch.stack(elbo_terms(model, x, draws=draws)).detach() for draws in (300, 3000)]
    error = (found[0] - found[1]).std(1) / 10
    assert ((found[0] - found[1]).mean(1).abs() < 3.5 * error).all()
    assert found[0].std(1).min() > 3 * error.max(), "a comparison that means something"


@pytest.mark.usefixtures("float64")
def test_likelihood_is_that_of_a_linear_model_within_three_standard_errors() -> None:
    model, x = linear_model(), torch.randn(300, 5)
    true_posterior(model)
    with torch.no_grad():  # A posterior that is too wide and beside the point: no weight is out of all bounds.
        model.posterior.loc.bias.add_(0.3)
        model.posterior.log_variance.bias.add_(0.7)
    exact = marginal(model).log_prob(x).detach()
    found, effective = importance_sampling(model, x, draws=2000)
    # The delta method: the variance of a logarithm of a mean of K is the squared spread over K.
    error = (1 / effective - 1 / 2000).sum().sqrt() / 300
    assert (found - exact).mean().abs() < 3 * error < 0.01
    assert effective.max() < 1900


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("components", [1, 3])
def test_every_particle_counts_where_the_posterior_is_true(components: int) -> None:
    model, x = linear_model(), torch.randn(20, 5)
    true_posterior(model)
    if components > 1:
        single, model.posterior = model.posterior, vk.posteriors.GaussianMixture(5, 2, components=3).double()
        with torch.no_grad():
            model.posterior.loc.weight.copy_(single.loc.weight.repeat(3, 1))
            model.posterior.loc.bias.copy_(single.loc.bias.repeat(3))
            model.posterior.log_variance.weight.zero_()
            model.posterior.log_variance.bias.copy_(single.log_variance.bias.repeat(3))
            model.posterior.logits.weight.normal_()
        # The mixture clamps its log-variances softly, and is the true posterior up to that alone.
        model.posterior.log_variance_range = None
    found, effective = importance_sampling(model, x, draws=10, chunk=3)
    torch.testing.assert_close(effective, torch.full((20,), 10.0), rtol=1e-6, atol=0)
    torch.testing.assert_close(found, marginal(model).log_prob(x).detach(), rtol=1e-6, atol=0)


@pytest.mark.usefixtures("float64")
def test_effective_sample_size_is_the_textbook_one() -> None:
    model, x = linear_model(), torch.randn(5, 5)
    torch.manual_seed(3)
    _, effective = importance_sampling(model, x, draws=50, chunk=50)
    torch.manual_seed(3)
    q, p = model.encode(x), model.prior()
    z = q.rsample((50,))
    weights = (model.decode(z).log_prob(x) + p.log_prob(z) - q.log_prob(z)).softmax(0)
    torch.testing.assert_close(effective, 1 / weights.square().sum(0).detach())


@pytest.mark.parametrize("metric", [elbo, likelihood])
@pytest.mark.parametrize("binarize", [False, True])
def test_figures_do_not_depend_on_the_batch_size(metric: Any, binarize: bool) -> None:
    model, data = built(tiny("vae"))[0].eval(), random_images(600)
    first, *others = (only(metric, model, data, batch_size=size, binarize=binarize).values for size in (64, 7, 200))
    assert all(first == other for other in others)
    assert first != only(metric, model, data, seed=1, binarize=binarize).values


def test_what_is_a_bound_is_called_one() -> None:
    for recipe in ("vae", "gamix", "iaf-vae", "hyperspherical-vae", "categorical-vae", "vampprior"):
        model = built(small(recipe))[0].eval()
        found = only(elbo, model, random_images())
        total = found.values["distortion"].mean + found.values["rate"].mean
        assert found.values["negative_elbo"].mean == pytest.approx(total), recipe
        sampled = any("estimated from the draws" in note for note in found.notes)
        assert sampled == (recipe in ("gamix", "iaf-vae", "vampprior")), recipe
        log_likelihood = only(likelihood, model, random_images()).values["log_likelihood"]
        assert -log_likelihood.mean < found.values["negative_elbo"].mean, recipe


@pytest.mark.parametrize(
    ("recipe", "values", "why"),
    [
        ("pvae", {"distortion", "rate", "distortion_plus_rate"}, "leaves out its constant"),
        ("rae", {"distortion"}, "a point has no density"),
        ("evae", {"distortion"}, "reaches over the edge"),
    ],
)
def test_what_is_no_bound_is_not_called_one(recipe: str, values: set[str], why: str) -> None:
    config = tiny(recipe, likelihood={"name": "gaussian"}) if recipe != "pvae" else tiny(recipe)
    model, data = built(config)[0].eval(), random_images()
    found = only(elbo, model, data)
    assert set(found.values) == values
    assert any(why in note and "do not add up to a negative ELBO" in note for note in found.notes)
    assert why in why_no_bound(model, torch.rand(3, 1, 8, 8))
    with pytest.raises(VaekitError, match=f"true bounds only: .*{why}"):
        only(likelihood, model, data)


@pytest.mark.parametrize(
    ("spec", "binarize", "kind", "bits"),
    [
        ("bernoulli", False, "values between 2 levels", False),
        ("bernoulli", True, "probability of 2 levels", True),
        ("continuous_bernoulli", False, "density on [0, 1]", True),
        ("gaussian", False, "density on [-1, 1]", True),
        ("gaussian", True, "density on [-1, 1]", False),
        ("discretized_logistic", False, "probability of 256 levels", True),
        ({"name": "categorical", "levels": 16}, False, "values between 16 levels", False),
    ],
)
def test_bits_per_dimension_where_they_mean_something(spec: Any, binarize: bool, kind: str, bits: bool) -> None:
    model = built(tiny("vae", likelihood=spec))[0].eval()
    for metric, name, sign in ((elbo, "negative_elbo", 1), (likelihood, "log_likelihood", -1)):
        found = only(metric, model, random_images(), binarize=binarize)
        assert found.protocol["log_p_of"] == kind
        assert ("bits_per_dim" in found.values) == bits
        if bits:
            nats, per_dim = found.values[name], found.values["bits_per_dim"]
            assert per_dim.mean == pytest.approx(model.likelihood.bits_per_dim(sign * nats.mean))
            assert per_dim.standard_error == pytest.approx(nats.standard_error / (64 * math.log(2)))
        density = any("times the width of a grey level" in note for note in found.notes)
        assert density == (bits and "density" in kind)
        assert any("no log-probability" in note for note in found.notes) == ("between" in kind)


def test_vectors_have_no_grey_levels_but_bits_may_be_bits() -> None:
    samples = torch.rand(20, 6)
    model = built(tiny("vae", likelihood="gaussian"), (6,))[0].eval()
    found = only(elbo, model, vectors(samples))
    assert "bits_per_dim" not in found.values
    assert found.protocol["log_p_of"] == "density"
    model = built(tiny("vae"), (6,))[0].eval()
    assert "bits_per_dim" in only(elbo, model, vectors(samples.round())).values
    # One value between the levels, seen in the last block, is enough.
    many = torch.rand(200, 6).round()
    many[-1, -1] = 0.5
    assert "bits_per_dim" not in only(elbo, model, vectors(many)).values
    assert not on_levels(model.likelihood, many)
    assert on_levels(model.likelihood, many[:-1])


def test_few_effective_particles_are_said() -> None:
    model = built(tiny("vae"))[0].eval()
    assert not any("count in effect" in note for note in only(likelihood, model, random_images()).notes)
    with torch.no_grad():
        model.decoder.last_layer.mul_(300.0)
    found = only(likelihood, model, random_images(), particles=50)
    assert found.values["effective_sample_size"].mean < 2.0
    assert any("of 50 particles 1." in note for note in found.notes)
    assert found.protocol["particles"] == 50


def test_a_rate_that_is_infinite_for_one_sample_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box as a prior, and a posterior that leaves it for the last sample only, in the second block."""
    spec = {"posterior": "epanechnikov", "prior": {"name": "uniform", "length": 100.0}, "likelihood": "gaussian"}
    model, samples = built(tiny("vae", latent_dim=2, **spec), (2,))[0].eval(), torch.zeros(70, 2)
    samples[-1] = 1e6
    monkeypatch.setattr(model.posterior, "forward", lambda x, prior: Epanechnikov(x, 1.0).to_event(1))
    monkeypatch.setattr(model.encoder, "forward", lambda x: x)
    found = only(elbo, model, vectors(samples))
    assert set(found.values) == {"distortion"}
    assert any("reaches beyond the prior" in note for note in found.notes)
    assert "negative_elbo" in only(elbo, model, vectors(samples[:-1])).values
