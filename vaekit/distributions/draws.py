"""Weighted draws: one interface for every gradient estimator."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Draws", "Weighted", "draw"]


class Draws(NamedTuple):
    """Draws z (S, B, D) and weights (S, B) such that `E_q[f] = sum_s weights[s] f(z[s])`, gradients included."""

    z: Tensor
    weights: Tensor


@runtime_checkable
class Weighted(Protocol):
    """A distribution that brings its own estimator."""

    def draws(self, count: int) -> Draws:
        """Return weighted draws, `count` of them or a multiple."""
        ...


def draw(q: torch.distributions.Distribution, count: int = 1) -> Draws:
    """Return weighted draws from a posterior, differentiable in its parameters.

    A distribution with a `draws` method (`GaussianMixture`) decides itself; any other gives `count` reparameterised
    draws of weight 1 / count.
    """
    if isinstance(q, Weighted):
        return q.draws(count)
    z = q.rsample((count,))
    return Draws(z, z.new_full(z.shape[:-1], 1.0 / count))
