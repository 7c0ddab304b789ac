"""The Epanechnikov distribution, the KLs it has in closed form, and where a bounded distribution ends."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, Normal, Uniform, constraints
from torch.distributions.kl import register_kl
from torch.distributions.utils import broadcast_all

from vaekit.precision import at_least_float32

__all__ = ["Epanechnikov", "bounds", "mean_log_shifted"]


class Epanechnikov(TorchDistribution):
    r"""The parabola of half-width r around a location,

    $$q(z)=\frac{3}{4r}\Bigl(1-\bigl(\tfrac{z-\mu}{r}\bigr)^2\Bigr)\quad\text{for }|z-\mu|\le r,$$

    with variance $r^2/5$ and entropy $\log r+\frac53-\log3$. A draw is $\mu+rK$ with K the median of three uniform
    numbers on [-1, 1], so that it carries the pathwise gradient of both parameters.

    Its Fisher information is infinite: the score $2t/(r(1-t^2))$, $t=(z-\mu)/r$, has a second moment that diverges
    logarithmically at the edges. Estimators that rely on the score (score-function gradients, sticking the landing)
    have infinite variance with it; `vaekit.distributions.stopped` refuses it. The KLs to `Normal`, `Uniform` and
    `Epanechnikov` have closed forms, registered with `torch.distributions.kl_divergence`; they are infinite where q
    reaches beyond p.

    `log_prob` is -inf outside the support. A draw may round to the edge or just beyond it: within the rounding of z the
    density stays finite, with $1-t^2$ held at 1e-7 in float32 and 1e-12 in float64 or more.

    References:
        Non-Parametric Estimation of a Multivariate Probability Density, Epanechnikov, 1969.
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783 (as a posterior).

    Arguments:
        loc: The location μ.
        scale: The half-width r, positive.
        validate_args: Check parameters and values at run time (this waits for the device).

    Examples:
        >>> q = Epanechnikov(torch.zeros(2), torch.tensor([1.0, 2.0]))
        >>> q.variance, q.log_prob(torch.zeros(2)).exp()
        (tensor([0.2000, 0.8000]), tensor([0.7500, 0.3750]))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True
    #: Read by `vaekit.distributions.stopped`.
    finite_fisher_information = False

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        loc, scale = broadcast_all(loc, scale)
        self.loc, self.scale = at_least_float32(loc), at_least_float32(scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Epanechnikov:
        """Return the same distribution with its parameters expanded to a larger batch shape."""
        new = self._get_checked_instance(Epanechnikov, _instance)
        batch_shape = Size(batch_shape)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        super(Epanechnikov, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval from loc - scale to loc + scale."""
        return constraints.interval(self.loc - self.scale, self.loc + self.scale)

    @property
    def mean(self) -> Tensor:
        """The location."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """A fifth of the squared half-width."""
        return self.scale.square() / 5.0

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        return self.scale.log() + (5.0 / 3.0 - math.log(3.0))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value), -inf outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        value = at_least_float32(value)
        distance = (value - self.loc).abs()
        t = distance / self.scale
        least = 1e-12 if t.dtype == torch.float64 else 1e-7
        inside = ((1.0 - t) * (1.0 + t)).clamp_min(least).log() + math.log(0.75) - self.scale.log()
        return inside.masked_fill(distance > self.scale + _rounding(self.loc, self.scale), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of a draw below `value`."""
        t = ((value - self.loc) / self.scale).clamp(-1.0, 1.0)
        return 0.25 * (1.0 + t).square() * (2.0 - t)

    def icdf(self, value: Tensor) -> Tensor:
        r"""Return the quantile at probability u, $\mu+2r\sin(\frac13\arcsin(2u-1))$."""
        return self.loc + 2.0 * self.scale * torch.sin(torch.asin(2.0 * value - 1.0) / 3.0)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return reparameterised draws, shape sample_shape + batch_shape."""
        shape = self._extended_shape(Size(sample_shape))
        a, b, c = torch.rand(3, *shape, dtype=self.loc.dtype, device=self.loc.device).unbind(0)
        median = torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
        return self.loc + self.scale * (2.0 * median - 1.0)


def mean_log_shifted(rho: Tensor) -> Tensor:
    r"""Return $J(\rho)=\mathbb E\log(\rho+K)$ for standard Epanechnikov K and $\rho\ge1$.

    $$J(\rho)=\log(\rho+1)-\tfrac14(\rho-1)^2(\rho+2)\log\tfrac{\rho+1}{\rho-1}-\tfrac43+\tfrac{\rho^2}2
    =\log\rho-\sum_{k\ge1}\frac{3\,\rho^{-2k}}{2k(2k+1)(2k+3)}.$$

    The closed form cancels as $\rho$ grows, so that the first twelve terms of the series take over above 2.

    Examples:
        >>> mean_log_shifted(torch.tensor([1.0, 2.0, 1000.0]))
        tensor([-0.1402,  0.6667,  6.9078])
    """
    # Both branches get arguments at which value and gradient are finite: `where` multiplies the other one's gradient by
    # zero, which does not mend a NaN. (`clamp` would give no gradient at 1 and 2 themselves.)
    distant = rho > 2.0
    near = torch.where(distant | (rho < 1.0), 1.0, rho)
    gap = near - 1.0
    ratio = torch.log1p(2.0 / torch.where(gap > 0, gap, 1.0))
    closed = (near + 1.0).log() - 0.25 * gap.square() * (near + 2.0) * ratio - 4.0 / 3.0 + 0.5 * near.square()
    far = torch.where(distant, rho, 2.0)
    inverse = far**-2
    series = torch.zeros_like(far)
    for k in range(12, 0, -1):
        series = (series + 3.0 / (2 * k * (2 * k + 1) * (2 * k + 3))) * inverse
    return torch.where(distant, far.log() - series, closed)


def bounds(d: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return the two ends of a bounded support, by dimension; None where it is not bounded.

    Examples:
        >>> bounds(Epanechnikov(torch.ones(2), 3.0).to_event(1))
        (tensor([-2., -2.]), tensor([4., 4.]))
    """
    try:
        support: Any = d.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if not isinstance(support, constraints.interval):
        return None
    return torch.as_tensor(support.lower_bound), torch.as_tensor(support.upper_bound)


def _rounding(loc: Tensor, scale: Tensor) -> Tensor:
    """Return by how much a number of the size of loc and scale may be off."""
    return 4.0 * torch.finfo(loc.dtype).eps * (loc.abs() + scale)


@register_kl(Epanechnikov, Normal)
def _kl_normal(q: Epanechnikov, p: Normal) -> Tensor:
    squares = ((q.loc - p.loc).square() + q.variance) / (2.0 * p.scale.square())
    return squares + p.scale.log() + 0.5 * math.log(2.0 * math.pi) - q.entropy()


@register_kl(Epanechnikov, Uniform)
def _kl_uniform(q: Epanechnikov, p: Uniform) -> Tensor:
    rounding = _rounding(q.loc, q.scale)
    outside = (q.loc - q.scale < p.low - rounding) | (q.loc + q.scale > p.high + rounding)
    return ((p.high - p.low).log() - q.entropy()).masked_fill(outside, math.inf)


@register_kl(Epanechnikov, Epanechnikov)
def _kl_epanechnikov(q: Epanechnikov, p: Epanechnikov) -> Tensor:
    offset, ratio = (q.loc - p.loc) / p.scale, q.scale / p.scale
    expected = mean_log_shifted((1.0 - offset) / ratio) + mean_log_shifted((1.0 + offset) / ratio)
    kl = p.scale.log() - math.log(0.75) - 2.0 * ratio.log() - expected - q.entropy()
    outside = (q.loc - p.loc).abs() + q.scale > p.scale + _rounding(q.loc, p.scale)
    return kl.masked_fill(outside, math.inf)
