"""KL divergences: closed forms, sampled estimates and their gradients, bounds, and refusals."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from vaekit.distributions import (
    Draws,
    GaussianMixture,
    draw,
    kl_divergence,
    kl_method,
    mixture_kl_lower_bound,
    mixture_kl_upper_bound,
)
from vaekit.errors import VaekitError

ESTIMATORS = ("stratified", "pathwise", "score")


def oracle() -> GaussianMixture:
    logits = torch.tensor([0.3, 0.7]).log()
    return GaussianMixture(logits, torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [1.5]]))


def gaussian(loc: float | Tensor = 0.0, scale: float | Tensor = 1.0, dimensions: int = 1) -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(dimensions) + loc, torch.zeros(dimensions) + scale).to_event(1)


def quadrature(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """The KL of one-dimensional distributions by the trapezoidal rule, as weighted "draws" on a fine grid."""
    z = torch.linspace(-30.0, 30.0, 40001).unsqueeze(-1)
    density = q.log_prob(z).exp()
    return (density * (q.log_prob(z) - p.log_prob(z))).sum() * (z[1] - z[0]).item()


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_closed_form_for_gaussians_batch_against_one(float64: None) -> None:
    q = dist.Normal(torch.tensor([[0.5, 0.4]]).expand(3, 2), torch.tensor([[0.8, 0.6]]).expand(3, 2)).to_event(1)
    kl = kl_divergence(q, gaussian(dimensions=2))
    second = 0.5 * (0.36 + 0.16 - 1.0 - math.log(0.36))
    assert kl.shape == (3,)
    assert torch.allclose(kl, torch.full((3,), 0.168143551314 + second), atol=1e-11)
    assert kl_method(q, gaussian(dimensions=2)) == "closed"


def test_closed_form_of_the_registry(float64: None) -> None:
    kl = kl_divergence(
        dist.Laplace(torch.tensor([0.5]), 0.8).to_event(1), dist.Laplace(torch.zeros(1), 1.0).to_event(1)
    )
    assert torch.allclose(kl, torch.tensor(0.151352694129), atol=1e-11)
    rates, prior = torch.tensor([0.5, 2.0, 0.01]), torch.tensor([2.5, 1.0, 0.5])
    kl = kl_divergence(dist.Poisson(rates).to_event(1), dist.Poisson(prior).to_event(1))
    assert torch.allclose(kl, torch.tensor(2.03245517485), atol=1e-10)


def test_one_component_has_the_closed_form(float64: None) -> None:
    loc, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.2
    q = GaussianMixture(torch.randn(4, 1), loc.unsqueeze(1), scale.unsqueeze(1))
    p = GaussianMixture(torch.zeros(1), torch.ones(1, 3), torch.full((1, 3), 2.0))
    expected = kl_divergence(dist.Normal(loc, scale).to_event(1), gaussian(1.0, 2.0, 3))
    for prior in (p, gaussian(1.0, 2.0, 3)):
        assert kl_method(q, prior) == "closed"
        assert torch.allclose(kl_divergence(q, prior), expected, atol=1e-12)
        assert torch.allclose(mixture_kl_upper_bound(q, prior), expected, atol=1e-12)
        assert torch.allclose(mixture_kl_lower_bound(q, prior), expected, atol=1e-12)


# ---- mixtures --------------------------------------------------------------------------------------------------------


def test_sampled_estimate_agrees_with_the_oracle(float64: None) -> None:
    q, p = oracle(), gaussian()
    exact = 1.35364931883
    assert kl_method(q, p) == "sampled"
    assert quadrature(q, p).item() == pytest.approx(exact, abs=1e-10)
    for estimator in ESTIMATORS:
        mixture = GaussianMixture(q.logits, q.loc, q.scale, estimator=estimator)
        assert kl_divergence(mixture, p, mixture.draws(100000)).item() == pytest.approx(exact, abs=0.03), estimator


def test_other_oracles_by_quadrature(float64: None) -> None:
    q = oracle()
    matched = gaussian(1.1, math.sqrt(3.54))
    assert quadrature(q, matched).item() == pytest.approx(0.110712682398, abs=1e-10)
    assert quadrature(gaussian(), q).item() == pytest.approx(0.538722506086, abs=1e-10)
    narrow = gaussian(0.4, 0.6)
    assert quadrature(narrow, q).item() == pytest.approx(1.10965323834, abs=1e-10)
    assert kl_divergence(narrow, matched).item() == pytest.approx(0.762945484514, abs=1e-11)
    assert mixture_kl_upper_bound(narrow, q).item() == pytest.approx(1.39837348256, abs=1e-10)


def test_bounds_agree_with_the_oracles(float64: None) -> None:
    assert mixture_kl_upper_bound(oracle(), gaussian()).item() == pytest.approx(1.79911857849, abs=1e-10)
    assert mixture_kl_lower_bound(oracle(), gaussian()).item() == pytest.approx(1.24293663643, abs=1e-10)
    loc = torch.tensor([[0.0, 0.0], [2.0, -1.0], [-3.0, 1.0]])
    scale = torch.tensor([[1.0, 1.0], [0.5, 2.0], [1.5, 0.3]])
    q = GaussianMixture(torch.tensor([0.2, 0.5, 0.3]).log(), loc, scale)
    assert mixture_kl_lower_bound(q, gaussian(dimensions=2)).item() == pytest.approx(1.94701010631, abs=1e-10)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (2.0, 0.7), (-1.0, 3.0)])
def test_kl_through_the_moment_match(loc: float, scale: float, float64: None) -> None:
    q, p = oracle(), gaussian(loc, scale)
    matched = gaussian(q.mean, q.stddev)
    total = quadrature(q, matched) + kl_divergence(matched, p)
    assert quadrature(q, p).item() == pytest.approx(total.item(), abs=1e-10)
    assert mixture_kl_lower_bound(q, p).item() == pytest.approx(kl_divergence(matched, p).item(), abs=1e-12)


def test_bounds_enclose_the_kl_in_batches(float64: None) -> None:
    q = GaussianMixture(torch.randn(6, 3), 2.0 * torch.randn(6, 3, 4), torch.rand(6, 3, 4) + 0.3)
    p = gaussian(dimensions=4)
    kl = kl_divergence(q, p, q.draws(20000))
    assert kl.shape == (6,)
    assert (mixture_kl_lower_bound(q, p) < kl).all()
    assert (kl < mixture_kl_upper_bound(q, p)).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_sampled_gradients_are_unbiased(estimator: str, prior: str, float64: None) -> None:
    p = (
        gaussian(0.5, 1.5)
        if prior == "gaussian"
        else GaussianMixture(torch.zeros(2), 2.0 * torch.eye(2)[:, :1] - 1.0, torch.ones(2, 1))
    )
    parameters = [
        t.requires_grad_()
        for t in (torch.tensor([0.3, -0.2]), torch.tensor([[-0.7], [1.0]]), torch.tensor([[0.6], [0.9]]))
    ]
    exact = torch.autograd.grad(quadrature(GaussianMixture(*parameters), p), parameters)
    rows = [t.detach().expand(60000, *t.shape).clone().requires_grad_() for t in parameters]
    q = GaussianMixture(*rows, estimator=estimator)
    gradients = torch.autograd.grad(kl_divergence(q, p, q.draws(2)).sum(), rows)
    for name, gradient, truth in zip(("logits", "loc", "scale"), gradients, exact, strict=True):
        error = gradient.std(0) / math.sqrt(60000)
        assert ((gradient.mean(0) - truth).abs() < 5.0 * error + 1e-9).all(), name


def test_fresh_draws_are_taken_where_none_are_given() -> None:
    q = GaussianMixture(torch.zeros(4, 3), torch.randn(4, 3, 2), torch.ones(4, 3, 2))
    torch.manual_seed(1)
    first = kl_divergence(q, gaussian(dimensions=2))
    torch.manual_seed(1)
    assert torch.equal(first, kl_divergence(q, gaussian(dimensions=2), draw(q)))


def test_gaussian_against_a_learned_mixture_reaches_both(float64: None) -> None:
    loc, logits = torch.zeros(4, 2, requires_grad=True), torch.zeros(3, requires_grad=True)
    q, p = dist.Normal(loc, 1.0).to_event(1), GaussianMixture(logits, torch.randn(3, 2), torch.ones(3, 2))
    assert kl_method(q, p) == "sampled"
    kl = kl_divergence(q, p, draw(q, 8))
    for gradient in torch.autograd.grad(kl.sum(), (loc, logits)):
        assert gradient.abs().sum() > 0


# ---- precision -------------------------------------------------------------------------------------------------------


def test_half_precision_is_computed_in_float32() -> None:
    loc = torch.randn(4, 3).bfloat16()
    exact = kl_divergence(dist.Normal(loc.float(), 1.0).to_event(1), gaussian(dimensions=3))
    kl = kl_divergence(dist.Normal(loc, torch.ones_like(loc)).to_event(1), gaussian(dimensions=3))
    assert kl.dtype == torch.float32
    assert torch.allclose(kl, exact)
    q = GaussianMixture(torch.zeros(4, 2), torch.randn(4, 2, 3), torch.ones(4, 2, 3))
    z, weights = q.draws(1)
    with torch.autocast("cpu", torch.bfloat16):
        kl = kl_divergence(q, gaussian(dimensions=3), Draws(z, weights))
        bounds = mixture_kl_lower_bound(q, gaussian(dimensions=3)), mixture_kl_upper_bound(q, gaussian(dimensions=3))
    assert torch.equal(kl, kl_divergence(q, gaussian(dimensions=3), Draws(z, weights)))
    assert torch.equal(bounds[0], mixture_kl_lower_bound(q, gaussian(dimensions=3)))
    assert torch.equal(bounds[1], mixture_kl_upper_bound(q, gaussian(dimensions=3)))


def test_kl_and_bounds_are_finite_in_float32() -> None:
    shape = (8, 10, 1024)
    logits, loc, log_scale = torch.randn(8, 10), 30.0 * torch.randn(shape), torch.empty(shape).uniform_(-10.0, 3.0)
    rows = [t.requires_grad_() for t in (logits, loc, log_scale)]
    q, p = GaussianMixture(rows[0], rows[1], rows[2].exp()), gaussian(dimensions=1024)
    total = kl_divergence(q, p).sum() + mixture_kl_upper_bound(q, p).sum() + mixture_kl_lower_bound(q, p).sum()
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, rows):
        assert gradient.isfinite().all()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Normal(torch.zeros(2), 1.0).to_event(1), dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)),
        (dist.Normal(torch.zeros(2), 1.0).to_event(1), dist.LogNormal(torch.zeros(2), torch.ones(2)).to_event(1)),
        (
            dist.LogNormal(torch.zeros(2), torch.ones(2)).to_event(1),
            dist.Beta(torch.ones(2), torch.ones(2)).to_event(1),
        ),
        (dist.Poisson(torch.ones(2)).to_event(1), dist.Normal(torch.zeros(2), 1.0).to_event(1)),
        (dist.Poisson(torch.ones(2)).to_event(1), dist.Bernoulli(torch.full((2,), 0.5)).to_event(1)),
        (
            GaussianMixture(torch.zeros(3), torch.zeros(3, 2), torch.ones(3, 2)),
            dist.Exponential(torch.ones(2)).to_event(1),
        ),
    ],
)
def test_infinite_by_support_is_refused(q: dist.TorchDistribution, p: dist.TorchDistribution) -> None:
    with pytest.raises(VaekitError, match="infinite"):
        kl_divergence(q, p)


def test_contained_support_is_not_refused() -> None:
    q, p = dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1), gaussian(dimensions=2)
    assert kl_divergence(q, p).isfinite()


def test_different_spaces_and_wrong_families_are_refused() -> None:
    with pytest.raises(VaekitError, match="same space"):
        kl_divergence(gaussian(dimensions=2), gaussian(dimensions=3))
    q = GaussianMixture(torch.zeros(3), torch.zeros(3, 2), torch.ones(3, 2))
    with pytest.raises(VaekitError, match="Gaussian prior only"):
        mixture_kl_lower_bound(q, q)
    with pytest.raises(VaekitError, match="is needed here"):
        mixture_kl_upper_bound(q, dist.Laplace(torch.zeros(2), 1.0).to_event(1))
