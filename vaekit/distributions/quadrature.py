"""Gauss-Legendre quadrature."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["gauss_legendre"]


@lru_cache
def gauss_legendre(count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    r"""Return nodes and weights on [-1, 1], shape (count,) each; kept, so that a step copies nothing to the device.

    $\int_{-1}^1f(t)\,dt\approx\sum_nw_nf(t_n)$, exact for polynomials of degree below twice the count.

    Arguments:
        count: The number of nodes.
        dtype: Of the result.
        device: Of the result.

    Examples:
        >>> nodes, weights = gauss_legendre(2, torch.float64, torch.device("cpu"))
        >>> round((weights * nodes**2).sum().item(), 6)
        0.666667
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.tensor(nodes, dtype=dtype, device=device), torch.tensor(weights, dtype=dtype, device=device)
