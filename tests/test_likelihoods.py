"""Likelihoods: values against closed forms of many digits, float32 far from the mode, levels, bits per dimension."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaekit as vk
from vaekit.distributions import CategoricalLevels, ContinuousBernoulli, DiscretizedLogistic, Levels
from vaekit.errors import VaekitError
from vaekit.registry import backbones, likelihoods
from vaekit.testing.contract import fixed

# ---- continuous Bernoulli --------------------------------------------------------------------------------------------

# logit, value, log-density, mean, variance, cdf: mpmath, 40 digits.
TILTED = torch.tensor(
    [
        [0.0, 0.3, 0.0, 0.5, 0.08333333333333333, 0.3],
        [1e-3, 0.9, 0.0003999583333337, 0.5000833333319, 0.08333332916667, 0.8999549940003],
        [0.4, 0.25, -0.1066578002852, 0.5332447817197, 0.08267087588973, 0.213838220366],
        [0.6, 0.25, -0.1649552554197, 0.5497025484942, 0.08185449502583, 0.1968501908136],
        [-3.0, 0.1, 0.8496814696108, 0.2809376368421, 0.05597010560905, 0.2727617891635],
        [10.0, 0.7, -0.6973695060456, 0.900045401991, 0.00995459594765, 0.04974392680888],
        [40.0, 0.99, 3.288879454114, 0.975, 0.000625, 0.6703200460356],
        [-200.0, 0.004, 4.498317366548, 0.005, 2.5e-5, 0.5506710358828],
    ],
    dtype=torch.float64,
)


def test_continuous_bernoulli_agrees_with_mpmath(float64: None) -> None:
    logits, value, log_prob, mean, variance, cdf = TILTED.unbind(-1)
    p = ContinuousBernoulli(logits)
    for found, expected in ((p.log_prob(value), log_prob), (p.mean, mean), (p.variance, variance), (p.cdf(value), cdf)):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(p.icdf(cdf), value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(p.entropy(), -p.log_prob(p.mean))


def test_continuous_bernoulli_in_float32_is_as_good_as_in_float64_for_every_logit() -> None:
    size = torch.logspace(-8, 5, 400)
    logits = torch.cat([-size, torch.zeros(1), size])
    value = torch.rand(len(logits))
    found = []
    for dtype in (torch.float32, torch.float64):
        logit, x = logits.to(dtype).requires_grad_(), value.to(dtype)
        p = ContinuousBernoulli(logit)
        (slope,) = torch.autograd.grad(p.log_prob(x).sum(), logit)
        (mean_slope,) = torch.autograd.grad(p.mean.sum(), logit)
        found.append([t.detach().double() for t in (p.log_prob(x), slope, p.mean, p.variance, mean_slope)])
    for narrow, wide in zip(*found, strict=True):
        assert ((narrow - wide).abs() <= 1e-5 * (1.0 + wide.abs())).all()
    # The family is exponential: d log p / dl = x - mean, and d mean / dl = variance.
    torch.testing.assert_close(found[1][1], value.double() - found[1][2], rtol=0.0, atol=1e-10)
    torch.testing.assert_close(found[1][4], found[1][3], rtol=0.0, atol=1e-9)


def test_continuous_bernoulli_is_the_cross_entropy_with_its_constant(float64: None) -> None:
    decoded, x = 3 * fixed(4, 1, 2, 3, dtype=torch.float64), torch.rand(4, 1, 2, 3)
    plain, density = (likelihoods.build(name, (1, 2, 3))(decoded) for name in ("bernoulli", "continuous_bernoulli"))
    constant = (decoded / torch.tanh(decoded / 2)).log().flatten(1).sum(1)
    torch.testing.assert_close(density.log_prob(x), plain.log_prob(x) + constant)
    assert ((density.mean - 0.5).abs() < (plain.mean - 0.5).abs()).all()


def test_draws_of_a_continuous_bernoulli_stay_in_the_interval() -> None:
    p = ContinuousBernoulli(torch.tensor([-1e4, -1e-12, 0.0, 5.0, 1e4]))
    draws = p.sample((50_000,))
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert ((draws.mean(0) - p.mean).abs() < 6 * (p.variance / 50_000).sqrt()).all()


# ---- discretised logistic --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "loc", "scale", "count", "expected"),
    [
        (0, 0.0, 0.1, 256, -9.9608315283),
        (255, 0.0, 0.1, 256, -9.9608315283),
        (128, 0.0, 0.1, 256, -3.932338072206),
        (10, 0.9, 0.01, 256, -182.3743078792),
        (254, -0.9, 0.02, 256, -95.53753689652),
        (255, -0.9, 0.02, 256, -94.80392156863),
        (100, -0.2, 5.0, 256, -7.843851150005),
        (2, 0.1, 0.5, 5, -1.416216438741),
        (4, 0.1, 0.5, 5, -1.541008453833),
    ],
)
def test_discretised_logistic_agrees_with_mpmath(
    level: int, loc: float, scale: float, count: int, expected: float
) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        levels = Levels(count)
        p = DiscretizedLogistic(torch.tensor(loc, dtype=dtype), torch.tensor(scale, dtype=dtype), levels)
        value = p.log_prob(levels.values(torch.tensor(level, dtype=dtype)))
        assert value.item() == pytest.approx(expected, rel=tolerance)


def grid(p: DiscretizedLogistic | CategoricalLevels) -> Tensor:
    """All levels, shape (L, 1)."""
    return p.levels.values(torch.arange(float(p.levels.count))).unsqueeze(-1)


@pytest.mark.parametrize("kind", ["logistic", "categorical"])
def test_moments_and_mass_of_levels_are_the_sums_over_them(kind: str, float64: None) -> None:
    levels = Levels(7, 0.0, 3.0)
    p: Any = (
        DiscretizedLogistic(torch.tensor([-4.0, 1.2, 2.9]), torch.tensor([0.3, 1.0, 0.01]), levels)
        if kind == "logistic"
        else CategoricalLevels(2 * torch.randn(3, 7), levels)
    )
    mass = p.log_prob(grid(p)).exp()
    mean = (mass * grid(p)).sum(0)
    torch.testing.assert_close(mass.sum(0), torch.ones(3))
    torch.testing.assert_close(p.mean, mean)
    torch.testing.assert_close(p.variance, (mass * (grid(p) - mean).square()).sum(0))
    if kind == "logistic":
        torch.testing.assert_close(p.cdf(grid(p)), mass.cumsum(0))
    draws = p.sample((20_000,))
    assert p.support.check(draws).all()
    frequency = torch.stack([(draws == level).double().mean(0) for level in grid(p)])
    assert ((frequency - mass).abs() < 6 * (mass * (1 - mass) / 20_000).sqrt() + 1e-9).all()


def test_discretised_logistic_is_finite_far_from_the_mode() -> None:
    loc, scale = torch.tensor([-500.0, 0.0, 500.0]).requires_grad_(), torch.full((3,), 1e-3).requires_grad_()
    total = DiscretizedLogistic(loc, scale).log_prob(torch.tensor([[-1.0], [1 / 255], [1.0]])).sum()
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, (loc, scale)):
        assert gradient.isfinite().all()


def test_scale_from_the_decoder_and_shared_scale() -> None:
    x, loc = torch.zeros(4, 2, 3), fixed(4, 2, 3)
    shared = likelihoods.build({"name": "discretized_logistic", "shared_scale": 0.2}, (2, 3))
    assert shared.parameters_shape == (2, 3)
    assert dict(shared.named_parameters())["log_scale"].exp().item() == pytest.approx(0.2)
    each = likelihoods.build("discretized_logistic", (2, 3))
    assert each.parameters_shape == (4, 3)
    decoded = torch.cat([loc, torch.full_like(loc, 2 * math.log(0.2))], dim=1)
    torch.testing.assert_close(each(decoded).log_prob(x), shared(loc).log_prob(x), rtol=1e-4, atol=1e-4)
    assert not list(each.parameters())


# ---- categorical -----------------------------------------------------------------------------------------------------


def test_categorical_is_the_cross_entropy_of_torch() -> None:
    likelihood = likelihoods.build({"name": "categorical", "levels": 256}, (3, 4, 5))
    decoded, index = fixed(2, 768, 4, 5), torch.randint(0, 256, (2, 3, 4, 5))
    x = torch.lerp(torch.tensor(-1.0), torch.tensor(1.0), index / 255)
    expected = -F.cross_entropy(decoded.unflatten(1, (256, 3)), index, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(likelihood(decoded).log_prob(x), expected)


def test_values_between_levels_count_as_the_nearest() -> None:
    levels = Levels(5)
    assert levels.index(torch.tensor([-1.4, -0.8, -0.7, 0.1, 3.0])).tolist() == [0, 0, 1, 2, 4]
    for p in (
        DiscretizedLogistic(torch.zeros(1), torch.ones(1), levels, validate_args=False),
        CategoricalLevels(torch.randn(1, 5), validate_args=False),
    ):
        torch.testing.assert_close(p.log_prob(torch.tensor([0.2])), p.log_prob(torch.tensor([0.0])))
    # Every grey value of 8-bit data, scaled as the trainer scales it, is its own level.
    grey = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(Levels().index(grey.float() / 255 * 2 - 1), grey.float())


# ---- in a model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["continuous_bernoulli", "discretized_logistic", "categorical"])
@pytest.mark.parametrize("backbone", ["mlp", "conv"])
def test_trains_with_either_backbone(name: str, backbone: str) -> None:
    spec = {"name": name, "levels": 17} if name == "categorical" else name
    changes: dict[str, Any] = {"backbone": {"name": backbone}, "likelihood": spec, "trainer": {"max_steps": 12}}
    run = vk.recipe("vae", data="digits", **changes)
    fit = run.fit()
    losses = [line["loss"] for line in fit.metrics if "loss" in line]
    assert all(math.isfinite(loss) for loss in losses)
    low, high = run.model.data_range
    images = run.model.sample(3)
    assert images.shape == (3, 1, 8, 8)
    assert low <= images.min() <= images.max() <= high


def test_vectors_have_levels_too() -> None:
    likelihood = likelihoods.build({"name": "categorical", "levels": 4}, (5,))
    decoder = backbones.build({"name": "mlp", "hidden": [6]}).decoder(2, likelihood.parameters_shape)
    p = likelihood(decoder(torch.zeros(3, 2)))
    assert (p.batch_shape, p.event_shape) == ((3,), (5,))


def test_bits_per_dimension() -> None:
    # One of 256 equally likely levels is 8 bits, as probabilities and as the density that is spread over them.
    nats = 12 * math.log(256)
    for name in ("discretized_logistic", "categorical"):
        assert likelihoods.build(name, (3, 2, 2)).bits_per_dim(nats) == pytest.approx(8.0)
    flat = likelihoods.build("continuous_bernoulli", (3, 2, 2))
    loss = -flat(torch.zeros(1, 3, 2, 2)).log_prob(torch.rand(1, 3, 2, 2)).item()
    assert flat.bits_per_dim(loss) == pytest.approx(math.log2(255))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "categorical", "levels": 1}, "2 or more"),
        ({"name": "discretized_logistic", "levels": 0}, "2 or more"),
        ({"name": "discretized_logistic", "shared_scale": 0.0}, "shared_scale must be above 0"),
    ],
)
def test_bad_options_are_refused(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VaekitError, match=sentence):
        likelihoods.build(spec, (1, 8, 8))


def test_levels_and_logits_must_agree() -> None:
    with pytest.raises(VaekitError, match="5 levels need as many logits"):
        CategoricalLevels(torch.zeros(2, 4), Levels(5))


@pytest.mark.parametrize("kind", [ContinuousBernoulli, DiscretizedLogistic, CategoricalLevels])
def test_expand_and_half_precision(kind: Any) -> None:
    shapes = {ContinuousBernoulli: [()], DiscretizedLogistic: [(), ()], CategoricalLevels: [(6,)]}[kind]
    p = kind(*(torch.rand(4, 3, *shape).bfloat16() + 0.1 for shape in shapes), validate_args=False)
    wide = p.expand((2, 4, 3))
    x = wide.sample()
    assert (x.shape, x.dtype) == ((2, 4, 3), torch.float32)
    assert torch.equal(wide.log_prob(x), p.log_prob(x))
    assert torch.equal(wide.mean[1], p.mean)


@pytest.mark.parametrize(("name", "family"), [("gaussian", dist.Normal), ("laplace", dist.Laplace)])
def test_one_scale_for_all_is_the_general_density(name: str, family: type) -> None:
    """Summing before scaling changes neither values nor gradients, for several draws, one sample alone, or expanded."""
    likelihood = likelihoods.build({"name": name, "scale": 0.3, "learned": True}, (2, 3)).double()
    decoded = fixed(4, 5, 2, 3, dtype=torch.float64).requires_grad_()
    x = fixed(5, 2, 3, dtype=torch.float64, seed=1)
    general = family(decoded, likelihood.log_scale.exp()).to_event(2)
    inputs = [decoded, likelihood.log_scale]
    for p, q in ((likelihood(decoded), general), (likelihood(decoded).expand((3, 4, 5)), general.expand((3, 4, 5)))):
        mine, theirs = p.log_prob(x), q.log_prob(x)
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(value.sin().sum(), inputs, retain_graph=True) for value in (mine, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    assert likelihood(decoded).log_prob(x[0]).shape == (4, 5)
