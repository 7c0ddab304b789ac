"""Normalising flows as distributions: a base distribution and a bijection, whatever it is made of."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Transform, constraints
from torch.distributions.transforms import IndependentTransform

from vaekit.errors import VaekitError

__all__ = ["Flow"]


class Flow(TorchDistribution):
    r"""The distribution of $z=f(x)$ for x from a base distribution and a bijection f of D dimensions:

    $$\log q(z)=\log p_0(f^{-1}(z))-\log\Bigl|\det\frac{\partial f}{\partial x}\Bigr|.$$

    `rsample` takes one pass of f. It remembers its last draw with its log-density, so that `log_prob` of that very
    tensor costs nothing more; any other value goes through the inverse.

    A flow has no closed-form moments. `mean` and `variance` are estimates from `moments_from` points, the same at every
    call: a Latin hypercube of the base's quantiles, shared by the batch, which leaves the random state alone. Their
    standard errors are at most about those of as many draws. They carry no gradient.

    References:
        Variational Inference with Normalizing Flows, Rezende and Mohamed, 2015, arXiv 1505.05770.

    Arguments:
        base: A distribution of independent dimensions, `Independent(Normal)` for instance, with `batch_shape ()` and
            `event_shape (D,)`; the moments need its `icdf`.
        transform: The bijection f; it may differ between the members of a batch.
        batch_shape: The shape of the batch that the transform is made for.
        moments_from: The number of points behind `mean` and `variance`.
        validate_args: Check values at run time (this waits for the device).

    Raises:
        VaekitError: The base has a batch or dependent dimensions, the transform is no bijection of vectors, or the
            moments have fewer than two points.

    Examples:
        >>> from torch.distributions import ExpTransform, Normal
        >>> q = Flow(Independent(Normal(torch.zeros(2), 0.5), 1), ExpTransform(), batch_shape=(4,))
        >>> z = q.rsample()
        >>> z.shape, q.log_prob(z).shape
        (torch.Size([4, 2]), torch.Size([4]))
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = True

    def __init__(
        self,
        base: Distribution,
        transform: Transform,
        batch_shape: Any = (),
        moments_from: int = 64,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(base, Independent) or base.batch_shape or len(base.event_shape) != 1:
            raise VaekitError("the base of a flow needs independent dimensions, batch_shape () and event_shape (D,)")
        if transform.domain.event_dim == transform.codomain.event_dim == 0:
            transform = IndependentTransform(transform, 1)
        if not transform.bijective or not transform.domain.event_dim == transform.codomain.event_dim == 1:
            raise VaekitError(f"a flow needs a bijection of vectors, and {type(transform).__name__} is none")
        if moments_from < 2:
            raise VaekitError(f"moments_from must be 2 or more, not {moments_from}")
        self.base, self.transform, self.moments_from = base, transform, moments_from
        self._forget()
        super().__init__(Size(batch_shape), base.event_shape, validate_args=validate_args)

    def _forget(self) -> None:
        self._drawn: tuple[Tensor, Tensor] | None = None
        self._moments: tuple[Tensor, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A draw that carries a gradient cannot be copied.
        return {**vars(self), "_drawn": None}

    def expand(self, batch_shape: Any, _instance: Any = None) -> Flow:
        """Return the same distribution for a larger batch shape."""
        new = self._get_checked_instance(Flow, _instance)
        new.base, new.transform, new.moments_from = self.base, self.transform, self.moments_from
        new._forget()
        super(Flow, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """What the transform maps to."""
        return self.transform.codomain

    @property
    def mean(self) -> Tensor:
        """An estimate of the mean from `moments_from` points, without gradient, shape (..., D)."""
        return self._estimates()[0]

    @property
    def variance(self) -> Tensor:
        """An estimate of the variances from `moments_from` points, without gradient, shape (..., D)."""
        return self._estimates()[1]

    @property
    def points(self) -> Tensor:
        """The values of the base behind `mean` and `variance`, shape (moments_from, 1, ..., D), the same at every call.

        They are a Latin hypercube: every one of n equal strata of each dimension holds one of n points.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (self.moments_from, *self.event_shape)
        strata = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(0)
        quantiles = (strata + torch.rand(shape, generator=generator, dtype=torch.float64)) / self.moments_from
        like = self.base.mean
        points: Tensor = self.base.base_dist.icdf(quantiles.to(like.device)).to(like.dtype)
        return points.reshape(self.moments_from, *[1] * len(self.batch_shape), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value) for values (..., D), shape (...); through the inverse, unless it is the last draw."""
        if self._validate_args:
            self._validate_sample(value)
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]
        x, log_det = _with_log_det(self.transform.inv, value)
        log_prob: Tensor = self.base.log_prob(x) + log_det
        # A transform without a batch of its own knows nothing of an expanded one.
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return reparameterised draws, shape sample_shape + (..., D); `log_prob` knows them."""
        x = self.base.rsample(Size(sample_shape) + self.batch_shape)
        z, log_det = _with_log_det(self.transform, x)
        self._drawn = z, self.base.log_prob(x) - log_det
        return z

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws without gradient, shape sample_shape + (..., D)."""
        z: Tensor = self.transform(self.base.rsample(Size(sample_shape) + self.batch_shape))
        return z

    @torch.no_grad()
    def _estimates(self) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            points = self.points
            # A large batch goes through in several pieces, for the sake of memory.
            pieces = points.split(max(1, 2**20 // (self.batch_shape.numel() * points.shape[-1] or 1)))
            z = torch.cat([self.transform(piece) for piece in pieces])
            shape = self.batch_shape + self.event_shape
            self._moments = z.mean(0).expand(shape), z.var(0).expand(shape)
        return self._moments


def _with_log_det(transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x) and the log of its Jacobian's determinant, together where the transform can give both at once."""
    both = getattr(transform, "call_and_ladj", None)
    if both is not None:
        y, log_det = both(x)
    else:
        y = transform(x)
        log_det = transform.log_abs_det_jacobian(x, y)
    return y, log_det
