"""A linear multimodal model with one latent dimension, and everything about it by hand and by quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

import vaekit as vk
from vaekit.models import Modality, MultimodalVAE
from vaekit.observed import Observed
from vaekit.registry import fusions, posteriors, private_fusions

SHAPES = {"a": (2,), "b": (3,), "c": (1,)}
NOISE = {"a": 0.8, "b": 1.0, "c": 0.5}
SOME = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=torch.bool)
POE = {"name": "poe", "prior_expert": False}


def linear_model(
    fusion: Any = "moe", names: str = "abc", private: Any = None, posterior: Any = "gaussian"
) -> MultimodalVAE:
    """x_m = W_m z + b_m + noise, with linear encoders."""
    torch.manual_seed(5)
    backbone, modalities = vk.backbones.MLP(hidden=[]), {}
    for name in names:
        shape = SHAPES[name]
        likelihood = vk.likelihoods.Gaussian(shape, scale=NOISE[name])
        modalities[name] = Modality(backbone.encoder(shape), backbone.decoder(2 if private else 1, shape), likelihood)
    features = [modality.encoder.features for modality in modalities.values()]
    joined = fusions.build(fusion, features, 1, lambda count: posteriors.build(posterior, count, 1))
    own = None if private is None else private_fusions.build(private, features, 1, 1)
    return MultimodalVAE(modalities, joined, vk.priors.StandardNormal(1), own)


def data(available: Tensor | None = None, names: str = "abc", repeat: int = 1) -> Observed:
    generator = torch.Generator().manual_seed(1)
    values = {name: torch.randn(5, *SHAPES[name], generator=generator) for name in names}
    mask = None if available is None else available.repeat_interleave(repeat, 0)
    return Observed({name: value.repeat_interleave(repeat, 0) for name, value in values.items()}, mask)


def terms(objective: Any, model: MultimodalVAE, x: Observed, seed: int = 2) -> dict[str, float]:
    torch.manual_seed(seed)
    reconstruction, regularization, found = objective.evaluate(objective.run(model, x), x)
    return {**{name: term.item() for name, term in found.items()}, "regularization": regularization.item()}


# ---- the same things by hand, sample by sample -----------------------------------------------------------------------


def experts(model: MultimodalVAE, x: Observed) -> list[list[Any]]:
    """The posterior of every modality, for every sample."""
    q = model.encode(x).experts.base_dist
    law = Normal if isinstance(q, Normal) else Laplace
    return [[law(q.loc[i, m, 0], q.scale[i, m, 0]) for m in range(len(x.names))] for i in range(len(x))]


def product(qs: list[Normal]) -> Normal:
    """The product of Gaussians, without a prior."""
    precision = sum(q.variance.reciprocal() for q in qs)
    return Normal(sum(q.mean / q.variance for q in qs) / precision, precision.rsqrt())


def present(x: Observed) -> list[list[int]]:
    return [[m for m, there in enumerate(row) if there] for row in x.available.tolist()]


def distortion(model: MultimodalVAE, x: Observed, row: int, m: int, mean: Tensor, covariance: Tensor) -> Tensor:
    """E[-log p(x_m|u)] for a Gaussian u (z, or z and a private latent), in closed form."""
    name = x.names[m]
    layer = model.parts[name].decoder.linear
    assert layer is not None
    at = layer.weight @ mean.reshape(-1) + layer.bias
    spread = torch.trace(layer.weight @ covariance.reshape(len(layer.weight.T), -1) @ layer.weight.T)
    return -Normal(at, NOISE[name]).log_prob(x.values[name][row]).sum() + spread / (2 * NOISE[name] ** 2)


def elbo(model: MultimodalVAE, x: Observed, row: int, q: Normal, of: list[int]) -> tuple[Tensor, Tensor]:
    """The distortion of some modalities, and the rate, of one sample."""
    total = sum(distortion(model, x, row, m, q.mean, q.variance) for m in of)
    return torch.as_tensor(total), kl_divergence(q, Normal(0.0, 1.0))


def log_evidence(model: MultimodalVAE, x: Observed) -> float:
    """The mean of log p(x) of what is there, exactly."""
    total = 0.0
    for row, there in enumerate(present(x)):
        layers = [(model.parts[x.names[m]].decoder.linear, x.names[m]) for m in there]
        weight = torch.cat([layer.weight for layer, _ in layers])
        noise = torch.cat([torch.full((len(layer.bias),), NOISE[name] ** 2) for layer, name in layers])
        p = MultivariateNormal(torch.cat([layer.bias for layer, _ in layers]), weight @ weight.T + noise.diag())
        total += p.log_prob(torch.cat([x.values[name][row] for _, name in layers])).item()
    return total / len(x)


def nodes(q: Any) -> tuple[Tensor, Tensor]:
    """Nodes and weights for an expectation under q, differentiable in the parameters of a Gaussian."""
    if isinstance(q, Laplace):
        points = q.mean + torch.linspace(-15.0, 15.0, 6001) * q.scale
        return points, q.log_prob(points).exp() * 0.005 * q.scale
    points, weights = (torch.tensor(value) for value in np.polynomial.hermite_e.hermegauss(80))
    return q.mean + q.stddev * points, weights / math.sqrt(2 * math.pi)


def importance_bound(model: MultimodalVAE, x: Observed, draws: float, beta: float = 1.0) -> Tensor:
    """MMVAE's loss for one, two or infinitely many draws, by quadrature."""
    total = torch.zeros(())
    for row, (qs, there) in enumerate(zip(experts(model, x), present(x), strict=True)):
        for m in there:
            z, weights = nodes(qs[m])
            mixture = torch.stack([qs[n].log_prob(z) for n in there]).logsumexp(0) - math.log(len(there))
            log_weight = beta * (Normal(0.0, 1.0).log_prob(z) - mixture)
            for n in there:
                layer, name = model.parts[x.names[n]].decoder.linear, x.names[n]
                p = Normal(z[:, None] * layer.weight.T + layer.bias, NOISE[name])
                log_weight = log_weight + p.log_prob(x.values[name][row]).sum(-1)
            if draws == 2:
                both = torch.logaddexp(log_weight[:, None], log_weight[None]) - math.log(2)
                bound = (weights[:, None] * weights * both).sum()
            elif draws == 1:
                bound = (weights * log_weight).sum()
            else:
                bound = (weights.log() + log_weight).logsumexp(0)
            total = total - bound / len(there) / len(x)
    return total
