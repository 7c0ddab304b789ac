"""Several distributions of one family as one and back, and a choice between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from pyro.distributions import Laplace, Normal
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.distributions.mixture import GaussianMixture
from vaekit.errors import VaekitError

__all__ = ["choose_between", "location_scale", "stack", "unstack"]

# What torch calls the family, and what Pyro does: `to_event` needs the latter.
_FAMILIES = ((torch.distributions.Normal, Normal), (torch.distributions.Laplace, Laplace))

Family: TypeAlias = type[Normal] | type[Laplace]


def location_scale(q: Distribution) -> tuple[Family, Tensor, Tensor]:
    """Return family, location and scale of a distribution of independent Gaussian or Laplace dimensions.

    Raises:
        VaekitError: It is another distribution.

    Examples:
        >>> location_scale(Independent(Normal(torch.zeros(2, 3), torch.ones(2, 3)), 1))[1].shape
        torch.Size([2, 3])
    """
    base = q.base_dist if isinstance(q, Independent) and len(q.event_shape) == 1 else None
    for torchs, family in _FAMILIES:
        if isinstance(base, torchs):
            return family, base.loc, base.scale
    raise VaekitError(
        f"independent Gaussian or Laplace dimensions are needed here, not {type(q).__name__}: use the posterior "
        "'gaussian' or 'laplace' and the prior 'standard_normal' or 'laplace'"
    )


def stack(qs: Sequence[Distribution]) -> Distribution:
    """Return M distributions of one family and of `batch_shape (..., B)` as one of `batch_shape (..., B, M)`.

    Arguments:
        qs: Gaussians or Laplace distributions of independent dimensions, or Gaussian mixtures of as many components.

    Raises:
        VaekitError: They are of different families, or of another one.

    Examples:
        >>> qs = [Independent(Normal(torch.zeros(5, 2), torch.ones(5, 2)), 1) for _ in range(3)]
        >>> stack(qs).batch_shape, stack(qs).event_shape
        (torch.Size([5, 3]), torch.Size([2]))
    """
    mixtures = [q for q in qs if isinstance(q, GaussianMixture)]
    if mixtures and len(mixtures) == len(qs) and len({q.components for q in mixtures}) == 1:
        parts = ([getattr(q, key) for q in mixtures] for key in ("logits", "loc", "scale"))
        logits, loc, scale = (torch.stack(part, len(qs[0].batch_shape)) for part in parts)
        first = mixtures[0]
        return GaussianMixture(logits, loc, scale, first.estimator, first.temperature, validate_args=False)
    families, locs, scales = zip(*map(location_scale, qs), strict=True)
    if len(set(families)) > 1:
        names = " and ".join(sorted({family.__name__ for family in families}))
        raise VaekitError(f"the posteriors of all modalities must be of one family, not {names}")
    return families[0](torch.stack(locs, -2), torch.stack(scales, -2), validate_args=False).to_event(1)


def unstack(q: Distribution) -> list[Distribution]:
    """Return a distribution of `batch_shape (..., B, M)` as M of `batch_shape (..., B)`: what `stack` undoes.

    Arguments:
        q: Gaussian or Laplace dimensions, or a Gaussian mixture.

    Raises:
        VaekitError: It is another distribution.

    Examples:
        >>> q = Independent(Normal(torch.zeros(5, 3, 2), torch.ones(5, 3, 2)), 1)
        >>> [part.batch_shape for part in unstack(q)]
        [torch.Size([5]), torch.Size([5]), torch.Size([5])]
    """
    axis = len(q.batch_shape) - 1
    if isinstance(q, GaussianMixture):
        parts = zip(q.logits.unbind(axis), q.loc.unbind(axis), q.scale.unbind(axis), strict=True)
        return [
            GaussianMixture(logits, loc, scale, q.estimator, q.temperature, validate_args=False)
            for logits, loc, scale in parts
        ]
    family, loc, scale = location_scale(q)
    pairs = zip(loc.unbind(axis), scale.unbind(axis), strict=True)
    return [family(*pair, validate_args=False).to_event(1) for pair in pairs]


def choose_between(first: Tensor, q: Distribution, p: Distribution) -> Distribution:
    """Return the distribution that is q where `first` is true and p elsewhere.

    Arguments:
        first: Bool, of q's batch shape or broadcast to it.
        q: Gaussian or Laplace dimensions.
        p: The same family, of the same batch shape or broadcast to it.

    Raises:
        VaekitError: The two are of different families, or of another one.

    Examples:
        >>> q, p = (Independent(Normal(torch.full((2, 1), loc), torch.ones(2, 1)), 1) for loc in (0.0, 5.0))
        >>> choose_between(torch.tensor([True, False]), q, p).mean.flatten().tolist()
        [0.0, 5.0]
    """
    family, loc, scale = location_scale(q)
    other, other_loc, other_scale = location_scale(p)
    if family is not other:
        raise VaekitError(f"posterior and prior must be of one family, not {family.__name__} and {other.__name__}")
    first = first.unsqueeze(-1)
    loc, scale = torch.where(first, loc, other_loc), torch.where(first, scale, other_scale)
    return family(loc, scale, validate_args=False).to_event(1)
