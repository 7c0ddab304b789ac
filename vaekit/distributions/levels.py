"""Distributions over evenly spaced levels, such as the 256 grey values of 8-bit images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Categorical, constraints

from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32

__all__ = ["CategoricalLevels", "DiscretizedLogistic", "Levels"]

_AT_A_TIME = 16  # levels


class Levels(constraints.Constraint):
    """The numbers `low + (high - low) * k / (count - 1)` for k = 0, ..., count - 1.

    Arguments:
        count: The number of levels.
        low: The lowest level.
        high: The highest level.

    Raises:
        VaekitError: There are fewer than two levels.

    Examples:
        >>> Levels(3, -1.0, 1.0).check(torch.tensor([-1.0, 0.0, 0.4]))
        tensor([ True,  True, False])
    """

    is_discrete = True
    event_dim = 0

    def __init__(self, count: int = 256, low: float = -1.0, high: float = 1.0) -> None:
        if count < 2:
            raise VaekitError(f"a distribution over levels needs 2 or more of them, not {count}")
        self.count, self.low, self.high = count, low, high
        self.step = (high - low) / (count - 1)

    def __repr__(self) -> str:
        return f"Levels({self.count}, {self.low:g}, {self.high:g})"

    def values(self, index: Tensor) -> Tensor:
        """Return the levels of numbers k, which need not be whole."""
        return self.low + (self.high - self.low) * (index / (self.count - 1))

    def index(self, value: Tensor) -> Tensor:
        """Return the number k of the nearest level, as a float."""
        return ((at_least_float32(value) - self.low) / self.step).round().clamp(0, self.count - 1)

    def check(self, value: Tensor) -> Tensor:
        """Return where values are levels, up to rounding."""
        return (self.values(self.index(value)) - value).abs() < 1e-3 * self.step


class _OnLevels(TorchDistribution):
    """What the two share: the levels, and a support that says so."""

    has_rsample = False
    levels: Levels

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return self.levels


class DiscretizedLogistic(_OnLevels):
    r"""Logistic distribution whose values are rounded to the nearest of L levels; the outermost take the tails.

    With $\Delta$ the distance of two levels, $a = (x + \Delta/2 - \mu)/s$ and $b = (x - \Delta/2 - \mu)/s$,

    $$P(x) = \sigma(a) - \sigma(b), \qquad
      \log P(x) = \log\sigma(a) + \log\sigma(-b) + \log(1 - e^{-\Delta / s}).$$

    The second form is exact, and finite in float32 however far x lies from μ. Of the outermost levels only the term of
    the inner edge is left. A value between two levels counts as the nearest.

    Source: T. Salimans, A. Karpathy, X. Chen and D. P. Kingma, PixelCNN++, 2017, arXiv 1701.05517 (there in mixtures);
    D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv 1606.04934.

    Arguments:
        loc: The locations μ, shape (...).
        scale: The scales s of the logistic, shape (...), positive.
        levels: The levels; 256 on [-1, 1] where None.
        validate_args: Check parameters and values at run time (this waits for the device).

    Examples:
        >>> p = DiscretizedLogistic(torch.zeros(1), torch.ones(1), Levels(3))
        >>> p.log_prob(torch.tensor([[-1.0], [0.0], [1.0]])).exp().flatten()
        tensor([0.3775, 0.2449, 0.3775])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: Levels | None = None, validate_args: bool | None = None
    ) -> None:
        self.levels = levels or Levels()
        self.loc, self.scale = torch.broadcast_tensors(at_least_float32(loc), at_least_float32(scale))
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """Return the same distribution with its parameters expanded to a larger batch shape."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        batch_shape = Size(batch_shape)
        new.levels = self.levels
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        super(DiscretizedLogistic, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _edge(self, index: Tensor | float) -> Tensor:
        """Return the standardised upper edge of level k."""
        return (self.levels.low + self.levels.step * (index + 0.5) - self.loc) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log P(value) for levels (...), shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        index = self.levels.index(value)
        lowest, highest = index == 0, index == self.levels.count - 1
        below = F.logsigmoid(self._edge(index)).masked_fill(highest, 0.0)
        above = F.logsigmoid(-self._edge(index - 1)).masked_fill(lowest, 0.0)
        inside = torch.log(-torch.expm1(-self.levels.step / self.scale)).masked_fill(lowest | highest, 0.0)
        return below + above + inside

    def cdf(self, value: Tensor) -> Tensor:
        """Return P(X <= value) for levels (...), shape (...)."""
        index = self.levels.index(value)
        return self._edge(index).sigmoid().masked_fill(index == self.levels.count - 1, 1.0)

    @property
    def mean(self) -> Tensor:
        r"""The mean, shape (...): with k the number of the level, $\mathbb E[k] = \sum_j P(k > j)$."""
        return self.levels.values(self._moments()[0])

    @property
    def variance(self) -> Tensor:
        """The variance, shape (...)."""
        first, second = self._moments()
        return (second - first.square()).clamp(min=0.0) * self.levels.step**2

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return E[k] and E[k^2], a few levels at a time: all at once would take L times the memory of the data."""
        first = second = torch.zeros_like(self.loc)
        loc, scale = self.loc.unsqueeze(-1), self.scale.unsqueeze(-1)
        for begin in range(0, self.levels.count - 1, _AT_A_TIME):
            end = min(begin + _AT_A_TIME, self.levels.count - 1)
            some = torch.arange(begin, end, dtype=loc.dtype, device=loc.device)
            beyond = torch.sigmoid((loc - self.levels.values(some + 0.5)) / scale)  # P(k > j) for each j of them
            first, second = first + beyond.sum(-1), second + beyond @ (2.0 * some + 1.0)
        return first, second

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return levels, shape sample_shape + (...)."""
        shape = self._extended_shape(Size(sample_shape))
        tiny = torch.finfo(self.loc.dtype).tiny
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny)
        return self.levels.values(self.levels.index(self.loc + self.scale * torch.logit(uniform)))


class CategoricalLevels(_OnLevels):
    r"""Any distribution over L levels: $P(x_k) = \mathrm{softmax}(l)_k$.

    A value between two levels counts as the nearest.

    Arguments:
        logits: Unnormalised log-probabilities l, shape (..., L).
        levels: The levels; as many as there are logits, on [-1, 1], where None.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: There are fewer than two levels, or not as many as logits.

    Examples:
        >>> p = CategoricalLevels(torch.zeros(5, 3))
        >>> p.mean, p.log_prob(torch.ones(5)).exp()[0]
        (tensor([0., 0., 0., 0., 0.]), tensor(0.3333))
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, levels: Levels | None = None, validate_args: bool | None = None) -> None:
        self.levels = levels or Levels(logits.shape[-1])
        if self.levels.count != logits.shape[-1]:
            raise VaekitError(f"{self.levels.count} levels need as many logits, not {logits.shape[-1]}")
        self.logits = at_least_float32(logits)
        super().__init__(self.logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> CategoricalLevels:
        """Return the same distribution with its logits expanded to a larger batch shape."""
        new = self._get_checked_instance(CategoricalLevels, _instance)
        batch_shape = Size(batch_shape)
        new.levels = self.levels
        new.logits = self.logits.expand(batch_shape + self.logits.shape[-1:])
        super(CategoricalLevels, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log P(value) for levels (...), shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        index = self.levels.index(value).long().expand(shape).unsqueeze(-1)
        chosen = self.logits.expand(*shape, self.levels.count).gather(-1, index).squeeze(-1)
        return chosen - self.logits.logsumexp(-1)

    @property
    def mean(self) -> Tensor:
        """The mean, shape (...)."""
        return (self.logits.softmax(-1) * self._grid()).sum(-1).clamp(self.levels.low, self.levels.high)

    @property
    def variance(self) -> Tensor:
        """The variance, shape (...)."""
        return (self.logits.softmax(-1) * (self._grid() - self.mean.unsqueeze(-1)).square()).sum(-1)

    def _grid(self) -> Tensor:
        return self.levels.values(torch.arange(self.levels.count, dtype=self.logits.dtype, device=self.logits.device))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return levels, shape sample_shape + (...)."""
        index = Categorical(logits=self.logits, validate_args=False).sample(Size(sample_shape))
        return self.levels.values(index.to(self.logits.dtype))
