"""The sum of squared errors."""

from __future__ import annotations

import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from vaekit.likelihoods.base import Likelihood
from vaekit.registry import likelihoods

__all__ = ["SumSquaredError"]

_CONSTANT = 0.5 * math.log(math.pi)


class _Unnormalised(torch.distributions.Independent, TorchDistributionMixin):
    """Independent normals of variance one half whose `log_prob` leaves out the constant."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return minus the sum of squared differences to the mean."""
        return -(value - self.base_dist.loc).square().flatten(-self.reinterpreted_batch_ndims).sum(-1)


@likelihoods.register(
    "sum_squared_error",
    about="Sum of squared errors: the Gaussian of variance 1/2 without its constant",
    source="H. Vafaii, D. Galor and J. L. Yates, Poisson Variational Autoencoder, 2024, arXiv 2405.14473",
    needs=("data in [0, 1]",),
)
class SumSquaredError(Likelihood):
    r"""The density $\prod_d\mathcal N(x_d;\hat x_d(z),\tfrac12)$ without its constant.

    $$-\log\tilde p(x\mid z)=\sum_d(x_d-\hat x_d)^2=-\log p(x\mid z)-\tfrac D2\log\pi\quad\text{[nats per sample]}$$

    Draws are those of the density. `log_prob` is not normalised: a loss with it is $\tfrac D2\log\pi$ below the
    negative ELBO, and is comparable only with other sums of squared errors on the same data. `bits_per_dim` puts the
    constant back.

    References:
        Poisson Variational Autoencoder, Vafaii, Galor and Yates, 2024, arXiv 2405.14473.

    Arguments:
        data_shape: The shape of one sample.

    Examples:
        >>> SumSquaredError((2,))(torch.zeros(3, 2)).log_prob(torch.ones(3, 2))
        tensor([-2., -2., -2.])
    """

    data_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    normalised: ClassVar[bool] = False

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return p(x|z) with `decoded` as the mean."""
        each = dist.Normal(decoded, math.sqrt(0.5), validate_args=False)
        return _Unnormalised(each, len(self.data_shape), validate_args=False)

    def expected_log_prob(self, mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
        """Return the expectation over decoder outputs: minus the squared error at their mean, less their variance."""
        return self(mean).log_prob(x) - variance.flatten(1).sum(1)

    def bits_per_dim(self, nats: float) -> float:
        """Convert nats per sample to bits per dimension of 8-bit data, with the constant of the density."""
        return super().bits_per_dim(nats + math.prod(self.data_shape) * _CONSTANT)
