"""The networks of one modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekit.backbones.base import Decoder, Encoder
from vaekit.likelihoods.base import Likelihood
from vaekit.precision import at_least_float32, without_autocast

__all__ = ["Modality"]

Distribution = torch.distributions.Distribution


class Modality(nn.Module):
    """The networks of one modality.

    Arguments:
        encoder: Data (B, *X_m) to features (B, F_m).
        decoder: Latents (B, D + P) to the likelihood's parameters.
        likelihood: Decoder output to p(x_m|z).
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood

    def decode(self, z: Tensor) -> Distribution:
        """Return p(x_m|z) for z (..., D + P): `batch_shape (...)`, `event_shape X_m`."""
        decoded = self.decoder(z.reshape(-1, z.shape[-1]))
        with without_autocast(z.device):
            p: Distribution = self.likelihood(at_least_float32(decoded).reshape(*z.shape[:-1], *decoded.shape[1:]))
        return p
