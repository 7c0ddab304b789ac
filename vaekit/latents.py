"""The latent side of one forward pass, as regularizers see it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Latents"]


@dataclass(frozen=True)
class Latents:
    """Posterior, prior and the weighted draws of one batch.

    An expectation under the posterior is estimated as `E_q[f(z)] = sum_s weights[s] f(z[s])`, per sample. The weights
    carry whatever gradient the posterior's estimator puts on discrete choices (mixture components), so a term that is
    written with `expect` is right for every estimator.

    Arguments:
        q: The posterior, `batch_shape (B,)`, `event_shape (D,)`.
        p: The prior, `batch_shape ()`, `event_shape (D,)`.
        z: The draws, shape (S, B, D).
        weights: Their weights, shape (S, B), summing to one over S (in value, or in expectation).
        step: Optimiser steps taken so far, for terms that change as training goes on.
    """

    q: torch.distributions.Distribution
    p: torch.distributions.Distribution
    z: Tensor
    weights: Tensor
    step: int = 0

    def expect(self, values: Tensor) -> Tensor:
        """Return the posterior expectation of `values` (S, B), shape (B,)."""
        return (self.weights * values).sum(0)
