"""The continuous Bernoulli: an exponential tilt of the uniform distribution on [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from vaekit.precision import at_least_float32

__all__ = ["ContinuousBernoulli"]

# Below this |logit| / 2 differences of nearly equal numbers are replaced by series, which there err by less than 1e-10.
_SMALL = 0.25


class ContinuousBernoulli(TorchDistribution):
    r"""Density on [0, 1] with $\log p(x) = x l - \mathrm{softplus}(l) + \log C(l)$.

    $$C(l) = \frac{l}{\tanh(l / 2)}, \qquad \mathbb E[x] = \frac12 + \frac12\Big(\coth\frac l2 - \frac2l\Big)$$

    The logit l is that of the parameter λ of the source. Values and gradients are right for every finite logit in
    float32, where torch's own class cuts logits at about 16 and loses the variance near 0.

    Source: G. Loaiza-Ganem and J. P. Cunningham, The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders, 2019, arXiv 1907.06845.

    Arguments:
        logits: The logits l, shape (...).
        validate_args: Check parameters and values at run time (this waits for the device).

    Examples:
        >>> p = ContinuousBernoulli(torch.tensor([-100.0, 0.0, 100.0]))
        >>> p.mean
        tensor([0.0100, 0.5000, 0.9900])
        >>> p.log_prob(torch.tensor([0.0, 0.3, 1.0]))
        tensor([4.6052, 0.0000, 4.6052])
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = at_least_float32(logits)
        super().__init__(self.logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ContinuousBernoulli:
        """Return the same distribution with its logits expanded to a larger batch shape."""
        new = self._get_checked_instance(ContinuousBernoulli, _instance)
        new.logits = self.logits.expand(Size(batch_shape))
        super(ContinuousBernoulli, new).__init__(new.logits.shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _log_constant(self) -> Tensor:
        """log C(l), shape (...)."""
        half, small, away = self._halves()
        square = small.square()
        # x / tanh(x) = 1 + x^2/3 - x^4/45 + 2 x^6/945 - x^8/4725 + 2 x^10/93555 - ...
        series = square * (1 / 3 + square * (-1 / 45 + square * (2 / 945 + square * (-1 / 4725 + square * 2 / 93555))))
        log_ratio = torch.where(half.abs() < _SMALL, series.log1p(), away.log() - away.tanh().log())
        return math.log(2.0) + log_ratio

    def _halves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return h = l / 2, h kept near zero, and |h| kept off it: the branch that is not taken must be finite too."""
        half = 0.5 * self.logits
        return half, half.clamp(-_SMALL, _SMALL), half.abs().clamp(min=_SMALL)

    @property
    def mean(self) -> Tensor:
        """The mean, shape (...)."""
        half, small, away = self._halves()
        square = small.square()
        # coth(x) - 1/x = x/3 - x^3/45 + 2 x^5/945 - x^7/4725 + 2 x^9/93555 - ...
        series = small * (1 / 3 + square * (-1 / 45 + square * (2 / 945 + square * (-1 / 4725 + square * 2 / 93555))))
        return 0.5 + 0.5 * torch.where(half.abs() < _SMALL, series, half.sign() * (1.0 / away.tanh() - 1.0 / away))

    @property
    def variance(self) -> Tensor:
        """The variance, shape (...)."""
        half, small, away = self._halves()
        square = small.square()
        # The derivative of coth(x) - 1/x, which is 1/x^2 - 1/sinh(x)^2; sinh(x) = (1 - exp(-2 x)) exp(x) / 2.
        series = 1 / 3 + square * (-1 / 15 + square * (2 / 189 + square * (-1 / 675 + square * 2 / 10395)))
        tail = -2.0 * (-away).exp() / torch.expm1(-2.0 * away)
        return 0.25 * torch.where(half.abs() < _SMALL, series, away.reciprocal().square() - tail.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) for values (...) in [0, 1], shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = torch.broadcast_tensors(self.logits, at_least_float32(value))
        cross = F.binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")
        return self._log_constant - cross

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (...)."""
        return -self.log_prob(self.mean)  # log p is linear in the value

    def cdf(self, value: Tensor) -> Tensor:
        r"""Return $(e^{l x} - 1) / (e^l - 1)$ for values (...), shape (...)."""
        rate = self._rate()
        mirrored = torch.where(self.logits > 0, 1.0 - value, value).clamp(0.0, 1.0)
        lower = torch.expm1(-rate * mirrored) / torch.expm1(-rate)
        return torch.where(self.logits > 0, 1.0 - lower, lower)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities (...), shape (...)."""
        rate = self._rate()
        mirrored = torch.where(self.logits > 0, 1.0 - value, value)
        lower = (-torch.log1p(mirrored * torch.expm1(-rate)) / rate).clamp(0.0, 1.0)
        return torch.where(self.logits > 0, 1.0 - lower, lower)

    def _rate(self) -> Tensor:
        """|l|, kept off zero so that it can be divided by; so small a rate is the uniform distribution."""
        return self.logits.abs().clamp(min=1e-30)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws, shape sample_shape + (...)."""
        shape = self._extended_shape(Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))
