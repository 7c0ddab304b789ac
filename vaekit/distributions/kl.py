"""Kullback-Leibler divergences: closed form where one is registered, a sampled estimate where not, and which it was."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from vaekit.distributions.draws import Draws, draw
from vaekit.distributions.mixture import GaussianMixture, as_mixture
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32, without_autocast

__all__ = ["kl_divergence", "kl_method", "mixture_kl_lower_bound", "mixture_kl_upper_bound", "space_of"]


def kl_divergence(q: Distribution, p: Distribution, draws: Draws | None = None) -> Tensor:
    r"""Return KL(q || p) in nats for every member of the batch, shape (B,).

    The closed form of `torch.distributions.kl_divergence` where one is registered, else the estimate

    $$\sum_s w_s \, (\log q(z_s) - \log p(z_s))$$

    from weighted draws, whose gradient is unbiased for every estimator of the draws. A mixture of one component counts
    as the Gaussian that it is. Computed in float32 at least, under autocast too.

    Arguments:
        q: A distribution with `batch_shape (B,)`.
        p: A distribution with `batch_shape ()` or `(B,)` and the same `event_shape`.
        draws: The draws to estimate from; one fresh round of `q` where None. A closed form does not use them.

    Raises:
        VaekitError: The event shapes differ, or the KL is infinite: the support of q reaches beyond that of p, or q is
            a point without a density.

    Examples:
        >>> q = Independent(Normal(torch.tensor([[0.4]]), 0.6), 1)
        >>> p = Independent(Normal(torch.zeros(1), 1.0), 1)
        >>> kl_divergence(q, p)
        tensor([0.2708])
    """
    if q.event_shape != p.event_shape:
        raise VaekitError(
            f"the KL needs distributions over the same space, not over {tuple(q.event_shape)} and "
            f"{tuple(p.event_shape)}; give the posterior and the prior the same latent_dim"
        )
    if not (_is_gaussian(q) and _is_gaussian(p)):
        _check_supports(q, p)
    q, p = _plain(q), _plain(p)
    kl = _closed_form(q, p)
    if kl is not None:
        return kl
    z, weights = draw(q) if draws is None else draws
    z, weights = at_least_float32(z), at_least_float32(weights)
    with without_autocast(z.device):
        return (weights * (q.log_prob(z) - p.log_prob(z))).sum(0)


def kl_method(q: Distribution, p: Distribution) -> Literal["closed", "sampled"]:
    """Return how `kl_divergence(q, p)` is computed.

    Examples:
        >>> p = Independent(Normal(torch.zeros(2), 1.0), 1)
        >>> kl_method(p, p), kl_method(GaussianMixture(torch.zeros(3), torch.zeros(3, 2), torch.ones(3, 2)), p)
        ('closed', 'sampled')
    """
    with torch.no_grad():
        return "sampled" if _closed_form(_plain(q), _plain(p)) is None else "closed"


def mixture_kl_upper_bound(q: Distribution, p: Distribution) -> Tensor:
    r"""Return an upper bound of KL(q || p) for Gaussian mixtures by convexity, shape (B,).

    $$\mathrm{KL}(q \| p) \le - \sum_k \pi_k \log \sum_j \rho_j \exp(-\mathrm{KL}(N_k \| p_j)),$$

    which is $\sum_k \pi_k \mathrm{KL}(N_k \| p)$ for a Gaussian p.

    Arguments:
        q: A Gaussian or a Gaussian mixture with weights π, `batch_shape (B,)`.
        p: A Gaussian or a Gaussian mixture with weights ρ, `batch_shape ()` or `(B,)`.

    Raises:
        VaekitError: `q` or `p` is no Gaussian mixture.

    Examples:
        >>> loc, scale = torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [1.5]])
        >>> q = GaussianMixture(torch.tensor([0.3, 0.7]).log(), loc, scale)
        >>> mixture_kl_upper_bound(q, Independent(Normal(torch.zeros(1), 1.0), 1))
        tensor(1.7991)
    """
    (log_probs, loc, scale), (log_rho, p_loc, p_scale) = as_mixture(q), as_mixture(p)
    kl = _gaussian_kl(loc.unsqueeze(-2), scale.unsqueeze(-2), p_loc.unsqueeze(-3), p_scale.unsqueeze(-3))
    return -(log_probs.exp() * (log_rho.unsqueeze(-2) - kl).logsumexp(-1)).sum(-1)


def mixture_kl_lower_bound(q: Distribution, p: Distribution) -> Tensor:
    r"""Return the KL of the moment-matched Gaussian, a lower bound of KL(q || p) for Gaussian p, shape (B,).

    $\mathrm{KL}(q \| p) = \mathrm{KL}(q \| m) + \mathrm{KL}(m \| p)$ with m the diagonal Gaussian that has the mean and
    the variances of q.

    Arguments:
        q: A Gaussian or a Gaussian mixture, `batch_shape (B,)`.
        p: A diagonal Gaussian, `batch_shape ()` or `(B,)`.

    Raises:
        VaekitError: `q` is no Gaussian mixture, or `p` no diagonal Gaussian.

    Examples:
        >>> loc, scale = torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [1.5]])
        >>> q = GaussianMixture(torch.tensor([0.3, 0.7]).log(), loc, scale)
        >>> mixture_kl_lower_bound(q, Independent(Normal(torch.zeros(1), 1.0), 1))
        tensor(1.2429)
    """
    matched = GaussianMixture(*as_mixture(q), validate_args=False)
    _, p_loc, p_scale = as_mixture(p)
    if p_loc.shape[-2] != 1:
        raise VaekitError("the moment-matched KL is a lower bound for a Gaussian prior only, not for a mixture")
    return _gaussian_kl(matched.mean, matched.stddev, p_loc.squeeze(-2), p_scale.squeeze(-2))


def _gaussian_kl(loc: Tensor, scale: Tensor, p_loc: Tensor, p_scale: Tensor) -> Tensor:
    """Return the KL between diagonal Gaussians, summed over the last dimension."""
    ratio = (scale / p_scale).square()
    return 0.5 * (ratio - 1.0 - ratio.log() + ((loc - p_loc) / p_scale).square()).sum(-1)


def _plain(d: Distribution) -> Distribution:
    """Return a mixture of one component, or a half-precision Gaussian, as a diagonal Gaussian in float32 at least."""
    one = isinstance(d, GaussianMixture) and d.components == 1
    if not one and not (_is_gaussian(d) and d.mean.dtype in (torch.bfloat16, torch.float16)):
        return d
    _, loc, scale = as_mixture(d)
    return Independent(Normal(loc.squeeze(-2), scale.squeeze(-2), validate_args=False), 1, validate_args=False)


def _is_gaussian(d: Distribution) -> bool:
    return isinstance(d, Independent) and isinstance(d.base_dist, Normal) and len(d.event_shape) == 1


def space_of(d: Distribution) -> str:
    """Return where a distribution lives: `continuous`, `counting`, `one-hot` or `sphere`; empty where that is unknown.

    Relaxed distributions live where the discrete ones do that they stand for.

    Examples:
        >>> space_of(Independent(Normal(torch.zeros(2), 1.0), 1))
        'continuous'
    """
    return _extent(d)[0]


def _closed_form(q: Distribution, p: Distribution) -> Tensor | None:
    """Return the registered closed form, or None where there is none."""
    try:
        return torch.distributions.kl_divergence(q, p)
    except NotImplementedError:
        return None


def _check_supports(q: Distribution, p: Distribution) -> None:
    """Raise where the kinds of support alone make the KL infinite; bounds that are tensors are not read."""
    if isinstance(q, Delta):  # Pyro has -log p(v) here, which leaves out the infinite part.
        raise VaekitError(
            "KL(Delta || p) is infinite, because a point has no density; use a term without a KL, or another posterior"
        )
    (q_space, q_reach), (p_space, p_reach) = _extent(q), _extent(p)
    if "" not in (q_space, p_space) and (q_space != p_space or q_reach > p_reach):
        raise VaekitError(
            f"KL({_name(q)} || {_name(p)}) is infinite, because the support of the first reaches beyond that of the "
            "second; choose a prior that covers the posterior"
        )


def _extent(d: Distribution) -> tuple[str, float]:
    """Return the kind of space ("" if unknown) and how far it reaches: bounded 0, half line 1, everything 2.

    A relaxed distribution names its space itself: its values are soft, and stand for discrete ones.
    """
    named = getattr(d.base_dist if isinstance(d, Independent) else d, "space", "")
    if named:
        return named, 1
    try:
        support: Any = d.support
    except NotImplementedError:
        return "", math.nan
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    for kinds, space, reach in _EXTENTS:
        if isinstance(support, kinds):
            return space, reach
    return "", math.nan


_EXTENTS: tuple[tuple[tuple[type, ...], str, float], ...] = (
    ((type(constraints.real),), "continuous", 2),
    ((constraints.greater_than, constraints.greater_than_eq, constraints.less_than), "continuous", 1),
    ((constraints.interval, constraints.half_open_interval), "continuous", 0),
    ((type(constraints.nonnegative_integer),), "counting", 1),
    ((type(constraints.boolean), constraints.integer_interval), "counting", 0),
)


def _name(d: Distribution) -> str:
    return type(d.base_dist if isinstance(d, Independent) else d).__name__
