"""Densities of all pairs: every draw under every posterior of a batch."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaekit.distributions.mixture import GaussianMixture, as_mixture
from vaekit.errors import VaekitError

__all__ = ["pairwise_log_prob", "pairwise_log_prob_by_dimension"]


def pairwise_log_prob(q: Distribution, z: Tensor) -> Tensor:
    r"""Return $\log q(z_{si}\mid x_j)$ in nats for all pairs, shape (S, N, B) with i before j.

    Gaussians and their mixtures go through products of matrices, in memory S N B K; any other distribution takes
    S N B D.

    Arguments:
        q: The posteriors, `batch_shape (B,)`.
        z: The draws, shape (S, N, D): those of the same batch, with N = B, or others.

    Examples:
        >>> import torch
        >>> q = Independent(Normal(torch.zeros(4, 3), 1.0), 1)
        >>> pairwise_log_prob(q, q.sample((2,))).shape
        torch.Size([2, 4, 4])
    """
    gaussian = isinstance(q, GaussianMixture) or (isinstance(q, Independent) and isinstance(q.base_dist, Normal))
    if not gaussian or len(q.event_shape) != 1:
        log_prob: Tensor = q.log_prob(_beside(z, q))
        return log_prob
    log_probs, loc, scale = as_mixture(q)
    # All pairs of draws and components, never times dimensions, in memory. The expanded square cancels, hence float64.
    z64, means, precision = z.double(), loc.flatten(0, 1).double(), scale.flatten(0, 1).double() ** -2
    squares = z64.square() @ precision.mT - 2.0 * (z64 @ (means * precision).mT) + (means.square() * precision).sum(-1)
    constants = log_probs - 0.5 * (2.0 * scale.log() + math.log(2.0 * math.pi)).sum(-1)
    log_q = constants.flatten() - 0.5 * squares
    return log_q.unflatten(-1, log_probs.shape).logsumexp(-1).to(z.dtype)


def pairwise_log_prob_by_dimension(q: Distribution, z: Tensor) -> Tensor:
    r"""Return $\log q(z_{sid}\mid x_j)$ in nats for all pairs and dimensions, shape (S, N, B, D) with i before j.

    Arguments:
        q: The posteriors, `batch_shape (B,)`, of independent dimensions.
        z: The draws, shape (S, N, D).

    Raises:
        VaekitError: `q` has no densities of single dimensions.

    Examples:
        >>> import torch
        >>> q = Independent(Normal(torch.zeros(4, 3), 1.0), 1)
        >>> pairwise_log_prob_by_dimension(q, q.sample((2,))).shape
        torch.Size([2, 4, 4, 3])
    """
    if not (isinstance(q, Independent) and q.reinterpreted_batch_ndims == 1):
        raise VaekitError(
            f"{type(q).__name__} has no densities of single dimensions: use a posterior of independent dimensions, "
            "such as 'gaussian'"
        )
    log_prob: Tensor = q.base_dist.log_prob(_beside(z, q))
    return log_prob


def _beside(z: Tensor, q: Distribution) -> Tensor:
    """Return the draws (S, N, D) as values (S, N, B, D) for every posterior, without copying."""
    return z.unsqueeze(-2).expand(*z.shape[:-1], *q.batch_shape, z.shape[-1])
