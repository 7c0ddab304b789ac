"""The Epanechnikov distribution: oracles, sampler, closed-form KLs and their gradients; the posterior inside a box."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vaekit.distributions import Epanechnikov, bounds, draw, kl_divergence, kl_method, mean_log_shifted, stopped
from vaekit.errors import VaekitError
from vaekit.posteriors import Epanechnikov as Posterior
from vaekit.registry import priors
from vaekit.testing.contract import fixed

pytestmark = pytest.mark.usefixtures("float64")

INF = math.inf
T = torch.tensor


def epanechnikov(loc: float, scale: float) -> Epanechnikov:
    return Epanechnikov(T(loc), T(scale), validate_args=False)


def kl(q: torch.distributions.Distribution, p: torch.distributions.Distribution) -> float:
    return torch.distributions.kl_divergence(q, p).item()


# ---- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "loc", "scale", "log_prob", "cdf", "tolerance"),
    [
        (0.0, 0.0, 1.0, -0.28768207245178, 0.5, 1e-12),
        (0.5, 0.0, 1.0, -0.57536414490356, 0.84375, 1e-12),
        (-0.9, 0.0, 1.0, -1.9484132792734, 0.00725, 1e-12),
        (1.3, 0.5, 2.0, -1.1551826401565, 0.784, 1e-12),
        (0.999999, 0.0, 1.0, -13.410045949856, 0.99999999999925, 1e-9),
        (1.1, 0.0, 1.0, -INF, 1.0, 0.0),
        (-3.0, 0.0, 2.0, -INF, 0.0, 0.0),
    ],
)
def test_density_and_cdf(z: float, loc: float, scale: float, log_prob: float, cdf: float, tolerance: float) -> None:
    q = epanechnikov(loc, scale)
    assert q.log_prob(T(z)).item() == pytest.approx(log_prob, abs=tolerance)
    assert q.cdf(T(z)).item() == pytest.approx(cdf, abs=1e-13)
    if log_prob > -10:
        narrow = Epanechnikov(T(loc).float(), T(scale).float()).log_prob(T(z).float())
        assert narrow.item() == pytest.approx(log_prob, rel=2e-6)


@pytest.mark.parametrize(
    ("scale", "entropy", "variance"),
    [(0.1, -1.7345307149955, 0.002), (1.0, 0.56805437799856, 0.2), (math.sqrt(5), 1.3727733342156, 1.0)],
)
def test_entropy_and_moments(scale: float, entropy: float, variance: float) -> None:
    q = epanechnikov(0.3, scale)
    assert q.entropy().item() == pytest.approx(entropy, abs=1e-12)
    assert q.variance.item() == pytest.approx(variance, abs=1e-12)
    z = torch.linspace(0.3 - scale, 0.3 + scale, 200_001)
    density = q.log_prob(z).exp()
    assert torch.trapezoid(density, z).item() == pytest.approx(1.0, abs=1e-8)
    assert -torch.trapezoid(density * q.log_prob(z), z).item() == pytest.approx(entropy, abs=1e-7)
    assert torch.trapezoid(density.square(), z).item() == pytest.approx(0.6 / scale, rel=1e-8)


def test_quantiles() -> None:
    u = T([0.01, 0.25, 0.5, 0.9])
    quantiles = epanechnikov(0.0, 1.0).icdf(u)
    assert torch.allclose(quantiles, T([-0.88219372844361, -0.34729635533386, 0.0, 0.60839978868182]), atol=1e-13)
    q = epanechnikov(-1.0, 3.0)
    assert torch.allclose(q.cdf(q.icdf(u)), u, atol=1e-14)


def test_sampler() -> None:
    q = epanechnikov(2.0, 0.5)
    standard = (q.sample((400_000,)) - 2.0) / 0.5
    assert standard.var().item() == pytest.approx(0.2, abs=0.0015)
    assert standard.abs().mean().item() == pytest.approx(0.375, abs=0.0015)
    assert standard.pow(4).mean().item() == pytest.approx(3 / 35, abs=0.0015)
    result = stats.kstest(standard[:50_000].numpy(), lambda t: epanechnikov(0.0, 1.0).cdf(torch.as_tensor(t)).numpy())
    assert result.pvalue > 1e-3


def test_draws_carry_the_pathwise_gradient() -> None:
    loc, scale = T([0.5, -1.0]).requires_grad_(), T([0.3, 2.0]).requires_grad_()
    q = Epanechnikov(loc, scale)
    z = q.rsample((7, 3))
    assert z.shape == (7, 3, 2)
    gradients = torch.autograd.grad(z.sum(), (loc, scale))
    assert torch.allclose(gradients[0], torch.full((2,), 21.0))
    assert torch.allclose(gradients[1], ((z - loc) / scale).sum((0, 1)).detach())
    # Along a draw the density changes only as 1/r does.
    (gradient,) = torch.autograd.grad(q.log_prob(q.rsample()).sum(), scale)
    assert torch.allclose(gradient, -1.0 / scale.detach(), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (100.0, 1e-3), (-7.0, 1e-6)])
def test_draws_at_the_edge_stay_finite(loc: float, scale: float, dtype: torch.dtype) -> None:
    q = Epanechnikov(T(loc, dtype=dtype), T(scale, dtype=dtype).requires_grad_(), validate_args=False)
    edge = torch.cat([q.rsample((100_000,)), q.loc + q.scale * T([-1.0, 1.0], dtype=dtype)])
    log_prob = q.log_prob(edge)
    assert log_prob.isfinite().all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), q.scale)
    assert gradient.isfinite()
    assert q.log_prob(q.loc + 2.0 * abs(loc) + 2.0 * q.scale) == -INF


def test_shapes_expand_and_half_precision() -> None:
    q = Epanechnikov(torch.zeros(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16))
    assert q.rsample().dtype == q.log_prob(q.sample().bfloat16().clamp(-0.9, 0.9)).dtype == torch.float32
    wide = Epanechnikov(torch.zeros(3), T([1.0, 2.0, 3.0]), validate_args=False).expand((5, 3))
    assert wide.sample((2,)).shape == (2, 5, 3)
    assert torch.equal(wide.variance[4], T([0.2, 0.8, 1.8]))
    assert wide.to_event(1).log_prob(wide.sample()).shape == (5,)
    with pytest.raises(ValueError, match="support"):
        Epanechnikov(T(0.0), T(1.0), validate_args=True).log_prob(T(1.5))
    with pytest.raises(ValueError, match="scale"):
        Epanechnikov(T(0.0), T(-1.0), validate_args=True)


def test_bounds() -> None:
    low, high = bounds(epanechnikov(1.0, 3.0))
    assert (low, high) == (-2.0, 4.0)
    low, high = bounds(dist.Uniform(-torch.ones(2), 3.0).to_event(1))
    assert torch.equal(high - low, torch.full((2,), 4.0))
    assert bounds(dist.Normal(torch.zeros(2), 1.0).to_event(1)) is None


def test_infinite_fisher_information_is_refused() -> None:
    with pytest.raises(VaekitError, match="infinite Fisher information"):
        stopped(epanechnikov(0.0, 1.0).expand((2,)).to_event(1))
    # The second moment of the score grows by 3 log 10 with every factor of ten that one comes nearer to the edge.
    moments = []
    for distance in (1e-3, 1e-4, 1e-5):
        t = torch.sin(torch.linspace(-1.0, 1.0, 2_000_001) * math.asin(1.0 - distance))
        moments.append(torch.trapezoid(0.75 * 4.0 * t.square() / ((1.0 - t) * (1.0 + t)), t).item())
    assert moments[1] - moments[0] == pytest.approx(3.0 * math.log(10.0), rel=0.01)
    assert moments[2] - moments[1] == pytest.approx(3.0 * math.log(10.0), rel=0.01)


# ---- closed-form KLs -------------------------------------------------------------------------------------------------


def test_kl_to_a_normal() -> None:
    normal = dist.Normal(T(0.0), T(1.0))
    assert kl(epanechnikov(0.0, 1.0), normal) == pytest.approx(0.45088415520612, abs=1e-12)
    assert kl(epanechnikov(0.0, math.sqrt(5)), normal) == pytest.approx(0.046165198989066, abs=1e-12)
    assert kl(epanechnikov(0.5, 0.8), normal) == pytest.approx(0.76302770652033, abs=1e-12)
    q = Epanechnikov(T([0.5, -1.2, 0.0]), T([0.8, 0.3, 2.5])).to_event(1)
    p = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    assert kl_method(q, p) == "closed"
    assert kl_divergence(q, p).item() == pytest.approx(3.1064780893843, abs=1e-12)
    loc, scale = T(0.5).requires_grad_(), T(0.8).requires_grad_()
    gradients = torch.autograd.grad(torch.distributions.kl_divergence(Epanechnikov(loc, scale), normal), (loc, scale))
    assert gradients[0].item() == pytest.approx(0.5, abs=1e-12)
    assert gradients[1].item() == pytest.approx(-1.09, abs=1e-12)


@pytest.mark.parametrize(
    ("loc", "scale", "half", "expected"),
    [
        (0.0, 1.0, 1.0, 0.12509280256139),
        (0.5, 0.4, 1.0, 1.0413835344355),
        (0.0, 0.3, 5.0, 2.9385035193214),
        (0.5, 0.6, 1.0, INF),
        (0.0, 1.01, 1.0, INF),
    ],
)
def test_kl_to_a_uniform(loc: float, scale: float, half: float, expected: float) -> None:
    assert kl(epanechnikov(loc, scale), dist.Uniform(T(-half), T(half))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("loc", "scale", "p_scale", "expected"),
    [
        (0.0, 1.0, 1.0, 0.0),
        (0.0, 1.0, 2.0, 0.46573590279973),
        (0.5, 1.0, 2.0, 0.54346945488027),
        (1.0, 1.0, 2.0, 0.85203026391962),
        (0.05, 0.01, 1.0, 4.327321161726),
        (1.5, 1.0, 2.0, INF),
    ],
)
def test_kl_to_another(loc: float, scale: float, p_scale: float, expected: float) -> None:
    assert kl(epanechnikov(loc, scale), epanechnikov(0.0, p_scale)) == pytest.approx(expected, abs=1e-10)
    narrow = Epanechnikov(T(loc).float(), T(scale).float()), Epanechnikov(T(0.0).float(), T(p_scale).float())
    assert kl(*narrow) == pytest.approx(expected, rel=2e-6, abs=2e-7)
    assert kl(epanechnikov(loc + 7.0, scale), epanechnikov(7.0, p_scale)) == pytest.approx(expected, abs=1e-10)


def test_gradients_of_the_kl_to_another() -> None:
    loc, scale = T(0.5).requires_grad_(), T(1.0).requires_grad_()
    value = torch.distributions.kl_divergence(Epanechnikov(loc, scale), epanechnikov(0.0, 2.0))
    gradients = torch.autograd.grad(value, (loc, scale))
    assert gradients[0].item() == pytest.approx(0.327387282368, abs=1e-10)
    assert gradients[1].item() == pytest.approx(-0.853860377547, abs=1e-10)
    # Identical, touching the edge, not contained, much narrower: no gradient is NaN.
    for dtype in (torch.float32, torch.float64):
        loc = T([0.0, 1.0, 1.5, 0.05], dtype=dtype).requires_grad_()
        scale = T([2.0, 1.0, 1.0, 1e-6], dtype=dtype).requires_grad_()
        q, p = Epanechnikov(loc, scale), Epanechnikov(torch.zeros(4, dtype=dtype), 2.0)
        for gradient in torch.autograd.grad(torch.distributions.kl_divergence(q, p).sum(), (loc, scale)):
            assert gradient.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(-1.0, 1.0), st.floats(0.1, 10.0))
def test_kl_by_quadrature(share: float, offset: float, p_scale: float) -> None:
    q, p = epanechnikov((1.0 - share) * offset * p_scale, share * p_scale), epanechnikov(0.0, p_scale)
    low, high = (end.double() for end in bounds(q))
    z = low + (high - low) * torch.linspace(0.0, 1.0, 40_001, dtype=torch.float64)[1:-1]
    density = 0.75 * (1.0 - ((z - q.loc) / q.scale) ** 2) / q.scale
    for other in (
        p,
        dist.Uniform(-p.scale, p.scale * (1.0 + 1e-15), validate_args=False),
        dist.Normal(T(0.1), p.scale),
    ):
        estimate = torch.trapezoid(density * (density.log() - other.log_prob(z)), z).item()
        assert kl(q, other) == pytest.approx(estimate, abs=1e-5)


def test_kl_is_below_its_chi_squared_bounds() -> None:
    normal = dist.Normal(T(0.0), T(1.0))
    for loc, scale, chi, log_chi in (
        (0.0, 1.0, 0.6210828771839, 0.48309436864208),
        (0.5, 0.8, 1.2603969444165, 0.81554043698378),
        (2.0, 0.1, 110.52754323385, 4.7142715849135),
    ):
        q = epanechnikov(loc, scale)
        z = torch.linspace(loc - scale, loc + scale, 40_001)[1:-1]
        found = torch.trapezoid((2.0 * q.log_prob(z) - normal.log_prob(z)).exp(), z).item() - 1.0
        assert found == pytest.approx(chi, rel=1e-6)
        assert kl(q, normal) <= log_chi <= chi


def test_expected_log_of_a_shifted_draw() -> None:
    rho = T([1.0, 1.001, 1.5, 2.0, 10.0, 1000.0])
    expected = T([-0.14018615277339, -0.13869148068384, 0.35589285519586, 2 / 3, 2.3015829421623, 6.9077551789821])
    assert torch.allclose(mean_log_shifted(rho), expected, atol=1e-11, rtol=0)
    assert torch.allclose(mean_log_shifted(rho.float()), expected.float(), rtol=2e-6)
    at = T([1.0, 1.0 + 1e-9, 1.3, 2.0, 2.0 + 1e-9, 50.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_log_shifted(at).sum(), at)
    t = torch.sin(torch.linspace(-0.5, 0.5, 100_001) * math.pi)  # E 1 / (rho + K), dense where it is steep
    exact = [torch.trapezoid(0.75 * (1.0 - t) * (1.0 + t) / (r + t).clamp_min(1e-300), t) for r in at.detach()]
    exact[0] = exact[1] = T(1.5)
    assert torch.allclose(gradient, torch.stack(exact), rtol=1e-6)


# ---- the posterior ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uniform", "epanechnikov"])
@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_posterior_stays_inside_the_box_of_the_prior(name: str, factor: float) -> None:
    torch.set_default_dtype(torch.float32)
    p = priors.build(name, 512)()
    posterior, features = Posterior(16, 512), (factor * fixed(256, 16)).requires_grad_()
    q = posterior(features, p)
    low, high = bounds(p)
    assert ((q.base_dist.loc - q.base_dist.scale) >= low * (1 + 1e-6)).all()
    assert ((q.base_dist.loc + q.base_dist.scale) <= high * (1 + 1e-6)).all()
    assert kl_method(q, p) == "closed"
    value = kl_divergence(q, p).mean()
    gradients = torch.autograd.grad(value, [features, *posterior.parameters()], allow_unused=True)
    assert value.isfinite()
    # The KL to a uniform prior is the same wherever in its box the posterior lies.
    assert [gradient is None for gradient in gradients] == [False, *[name == "uniform"] * 2, False, False]
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    torch.set_default_dtype(torch.float64)


def test_posterior_fills_the_box_and_follows_its_centre() -> None:
    posterior = Posterior(4, 2)
    with torch.no_grad():
        posterior.scale.bias.fill_(50.0)
        posterior.scale.weight.zero_()
    p = dist.Uniform(torch.ones(2), 3.0 * torch.ones(2), validate_args=False).to_event(1)
    q = posterior(fixed(5, 4, dtype=torch.float64), p)
    assert torch.allclose(q.mean, torch.full((5, 2), 2.0), atol=1e-3)
    assert torch.allclose(q.base_dist.scale, torch.ones(5, 2), atol=1e-3)


def test_sampled_and_exact_kl_agree() -> None:
    p = priors.build("standard_normal", 3).double()()
    q = Posterior(8, 3).double()(fixed(4, 8, dtype=torch.float64), p)
    z, weights = draw(q, 40_000)
    estimate = (weights * (q.log_prob(z) - p.log_prob(z))).sum(0)
    assert torch.allclose(estimate, kl_divergence(q, p), atol=0.03)
