"""From an unbounded number to a standard deviation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["log_variance_to_scale"]


def log_variance_to_scale(log_variance: Tensor, log_variance_range: tuple[float, float] | None) -> Tensor:
    r"""Return the standard deviation $\exp(c(v) / 2)$ with c a soft clamp of the log-variance v to a range.

    $c(v) = a + \mathrm{softplus}(b - \mathrm{softplus}(b - v) - a)$: nearly the identity well inside (a, b), with a
    gradient everywhere.

    Examples:
        >>> log_variance_to_scale(torch.tensor([0.0, 100.0]), (-10.0, 4.0))
        tensor([0.9910, 7.3891])
    """
    if log_variance_range is not None:
        low, high = log_variance_range
        log_variance = low + F.softplus(high - F.softplus(high - log_variance) - low)
    return torch.exp(0.5 * log_variance)
