"""The distributions of vaekit, each from a vector of numbers in [-1, 1].

A new distribution needs an entry in CASES; `test_every_distribution_has_a_case` says so where one is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit import distributions as vd

Make = Callable[[Tensor, int], Any]
Space = Literal["line", "counts", "levels", "one-hot", "sphere"]


@dataclass(frozen=True)
class Case:
    """One distribution.

    Arguments:
        kind: Its class.
        size: The numbers it takes in D dimensions.
        make: Numbers u (..., size) in [-1, 1] and D to a distribution of batch shape (...) and event shape (D,).
        space: Where its values live.
        prior: Numbers and D to a distribution to which its KL is finite; None where there is no KL.
        closed: Whether that KL has a closed form.
        cdf: Whether it has a cdf in one dimension.
        icdf: Whether it has quantiles in one dimension.
        entropy: Whether it has an entropy.
        moments: Whether its mean and variance are exact.
        gradient: `"exact"` if draws are differentiable, `"relaxed"` if those are draws of something softer.
    """

    kind: type
    size: Callable[[int], int]
    make: Make
    space: Space = "line"
    prior: Make | None = None
    closed: bool = False
    cdf: bool = False
    icdf: bool = False
    entropy: bool = False
    moments: Literal["exact", "estimated"] = "exact"
    gradient: Literal["", "exact", "relaxed"] = ""


def standard(_: Tensor, dimensions: int) -> Any:
    """The standard normal."""
    return dist.Normal(torch.zeros(dimensions), 1.0).to_event(1)


def box(_: Tensor, dimensions: int) -> Any:
    """The uniform distribution on [-6, 6], which holds every bounded case."""
    return dist.Uniform(-6.0 * torch.ones(dimensions), 6.0).to_event(1)


def each(kind: type, count: int, build: Callable[..., Any], **more: Any) -> Case:
    """A family of independent dimensions: `build` takes `count` tensors (..., D)."""

    def make(u: Tensor, dimensions: int) -> Any:
        return build(*u.unflatten(-1, (count, dimensions)).unbind(-2)).to_event(1)

    return Case(kind, lambda dimensions: count * dimensions, make, **more)


def mixture(estimator: vd.Estimator) -> Case:
    def make(u: Tensor, dimensions: int) -> Any:
        logits, rest = u.split([3, u.shape[-1] - 3], -1)
        loc, log_scale = rest.unflatten(-1, (2, 3, dimensions)).unbind(-3)
        return vd.GaussianMixture(2 * logits, 3 * loc, log_scale.exp(), estimator)

    return Case(vd.GaussianMixture, lambda dimensions: 3 + 6 * dimensions, make, prior=standard, gradient="exact")


def experts(family: Any, stratified: bool) -> Case:
    def make(u: Tensor, dimensions: int) -> Any:
        loc, log_scale = u.unflatten(-1, (2, 3, dimensions)).unbind(-3)
        components = family(3 * loc, log_scale.exp()).to_event(1)
        return vd.ExpertMixture(components, torch.tensor([True, False, True]), stratified)

    return Case(vd.ExpertMixture, lambda dimensions: 6 * dimensions, make, prior=standard, gradient="exact")


def levels(u: Tensor, dimensions: int) -> Any:
    return vd.CategoricalLevels(3 * u.unflatten(-1, (dimensions, 6))).to_event(1)


def one_hot(temperature: float) -> Case:
    def make(u: Tensor, dimensions: int) -> Any:
        return vd.RelaxedOneHot(3 * u.unflatten(-1, (-1, min(dimensions, 8))), temperature, validate_args=False)

    def prior(u: Tensor, dimensions: int) -> Any:
        return make(torch.zeros(dimensions), dimensions)

    return Case(
        vd.RelaxedOneHot,
        lambda dimensions: dimensions,
        make,
        space="one-hot",
        prior=prior,
        closed=True,
        entropy=True,
        gradient="relaxed" if temperature else "",
    )


def spherical(kind: Any) -> Case:
    def make(u: Tensor, dimensions: int) -> Any:
        first = torch.eye(dimensions)[0]
        loc = F.normalize(u[..., :-1] + 1.5 * first, dim=-1)
        return kind(loc, (1.0 + 2.0 * u[..., -1]).exp(), validate_args=False)

    return Case(
        kind,
        lambda dimensions: dimensions + 1,
        make,
        space="sphere",
        prior=lambda _, dimensions: vd.SphereUniform(dimensions),
        closed=True,
        entropy=True,
        gradient="exact",
    )


def full_gaussian(u: Tensor, dimensions: int) -> Any:
    loc, diagonal, below = u.split([dimensions, dimensions, dimensions**2], -1)
    tril = below.unflatten(-1, (dimensions, dimensions)).tril(-1) / dimensions**0.5 + diagonal.exp().diag_embed()
    return dist.MultivariateNormal(2 * loc, scale_tril=tril)


def low_rank(u: Tensor, dimensions: int) -> Any:
    loc, factor, log_variance = u.split([dimensions, 2 * dimensions, dimensions], -1)
    return dist.LowRankMultivariateNormal(2 * loc, factor.unflatten(-1, (dimensions, 2)), log_variance.exp())


class _HalfSinh(torch.distributions.Transform):
    """2 sinh(x / 2): a bijection of the line with heavier tails."""

    domain = codomain = torch.distributions.constraints.real
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return 2 * torch.sinh(x / 2)

    def _inverse(self, y: Tensor) -> Tensor:
        return 2 * torch.asinh(y / 2)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cosh(x / 2).log()


def flow(u: Tensor, dimensions: int) -> Any:
    loc, log_scale = u.unflatten(-1, (2, dimensions)).unbind(-2)
    shifted = torch.distributions.AffineTransform(2 * loc, log_scale.exp())
    base = dist.Normal(torch.zeros(dimensions), torch.ones(dimensions)).to_event(1)
    transform = torch.distributions.ComposeTransform([_HalfSinh(), shifted])
    return vd.Flow(base, transform, u.shape[:-1], moments_from=4096)


def convolved(noise: Any) -> Case:
    def build(a: Tensor, b: Tensor) -> Any:
        return vd.EpanechnikovConvolution(2 * a, (2 * b).exp(), noise, bandwidth=0.7)

    bounded = isinstance(noise, dist.Uniform)
    return each(vd.EpanechnikovConvolution, 2, build, prior=standard, cdf=bounded, gradient="exact")


def poisson(temperature: float) -> Case:
    def make(u: Tensor, dimensions: int) -> Any:
        return vd.RelaxedPoisson(1.5 * u, temperature, 24, validate_args=False).to_event(1)

    return Case(
        vd.RelaxedPoisson,
        lambda dimensions: dimensions,
        make,
        space="counts",
        prior=lambda _, dimensions: dist.Poisson(torch.ones(dimensions)).to_event(1),
        closed=True,
        gradient="relaxed" if temperature else "",
    )


_TORCH: dict[str, Any] = {"cdf": True, "icdf": True, "entropy": True}
CASES: dict[str, Case] = {
    "normal": each(
        dist.Normal,
        2,
        lambda a, b: dist.Normal(2 * a, b.exp()),
        prior=standard,
        closed=True,
        gradient="exact",
        **_TORCH,
    ),
    "laplace": each(
        dist.Laplace,
        2,
        lambda a, b: dist.Laplace(2 * a, b.exp()),
        prior=standard,
        closed=True,
        gradient="exact",
        **_TORCH,
    ),
    "uniform": each(dist.Uniform, 2, lambda a, b: dist.Uniform(a, a + b.exp()), prior=box, closed=True, **_TORCH),
    "full covariance": Case(
        dist.MultivariateNormal,
        lambda dimensions: dimensions * (dimensions + 2),
        full_gaussian,
        prior=standard,
        closed=True,
        entropy=True,
        gradient="exact",
    ),
    "low rank": Case(
        dist.LowRankMultivariateNormal,
        lambda dimensions: 4 * dimensions,
        low_rank,
        prior=standard,
        closed=True,
        entropy=True,
        gradient="exact",
    ),
    "flow": Case(
        vd.Flow, lambda dimensions: 2 * dimensions, flow, prior=standard, gradient="exact", moments="estimated"
    ),
    "mixture, stratified": mixture("stratified"),
    "mixture, pathwise": mixture("pathwise"),
    "mixture, score": mixture("score"),
    "mixture of experts": experts(dist.Normal, stratified=False),
    "mixture of laplace experts, stratified": experts(dist.Laplace, stratified=True),
    "epanechnikov": each(
        vd.Epanechnikov,
        2,
        lambda a, b: vd.Epanechnikov(2 * a, b.exp()),
        prior=standard,
        closed=True,
        gradient="exact",
        **_TORCH,
    ),
    "epanechnikov in a box": each(
        vd.Epanechnikov, 2, lambda a, b: vd.Epanechnikov(2 * a, b.exp()), prior=box, closed=True
    ),
    "epanechnikov and uniform": convolved(dist.Uniform(-1.5, 1.5)),
    "epanechnikov and gaussian": convolved(dist.Normal(0.0, 0.8)),
    "poisson": poisson(0.0),
    "poisson, relaxed": poisson(0.5),
    "one-hot": one_hot(0.0),
    "one-hot, relaxed": one_hot(0.5),
    "von mises-fisher": spherical(vd.VonMisesFisher),
    "power spherical": spherical(vd.PowerSpherical),
    "sphere": Case(
        vd.SphereUniform,
        lambda dimensions: 1,
        lambda u, d: vd.SphereUniform(d).expand(u.shape[:-1]),
        space="sphere",
        entropy=True,
    ),
    "continuous bernoulli": each(vd.ContinuousBernoulli, 1, lambda a: vd.ContinuousBernoulli(9 * a.pow(3)), **_TORCH),
    "discretised logistic": each(
        vd.DiscretizedLogistic,
        2,
        lambda a, b: vd.DiscretizedLogistic(1.5 * a, (2 * b - 1).exp(), vd.Levels(9)),
        space="levels",
    ),
    "levels": Case(vd.CategoricalLevels, lambda dimensions: 6 * dimensions, levels, space="levels"),
}
