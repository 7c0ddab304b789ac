"""Properties that every distribution has, over random parameters: mass, draws, cdf, moments, gradients, KL."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from distribution_cases import CASES, Case
from distribution_nodes import nodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyro.distributions import TorchDistribution
from scipy import stats
from torch import Tensor
from torch.distributions import Independent

import vaekit.distributions
from vaekit.distributions import draw, kl_divergence, kl_method

# The same examples at every run; a test that draws takes its seed from here too, so that none of them can flake.
PROPERTY = settings(
    derandomize=True,
    database=None,
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pytestmark = pytest.mark.usefixtures("float64")


def over(which: Callable[[Case], bool]) -> Any:
    """Run a test for every case that has a property."""
    return pytest.mark.parametrize("name", [name for name, case in CASES.items() if which(case)])


def example(case: Case, dimensions: int, data: st.DataObject, grad: bool = False) -> tuple[Tensor, Any]:
    """Draw numbers and build the distribution."""
    size = case.size(dimensions)
    numbers = data.draw(st.lists(st.floats(-1.0, 1.0, width=32), min_size=size, max_size=size), label="u")
    u = torch.tensor(numbers, requires_grad=grad)
    torch.manual_seed(0)
    return u, case.make(u, dimensions)


def sizes(case: Case) -> tuple[int, ...]:
    """Dimensions in which the density can be summed up."""
    return {"sphere": (2, 3), "one-hot": (5,)}.get(case.space, (1,))


def test_every_distribution_has_a_case() -> None:
    found = set()
    for module in pkgutil.iter_modules(vaekit.distributions.__path__, "vaekit.distributions."):
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            own = kind.__module__.startswith("vaekit.distributions") and not name.startswith("_")
            if own and issubclass(kind, TorchDistribution):
                found.add(kind)
    covered = {case.kind for case in CASES.values()}
    # A base class needs no case of its own.
    missing = sorted(kind.__name__ for kind in found if not any(issubclass(known, kind) for known in covered))
    assert not missing, f"tests/distribution_cases.py has no case for {missing}: add an entry to CASES"


@over(lambda case: True)
@given(data=st.data())
@PROPERTY
def test_density_has_mass_one_and_its_moments(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    for dimensions in sizes(case):
        _, q = example(case, dimensions, data)
        assert isinstance(q, case.kind) or isinstance(q.base_dist, case.kind)
        points, weights = nodes(case, q)
        log_q = q.log_prob(points)
        mass = weights * log_q.exp()
        mean = mass @ points
        torch.testing.assert_close(mass.sum(), torch.ones(()), rtol=1e-4, atol=0.0)
        variance = mass @ (points - mean).square()
        rough = {"exact": 0.0, "estimated": 0.1}[case.moments]
        torch.testing.assert_close(q.mean, mean, rtol=1e-4, atol=1e-5 + rough * float(variance.max().sqrt()))
        torch.testing.assert_close(q.variance, variance, rtol=1e-4 + rough, atol=1e-5)
        if case.entropy:
            inside = mass > 0
            torch.testing.assert_close(q.entropy(), -(mass[inside] * log_q[inside]).sum(), rtol=1e-4, atol=1e-4)


@over(lambda case: case.gradient != "relaxed")
@given(data=st.data())
@PROPERTY
def test_draws_follow_the_density(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    for dimensions in sizes(case):
        _, q = example(case, dimensions, data)
        points, weights = nodes(case, q)
        mass, z = weights * q.log_prob(points).exp(), q.sample((4000,))
        if case.space in ("line", "sphere"):
            if case.space == "sphere" and dimensions == 2:
                z, points = (torch.atan2(x[:, 1], x[:, 0]) % (2 * torch.pi) for x in (z, points))
            else:
                rings = points[:, -1].unique_consecutive()
                z, points, mass = z[:, -1], rings, mass.unflatten(0, (len(rings), -1)).sum(-1)
            # Half of a node's mass lies on either side of it.
            cdf = (mass.cumsum(0) - 0.5 * mass).numpy()
            at = np.interp(z.numpy(), points.numpy(), cdf)
            assert stats.kstest(at, "uniform").pvalue > 1e-6
        else:
            match = (z.unsqueeze(1) - points).abs().amax(-1) < 1e-6
            counts, expected = match.double().sum(0), 4000 * mass
            assert counts.sum() == 4000, "a draw is no value of the distribution"
            common = expected > 5
            assert counts[~common].sum() <= 10 + 6 * expected[~common].sum()
            seen, hoped = counts[common], expected[common]
            if len(seen) > 1:
                assert stats.chisquare(seen.numpy(), (hoped * seen.sum() / hoped.sum()).numpy()).pvalue > 1e-6


@over(lambda case: case.gradient != "relaxed" and case.moments == "exact")
@given(data=st.data())
@PROPERTY
def test_draws_have_the_moments(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    _, q = example(case, 4, data)
    z = q.sample((10_000,))
    centred = (z - q.mean).square()
    assert ((z.mean(0) - q.mean).abs() <= 5 * (q.variance / 10_000).sqrt() + 1e-12).all()
    assert ((centred.mean(0) - q.variance).abs() <= 5 * centred.std(0) / math.sqrt(10_000) + 1e-6).all()


@over(lambda case: case.cdf)
@given(data=st.data())
@PROPERTY
def test_cdf_is_the_integral_and_the_inverse_of_the_quantiles(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    _, q = example(case, 1, data)
    each = q.base_dist
    probability = torch.linspace(0.01, 0.99, 24).unsqueeze(-1)
    z = each.icdf(probability) if case.icdf else q.mean + (2 * probability - 1) * q.variance.sqrt()
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(each.cdf(z).sum(), z)
    torch.testing.assert_close(slope, each.log_prob(z).exp(), rtol=1e-6, atol=1e-8)
    points, weights = nodes(case, q)
    below = each.cdf(torch.cat([points[:1], points[-1:]]))
    torch.testing.assert_close(below.flatten(), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0.0)
    if case.icdf:
        torch.testing.assert_close(each.cdf(z), probability, rtol=1e-6, atol=1e-9)


def feature(z: Tensor) -> Tensor:
    """A function whose expectation is differentiated."""
    return torch.sin(1.3 * z + 0.4).sum(-1)


@over(lambda case: case.gradient == "exact")
@given(data=st.data())
@PROPERTY
def test_gradients_of_draws_are_those_of_the_expectation(name: str, data: st.DataObject) -> None:
    case, count = CASES[name], 8000
    for dimensions in sizes(case):
        u, q = example(case, dimensions, data, grad=True)
        points, weights = nodes(case, q)
        (exact,) = torch.autograd.grad((weights * q.log_prob(points).exp() * feature(points)).sum(), u)
        rows = u.detach().expand(count, -1).clone().requires_grad_()
        z, share = draw(case.make(rows, dimensions), 2)
        (sampled,) = torch.autograd.grad((share * feature(z)).sum(), rows)
        error = sampled.std(0) / math.sqrt(count)
        assert ((sampled.mean(0) - exact).abs() <= 5 * error + 2e-4).all(), (sampled.mean(0), exact, error)


@over(lambda case: case.gradient == "relaxed")
@given(data=st.data())
@PROPERTY
def test_gradients_of_soft_draws_are_finite_differences(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    u, _ = example(case, 4, data, grad=True)

    def value(numbers: Tensor) -> Tensor:
        torch.manual_seed(1)
        return feature(case.make(numbers, 4).rsample((50,))).mean()

    (gradient,) = torch.autograd.grad(value(u), u)
    steps = 1e-5 * torch.eye(len(u))
    with torch.no_grad():
        differences = torch.stack([(value(u + step) - value(u - step)) / 2e-5 for step in steps])
    torch.testing.assert_close(gradient, differences, rtol=1e-5, atol=1e-7)


@over(lambda case: case.prior is not None)
@given(data=st.data())
@PROPERTY
def test_kl_is_positive_and_that_of_the_draws(name: str, data: st.DataObject) -> None:
    case, count = CASES[name], 4000
    u, q = example(case, 4, data)
    assert case.prior is not None
    p = case.prior(u, 4)
    assert (kl_method(q, p) == "closed") == case.closed
    exact_draws = case.make(u, 4) if case.gradient != "relaxed" else CASES[name.removesuffix(", relaxed")].make(u, 4)
    z = exact_draws.sample((count,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std() / math.sqrt(count)
    assert ratio.mean() >= -4 * error
    if case.closed:
        kl = kl_divergence(q, p)
        assert kl >= 0
        assert (kl - ratio.mean()).abs() <= 4 * error + 1e-9
    else:
        drawn = draw(case.make(u.expand(count, -1), 4), 1)
        kl = kl_divergence(case.make(u.expand(count, -1), 4), p.expand((count,)), drawn)
        spread = kl.std() / math.sqrt(count)
        assert (kl.mean() - ratio.mean()).abs() <= 4 * (error + spread)


@over(lambda case: True)
@given(data=st.data())
@PROPERTY
def test_expand_changes_the_shape_alone(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    _, q = example(case, 4, data)
    wide = q.expand((3, 2))
    assert type(wide) is type(q)
    z = wide.sample((5,))
    assert (z.shape, wide.batch_shape, wide.event_shape) == ((5, 3, 2, 4), (3, 2), (4,))
    torch.testing.assert_close(wide.log_prob(z), q.log_prob(z))
    torch.testing.assert_close(wide.mean, q.mean.expand(3, 2, 4), rtol=0.0, atol=0.0)
    if isinstance(q, Independent):
        assert type(wide.base_dist) is type(q.base_dist)
