"""Closed-form KLs between Gaussians with correlated dimensions and Gaussians with independent ones."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal, register_kl

__all__ = ["kl_from_diagonal", "kl_to_diagonal"]


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def kl_to_diagonal(q: MultivariateNormal | LowRankMultivariateNormal, p: Independent) -> Tensor:
    r"""Return the KL of $q=N(\mu,\Sigma)$ to $p=\prod_dN(m_d,s_d^2)$ in nats, shape (...).

    $$\tfrac12\sum_d\Bigl(\frac{\Sigma_{dd}+(\mu_d-m_d)^2}{s_d^2}+\log(2\pi s_d^2)\Bigr)-H(q),$$

    which needs the diagonal of Σ and its determinant alone: no matrix is inverted. Registered with
    `torch.distributions.register_kl`, so that every `kl_divergence` finds it.

    Arguments:
        q: A Gaussian of any covariance, `event_shape (D,)`.
        p: An Independent(Normal) with `event_shape (D,)`.

    Raises:
        NotImplementedError: p is another Independent, for which there is no closed form.

    Examples:
        >>> import torch
        >>> q = MultivariateNormal(torch.zeros(2), torch.eye(2))
        >>> kl_to_diagonal(q, Independent(Normal(torch.ones(2), 1.0), 1))
        tensor(1.)
    """
    if not isinstance(p.base_dist, Normal) or p.event_shape != q.event_shape:
        raise NotImplementedError
    loc, scale = p.base_dist.loc, p.base_dist.scale
    squares = (q.variance + (q.mean - loc).square()) / scale.square()
    cross_entropy: Tensor = (0.5 * squares + scale.log()).sum(-1) + 0.5 * math.log(2.0 * math.pi) * q.event_shape[0]
    return cross_entropy - q.entropy()


@register_kl(Independent, MultivariateNormal)
def kl_from_diagonal(q: Independent, p: MultivariateNormal) -> Tensor:
    r"""Return the KL of $q=\prod_dN(\mu_d,\sigma_d^2)$ to $p=N(m,\Sigma)$ in nats, shape (...).

    $$\tfrac12\Bigl(\sum_d(\Sigma^{-1})_{dd}\,\sigma_d^2+(\mu-m)^\top\Sigma^{-1}(\mu-m)+\log\det(2\pi\Sigma)\Bigr)-H(q).$$

    Registered with `torch.distributions.register_kl`, so that every `kl_divergence` finds it.

    Arguments:
        q: An Independent(Normal) with `event_shape (D,)`.
        p: A Gaussian of any covariance, `event_shape (D,)`.

    Raises:
        NotImplementedError: q is another Independent, for which there is no closed form.

    Examples:
        >>> import torch
        >>> p = MultivariateNormal(torch.zeros(2), torch.eye(2))
        >>> kl_from_diagonal(Independent(Normal(torch.ones(2), 1.0), 1), p)
        tensor(1.)
    """
    if not isinstance(q.base_dist, Normal) or q.event_shape != p.event_shape:
        raise NotImplementedError
    precisions = p.precision_matrix.diagonal(dim1=-2, dim2=-1)
    squares = (precisions * q.variance).sum(-1)
    kl: Tensor = 0.5 * squares - p.log_prob(q.mean) - q.entropy()
    return kl
