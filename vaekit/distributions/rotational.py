"""Distributions on the sphere that are symmetric about an axis."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints, register_kl

from vaekit.distributions.sphere import SphereUniform, check_dimensions, log_sphere_area, reflect, sphere
from vaekit.precision import at_least_float32

__all__ = ["Rotational"]


class Rotational(TorchDistribution):
    r"""A density $q(z)=f(\mu^\top z;\kappa)$ on the unit sphere $S^{D-1}$: a base class.

    A subclass gives `cosine_moments`, `entropy`, `log_prob` and `rsample`.

    Arguments:
        loc: The axis and mode μ, unit vectors of shape (..., D), D 2 or more.
        concentration: κ, shape (...).
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: Fewer than two dimensions.
    """

    arg_constraints = {"loc": sphere, "concentration": constraints.nonnegative}
    support = sphere
    space = "sphere"
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        loc, concentration = at_least_float32(loc), at_least_float32(concentration)
        check_dimensions(loc.shape[-1])
        batch_shape, event_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape), loc.shape[-1:]
        self.loc, self.concentration = loc.expand(batch_shape + event_shape), concentration.expand(batch_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to a larger batch shape."""
        new: Self = self._get_checked_instance(type(self), _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        super(Rotational, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def cosine_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return mean and variance of $\mu^\top z$, and the variance in a direction across the axis, (...) each."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The mean, on the axis and inside the sphere, shape (..., D)."""
        return self.cosine_moments()[0].unsqueeze(-1) * self.loc

    @property
    def mode(self) -> Tensor:
        """The axis, shape (..., D)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, shape (..., D)."""
        _, along, across = self.cosine_moments()
        squares = self.loc.square()
        return along.unsqueeze(-1) * squares + across.unsqueeze(-1) * (1.0 - squares).clamp_min(0.0)

    def around(self, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return points (..., D) at the given angles (...) from the axis, in directions that are uniform around it."""
        shape = (*cosine.shape, self.event_shape[0] - 1)
        direction = F.normalize(torch.randn(shape, dtype=cosine.dtype, device=cosine.device), dim=-1)
        return reflect(self.loc, torch.cat([cosine.unsqueeze(-1), sine.unsqueeze(-1) * direction], -1))


@register_kl(Rotational, SphereUniform)
def _kl_to_uniform(q: Rotational, p: SphereUniform) -> Tensor:
    r"""Return $\log|S^{D-1}|-H(q)$."""
    return log_sphere_area(p.event_shape[0]) - q.entropy().expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))
