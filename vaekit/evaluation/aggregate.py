"""Moments of the aggregate posterior over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.errors import VaekitError

__all__ = ["Aggregate", "aggregate_posterior"]


@dataclass(frozen=True)
class Aggregate:
    r"""Per-dimension moments of $q(z)=\frac1N\sum_iq(z\mid x_i)$, shape (D,) each, in float64.

    Arguments:
        mean: The mean.
        variance_of_means: The variance over samples of the posterior means.
        mean_variance: The mean over samples of the posterior variances.
        count: The number N of samples.
    """

    mean: Tensor
    variance_of_means: Tensor
    mean_variance: Tensor
    count: int

    @property
    def variance(self) -> Tensor:
        """The total variance: that of the means plus the mean variance."""
        return self.variance_of_means + self.mean_variance

    @property
    def active_units(self) -> int:
        """The number of dimensions whose posterior means vary by more than 0.01.

        Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2015, arXiv 1509.00519.
        """
        return int((self.variance_of_means > 0.01).sum())

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments by name, to be stored."""
        return {
            "mean": self.mean,
            "variance_of_means": self.variance_of_means,
            "mean_variance": self.mean_variance,
            "count": torch.tensor(self.count),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Aggregate:
        """Return what `tensors` gave.

        Raises:
            VaekitError: They are others.
        """
        try:
            mean, *spreads = (tensors[name] for name in ("mean", "variance_of_means", "mean_variance"))
            shape = torch.Size([len(mean)])
            alike = all(part.shape == shape and part.is_floating_point() for part in (mean, *spreads))
            found = cls(mean, spreads[0], spreads[1], int(tensors["count"]))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise VaekitError("the moments of the aggregate posterior are damaged") from error
        if not alike or found.count < 1:
            raise VaekitError("the moments of the aggregate posterior are damaged")
        return found


@torch.no_grad()
def aggregate_posterior(encode: Callable[[Any], Distribution], batches: Iterable[Any]) -> Aggregate:
    """Stream a split through the encoder and return its aggregate posterior's moments.

    Sums are kept in float64, shifted by the first batch's mean, so that nothing cancels however long the split is.

    Arguments:
        encode: Data to posteriors of `event_shape (D,)`: `model.encode`, of a model in evaluation mode.
        batches: Batches on the model's device.
    """
    count = 0
    shift = first = second = inner = None
    for x in batches:
        q = encode(x)
        means, variances = q.mean.double(), q.variance.double()
        if shift is None or first is None or second is None or inner is None:
            shift = means.mean(0)
            first, second, inner = (torch.zeros_like(shift) for _ in range(3))
        first += (means - shift).sum(0)
        second += (means - shift).square().sum(0)
        inner += variances.sum(0)
        count += len(means)
    if shift is None or first is None or second is None or inner is None:
        raise ValueError("aggregate_posterior needs at least one batch")
    offset = first / count
    return Aggregate((shift + offset).cpu(), (second / count - offset.square()).cpu(), (inner / count).cpu(), count)
