"""Categorical likelihood over one-hot vectors."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.likelihoods.base import Likelihood
from vaekit.registry import likelihoods

__all__ = ["OneHot"]


class _OneHotOrNothing(dist.OneHotCategorical):
    """A one-hot variable for which a vector of zeros stands for one that is missing, of probability one.

    Arguments:
        logits: Unnormalised log-probabilities, shape (..., V).
    """

    def __init__(self, logits: Tensor) -> None:
        # The parent's own would check the logits in every step, which waits for the device.
        self._categorical = torch.distributions.Categorical(logits=logits, validate_args=False)
        torch.distributions.Distribution.__init__(self, logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _OneHotOrNothing:
        """Return the same distribution, expanded to a larger batch shape."""
        return _OneHotOrNothing(self.logits.expand(torch.Size(batch_shape) + self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of the probability of the class, 0 where there is none."""
        return (value * self.logits).sum(-1)


@likelihoods.register(
    "one_hot",
    about="Softmax over the classes of one-hot vectors: labels, or the characters of a text",
    source="Bridle, Probabilistic Interpretation of Feedforward Classification Network Outputs, 1990",
    needs=("one-hot data",),
)
class OneHot(Likelihood):
    r"""Softmax over the last axis of one-hot data, $\log p(x\mid z)=\sum_i\sum_v x_{iv}\log\mathrm{softmax}(l_i(z))_v$.

    `-log p(x|z)` is the cross-entropy summed over all axes but the last, in nats per sample: a label is of shape (V,),
    a text of L characters of shape (L, V). A vector of zeros is a missing one and counts 0. The mean is the
    probabilities.

    References:
        Probabilistic Interpretation of Feedforward Classification Network Outputs, Bridle, 1990.

    Arguments:
        data_shape: The shape of one sample; the classes are along its last axis.

    Raises:
        VaekitError: The sample has no axis.

    Examples:
        >>> p = OneHot((3,))(torch.zeros(5, 3))
        >>> p.log_prob(torch.tensor([0.0, 1.0, 0.0])).exp()
        tensor([0.3333, 0.3333, 0.3333, 0.3333, 0.3333])
    """

    data_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    continuous: ClassVar[bool] = False

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__(data_shape)
        if not self.data_shape:
            raise VaekitError("one-hot data have an axis for the classes: give a shape such as (10,)")

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return p(x|z) with `decoded` as the logits."""
        each = _OneHotOrNothing(decoded)
        return each.to_event(len(self.data_shape) - 1)
