"""Distributions on the sphere: densities, moments, draws, gradients, KLs, and the posteriors made of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from helpers import built, tiny
from pyro.infer import TraceMeanField_ELBO
from scipy import stats
from test_pyro import same, svi_side, trainer_side
from torch import Tensor

import vaekit as vk
from vaekit.compatibility import pair
from vaekit.distributions import (
    PowerSpherical,
    Rotational,
    SphereUniform,
    VonMisesFisher,
    kl_divergence,
    kl_method,
    log_sphere_area,
    reflect,
    sphere,
    stopped,
)
from vaekit.errors import VaekitError

pytestmark = pytest.mark.usefixtures("float64")

KINDS: list[type[Rotational]] = [VonMisesFisher, PowerSpherical]


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@functools.cache
def gauss(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre quadrature on [-1, 1]."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy(places), torch.from_numpy(weights)


def polar(dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points at angles from the first axis, their cosines, and the areas that they stand for."""
    nodes, weights = gauss(200)
    angle = 0.5 * math.pi * (1.0 + nodes)
    points = torch.zeros(len(angle), dimensions)
    points[:, 0], points[:, 1] = angle.cos(), angle.sin()
    # log_sphere_area(1) is that of two points.
    slices = angle.sin().pow(dimensions - 2) * math.exp(log_sphere_area(dimensions - 1))
    return points, angle.cos(), 0.5 * math.pi * weights * slices


def axis(dimensions: int) -> Tensor:
    return torch.eye(dimensions)[0]


# ---- densities and moments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3, 5, 16, 64])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0, 400.0])
@pytest.mark.parametrize("kind", KINDS)
def test_density_moments_and_entropy_by_quadrature(kind: type[Rotational], kappa: float, dimensions: int) -> None:
    q = kind(axis(dimensions), torch.tensor(kappa))
    points, cosine, area = polar(dimensions)
    # (1 + cosine)^kappa with a small power has a corner at the far pole, where the rule is less exact.
    tolerance = 1e-5 if kind is PowerSpherical and kappa < 1.0 else 1e-9
    log_prob = q.log_prob(points)
    mass = area * log_prob.exp()
    assert mass.sum().item() == pytest.approx(1.0, rel=tolerance)
    mean, square = (mass * cosine).sum(), (mass * cosine.square()).sum()
    assert q.mean[0].item() == pytest.approx(mean.item(), rel=tolerance, abs=tolerance)
    assert q.variance[0].item() == pytest.approx((square - mean.square()).item(), rel=1e-6, abs=tolerance)
    across = (1.0 - square) / (dimensions - 1)
    torch.testing.assert_close(q.variance[1:], across.expand(dimensions - 1), rtol=tolerance, atol=0.0)
    assert q.entropy().item() == pytest.approx(-(mass * log_prob).sum().item(), rel=tolerance, abs=tolerance)
    kl = kl_divergence(q, SphereUniform(dimensions))
    assert kl.item() == pytest.approx(
        (mass * (log_prob + log_sphere_area(dimensions))).sum().item(), abs=10 * tolerance
    )
    assert (q.mode == q.loc).all()


def test_the_circle_is_von_mises() -> None:
    angle, kappa = torch.linspace(-3.0, 3.0, 7), torch.tensor([0.5, 20.0])
    q = VonMisesFisher(torch.tensor([math.cos(0.7), math.sin(0.7)]), kappa.unsqueeze(-1))
    expected = torch.distributions.VonMises(torch.tensor(0.7), kappa.unsqueeze(-1)).log_prob(angle)
    torch.testing.assert_close(q.log_prob(torch.stack([angle.cos(), angle.sin()], -1)), expected, rtol=1e-6, atol=1e-6)
    oracle = torch.from_numpy(stats.vonmises(kappa=kappa.numpy()[:, None], loc=0.7).logpdf(angle.numpy()))
    torch.testing.assert_close(q.log_prob(torch.stack([angle.cos(), angle.sin()], -1)), oracle, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kappa", [0.01, 2.0, 300.0])
def test_three_dimensions_are_elementary(kappa: float) -> None:
    q, z = VonMisesFisher(axis(3), torch.tensor(kappa)), unit(5, 3)
    log_sinh = kappa + math.log1p(-math.exp(-2.0 * kappa)) - math.log(2.0)
    expected = math.log(kappa / (4.0 * math.pi)) - log_sinh + kappa * z[:, 0]
    torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-10, atol=1e-10)
    assert q.mean[0].item() == pytest.approx(1.0 / math.tanh(kappa) - 1.0 / kappa, rel=1e-9)


