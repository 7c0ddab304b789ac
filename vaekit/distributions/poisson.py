"""Poisson counts that can be relaxed: differentiable draws, exact counts and their KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Poisson, constraints
from torch.distributions.kl import register_kl

from vaekit.distributions.draws import exponentials
from vaekit.errors import VaekitError, suggest
from vaekit.precision import at_least_float32

__all__ = ["Indicator", "RelaxedPoisson", "events_for"]

Indicator: TypeAlias = Literal["sigmoid", "linear", "cubic", "quintic", "cosine"]

# Steps from 0 to 1 over the unit interval, each with what it takes away from the variance, as a share of the rate and
# per unit of temperature: 1 - 2 times the integral of its square.
_STEPS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "linear": (lambda u: u, 1 / 3),
    "cubic": (lambda u: u * u * (3.0 - 2.0 * u), 9 / 35),
    "quintic": (lambda u: u**3 * (10.0 + u * (6.0 * u - 15.0)), 50 / 231),
    "cosine": (lambda u: 0.5 - 0.5 * torch.cos(math.pi * u), 1 / 4),
}
# Below this rate an event in the unit interval never happens, and 1 / rate^2 must not overflow in float32.
_LEAST_RATE = 1e-15


class RelaxedPoisson(TorchDistribution):
    r"""Poisson counts, or soft counts that can be differentiated: a count is the events before time 1.

    With unit-rate exponential gaps $e_n$, the n-th event of a process of rate $\lambda$ is at
    $t_n=\sum_{m\le n}e_m/\lambda$, and

    $$z=\sum_{n=1}^{N}g\!\left(\frac{1-t_n}{\tau}\right)$$

    with a soft indicator g. At temperature $\tau=0$ the draws are exact counts without a gradient.

    | indicator | g(x), with $u=\min(\max(\tfrac{x+1}2,0),1)$ | mean | variance for $\tau\le1$ |
    |---|---|---|---|
    | `sigmoid` | $1/(1+e^{-x})$ | above $\lambda$ (31 % at $\tau=1$) | see `relaxed_variance` |
    | `linear` | $u$ | $\lambda$ for $\tau\le1$ | $\lambda(1-\tau/3)$ |
    | `cubic` | $3u^2-2u^3$ | $\lambda$ for $\tau\le1$ | $\lambda(1-9\tau/35)$ |
    | `quintic` | $6u^5-15u^4+10u^3$ | $\lambda$ for $\tau\le1$ | $\lambda(1-50\tau/231)$ |
    | `cosine` | $(1-\cos\pi u)/2$ | $\lambda$ for $\tau\le1$ | $\lambda(1-\tau/4)$ |

    `log_prob`, `mean`, `variance`, `entropy` and the KL are those of the exact count, whatever the temperature. At soft
    counts `log_prob` is the pmf with the gamma function in place of the factorial, which is no density.

    A draw takes memory for $N$ numbers per count: (N, S, B, D) for S draws of a batch (B, D), and about three times
    that with the gradient.

    References:
        Poisson Variational Autoencoder, Vafaii, Galor and Yates, 2024, arXiv 2405.14473 (the sigmoid).
        Hitchhiker's Guide to Poisson Gradient Estimation, 2026, arXiv 2602.03896 (the cubic).

    Arguments:
        log_rate: The logarithm of the rate $\lambda$, shape (...); logarithms keep small rates exact.
        temperature: The temperature $\tau$.
        events: The number N of events that are drawn, for temperatures above 0: `events_for` gives what exact counts
            need, and soft ones need more, as late events count too. None takes what the largest rate and the indicator
            need, which waits for the device.
        indicator: `"sigmoid"`, `"linear"`, `"cubic"`, `"quintic"` or `"cosine"`.
        straight_through: Whether draws are the exact counts of the N events, with the gradient of the soft ones.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: The temperature is negative, there are no events, or the indicator is unknown.

    Examples:
        >>> q = RelaxedPoisson(torch.tensor([0.5, 2.0]).log(), temperature=0.5, events=20)
        >>> q.rsample((3,)).shape, q.mean
        (torch.Size([3, 2]), tensor([0.5000, 2.0000]))
        >>> p = RelaxedPoisson(torch.tensor([2.5, 1.0]).log())
        >>> torch.distributions.kl_divergence(q, p)
        tensor([1.1953, 0.3863])
    """

    arg_constraints = {"log_rate": constraints.real}
    support = constraints.nonnegative
    has_rsample = True
    #: What the values stand for: soft counts are counts to a KL.
    space: ClassVar[str] = "counting"
    #: Read by `vaekit.distributions.require_density`.
    has_density: ClassVar[bool] = False

    def __init__(
        self,
        log_rate: Tensor,
        temperature: float = 0.0,
        events: int | None = None,
        indicator: Indicator = "sigmoid",
        straight_through: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        if temperature < 0.0 or (events is not None and events < 1):
            raise VaekitError(
                "a relaxed Poisson needs a temperature of 0 or more and 1 or more events, "
                f"not {temperature} and {events}"
            )
        if indicator not in get_args(Indicator):
            raise VaekitError(f"unknown indicator '{indicator}': {suggest(indicator, get_args(Indicator))}")
        self.log_rate = at_least_float32(log_rate)
        self.temperature = float(temperature)
        self.events = events
        self.indicator = indicator
        self.straight_through = straight_through
        super().__init__(self.log_rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> RelaxedPoisson:
        """Return the same distribution with its rates expanded to a larger batch shape."""
        new = self._get_checked_instance(RelaxedPoisson, _instance)
        for name in ("temperature", "events", "indicator", "straight_through"):
            setattr(new, name, getattr(self, name))
        new.log_rate = self.log_rate.expand(Size(batch_shape))
        super(RelaxedPoisson, new).__init__(new.log_rate.shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def rate(self) -> Tensor:
        """The rate, shape (...)."""
        return self.log_rate.exp()

    @property
    def mean(self) -> Tensor:
        """The mean of the exact count, the rate."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        """The variance of the exact count, the rate."""
        return self.rate

    @property
    def relaxed_mean(self) -> Tensor:
        r"""The mean of the soft count (of infinitely many events), $\lambda\int_0^\infty g$.

        Raises:
            VaekitError: The temperature is above 1 with an indicator other than the sigmoid.
        """
        return self.rate * self._moments()[0]

    @property
    def relaxed_variance(self) -> Tensor:
        r"""The variance of the soft count (of infinitely many events), $\lambda\int_0^\infty g^2$: below $\lambda$.

        For the sigmoid it is $\lambda\tau[\log(1+e^{1/\tau})-1/(1+e^{-1/\tau})]$.

        Raises:
            VaekitError: The temperature is above 1 with an indicator other than the sigmoid.
        """
        return self.rate * self._moments()[1]

    def _moments(self) -> tuple[float, float]:
        """Return the integrals of the indicator and of its square over time."""
        t = self.temperature
        if t == 0.0:
            return 1.0, 1.0
        if self.indicator == "sigmoid":
            small = math.exp(-1.0 / t)
            area = 1.0 + t * math.log1p(small)
            return area, area - t / (1.0 + small)
        if t > 1.0:
            raise VaekitError(
                f"the moments of soft counts with the indicator '{self.indicator}' are known up to temperature 1, "
                f"not at {t:g}"
            )
        return 1.0, 1.0 - _STEPS[self.indicator][1] * t

    def entropy(self) -> Tensor:
        r"""Return the entropy of the exact count in nats, $-\mathbb E\log q(N)$, shape (...).

        It is a sum over all counts that the largest rate makes likely: this waits for the device.
        """
        last = events_for(self.rate.max().item(), tail=1e-14)
        counts = torch.arange(last + 1, dtype=self.log_rate.dtype, device=self.log_rate.device)
        counts = counts.reshape(-1, *[1] * self.log_rate.dim())
        return -(self.log_prob(counts).exp() * self.log_prob(counts)).sum(0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log pmf of counts (...), shape (...); no density at soft counts."""
        if self._validate_args:
            self._validate_sample(value)
        return value * self.log_rate - self.rate - torch.lgamma(value + 1.0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws without gradient, shape sample_shape + (...): counts at temperature 0, else soft ones."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return soft counts with a gradient for the rates, shape sample_shape + (...); at temperature 0 exact ones."""
        shape = self._extended_shape(Size(sample_shape))
        if self.temperature == 0.0:
            return torch.poisson(self.rate.detach().expand(shape))
        # Indicators reach a temperature beyond time 1; the sigmoid's tail, beyond ten of them, is below e^-10.
        reach = 1.0 + self.temperature * (10.0 if self.indicator == "sigmoid" else 1.0)
        events = events_for(reach * self.rate.max().item()) if self.events is None else self.events
        # The events of a unit-rate process, in a time that runs at the rate: no gradient passes through the sum.
        noise = exponentials((events, *shape), self.log_rate)
        times = noise.cumsum(0) / self.rate.clamp_min(_LEAST_RATE)
        distance = (1.0 - times) / self.temperature
        if self.indicator == "sigmoid":
            soft = distance.sigmoid().sum(0)
        else:
            soft = _STEPS[self.indicator][0](distance.add(1.0).mul(0.5).clamp(0.0, 1.0)).sum(0)
        if not self.straight_through:
            return soft
        hard = (times.detach() < 1.0).sum(0).to(soft.dtype)
        return hard + (soft - soft.detach())


def events_for(rate: float, tail: float = 1e-5) -> int:
    """Return the number of events that a Poisson count of this rate exceeds with a probability of at most `tail`.

    Arguments:
        rate: The largest rate in use.
        tail: The probability.

    Raises:
        VaekitError: The rate is negative or not finite, or the probability not between 0 and 1.

    Examples:
        >>> [events_for(rate) for rate in (0.5, 10.0, 200.0)]
        [6, 26, 263]
    """
    if not 0.0 <= rate < math.inf or not 0.0 < tail < 1.0:
        raise VaekitError(f"events_for needs a finite rate of 0 or more and a tail within (0, 1), not {rate}, {tail}")

    def enough(count: int) -> bool:
        one = torch.tensor([count + 1.0, rate], dtype=torch.float64)
        return bool(torch.special.gammainc(one[0], one[1]) <= tail)  # P(N > count)

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _kl(log_rate: Tensor, other: Tensor) -> Tensor:
    r"""Return $\lambda\log(\lambda/r)-\lambda+r$ from logarithms."""
    rate = log_rate.exp()
    return rate * (log_rate - other) - rate + other.exp()


@register_kl(RelaxedPoisson, RelaxedPoisson)
def _kl_relaxed_relaxed(q: RelaxedPoisson, p: RelaxedPoisson) -> Tensor:
    return _kl(q.log_rate, p.log_rate)


@register_kl(RelaxedPoisson, Poisson)
def _kl_relaxed_exact(q: RelaxedPoisson, p: Poisson) -> Tensor:
    return _kl(q.log_rate, p.rate.log())
