"""Multimodal models whose decoders and posteriors are those of a linear-Gaussian truth, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import vaekit as vk
from vaekit.backbones.mlp import MLP
from vaekit.distributions import LinearGaussian
from vaekit.fusions.base import PrivateFusion
from vaekit.fusions.poe import ProductOfExperts
from vaekit.likelihoods.location_scale import Gaussian
from vaekit.models import Modality, MultimodalVAE
from vaekit.observed import Observed

# The log-variance of an expert that knows nothing of a latent.
IGNORANT = 60.0


class OwnPrivate(PrivateFusion):
    """A private posterior from the features of the modality alone: linear mean, one variance."""

    def __init__(self, features: Sequence[int], latent_dim: int, private_dim: int) -> None:
        super().__init__(features, latent_dim, private_dim)
        self.loc = nn.ModuleList([nn.Linear(count, private_dim) for count in features])
        self.scale = nn.Parameter(torch.tensor(0.5**0.5))

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        return torch.stack([layer(part) for layer, part in zip(self.loc, features, strict=True)], 1)

    def fuse(self, embedded: Tensor, z: Tensor, mask: Tensor) -> Any:
        loc = embedded.expand(len(z), *embedded.shape)
        return dist.Normal(loc, self.scale.expand_as(loc), validate_args=False).to_event(1)


class BestOfMixture(ProductOfExperts):
    """The best posterior of the objective `mixture`: the mean of the exact one, the scale of that of all modalities."""

    def fuse(self, embedded: Any, mask: Tensor, prior: Any) -> Any:
        q, full = (super(BestOfMixture, self).fuse(embedded, chosen, prior) for chosen in (mask, torch.ones_like(mask)))
        return dist.Normal(q.mean, full.stddev, validate_args=False).to_event(1)


def linear_model(truth: LinearGaussian, private_dim: int = 0) -> MultimodalVAE:
    """Build a model of a benchmark's size, with linear encoders and decoders."""
    latent_dim = 5 if private_dim else truth.latent_dim
    backbone, modalities = MLP(hidden=[]), {}
    for number, size in enumerate(truth.sizes):
        encoder, decoder = backbone.encoder((size,)), backbone.decoder(latent_dim + private_dim, (size,))
        modalities[f"m{number}"] = Modality(encoder, decoder, Gaussian((size,)))

    def expert(features: int) -> nn.Module:
        return vk.posteriors.Gaussian(features, latent_dim, log_variance_range=None)

    fusion = ProductOfExperts(truth.sizes, latent_dim, expert)
    private = OwnPrivate(truth.sizes, latent_dim, private_dim) if private_dim else None
    return MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(latent_dim), private).double()


@torch.no_grad()
def exact_model(truth: LinearGaussian, private_dim: int = 0) -> MultimodalVAE:
    """Build the model whose decoders are the truth's and whose posteriors are exact for every subset.

    Of a product of experts with the prior expert: the columns of each modality's weight are orthonormal or 0, so that
    an expert is N(W'(x - b), 1), or knows nothing of a latent.
    """
    model = linear_model(truth, private_dim)
    parts = zip(truth.weights, truth.biases, model.parts.values(), model.fusion.experts.heads, strict=True)
    for number, (weight, bias, modality, head) in enumerate(parts):
        shared = weight[:, -5:] if private_dim else weight
        own = weight[:, 5 * number : 5 * (number + 1)] if private_dim else weight[:, :0]
        layer = modality.decoder.linear
        layer.weight.copy_(torch.cat([shared, own], 1))
        layer.bias.copy_(bias)
        head.loc.weight.copy_(shared.T)
        head.loc.bias.copy_(-shared.T @ bias)
        head.log_variance.weight.zero_()
        head.log_variance.bias.copy_(torch.where(shared.square().sum(0) > 0.5, 0.0, IGNORANT))
        if private_dim:
            model.private.loc[number].weight.copy_(own.T / 2)
            model.private.loc[number].bias.copy_(-own.T @ bias / 2)
    return model


def observed(parts: Sequence[Tensor]) -> Observed:
    """Return draws of a linear-Gaussian model as a batch."""
    return Observed({f"m{number}": part for number, part in enumerate(parts)})
