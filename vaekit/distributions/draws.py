"""Weighted draws: one interface for every gradient estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Draws", "draw"]


class Draws(NamedTuple):
    """Draws z (S, B, D) and weights (S, B) such that `E_q[f] = sum_s weights[s] f(z[s])`, gradients included."""

    z: Tensor
    weights: Tensor


def draw(q: torch.distributions.Distribution, count: int = 1) -> Draws:
    """Return weighted draws from a posterior, differentiable in its parameters.

    A distribution with a `draws` method (`GaussianMixture`) decides itself; any other gives `count` reparameterised
    draws of weight 1 / count.
    """
    own: Callable[[int], Draws] | None = getattr(q, "draws", None)
    if own is not None:
        return own(count)
    z = q.rsample((count,))
    return Draws(z, z.new_full(z.shape[:-1], 1.0 / count))
