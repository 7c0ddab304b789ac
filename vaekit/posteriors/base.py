"""The contract of a posterior."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Posterior"]


class Posterior(nn.Module):
    """Turns an encoder's features into a distribution over the latent.

    A subclass takes `(features, latent_dim)` by position and its options as keywords, and its `forward` returns a
    distribution with `batch_shape (B,)` and `event_shape (latent_dim,)`.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.

    Attributes:
        step: Optimiser steps taken so far, for options that are schedules; the model sets it.
        relaxes: Whether training draws from a relaxation and evaluation from the posterior itself.
        passes: Decoder passes per requested draw (see `vaekit.distributions.draw`): 1, unless the posterior's
            distribution answers with more draws than were asked for.
    """

    step: int = 0
    relaxes: bool = False
    passes: int = 1

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.features = features
        self.latent_dim = latent_dim

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) for features of shape (B, F); the prior is there for posteriors that are relative to it."""
        raise NotImplementedError

    def point(self, q: torch.distributions.Distribution) -> Tensor:
        """Return the latent (B, D) that stands for q(z|x) where nothing is drawn: the mean, if it lies in the space."""
        return q.mean

    def monitor(
        self, q: torch.distributions.Distribution, prior: torch.distributions.Distribution
    ) -> dict[str, Tensor]:
        """Return scalars about one batch's posterior that are worth a line in the log; none by default."""
        return {}