def test_power_spherical_is_a_beta_along_the_axis() -> None:
    kappa, (points, cosine, _) = 3.0, polar(5)
    q = PowerSpherical(axis(5), torch.tensor(kappa))
    inner = slice(1, -1)
    beta = torch.distributions.Beta(kappa + 2.0, 2.0).log_prob(0.5 + 0.5 * cosine[inner])
    # Density of the cosine = density on the sphere times the area of the slice at that cosine.
    density = q.log_prob(points)[inner] + (1.0 - cosine[inner].square()).log() + log_sphere_area(4)
    torch.testing.assert_close(density, beta - math.log(2.0), rtol=1e-9, atol=1e-9)


def test_no_concentration_is_the_uniform_distribution() -> None:
    for kind in KINDS:
        q = kind(unit(4, 6), torch.zeros(4))
        torch.testing.assert_close(q.log_prob(unit(4, 6)), SphereUniform(6).expand((4,)).entropy().neg())
        torch.testing.assert_close(kl_divergence(q, SphereUniform(6)), torch.zeros(4), rtol=0.0, atol=1e-12)
        torch.testing.assert_close(q.variance, torch.full((4, 6), 1.0 / 6.0))


def test_uniform() -> None:
    p = SphereUniform(3)
    assert p.log_prob(axis(3)).item() == pytest.approx(-math.log(4.0 * math.pi), rel=1e-14)
    assert log_sphere_area(2) == pytest.approx(math.log(2.0 * math.pi), rel=1e-14)
    z = p.sample((40000,))
    assert sphere.check(z).all()
    assert not sphere.check(1.01 * z).any()
    assert z.mean(0).abs().max() < 0.02
    torch.testing.assert_close(z.var(0), p.variance, rtol=0.03, atol=0.0)
    wide = p.expand((2, 4))
    assert wide.sample((5,)).shape == (5, 2, 4, 3)
    assert wide.log_prob(z[:, None, None]).shape == (40000, 2, 4)
    assert wide.mean.shape == wide.variance.shape == (2, 4, 3)
    assert wide.entropy().shape == (2, 4)


# ---- the reflection --------------------------------------------------------------------------------------------------


def test_reflection_is_orthogonal_and_turns_the_first_axis() -> None:
    for loc in (unit(50, 4), axis(4).expand(1, 4), -axis(4).expand(1, 4), torch.eye(4)[1:2]):
        torch.testing.assert_close(reflect(loc, axis(4).expand_as(loc)), loc, rtol=0.0, atol=1e-14)
        image = reflect(loc.unsqueeze(-2), torch.eye(4))
        torch.testing.assert_close(image @ image.mT, torch.eye(4).expand_as(image), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_reflection_has_a_bounded_gradient_at_the_poles(sign: float) -> None:
    loc = (sign * axis(4)).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda t: reflect(t, unit(4)), loc)
    assert jacobian.abs().max() < 3.0


# ---- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3, 8])
@pytest.mark.parametrize("kappa", [0.1, 5.0, 200.0])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_density(kind: type[Rotational], kappa: float, dimensions: int) -> None:
    loc = unit(dimensions)
    q = kind(loc, torch.tensor(kappa))
    z = q.sample((20000,))
    assert sphere.check(z).all()
    grid = torch.linspace(0.0, math.pi, 40001)
    middle = 0.5 * (grid[1:] + grid[:-1])
    points = torch.nn.functional.pad(torch.stack([middle.cos(), middle.sin()], -1), (0, dimensions - 2))
    log_prob = kind(axis(dimensions), torch.tensor(kappa)).log_prob(points)
    mass = (middle.sin().pow(dimensions - 2) * log_prob.exp()).cumsum(0)
    mass = torch.cat([torch.zeros(1), mass / mass[-1]])
    angle = (z @ loc).clamp(-1.0, 1.0).acos()
    result = stats.kstest(angle.numpy(), lambda values: np.interp(values, grid.numpy(), mass.numpy()))
    assert result.pvalue > 1e-3
    assert ((z.mean(0) - q.mean).abs() < 5.0 * (q.variance / 20000).sqrt()).all()
    torch.testing.assert_close(z.var(0), q.variance, rtol=0.1, atol=1e-4)


