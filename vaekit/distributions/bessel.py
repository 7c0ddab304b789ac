r"""The modified Bessel function of the first kind, scaled, for any order and argument.

Everything is done at an order $w=\nu+n\ge20$, where Debye's uniform expansion holds for every argument, and brought
down to $\nu$ by the recurrence of the ratios $r_\nu=I_{\nu+1}/I_\nu$,

$$r_{\nu-1}(x)=\frac{x}{2\nu+x\,r_\nu(x)},$$

which is stable in that direction. Nothing underflows, and n depends on the order alone.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = ["bessel_ratio", "log_bessel", "log_bessel_over_power"]

# At order 20 the ninth term of the expansion is below 1e-12 for every argument.
_LOWEST, _TERMS = 20.0, 8


def log_bessel(order: float, x: Tensor) -> Tensor:
    r"""Return $\log(I_\nu(x)\,e^{-x})$, differentiable in x as often as wanted.

    References:
        DLMF 10.41(ii), Uniform Expansions for Real Variable (Debye's expansion).

    Arguments:
        order: The order ν, 0 or more.
        x: The argument, positive.

    Raises:
        VaekitError: The order is negative.

    Examples:
        >>> log_bessel(0.0, torch.tensor([1.0, 1000.0]))
        tensor([-0.7641, -4.3727])
    """
    return log_bessel_over_power(order, x) + order * x.log()


def log_bessel_over_power(order: float, x: Tensor) -> Tensor:
    r"""Return $\log(I_\nu(x)\,e^{-x}x^{-\nu})$, which is finite at x = 0 too and differentiable there.

    Its derivative is $r_\nu(x)-1$.

    Arguments:
        order: The order ν, 0 or more.
        x: The argument, 0 or more.

    Raises:
        VaekitError: The order is negative.

    Examples:
        >>> log_bessel_over_power(1.0, torch.zeros(()))
        tensor(-0.6931)
    """
    result: Tensor = _LogBesselOverPower.apply(x, _checked(order))
    return result


def bessel_ratio(order: float, x: Tensor) -> Tensor:
    r"""Return $r_\nu(x)=I_{\nu+1}(x)/I_\nu(x)$, between 0 and 1, differentiable in x as often as wanted.

    Arguments:
        order: The order ν, 0 or more.
        x: The argument, 0 or more.

    Raises:
        VaekitError: The order is negative.

    Examples:
        >>> bessel_ratio(0.5, torch.tensor(2.0)), 1 / torch.tensor(2.0).tanh() - 0.5
        (tensor(0.5373), tensor(0.5373))
    """
    return x / _denominators(_checked(order), x)[0]


def _checked(order: float) -> float:
    if order < 0:
        raise VaekitError(f"the order of a Bessel function must be 0 or more here, not {order:g}")
    return order


class _LogBesselOverPower(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.order = order
        denominators = _denominators(order, x)
        top = order + len(denominators) - 1
        root = torch.hypot(x, torch.full_like(x, top))
        series, _ = _debye(top, root)
        # The leading terms are w * eta - x, less the power of x, written so that large arguments do not cancel.
        log = top**2 / (root + x) - top * (top + root).log() - 0.5 * (2.0 * math.pi * root).log() + series
        for denominator in denominators[:-1]:
            log = log + denominator.log()
        return log

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * (bessel_ratio(ctx.order, x) - 1.0), None


def _denominators(order: float, x: Tensor) -> list[Tensor]:
    r"""Return $x/r$ for the orders $\nu,\dots,w$: $2(\mu+1)+x\,r_{\mu+1}$ for each order $\mu$ but the last."""
    steps = max(0, math.ceil(_LOWEST - order))
    top = order + steps
    root = torch.hypot(x, torch.full_like(x, top))
    _, slope = _debye(top, root)
    # The derivative of log I_w less w / x, divided by x: no term of it is large, at x = 0 neither.
    found = [1.0 / (1.0 / (top + root) - 0.5 / root.square() - top * slope / (root * root.square()))]
    for step in range(steps, 0, -1):
        found.append(2.0 * (order + step) + x.square() / found[-1])
    return found[::-1]


def _debye(order: float, root: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $\sum_kD_k(p)/w^k$ and its derivative in p, at $p=w/\sqrt{w^2+x^2}$."""
    p = order / root
    value, slope = torch.zeros_like(p), torch.zeros_like(p)
    for power in range(len(_COEFFICIENTS) - 1, 0, -1):
        coefficient = sum(c * order**-k for k, c in _COEFFICIENTS[power].items())
        value = (value + coefficient) * p
        slope = slope * p + power * coefficient
    return value, slope


def _expansion(terms: int) -> list[dict[int, float]]:
    r"""Return the coefficients of $D_k$ in $\log\sum_kU_k(p)w^{-k}=\sum_kD_k(p)w^{-k}$, by power of p, then by k."""
    # U_{k+1} = p^2 (1 - p^2) U_k' / 2 + (the integral of (1 - 5 p^2) U_k from 0 to p) / 8.
    size = 3 * terms + 1
    u = [[Fraction(1)] + [Fraction(0)] * (size - 1)]
    for _ in range(terms):
        new = [Fraction(0)] * (size + 3)
        for n, c in enumerate(u[-1]):
            new[n + 1] += c * (Fraction(n, 2) + Fraction(1, 8 * (n + 1)))
            new[n + 3] -= c * (Fraction(n, 2) + Fraction(5, 8 * (n + 3)))
        u.append(new[:size])
    d: list[list[Fraction]] = [[]]
    for k in range(1, terms + 1):
        row = list(u[k])
        for j in range(1, k):
            for a, first in enumerate(d[j]):
                if first:
                    for b, second in enumerate(u[k - j][: size - a]):
                        row[a + b] -= Fraction(j, k) * first * second
        d.append(row)
    return [{k: float(row[n]) for k, row in enumerate(d) if row and row[n]} for n in range(size)]


_COEFFICIENTS = _expansion(_TERMS)
