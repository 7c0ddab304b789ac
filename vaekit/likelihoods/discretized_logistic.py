"""Discretised logistic likelihood."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaekit import distributions
from vaekit.errors import VaekitError
from vaekit.likelihoods.base import Likelihood
from vaekit.registry import likelihoods

__all__ = ["DiscretizedLogistic"]

# The scale lies between e^-7, below which a level holds nearly all of the mass, and e^7.
_LOG_VARIANCES = (-14.0, 14.0)


@likelihoods.register(
    "discretized_logistic",
    about="Logistic per dimension, rounded to the levels of 8-bit data: probabilities, exact bits per dimension",
    source="Salimans, Karpathy, Chen and Kingma, PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture "
    "Likelihood and Other Modifications, 2017, arXiv 1701.05517; Kingma et al., 2016, arXiv 1606.04934",
    needs=("data of so many levels",),
)
class DiscretizedLogistic(Likelihood):
    r"""Logistic distribution per dimension, rounded to levels; the lowest and the highest take the tails.

    With $\Delta$ the distance of two levels,

    $$P(x\mid z)=\prod_d\sigma\Big(\frac{x_d+\Delta/2-\hat x_d(z)}{s_d}\Big)
      -\sigma\Big(\frac{x_d-\Delta/2-\hat x_d(z)}{s_d}\Big).$$

    `-log P(x|z)` in nats per sample is the code length of the data themselves: its bits per dimension are exact. The
    decoder gives the locations and then, in as many channels again, $2\log s$, softly kept between -14 and 14.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications,
        Salimans, Karpathy, Chen and Kingma, 2017, arXiv 1701.05517 (with mixtures, which this has not).
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv 1606.04934.

    Arguments:
        data_shape: The shape of one sample.
        levels: The number of levels of one dimension, spread evenly over [-1, 1]; 256 for 8-bit data. Data of more
            levels are rounded.
        shared_scale: The start of one learned scale for all dimensions, in units of the data range [-1, 1]; None has
            the decoder give one for each dimension.

    Raises:
        VaekitError: There are fewer than two levels, or the scale is not above 0.

    Examples:
        >>> likelihood = DiscretizedLogistic((3, 8, 8))
        >>> likelihood.parameters_shape
        (6, 8, 8)
        >>> likelihood(torch.zeros(5, 6, 8, 8)).log_prob(torch.ones(5, 3, 8, 8)).shape
        torch.Size([5])
    """

    continuous: ClassVar[bool] = False

    def __init__(self, data_shape: tuple[int, ...], *, levels: int = 256, shared_scale: float | None = None) -> None:
        super().__init__(data_shape)
        if shared_scale is not None and not shared_scale > 0:
            raise VaekitError(f"shared_scale must be above 0, not {shared_scale:g}")
        self.grid = distributions.Levels(levels, *self.data_range)
        self.levels = levels
        self.shared = shared_scale is not None
        if shared_scale is not None:
            self.log_scale = nn.Parameter(torch.tensor(math.log(shared_scale)))

    @property
    def parameters_shape(self) -> tuple[int, ...]:
        """The data's shape, with twice the channels unless the scale is shared."""
        first, *rest = self.data_shape
        return (first if self.shared else 2 * first, *rest)

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return P(x|z) from locations and, unless the scale is shared, twice the log-scales."""
        if self.shared:
            loc, scale = decoded, self.log_scale.exp()
        else:
            loc, log_variance = decoded.chunk(2, dim=-len(self.data_shape))
            scale = distributions.log_variance_to_scale(log_variance, _LOG_VARIANCES)
        p = distributions.DiscretizedLogistic(loc, scale, self.grid, validate_args=False)
        return p.to_event(len(self.data_shape))

    def extra_repr(self) -> str:
        """Show the levels, and the scale where it is shared."""
        return f"levels={self.levels}" + (f", shared_scale={self.log_scale.exp().item():.4g}" if self.shared else "")