def cdf(dimensions: int, angle: Tensor, kappa: float) -> Tensor:
    """The cdf of the angle to the axis under von Mises-Fisher, by the trapezoidal rule."""
    share = torch.linspace(0.0, 1.0, 20001)

    def integral(end: Tensor) -> Tensor:
        phi = end.unsqueeze(-1) * share
        weight = phi.sin().pow(dimensions - 2) * (kappa * (phi.cos() - 1.0)).exp()
        return torch.trapezoid(weight, phi, dim=-1)

    return integral(angle) / integral(torch.full_like(angle, math.pi))


@pytest.mark.parametrize("dimensions", [2, 3, 9, 64])
@pytest.mark.parametrize("kappa", [0.05, 3.0, 150.0])
def test_angles_move_with_the_concentration_at_a_fixed_cdf(kappa: float, dimensions: int) -> None:
    q = VonMisesFisher(axis(dimensions), torch.tensor(kappa))
    angle = q._angles(torch.Size([20]))
    step, turn = 1e-3 * kappa, 1e-4 * angle
    by_kappa = (cdf(dimensions, angle, kappa + step) - cdf(dimensions, angle, kappa - step)) / (2.0 * step)
    by_angle = (cdf(dimensions, angle + turn, kappa) - cdf(dimensions, angle - turn, kappa)) / (2.0 * turn)
    torch.testing.assert_close(q._velocity(angle), -by_kappa / by_angle, rtol=1e-4, atol=1e-9)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "smooth": lambda z: (1.3 * z[..., 0] - 0.4 * z[..., 1]).sin() + z[..., 0] * z[..., 1],
    "bump": lambda z: (-3.0 * (z[..., 1] - 0.5).square()).exp(),
}


def on_the_sphere(dimensions: int) -> tuple[Tensor, Tensor]:
    """A grid on the circle, or on the sphere in three dimensions, and its areas."""
    angle = torch.arange(400) * (2.0 * math.pi / 400)
    if dimensions == 2:
        return torch.stack([angle.cos(), angle.sin()], -1), torch.full((400,), 2.0 * math.pi / 400)
    nodes, weights = gauss(200)
    sine = (1.0 - nodes.square()).sqrt().unsqueeze(-1)
    points = torch.stack([sine * angle.cos(), sine * angle.sin(), nodes.unsqueeze(-1).expand(-1, 400)], -1)
    return points.flatten(0, 1), weights.repeat_interleave(400) * (2.0 * math.pi / 400)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_expectations_are_unbiased(kind: type[Rotational], dimensions: int, function: str) -> None:
    f, (points, areas) = FUNCTIONS[function], on_the_sphere(dimensions)
    for kappa in (1.0, 8.0):
        head = unit(dimensions).requires_grad_()
        concentration = torch.tensor(kappa, requires_grad=True)

        def posterior(head: Tensor, concentration: Tensor) -> Rotational:
            return kind(torch.nn.functional.normalize(head, dim=-1), concentration)  # noqa: B023

        density = posterior(head, concentration).log_prob(points).exp()
        exact = torch.autograd.grad((areas * density * f(points)).sum(), (head, concentration))
        count = 10000
        rows = [t.detach().expand(count, *t.shape).clone().requires_grad_() for t in (head, concentration)]
        found = torch.autograd.grad(f(posterior(*rows).rsample()).sum(), rows)
        for name, gradient, truth in zip(("loc", "concentration"), found, exact, strict=True):
            error = gradient.std(0) / math.sqrt(count)
            assert ((gradient.mean(0) - truth).abs() < 5.0 * error + 1e-9).all(), (name, kappa)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_expand_and_stopped(kind: type[Rotational]) -> None:
    q = kind(unit(4, 3), torch.rand(4) + 1.0)
    assert (q.batch_shape, q.event_shape) == ((4,), (3,))
    for shape in ((), (5,), (5, 2)):
        assert q.rsample(shape).shape == (*shape, 4, 3)
        assert q.log_prob(q.sample(shape)).shape == (*shape, 4)
    wide = q.expand((7, 4))
    assert type(wide) is kind
    assert wide.sample((2,)).shape == (2, 7, 4, 3)
    z = unit(4, 3)
    torch.testing.assert_close(wide.log_prob(z), q.log_prob(z).expand(7, 4))
    assert kind(unit(3), torch.ones(4)).batch_shape == (4,)
    loc = unit(3).requires_grad_()
    assert not stopped(kind(loc, torch.ones(()))).log_prob(unit(3)).requires_grad
    with pytest.raises(ValueError, match="loc"):
        kind(torch.ones(3), torch.ones(()), validate_args=True)
    with pytest.raises(VaekitError, match="2 dimensions or more"):
        kind(torch.ones(1), torch.ones(()))
    with pytest.raises(VaekitError, match="2 dimensions or more"):
        SphereUniform(1)


