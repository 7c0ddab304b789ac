"""The power spherical distribution: like von Mises-Fisher, with draws and constants in elementary functions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Dirichlet

from vaekit.distributions.rotational import Rotational
from vaekit.precision import at_least_float32

__all__ = ["PowerSpherical"]


class PowerSpherical(Rotational):
    r"""$q(z)\propto(1+\mu^\top z)^\kappa$ on the unit sphere $S^{D-1}$.

    With $\alpha=\tfrac{D-1}2+\kappa$ and $\beta=\tfrac{D-1}2$ the normaliser is
    $2^{\alpha+\beta}\pi^\beta\,\Gamma(\alpha)/\Gamma(\alpha+\beta)$, and $(1+\mu^\top z)/2$ is Beta(α, β): a draw of
    that, a uniform direction around the axis and a reflection are a reparameterised draw without rejection.

    Source: De Cao and Aziz, The Power Spherical distribution, 2020, arXiv 2006.04437.

    Arguments:
        loc: The mean direction μ, unit vectors of shape (..., D), D 2 or more.
        concentration: κ, 0 or more, shape (...).
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: Fewer than two dimensions.

    Examples:
        >>> q = PowerSpherical(torch.tensor([0.6, 0.0, 0.8]), torch.tensor(2.0))
        >>> q.rsample((5,)).shape, q.log_prob(q.loc)
        (torch.Size([5, 3]), tensor(-1.4324))
    """

    @property
    def _shapes(self) -> tuple[Tensor, float]:
        beta = 0.5 * (self.event_shape[0] - 1.0)
        return beta + self.concentration, beta

    @property
    def _log_normaliser(self) -> Tensor:
        alpha, beta = self._shapes
        return (alpha + beta) * math.log(2.0) + beta * math.log(math.pi) + alpha.lgamma() - (alpha + beta).lgamma()

    def cosine_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return mean and variance of $\mu^\top z$, and the variance in a direction across the axis, (...) each."""
        alpha, beta = self._shapes
        total = alpha + beta
        across = 2.0 * alpha / (total * (total + 1.0))
        return self.concentration / total, 2.0 * beta * across / total, across

    def entropy(self) -> Tensor:
        r"""Return the entropy in nats, shape (...).

        $\log N-\kappa\,(\log2+\psi(\alpha)-\psi(\alpha+\beta))$, with N the normaliser.
        """
        alpha, beta = self._shapes
        expected = math.log(2.0) + alpha.digamma() - (alpha + beta).digamma()
        return self._log_normaliser - self.concentration * expected

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value) for unit vectors (..., D), shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        # For unit vectors half the squared length of the sum is 1 + cosine, and rounding never makes it negative.
        sums = 0.5 * (at_least_float32(value) + self.loc).square().sum(-1)
        return self.concentration * sums.clamp_min(torch.finfo(sums.dtype).tiny).log() - self._log_normaliser

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws, shape sample_shape + (..., D), with gradients for loc and concentration."""
        alpha, beta = self._shapes
        # The two halves of a Beta: both keep their digits, where 1 minus one of them would not.
        shapes = torch.stack([alpha, torch.full_like(alpha, beta)], -1)
        near, far = Dirichlet(shapes, validate_args=False).rsample(Size(sample_shape)).unbind(-1)
        sine = 2.0 * (near * far).clamp_min(torch.finfo(near.dtype).tiny).sqrt()
        return self.around(near - far, sine)
