"""Continuous Bernoulli likelihood."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaekit import distributions
from vaekit.likelihoods.base import Likelihood
from vaekit.registry import likelihoods

__all__ = ["ContinuousBernoulli"]


@likelihoods.register(
    "continuous_bernoulli",
    about="Independent continuous Bernoulli per dimension: a density for grey values in [0, 1]",
    source="Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational "
    "autoencoders, 2019, arXiv 1907.06845",
    needs=("data in [0, 1]",),
)
class ContinuousBernoulli(Likelihood):
    r"""Independent continuous Bernoulli per dimension, with the decoder's output as logits.

    $$\log p(x\mid z)=\sum_d x_d\log\sigma(l_d)+(1-x_d)\log\sigma(-l_d)+\log\frac{l_d}{\tanh(l_d/2)}
      \quad\text{[nats per sample]}$$

    The last term makes a density on [0, 1] of what is the cross-entropy in `bernoulli`. Its mean, which is shown as the
    image, is less extreme than $\sigma(l)$.

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders, Loaiza-Ganem and Cunningham,
        2019, arXiv 1907.06845.

    Arguments:
        data_shape: The shape of one sample.

    Examples:
        >>> p = ContinuousBernoulli((2,))(torch.zeros(3, 2))
        >>> p.log_prob(torch.rand(3, 2)).shape, p.mean[0]
        (torch.Size([3]), tensor([0.5000, 0.5000]))
    """

    data_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return p(x|z) with `decoded` as the logits."""
        p = distributions.ContinuousBernoulli(decoded, validate_args=False)
        return p.to_event(len(self.data_shape))