@pytest.mark.parametrize("kappa", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("dimensions", [2, 3, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_finite_in_float32(kind: type[Rotational], dimensions: int, kappa: float) -> None:
    loc = unit(256, dimensions).float().requires_grad_()
    concentration = torch.full((256,), kappa, dtype=torch.float32, requires_grad=True)
    q = kind(loc, concentration)
    z = q.rsample((2,))
    assert z.dtype == torch.float32
    assert sphere.check(z).all()
    kl = kl_divergence(q, SphereUniform(dimensions, torch.float32))
    assert kl.dtype == torch.float32
    assert (kl > -1e-3).all()
    values = [q.log_prob(z), q.log_prob(-loc.detach()), kl, q.mean, q.variance, z.sin()]
    for value in values:
        assert value.isfinite().all()
    for gradient in torch.autograd.grad(sum(value.sum() for value in values), (loc, concentration)):
        assert gradient.isfinite().all()


# ---- KLs and posteriors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_closed_and_spaces_are_kept_apart(kind: type[Rotational]) -> None:
    q, p = kind(unit(4, 5), torch.full((4,), 3.0)), SphereUniform(5)
    assert kl_method(q, p) == "closed"
    z = q.sample((10000,))
    torch.testing.assert_close(kl_divergence(q, p), (q.log_prob(z) - p.log_prob(z)).mean(0), rtol=0.1, atol=0.0)
    normal = pyro.distributions.Normal(torch.zeros(5), 1.0).to_event(1)
    for pair_ in ((q, normal), (normal, p)):
        with pytest.raises(VaekitError, match="infinite"):
            kl_divergence(*pair_)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_kl(kind: type[Rotational]) -> None:
    kappa = torch.tensor([0.2, 3.0, 60.0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: kl_divergence(kind(axis(7), k), SphereUniform(7)), kappa)


@pytest.mark.parametrize("posterior", ["vmf", "power_spherical"])
def test_elbo_of_pyro_is_the_loss(posterior: str) -> None:
    pyro.clear_param_store()
    model, objective = (part.double() for part in built(tiny("vae", posterior=posterior, prior="sphere_uniform")))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))


def test_reconstructions_are_decoded_on_the_sphere() -> None:
    model, _ = built(tiny("vae", posterior="vmf", prior="sphere_uniform"))
    model, x = model.double(), torch.rand(8, 1, 8, 8)
    q: Any = model.encode(x)
    torch.testing.assert_close(model.reconstruct(x), model.decode(q.mode).mean)
    assert not torch.allclose(model.reconstruct(x), model.decode(q.mean).mean)


@pytest.mark.parametrize("posterior", ["vmf", "power_spherical"])
def test_posteriors_say_what_they_need(posterior: str) -> None:
    assert pair(posterior, "sphere_uniform").kind == "closed"
    assert pair(posterior, "standard_normal").kind == "impossible"
    with pytest.raises(VaekitError, match="2 dimensions or more"):
        vk.registry.posteriors.build(posterior, 8, 1)
    with pytest.raises(VaekitError, match="2 dimensions or more"):
        vk.registry.priors.build("sphere_uniform", 1)
    module: Any = vk.registry.posteriors.build(posterior, 8, 3)
    q = module(100.0 * torch.randn(5, 8), None)
    assert (q.concentration >= 1.0).all()
    torch.testing.assert_close(q.loc.norm(dim=-1), torch.ones(5))
