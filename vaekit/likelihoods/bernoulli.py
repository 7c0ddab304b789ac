"""Bernoulli likelihood."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from vaekit.likelihoods.base import Likelihood
from vaekit.registry import likelihoods

__all__ = ["Bernoulli"]


class _Cross(torch.distributions.Independent, TorchDistributionMixin):
    """Independent Bernoullis whose `log_prob` also takes grey values in [0, 1], as the cross-entropy does."""

    @property
    def support(self) -> torch.distributions.constraints.Constraint:
        """Values between 0 and 1."""
        constraints = torch.distributions.constraints
        return constraints.independent(constraints.unit_interval, self.reinterpreted_batch_ndims)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the sum of `value * log sigmoid(l) + (1 - value) * log sigmoid(-l)`."""
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -entropy.flatten(-self.reinterpreted_batch_ndims).sum(-1)


@likelihoods.register(
    "bernoulli",
    about="Independent Bernoulli per dimension; cross-entropy on grey values",
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114",
    needs=("data in [0, 1]",),
)
class Bernoulli(Likelihood):
    r"""Independent Bernoulli per dimension, with the decoder's output as logits.

    $$\log p(x\mid z)=\sum_d x_d\log\sigma(l_d)+(1-x_d)\log\sigma(-l_d)\quad\text{[nats per sample]}$$

    For grey values in (0, 1) this is the usual cross-entropy, which is not a normalised density: figures from it are
    comparable only with other Bernoulli figures on the same data.

    References:
        Auto-Encoding Variational Bayes, Kingma and Welling, 2013, arXiv 1312.6114.

    Arguments:
        data_shape: The shape of one sample.

    Examples:
        >>> import torch
        >>> p = Bernoulli((2,))(torch.zeros(3, 2))
        >>> p.log_prob(torch.ones(3, 2)).shape
        torch.Size([3])
    """

    data_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    continuous: ClassVar[bool] = False

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return p(x|z) with `decoded` as the logits."""
        each = dist.Bernoulli(logits=decoded, validate_args=False)
        return _Cross(each, len(self.data_shape), validate_args=False)
