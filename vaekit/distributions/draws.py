"""Weighted draws: one interface for every gradient estimator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from vaekit.distributions.flow import Flow
from vaekit.errors import VaekitError

__all__ = ["Draws", "draw", "exponentials", "require_density", "stopped"]

D = TypeVar("D", bound=Distribution)


class Draws(NamedTuple):
    """Draws z (S, B, D) and weights (S, B) such that `E_q[f] = sum_s weights[s] f(z[s])`, gradients included."""

    z: Tensor
    weights: Tensor


def exponentials(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return draws from the unit exponential in the dtype and on the device of `like`, all above zero.

    By the inverse of the cdf: several times as fast on a CPU as `Tensor.exponential_`.

    Examples:
        >>> bool((exponentials((1000,), torch.zeros(1)) > 0).all())
        True
    """
    uniform = torch.rand(shape, dtype=like.dtype, device=like.device)
    info = torch.finfo(like.dtype)
    return uniform.clamp_(info.tiny, 1.0 - info.eps).log_().neg_()


def draw(q: Distribution, count: int = 1) -> Draws:
    """Return weighted draws from a posterior, differentiable in its parameters.

    A distribution with a `draws` method (`GaussianMixture`) decides itself; any other gives `count` reparameterised
    draws of weight 1 / count.
    """
    own: Callable[[int], Draws] | None = getattr(q, "draws", None)
    if own is not None:
        return own(count)
    z = q.rsample((count,))
    return Draws(z, z.new_full(z.shape[:-1], 1.0 / count))


def require_density(q: Distribution, what: str) -> None:
    """Refuse a distribution whose relaxed draws have no density: one that says `has_density = False`.

    Arguments:
        q: The distribution.
        what: What needs the density, for the message.

    Raises:
        VaekitError: The draws of q have no density.

    Examples:
        >>> require_density(torch.distributions.Normal(0.0, 1.0), "the objective 'iwae'")
    """
    own = getattr(q, "base_dist", q)
    if not getattr(own, "has_density", True):
        raise VaekitError(
            f"{what} needs a density at the draws, and relaxed draws of {type(own).__name__} have none: use the "
            "objective 'elbo' with the regularizer 'kl' and its estimator 'auto'"
        )


def stopped(q: D) -> D:
    r"""Return the same distribution with its parameters detached.

    The gradient of `stopped(q).log_prob(z)` at a reparameterised z is the pathwise part alone. What is left out, the
    score $\nabla_\phi\log q_\phi(z)$, has expectation zero; that is of use only where it has a finite variance.

    Source: G. Roeder, Y. Wu and D. Duvenaud, Sticking the Landing: Simple, Lower-Variance Gradient Estimators for
    Variational Inference, 2017, arXiv 1703.09194.

    Arguments:
        q: A distribution whose parameters are tensors, or whose bases are such distributions. One that says
            `finite_fisher_information = False` (Epanechnikov) is refused.

    Raises:
        VaekitError: The Fisher information of q is infinite, or its parameters cannot be taken apart.

    Examples:
        >>> import torch
        >>> loc = torch.zeros(2, requires_grad=True)
        >>> stopped(torch.distributions.Normal(loc, 1.0)).log_prob(torch.ones(2)).requires_grad
        False
    """
    if not getattr(q, "finite_fisher_information", True):
        raise VaekitError(
            f"{type(q).__name__} has infinite Fisher information, so that holding its parameters fixed gives gradients "
            "of infinite variance: use the estimator 'auto' or 'standard'"
        )
    if isinstance(q, TransformedDistribution | Flow):
        raise VaekitError(
            f"the parameters of {type(q).__name__} cannot be held fixed: use the estimator 'auto' or 'standard'"
        )
    twin = copy.copy(q)
    for name, value in vars(q).items():
        if isinstance(value, Tensor):
            setattr(twin, name, value.detach())
        elif isinstance(value, Distribution):
            setattr(twin, name, stopped(value))
    return twin
