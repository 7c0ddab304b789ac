"""The contract of a prior."""

from __future__ import annotations

import torch
from torch import nn

from vaekit.backbones.base import Encoder
from vaekit.likelihoods.base import Likelihood
from vaekit.posteriors.base import Posterior

__all__ = ["Prior"]


class Prior(nn.Module):
    """Returns the distribution p(z), which may have parameters of its own.

    A subclass takes `(latent_dim,)` by position and its options as keywords.

    Arguments:
        latent_dim: The number D of latent dimensions.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def attach(self, encoder: Encoder, posterior: Posterior, likelihood: Likelihood) -> None:
        """Tell the prior about the model that it belongs to; priors made of posteriors need it."""

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) with `batch_shape ()` and `event_shape (latent_dim,)`."""
        raise NotImplementedError
