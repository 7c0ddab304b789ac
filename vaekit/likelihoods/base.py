"""The contract of a likelihood."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaekit.errors import VaekitError

__all__ = ["Likelihood"]


class Likelihood(nn.Module):
    """Turns a decoder's output into a distribution over the data.

    A subclass takes `(data_shape,)` by position and its options as keywords.

    Attributes:
        data_range: The interval that images are scaled to for this likelihood.
        continuous: Whether `log_prob` is a density (its bits per dimension then count the width of a grey level).
        levels: Where it is not, the number of values of one dimension, evenly spread over `data_range`.
        normalised: Whether `log_prob` integrates to one; where it does not, it leaves out a constant, which
            `bits_per_dim` puts back.

    Arguments:
        data_shape: The shape of one sample, e.g. (3, 64, 64).
    """

    data_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    continuous: ClassVar[bool] = True
    normalised: ClassVar[bool] = True
    levels: int = 2

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)

    @property
    def parameters_shape(self) -> tuple[int, ...]:
        """The shape that the decoder must give for one sample."""
        return self.data_shape

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return p(x|z) for `decoded` (..., *parameters_shape): `batch_shape (...)`, `event_shape data_shape`."""
        raise NotImplementedError

    def expected_log_prob(self, mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
        r"""Return $\mathbb E[\log p(x\mid y)]$ in nats over decoder outputs y of given moments, shape (B,).

        It has a closed form where log p is quadratic in the decoder's output, as for `gaussian`.

        Arguments:
            mean: The mean of the decoder's output, shape (B, *parameters_shape).
            variance: Its variances, of the same shape.
            x: The data (B, *data_shape).

        Raises:
            VaekitError: This likelihood has no closed form of it.
        """
        raise VaekitError(
            f"the {type(self).__name__} likelihood has no closed-form expectation: use the likelihood 'gaussian' or "
            "'sum_squared_error', or leave the objective's option 'exact' out"
        )

    def bits_per_dim(self, nats: float) -> float:
        """Convert nats per sample to bits per dimension of 8-bit data.

        For a density, `-log2 p(x)` of an 8-bit value is the density's plus `-log2` of the width of a grey level,
        `(high - low) / 255`.
        """
        dimensions = math.prod(self.data_shape)
        low, high = self.data_range
        width = (high - low) / 255 if self.continuous else 1.0
        return (nats / dimensions - math.log(width)) / math.log(2)
