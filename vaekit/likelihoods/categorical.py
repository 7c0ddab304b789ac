"""Categorical likelihood over levels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaekit import distributions
from vaekit.likelihoods.base import Likelihood
from vaekit.registry import likelihoods

__all__ = ["Categorical"]


@likelihoods.register(
    "categorical",
    about="Softmax over the levels of each dimension: any distribution, exact bits per dimension",
    source="van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016, arXiv 1601.06759 "
    "(softmax over 256 values)",
    needs=("data of so many levels",),
)
class Categorical(Likelihood):
    r"""Softmax over L levels for each dimension, $P(x\mid z)=\prod_d\mathrm{softmax}(l_d(z))_{k(x_d)}$.

    `-log P(x|z)` is the cross-entropy summed over the dimensions, in nats per sample. The decoder gives L numbers for
    each value of the data: for (C, H, W) the channels $kC, \dots, kC + C - 1$ hold the logits of level k. The mean is
    the expected level. Nothing tells the levels apart: that 100 is near 101 must be learned.

    References:
        Pixel Recurrent Neural Networks, van den Oord, Kalchbrenner and Kavukcuoglu, 2016, arXiv 1601.06759.

    Arguments:
        data_shape: The shape of one sample.
        levels: The number L of levels, spread evenly over [-1, 1]; 256 for 8-bit data. Data of more levels are rounded.

    Raises:
        VaekitError: There are fewer than two levels.

    Examples:
        >>> likelihood = Categorical((3, 8, 8), levels=16)
        >>> likelihood.parameters_shape
        (48, 8, 8)
        >>> likelihood(torch.zeros(5, 48, 8, 8)).mean.shape
        torch.Size([5, 3, 8, 8])
    """

    continuous: ClassVar[bool] = False

    def __init__(self, data_shape: tuple[int, ...], *, levels: int = 256) -> None:
        super().__init__(data_shape)
        self.grid = distributions.Levels(levels, *self.data_range)
        self.levels = levels

    @property
    def parameters_shape(self) -> tuple[int, ...]:
        """The data's shape, with L times the channels."""
        first, *rest = self.data_shape
        return (self.levels * first, *rest)

    def forward(self, decoded: Tensor) -> torch.distributions.Distribution:
        """Return P(x|z) with `decoded` as the logits of every level."""
        logits = decoded.unflatten(-len(self.data_shape), (self.levels, self.data_shape[0]))
        logits = logits.movedim(-len(self.data_shape) - 1, -1)
        p = distributions.CategoricalLevels(logits, self.grid, validate_args=False)
        return p.to_event(len(self.data_shape))

    def extra_repr(self) -> str:
        """Show the levels."""
        return f"levels={self.levels}"
