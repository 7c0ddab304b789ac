"""Importance-weighted bounds, their gradients, sticking the landing, and the importance-sampled likelihood."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from helpers import built, tiny
from pyro.infer import RenyiELBO

import vaekit as vk
from vaekit.distributions import GaussianMixture, stopped
from vaekit.evaluation import importance_sampled_nll
from vaekit.objectives import IWAE

pytestmark = pytest.mark.usefixtures("float64")


def linear_model(seed: int = 0) -> vk.VAE:
    """A VAE whose marginal likelihood is known: x = W z + b + noise."""
    torch.manual_seed(seed)
    backbone = vk.backbones.MLP(hidden=[])
    likelihood = vk.likelihoods.Gaussian((5,), scale=0.7)
    encoder = backbone.encoder((5,))
    posterior = vk.posteriors.Gaussian(encoder.features, 2, log_variance_range=None)
    decoder = backbone.decoder(2, (5,))
    return vk.VAE(encoder, posterior, vk.priors.StandardNormal(2), decoder, likelihood).double()


def marginal(model: vk.VAE) -> torch.distributions.Distribution:
    layer = model.decoder.linear
    assert layer is not None
    covariance = layer.weight @ layer.weight.T + 0.49 * torch.eye(5)
    return torch.distributions.MultivariateNormal(layer.bias, covariance)


def true_posterior(model: vk.VAE) -> None:
    """Make the posterior of a linear model the true one."""
    layer = model.decoder.linear
    assert layer is not None
    with torch.no_grad():
        # Orthogonal columns: the true posterior is then diagonal.
        layer.weight.copy_(torch.linalg.qr(layer.weight).Q * torch.tensor([1.5, 0.6]))
        covariance = torch.linalg.inv(torch.eye(2) + layer.weight.T @ layer.weight / 0.49)
        gain = covariance @ layer.weight.T / 0.49
        model.posterior.loc.weight.copy_(gain)
        model.posterior.loc.bias.copy_(-gain @ layer.bias)
        model.posterior.log_variance.weight.zero_()
        model.posterior.log_variance.bias.copy_(covariance.diagonal().log())


def loss_of(objective: vk.Objective, model: vk.VAE, x: torch.Tensor) -> torch.Tensor:
    (phase,) = objective.phases(model, x, 0, {"vae": model})
    return phase.loss


def gradients(objective: vk.Objective, model: vk.VAE, x: torch.Tensor, names: list[str]) -> torch.Tensor:
    chosen = dict(model.named_parameters())
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss_of(objective, model, x), [chosen[n] for n in names])]
    )


def test_one_draw_is_the_sampled_elbo() -> None:
    model, x = linear_model(), torch.randn(6, 5)
    elbo = vk.Objective({"kl": vk.regularizers.KL(estimator="sampled")})
    torch.manual_seed(1)
    expected = loss_of(elbo, model, x)
    torch.manual_seed(1)
    assert loss_of(IWAE(draws=1), model, x).item() == pytest.approx(expected.item(), rel=1e-12)


def test_more_draws_tighten_the_bound_towards_the_likelihood() -> None:
    model, x = linear_model(), torch.randn(500, 5)
    exact = -marginal(model).log_prob(x).mean().item()
    losses = [loss_of(IWAE(draws=draws), model, x).item() for draws in (1, 10, 1000)]
    assert losses[0] > losses[1] > losses[2] > exact - 0.01
    assert losses[2] == pytest.approx(exact, abs=0.06)


def test_the_bound_is_exact_where_the_posterior_is() -> None:
    model, x = linear_model(), torch.randn(7, 5)
    true_posterior(model)
    exact = -marginal(model).log_prob(x).mean().item()
    for estimator in ("standard", "dreg"):
        assert loss_of(IWAE(draws=3, estimator=estimator), model, x).item() == pytest.approx(exact, rel=1e-12)


DECODER = ["decoder.layers.0.weight", "decoder.layers.0.bias"]
ENCODER = ["posterior.loc.weight", "posterior.log_variance.weight"]


def test_dreg_has_the_same_expected_gradient_and_less_variance() -> None:
    model = linear_model()
    x = torch.randn(1, 5).expand(4000, 5)
    found = {}
    for estimator in ("standard", "dreg"):
        torch.manual_seed(2)
        rows = torch.stack([gradients(IWAE(draws=8, estimator=estimator), model, x, ENCODER) for _ in range(20)])
        found[estimator] = rows.mean(0), rows.var(0)
    (mean, variance), (dreg_mean, dreg_variance) = found["standard"], found["dreg"]
    error = ((variance + dreg_variance) / 20).sqrt()
    assert ((mean - dreg_mean).abs() < 5 * error + 1e-9).all()
    assert mean.norm() > 10 * error.norm(), "the test sees no gradient"
    assert dreg_variance.sum() < 0.5 * variance.sum()


def test_dreg_leaves_the_decoders_gradient_as_it_is() -> None:
    model, x = linear_model(), torch.randn(6, 5)
    found = []
    for estimator in ("standard", "dreg"):
        torch.manual_seed(3)
        found.append(gradients(IWAE(draws=4, estimator=estimator), model, x, DECODER))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", ["dreg", "sticking_the_landing"])
def test_no_gradient_noise_at_the_true_posterior(objective: str) -> None:
    model, x = linear_model(), torch.randn(6, 5)
    true_posterior(model)
    stl = vk.Objective({"kl": vk.regularizers.KL(estimator="sticking_the_landing")})
    landing = stl if objective == "sticking_the_landing" else IWAE(draws=3, estimator="dreg")
    usual = vk.Objective({"kl": vk.regularizers.KL(estimator="sampled")})
    assert gradients(landing, model, x, ENCODER).abs().max() < 1e-10
    assert gradients(usual, model, x, ENCODER).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["gaussian", "gmm"])
def test_sticking_the_landing_is_unbiased(kind: str) -> None:
    config = tiny("vae", posterior={"name": kind}, likelihood={"name": "gaussian"}, latent_dim=2)
    model = built(config)[0].double()
    x = torch.randn(1, 1, 8, 8).expand(2000, 1, 8, 8)
    found = {}
    for estimator in ("auto", "sticking_the_landing"):
        objective = vk.Objective({"kl": vk.regularizers.KL(estimator=estimator)})
        torch.manual_seed(4)
        rows = torch.stack([gradients(objective, model, x, ["posterior.loc.weight"]) for _ in range(10)])
        found[estimator] = rows.mean(0), rows.var(0) / 10
    (mean, error), (other, other_error) = found.values()
    assert ((mean - other).abs() < 6 * (error + other_error).sqrt() + 1e-6).all()


def test_stopped_keeps_the_value_and_drops_the_parameters() -> None:
    logits, loc, scale = torch.zeros(3, 2), torch.randn(3, 2, 4, requires_grad=True), torch.ones(3, 2, 4)
    q = GaussianMixture(logits, loc, scale)
    z = torch.randn(3, 4, requires_grad=True)
    log_q = stopped(q).log_prob(z)
    torch.testing.assert_close(log_q, q.log_prob(z))
    assert torch.autograd.grad(log_q.sum(), loc, allow_unused=True) == (None,) or not log_q.requires_grad
    assert q.loc is loc


def test_pyro_has_the_same_bound() -> None:
    model, x = linear_model(), torch.randn(1, 5)
    bound = RenyiELBO(alpha=0.0, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    pyro.clear_param_store()
    torch.manual_seed(5)
    theirs = bound.loss(model.model, model.guide, x)
    torch.manual_seed(5)
    assert loss_of(IWAE(draws=4), model, x).item() == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("estimator", ["stratified", "pathwise"])
def test_mixtures_give_a_bound_too(estimator: str) -> None:
    model = linear_model()
    model.posterior = vk.posteriors.GaussianMixture(5, 2, components=3, estimator=estimator).double()
    x = torch.randn(400, 5)
    exact = -marginal(model).log_prob(x).mean().item()
    losses = [loss_of(IWAE(draws=draws), model, x).item() for draws in (1, 300)]
    assert losses[0] > losses[1] > exact - 0.01
    assert losses[1] == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize(
    ("options", "posterior", "says"),
    [
        ({}, {"name": "gmm", "estimator": "score"}, "stratified or pathwise"),
        ({"estimator": "dreg"}, {"name": "gmm"}, "equal weight"),
    ],
)
def test_draws_that_do_not_suit_are_refused_before_training(
    options: dict[str, Any], posterior: dict[str, Any], says: str
) -> None:
    config = tiny("vae", posterior=posterior, objective={"name": "iwae", **options}, regularizers={"kl": None})
    model, objective = built(config)
    with pytest.raises(vk.VaekitError, match=says):
        objective.prepare(model, 10)


def test_relaxed_draws_have_no_density_and_draws_on_a_sphere_have_one() -> None:
    sphere = built(tiny("hyperspherical-vae"))[0]
    relaxed = built(tiny("pvae", posterior={"temperature": 0.5}))[0]
    for estimator in ("sampled", "sticking_the_landing"):
        objective = vk.Objective({"kl": vk.regularizers.KL(estimator=estimator)})
        objective.prepare(sphere, 10)
        with pytest.raises(vk.VaekitError, match="have none"):
            objective.prepare(relaxed, 10)
    IWAE(estimator="dreg").prepare(sphere, 10)
    with pytest.raises(vk.VaekitError, match="have none"):
        IWAE().prepare(relaxed, 10)


def test_dreg_takes_no_other_terms() -> None:
    with pytest.raises(vk.VaekitError, match="bound alone"):
        IWAE({"kl": vk.regularizers.KL()}, estimator="dreg")
    assert IWAE({"kl": vk.regularizers.KL()}).label == "surrogate loss"


def test_regularization_is_refused() -> None:
    model = linear_model()
    with pytest.raises(vk.VaekitError, match="RenyiELBO"):
        IWAE().regularization(model(torch.randn(2, 5)).latents)


def test_importance_sampled_nll_of_a_known_model() -> None:
    model, x = linear_model(), torch.randn(300, 5)
    exact = -marginal(model).log_prob(x)
    estimate = importance_sampled_nll(model, x.split(128), draws=2000, chunk=300)
    assert estimate.shape == (300,)
    assert estimate.mean().item() == pytest.approx(exact.mean().item(), abs=0.02)
    one = importance_sampled_nll(model, [x], draws=1)
    assert one.mean() > estimate.mean(), "fewer draws give a looser bound"


def test_importance_sampled_nll_does_not_depend_on_the_chunk_where_the_posterior_is_true() -> None:
    model, x = linear_model(), torch.randn(4, 5)
    true_posterior(model)
    exact = -marginal(model).log_prob(x)
    for chunk in (1, 7, 100):
        torch.testing.assert_close(importance_sampled_nll(model, [x], draws=10, chunk=chunk), exact.detach())
    with pytest.raises(vk.VaekitError, match="1 or more"):
        importance_sampled_nll(model, [x], draws=0)
