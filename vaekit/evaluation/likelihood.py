"""The marginal likelihood of data, estimated by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from vaekit.distributions import draw
from vaekit.errors import VaekitError
from vaekit.models.vae import VAE

__all__ = ["importance_sampled_nll"]


@torch.no_grad()
def importance_sampled_nll(model: VAE, batches: Iterable[Tensor], draws: int = 200, chunk: int = 50) -> Tensor:
    r"""Return the importance-sampled negative log-likelihood of every sample, in nats, shape (N,) in float64.

    $$-\log\frac1K\sum_{k=1}^K\frac{p(x\mid z_k)\,p(z_k)}{q(z_k\mid x)},\qquad z_k\sim q(z\mid x),$$

    whose expectation is at least $-\log p(x)$ and falls to it as K grows. A posterior whose draws are weighted (a
    mixture) gives K of its rounds.

    References:
        Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519.

    Arguments:
        model: The model, in evaluation mode.
        batches: Batches (B, *X) on the model's device.
        draws: The number K of draws per sample.
        chunk: Draws that are decoded at a time.

    Raises:
        VaekitError: `draws` or `chunk` is below 1.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("vae")), (1, 8, 8)).eval()
        >>> importance_sampled_nll(model, [torch.rand(4, 1, 8, 8)], draws=10).shape
        torch.Size([4])
    """
    if draws < 1 or chunk < 1:
        raise VaekitError(f"draws and chunk must be 1 or more, not {draws} and {chunk}")
    found = []
    for x in batches:
        q, p = model.encode(x), model.prior()
        parts = []
        for start in range(0, draws, chunk):
            count = min(chunk, draws - start)
            z, weights = draw(q, count)
            log_joint = model.decode(z).log_prob(x).double() + p.log_prob(z).double()
            ratio = log_joint - q.log_prob(z).double()
            parts.append((ratio + weights.double().log() + math.log(count)).logsumexp(0))
        found.append(math.log(draws) - torch.stack(parts).logsumexp(0))
    return torch.cat(found)
