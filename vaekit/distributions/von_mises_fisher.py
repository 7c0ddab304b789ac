"""The von Mises-Fisher distribution: the Gaussian of the sphere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Beta

from vaekit.distributions.bessel import bessel_ratio, log_bessel_over_power
from vaekit.distributions.quadrature import gauss_legendre
from vaekit.distributions.rotational import Rotational
from vaekit.precision import at_least_float32

__all__ = ["VonMisesFisher"]

_PROPOSALS = 32
_NODES = 64


class VonMisesFisher(Rotational):
    r"""$q(z)=C_D(\kappa)\,e^{\kappa\,\mu^\top z}$ on the unit sphere $S^{D-1}$, with

    $$C_D(\kappa)=\frac{\kappa^{D/2-1}}{(2\pi)^{D/2}I_{D/2-1}(\kappa)}.$$

    The cosine $w=\mu^\top z$ is drawn by Wood's rejection from a fixed number of proposals (32; none is accepted with a
    probability below 1e-14, and the first is taken then), the direction around the axis uniformly, and a reflection
    carries both to loc.

    Gradients are unbiased. To differentiate the accepted proposal alone would not do: which one is accepted depends on
    κ, and the score-function term that Naesseth et al. and Davidson et al. add for it has a variance of its own. Here
    the accepted angle moves so that its cdf stays where it is, which needs no such term:
    $\partial w/\partial\kappa=-\partial_\kappa F(w)/F'(w)$, with the integral $\partial_\kappa F$ by Gauss-Legendre
    quadrature with 64 nodes.

    Sources: Wood, Simulation of the von Mises Fisher distribution, 1994, Communications in Statistics 23;
    Davidson et al., Hyperspherical Variational Auto-Encoders, 2018, arXiv 1804.00891;
    Naesseth et al., Reparameterization Gradients through Acceptance-Rejection Sampling Algorithms, 2016,
    arXiv 1610.05683;
    Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, 2018, arXiv 1805.08498.

    Arguments:
        loc: The mean direction μ, unit vectors of shape (..., D), D 2 or more.
        concentration: κ, 0 or more, shape (...); at 0 the distribution is uniform.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: Fewer than two dimensions.

    Examples:
        >>> q = VonMisesFisher(torch.tensor([0.6, 0.0, 0.8]), torch.tensor(2.0))
        >>> q.rsample((5,)).shape, q.log_prob(q.loc)
        (torch.Size([5, 3]), tensor(-1.1263))
    """

    @property
    def _order(self) -> float:
        return 0.5 * self.event_shape[0] - 1.0

    @property
    def _resultant(self) -> Tensor:
        r"""The mean of the cosine, $A_D(\kappa)=I_{D/2}(\kappa)/I_{D/2-1}(\kappa)$."""
        return bessel_ratio(self._order, self.concentration)

    @property
    def _log_scaled_normaliser(self) -> Tensor:
        r"""$-\log C_D(\kappa)-\kappa$."""
        constant = 0.5 * self.event_shape[0] * math.log(2.0 * math.pi)
        return constant + log_bessel_over_power(self._order, self.concentration)

    def cosine_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return mean and variance of $\mu^\top z$, and the variance in a direction across the axis, (...) each."""
        mean, dimensions = self._resultant, self.event_shape[0]
        # A_D / kappa, without the division by a concentration that may be 0.
        across = 1.0 / (dimensions + self.concentration * bessel_ratio(self._order + 1.0, self.concentration))
        along = (1.0 - mean.square() - (dimensions - 1) * across).clamp_min(0.0)
        return mean, along, across

    def entropy(self) -> Tensor:
        r"""Return $-\log C_D(\kappa)-\kappa A_D(\kappa)$ in nats, shape (...)."""
        return self._log_scaled_normaliser + self.concentration * (1.0 - self._resultant)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value) for unit vectors (..., D), shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        cosine = (at_least_float32(value) * self.loc).sum(-1)
        return self.concentration * (cosine - 1.0) - self._log_scaled_normaliser

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws, shape sample_shape + (..., D), with unbiased gradients for loc and concentration."""
        with torch.no_grad():
            angle = self._angles(Size(sample_shape))
            velocity = self._velocity(angle)
        angle = angle + velocity * (self.concentration - self.concentration.detach())
        return self.around(angle.cos(), angle.sin())

    def _angles(self, sample_shape: Size) -> Tensor:
        """Draw angles to the axis by Wood's rejection, all proposals at once."""
        kappa, rest = self.concentration, self.event_shape[0] - 1.0
        shape = Size((_PROPOSALS,)) + sample_shape
        half = kappa.new_full(self.batch_shape, 0.5 * rest)
        noise = Beta(half, half, validate_args=False).sample(shape)
        b = rest / (2.0 * kappa + (4.0 * kappa.square() + rest**2).sqrt())
        # 1 - w = 2 b odds keeps the digits that w loses beside 1.
        left = 1.0 - (1.0 - b) * noise
        odds = noise / left
        log_accept = 2.0 * kappa * b * (1.0 / (1.0 + b) - odds) + rest * (0.5 * (1.0 + b) / left).log()
        accepted = log_accept >= torch.rand_like(noise).log()
        # The first proposal that is accepted, found without waiting for the device.
        first = accepted.to(torch.uint8).argmax(0, keepdim=True)
        return 2.0 * (b * odds.gather(0, first).squeeze(0)).clamp(0.0, 1.0).sqrt().asin()

    def _velocity(self, angle: Tensor) -> Tensor:
        r"""Return $\partial\theta/\partial\kappa$ at fixed cdf, for angles θ.

        With $h(\varphi)=(D-2)\log\sin\varphi+\kappa\cos\varphi$ it is minus the integral of
        $|A_D-\cos\varphi|\,e^{h(\varphi)-h(\theta)}$ over the side of θ on which $A_D-\cos\varphi$ has one sign.
        """
        kappa, mean, power = self.concentration, self._resultant, self.event_shape[0] - 2.0
        tiny = torch.finfo(angle.dtype).tiny
        # Twelve widths of the density's bell are all of it; the side towards the pole ends there.
        width = 12.0 / (power / (1.0 - mean.square()).clamp_min(tiny) + kappa * mean).clamp_min(tiny).sqrt()
        inward = angle.cos() > mean
        length = torch.minimum(torch.where(inward, angle, math.pi - angle), width)
        nodes, weights = gauss_legendre(_NODES, angle.dtype, angle.device)
        steps = torch.where(inward, -length, length).unsqueeze(-1) * (0.5 * nodes + 0.5)
        start = angle.unsqueeze(-1)
        rise = -2.0 * kappa.unsqueeze(-1) * (start + 0.5 * steps).sin() * (0.5 * steps).sin()
        sines = ((start + steps).sin() / start.sin().clamp_min(tiny)).clamp_min(tiny)
        integrand = (mean.unsqueeze(-1) - (start + steps).cos()).abs() * (rise + power * sines.log()).exp()
        return -length * (integrand * (0.5 * weights)).sum(-1)
