"""The marginal likelihood of data, estimated by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from vaekit.distributions import draw
from vaekit.errors import VaekitError
from vaekit.models.vae import VAE

__all__ = ["importance_sampled_nll", "importance_sampling"]


@torch.no_grad()
def importance_sampling(model: VAE, x: Tensor, draws: int = 200, chunk: int = 50) -> tuple[Tensor, Tensor]:
    r"""Return the importance-sampled log-likelihood of every sample, in nats, and its effective sample size.

    $$\log\sum_kw_kr_k,\qquad r_k=\frac{p(x\mid z_k)\,p(z_k)}{q(z_k\mid x)},\quad z_k\sim q(z\mid x),$$

    with $w_k=1/K$, whose expectation is at most $\log p(x)$ and rises to it as K grows. A posterior whose draws are
    weighted (a mixture) gives K of its rounds, and $w_k$ are its weights. The effective sample size

    $$K\,\frac{\bigl(\sum_kw_kr_k\bigr)^2}{\sum_kw_kr_k^2}$$

    lies between 1 and K for draws of equal weight: it is K where q is the true posterior, and near 1 where one particle
    decides, so that the likelihood is underestimated.

    References:
        Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519.
        Sequential Imputations and Bayesian Missing Data Problems, Kong, Liu and Wong, 1994, Journal of the American
        Statistical Association 89 (the effective sample size).

    Arguments:
        model: The model, in evaluation mode.
        x: A batch (B, *X) on the model's device.
        draws: The number K of draws per sample.
        chunk: Draws that are decoded at a time.

    Returns:
        The log-likelihoods and the effective sample sizes, shape (B,) each, in float64.

    Raises:
        VaekitError: `draws` or `chunk` is below 1.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("vae")), (1, 8, 8)).eval()
        >>> log_likelihood, effective = importance_sampling(model, torch.rand(4, 1, 8, 8), draws=10)
        >>> log_likelihood.shape, bool((effective > 0.999).all() and (effective < 10.001).all())
        (torch.Size([4]), True)
    """
    if draws < 1 or chunk < 1:
        raise VaekitError(f"draws and chunk must be 1 or more, not {draws} and {chunk}")
    q, p = model.encode(x), model.prior()
    sums, squares = [], []
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        z, weights = draw(q, count)
        log_joint = model.decode(z).log_prob(x).double() + p.log_prob(z).double()
        ratio = log_joint - q.log_prob(z).double()
        log_weights = weights.double().log() + math.log(count / draws)
        sums.append((log_weights + ratio).logsumexp(0))
        squares.append((log_weights + 2.0 * ratio).logsumexp(0))
    total = torch.stack(sums).logsumexp(0)
    return total, draws * (2.0 * total - torch.stack(squares).logsumexp(0)).exp()


def importance_sampled_nll(model: VAE, batches: Iterable[Tensor], draws: int = 200, chunk: int = 50) -> Tensor:
    r"""Return the importance-sampled negative log-likelihood of every sample, in nats, shape (N,) in float64.

    $$-\log\frac1K\sum_{k=1}^K\frac{p(x\mid z_k)\,p(z_k)}{q(z_k\mid x)},\qquad z_k\sim q(z\mid x),$$

    whose expectation is at least $-\log p(x)$ and falls to it as K grows. See `importance_sampling`.

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
    return -torch.cat([importance_sampling(model, x, draws, chunk)[0] for x in batches])
