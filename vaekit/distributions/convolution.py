"""The posterior of EVAE: Epanechnikov noise around a code, plus a draw from the prior."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, Normal, Uniform, constraints
from torch.distributions.kl import register_kl
from torch.distributions.utils import broadcast_all

from vaekit.distributions.epanechnikov import Epanechnikov
from vaekit.distributions.quadrature import gauss_legendre
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32

__all__ = ["EpanechnikovConvolution"]

# Nodes of the Gauss-Legendre rule, and how many standard deviations of the noise it spans on either side: enough for
# ten digits.
_NODES, _SPAN = 32, 7.0


class EpanechnikovConvolution(TorchDistribution):
    r"""The law of $z=b(\mu+rK)+U$, with K standard Epanechnikov and U uniform or Gaussian noise.

    With $F$ the cdf of K, $h=br$ and $x=z-b\mu-\mathbb E[U]$, the density is

    $$q(z)=\frac1B\Bigl[F\bigl(\tfrac{x+B/2}h\bigr)-F\bigl(\tfrac{x-B/2}h\bigr)\Bigr]
    \qquad\text{or}\qquad q(z)=\int_{-1}^1\tfrac34(1-t^2)\,N(x-ht;0,\sigma^2)\,dt$$

    for U of length B, or Gaussian of standard deviation $\sigma$. The first is computed in a factorised form that does
    not cancel, the second by a Gauss-Legendre rule over the part of [-1, 1] that carries the mass. Its terms are
    positive, where the closed form cancels in the tails and for $h\ll\sigma$: it has about ten digits in float64 and
    all of float32's in float32, for 32 times the memory of z.

    The density is once (or infinitely often) differentiable and falls off like a square at its edges, so that the
    Fisher information is finite, other than that of the kernel. With uniform noise the support is wider than that of
    U by h on either side: the KL to the law of U is infinite, and KLs to `Uniform` are refused.

    References:
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783.

    Arguments:
        loc: The code μ, before the bandwidth.
        scale: The half-width r of the kernel, before the bandwidth.
        noise: The law of U, `Uniform` or `Normal` (torch's or Pyro's).
        bandwidth: The factor b of the kernel.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: The noise is of another kind.

    Examples:
        >>> q = EpanechnikovConvolution(torch.zeros(2), torch.ones(2), Uniform(-0.05, 0.05), bandwidth=0.36)
        >>> q.log_prob(q.rsample((5,))).shape, q.variance
        (torch.Size([5, 2]), tensor([0.0268, 0.0268]))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        noise: Distribution,
        bandwidth: float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(noise, Uniform | Normal):
            raise VaekitError(
                f"the noise of EpanechnikovConvolution is Uniform or Normal, not {type(noise).__name__}: "
                "use the prior 'uniform', 'gaussian' or 'standard_normal'"
            )
        loc, scale, _ = broadcast_all(loc, scale, noise.mean)
        self.loc, self.scale = at_least_float32(loc), at_least_float32(scale)
        self.noise, self.bandwidth = noise.expand(self.loc.shape), bandwidth
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> EpanechnikovConvolution:
        """Return the same distribution with its parameters expanded to a larger batch shape."""
        new = self._get_checked_instance(EpanechnikovConvolution, _instance)
        batch_shape = Size(batch_shape)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        new.noise, new.bandwidth = self.noise.expand(batch_shape), self.bandwidth
        super(EpanechnikovConvolution, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def kernel(self) -> Epanechnikov:
        """The law of b(μ + rK), without the noise."""
        return Epanechnikov(self.bandwidth * self.loc, self.bandwidth * self.scale, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """All of the real line for Gaussian noise, else the interval of kernel and noise together."""
        if isinstance(self.noise, Normal):
            return constraints.real
        kernel = self.kernel
        return constraints.interval(
            kernel.loc - kernel.scale + self.noise.low, kernel.loc + kernel.scale + self.noise.high
        )

    @property
    def mean(self) -> Tensor:
        """The mean of the kernel plus that of the noise."""
        return self.kernel.mean + self.noise.mean

    @property
    def variance(self) -> Tensor:
        r"""The variance of the kernel, $b^2r^2/5$, plus that of the noise."""
        return self.kernel.variance + self.noise.variance

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return reparameterised draws, shape sample_shape + batch_shape; the noise's parameters get gradients too."""
        sample_shape = Size(sample_shape)
        return self.kernel.rsample(sample_shape) + self.noise.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value), -inf outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        x, h = at_least_float32(value) - self.mean, self.kernel.scale
        if isinstance(self.noise, Normal):
            return _log_density_gaussian(x, h, self.noise.scale)
        length = self.noise.high - self.noise.low
        # A draw may round to the edge or beyond it.
        rounding = 4.0 * torch.finfo(x.dtype).eps * (self.mean.abs() + h + 0.5 * length)
        beyond = x.abs() > h + 0.5 * length + rounding
        return _log_density_uniform(x, h, length).masked_fill(beyond, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of a draw below `value`, for uniform noise.

        Raises:
            NotImplementedError: The noise is Gaussian.
        """
        if isinstance(self.noise, Normal):
            raise NotImplementedError
        x, h, length = value - self.mean, self.kernel.scale, self.noise.high - self.noise.low
        above, below = _integrated_cdf((x + 0.5 * length) / h), _integrated_cdf((x - 0.5 * length) / h)
        return (above - below) * h / length


def _log_density_uniform(x: Tensor, h: Tensor, length: Tensor) -> Tensor:
    r"""Return the log-density for noise of that length.

    With c and a the arguments of F, clamped to [-1, 1], $F(c)-F(a)=\frac14(c-a)(3-c^2-ca-a^2)$. In the distances
    $p=1-c$ and $q=1-a$ of the side where x lies, the last factor is $3(p+q)-(p^2+pq+q^2)$: no digits are lost at the
    edge of the support, where both are small.
    """
    u, w = x.abs() / h, 0.5 * length / h
    # Beyond the edge by rounding: held at a rounding's distance within it.
    reach = torch.maximum(1.0 - u + w, torch.finfo(x.dtype).eps * (1.0 + w))
    p, q = (1.0 - u - w).clamp(0.0, 2.0), reach.clamp_max(2.0)
    width = torch.minimum(q, 2.0 * w)
    factor = 3.0 * (p + q) - (p.square() + p * q + q.square())
    return width.log() + factor.log() - (4.0 * length).log()


def _log_density_gaussian(x: Tensor, h: Tensor, sigma: Tensor) -> Tensor:
    r"""Return the log-density for Gaussian noise of standard deviation sigma.

    The nodes lie where $|x-ht|\le\sqrt{d^2+(7\sigma)^2}$, d being the distance of x from the kernel's support: beyond,
    the integrand is below its largest value by a factor of $e^{-24}$. They are constants of the rule, so that the
    gradient is that of the integrand alone.
    """
    nodes, weights = gauss_legendre(_NODES, x.dtype, x.device)
    with torch.no_grad():
        radius = ((x.abs() - h).clamp_min(0.0).square() + (_SPAN * sigma).square()).sqrt()
        # Distances of the two ends from -1 and from 1.
        low, high = (1.0 + (x - radius) / h).clamp_min(0.0), (1.0 - (x + radius) / h).clamp_min(0.0)
        half = (1.0 - 0.5 * (low + high)).unsqueeze(-1)
        from_low, from_high = low.unsqueeze(-1) + half * (1.0 + nodes), high.unsqueeze(-1) + half * (1.0 - nodes)
        log_kernel = (0.75 * half * from_low * from_high).log() + weights.log()
        t = from_low - 1.0
    standard = (x.unsqueeze(-1) - h.unsqueeze(-1) * t) / sigma.unsqueeze(-1)
    return (log_kernel - 0.5 * standard.square()).logsumexp(-1) - sigma.log() - 0.5 * math.log(2.0 * math.pi)


def _integrated_cdf(t: Tensor) -> Tensor:
    """Return the integral of F from -1 to t."""
    c = t.clamp(-1.0, 1.0)
    return (1.0 + c) ** 3 * (3.0 - c) / 16.0 + (t - 1.0).clamp_min(0.0)


@register_kl(EpanechnikovConvolution, Uniform)
def _kl_uniform(q: EpanechnikovConvolution, p: Uniform) -> Tensor:
    raise VaekitError(
        "KL(EpanechnikovConvolution || Uniform) is infinite as soon as the kernel reaches over the edge of the box, as "
        "it always does where the noise fills that box: use 'evae_penalty' instead of a KL, or a Gaussian prior"
    )
