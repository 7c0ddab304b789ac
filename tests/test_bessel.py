"""Scaled Bessel functions against mpmath (40 digits), their derivatives, and float32."""

from __future__ import annotations

import math

import pytest
import torch

from vaekit.distributions import bessel_ratio, log_bessel, log_bessel_over_power
from vaekit.errors import VaekitError

# Order, argument, log(I_v(x) exp(-x)), I_{v+1}(x) / I_v(x), and the derivative of that ratio.
ORACLES = [
    (0.0, 1e-6, -9.9999975e-7, 4.999999999999375e-7, 0.5),
    (0.0, 0.3, -0.2776253113779581, 0.1483374269408753, 0.483537917966),
    (0.0, 25.0, -2.523271995000756, 0.9797914534905159, 0.000817049527322),
    (0.0, 1e6, -7.826693687186747, 0.999999499999875, 5.0000025e-13),
    (0.5, 2.0, -1.283997570310532, 0.5373147207275481, 0.173978170162),
    (0.5, 1000.0, -4.372816172695741, 0.999, 1.0e-6),
    (1.0, 2.0, -1.53586552645384, 0.4331274267223118, 0.162709492137),
    (3.5, 1e-6, -53.23403965567715, 1.1111111111111e-7, 0.111111111111),
    (3.5, 25.0, -2.772947944366603, 0.849955046996322, 0.00559080304666),
    (31.0, 0.3, -137.2022399672681, 0.004687400128420453, 0.0156240013117),
    (31.0, 1000.0, -4.853393036171302, 0.9689807403096335, 3.05382694877e-5),
    (511.0, 1e-6, -10093.74625238718, 9.765625e-10, 0.0009765625),
    (511.0, 2.0, -2681.820193880027, 0.001953117563999463, 0.000976551346056),
    (511.0, 1000.0, -132.3500306914304, 0.6115999686241061, 0.000278710476532),
    (511.0, 1e6, -7.957254249626052, 0.999488630560497, 5.11238878892e-10),
]


@pytest.mark.parametrize(("order", "x", "log", "ratio", "slope"), ORACLES)
def test_agrees_with_mpmath(order: float, x: float, log: float, ratio: float, slope: float, float64: None) -> None:
    point = torch.tensor(x, requires_grad=True)
    assert log_bessel(order, point).item() == pytest.approx(log, rel=1e-10, abs=1e-12)
    found = bessel_ratio(order, point)
    assert found.item() == pytest.approx(ratio, rel=1e-10)
    (gradient,) = torch.autograd.grad(found, point)
    assert gradient.item() == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("order", [0.0, 0.5, 3.0, 19.5, 20.0, 63.0])
def test_agrees_with_scipy(order: float, float64: None) -> None:
    from scipy.special import ive

    x = torch.logspace(-1, 5, 200)
    expected = torch.from_numpy(ive(order, x.numpy()))
    kept = expected > 1e-300
    assert kept.sum() > 100
    torch.testing.assert_close(log_bessel(order, x)[kept], expected[kept].log(), rtol=1e-10, atol=1e-10)


def test_half_an_order_is_elementary(float64: None) -> None:
    x = torch.logspace(-3, 3, 50)
    expected = 0.5 * (2.0 / (math.pi * x)).log() + (-torch.expm1(-2.0 * x)).log() - math.log(2.0)
    torch.testing.assert_close(log_bessel(0.5, x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [0.0, 1.5, 40.0])
def test_derivatives(order: float, float64: None) -> None:
    x = torch.tensor([0.3, 4.0, 90.0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: log_bessel(order, t), x)
    assert torch.autograd.gradgradcheck(lambda t: log_bessel(order, t), x)
    assert torch.autograd.gradcheck(lambda t: bessel_ratio(order, t), x)


@pytest.mark.parametrize("order", [0.0, 0.5, 7.0, 255.0, 511.0])
def test_zero_is_a_point_like_any_other(order: float, float64: None) -> None:
    x = torch.zeros((), requires_grad=True)
    value = log_bessel_over_power(order, x)
    assert value.item() == pytest.approx(-order * math.log(2.0) - math.lgamma(order + 1.0), rel=1e-10, abs=1e-12)
    (slope,) = torch.autograd.grad(value, x)
    assert slope.item() == -1.0
    ratio = bessel_ratio(order, x)
    (slope,) = torch.autograd.grad(ratio, x)
    assert (ratio.item(), slope.item()) == (0.0, pytest.approx(0.5 / (order + 1.0), rel=1e-10))


@pytest.mark.parametrize("order", [0.0, 0.5, 31.0, 511.0])
def test_float32_is_finite_and_close(order: float) -> None:
    x = torch.cat([torch.zeros(1), torch.logspace(-8, 6, 100)]).requires_grad_()
    value, ratio = log_bessel_over_power(order, x), bessel_ratio(order, x)
    assert value.dtype == ratio.dtype == torch.float32
    wide = x.detach().double()
    torch.testing.assert_close(value.double(), log_bessel_over_power(order, wide), rtol=1e-6, atol=2e-3)
    torch.testing.assert_close(ratio.double(), bessel_ratio(order, wide), rtol=1e-6, atol=0.0)
    for result in (value, ratio):
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert gradient.isfinite().all()


def test_negative_orders_are_refused() -> None:
    with pytest.raises(VaekitError, match="0 or more"):
        log_bessel(-0.5, torch.ones(()))
