r"""The unit sphere $S^{D-1}$ in D dimensions: its constraint, its area, the uniform distribution, and a reflection."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32

__all__ = ["SphereUniform", "check_dimensions", "log_sphere_area", "reflect", "sphere"]


class _Sphere(constraints.Constraint):
    """Vectors of length 1, within what float32 leaves of it."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.norm(dim=-1) - 1.0).abs() < 1e-4


sphere = _Sphere()


def check_dimensions(dimensions: int) -> None:
    """Raise VaekitError where there is no sphere, but at most two points."""
    if dimensions < 2:
        raise VaekitError(f"a sphere needs 2 dimensions or more, not {dimensions}: raise latent_dim")


def log_sphere_area(dimensions: int) -> float:
    r"""Return $\log|S^{D-1}|=\log2+\tfrac D2\log\pi-\log\Gamma(\tfrac D2)$.

    Examples:
        >>> round(math.exp(log_sphere_area(3)) / math.pi, 6)
        4.0
    """
    return math.log(2.0) + 0.5 * dimensions * math.log(math.pi) - math.lgamma(0.5 * dimensions)


def reflect(loc: Tensor, y: Tensor) -> Tensor:
    r"""Turn the first axis into `loc`: an orthogonal map of y (..., D) that sends $e_1$ to the unit vectors loc.

    It is the Householder reflection in $u=\mu+s\,e_1$ and a change of sign, with $s=\pm1$ the sign of $\mu_1$: u is
    never short, so that the gradient for loc is bounded everywhere.

    Source: A. S. Householder, Unitary Triangularization of a Nonsymmetric Matrix, 1958, Journal of the ACM 5.

    Examples:
        >>> reflect(torch.tensor([0.6, 0.8]), torch.tensor([1.0, 0.0]))
        tensor([0.6000, 0.8000])
    """
    head = loc[..., :1]
    sign = torch.where(head < 0.0, -1.0, 1.0).to(loc.dtype)
    u = torch.cat([head + sign, loc[..., 1:]], -1)
    along = (u * y).sum(-1, keepdim=True) / (1.0 + head.abs())
    return sign * (along * u - y)


class SphereUniform(TorchDistribution):
    r"""The uniform distribution on the unit sphere $S^{D-1}$, $p(z)=1/|S^{D-1}|$.

    Arguments:
        dimensions: The number D of coordinates, 2 or more.
        dtype: Of the draws; the default dtype if None.
        device: Of the draws; the default device if None.
        validate_args: Check values at run time (this waits for the device).

    Raises:
        VaekitError: Fewer than two dimensions.

    Examples:
        >>> p = SphereUniform(3)
        >>> p.log_prob(p.sample((2,)))
        tensor([-2.5310, -2.5310])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = sphere
    space = "sphere"
    has_rsample = True

    def __init__(
        self,
        dimensions: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_dimensions(dimensions)
        self._origin = torch.zeros(dimensions, dtype=dtype, device=device)
        super().__init__(Size(), Size((dimensions,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SphereUniform:
        """Return the same distribution with a larger batch shape."""
        new = self._get_checked_instance(SphereUniform, _instance)
        new._origin = self._origin
        super(SphereUniform, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean, 0, shape (..., D)."""
        return self._origin.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, 1 / D, shape (..., D)."""
        return self.mean + 1.0 / self.event_shape[0]

    def entropy(self) -> Tensor:
        """Return the entropy in nats, the logarithm of the area, shape (...)."""
        return self._origin.new_full(self.batch_shape, log_sphere_area(self.event_shape[0]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) for unit vectors (..., D), shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return at_least_float32(value).new_full(shape, -log_sphere_area(self.event_shape[0]))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws, shape sample_shape + (..., D)."""
        shape = Size(sample_shape) + self.batch_shape + self.event_shape
        return F.normalize(torch.randn(shape, dtype=self._origin.dtype, device=self._origin.device), dim=-1)
