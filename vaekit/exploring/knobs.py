"""Knobs: what a reader turns to move through a latent space, and the latents that they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.distributions import bounds
from vaekit.evaluation.aggregate import Aggregate

__all__ = ["Knob", "Knobs"]

_STEPS = 200


@dataclass(frozen=True)
class Knob:
    """One number that a reader may change.

    Arguments:
        label: What it is.
        low: The least value of its range.
        high: The largest value of its range.
        step: The distance between two values; 1 for whole numbers.
    """

    label: str
    low: float
    high: float
    step: float

    def reaching(self, value: float) -> Knob:
        """Return the knob with a range that takes in a value, by whole steps.

        Examples:
            >>> Knob("dimension 0", -1.0, 1.0, 0.5).reaching(1.7)
            Knob(label='dimension 0', low=-1.0, high=2.0, step=0.5)
        """
        below, above = max(self.low - value, 0.0), max(value - self.high, 0.0)
        low, high = (math.ceil(distance / self.step) * self.step for distance in (below, above))
        return Knob(self.label, self.rounded(self.low - low), self.rounded(self.high + high), self.step)

    def rounded(self, value: float) -> float:
        """Return a value with as many decimal places as the step."""
        return round(value, _digits(self.step))


class Knobs:
    """The knobs of a latent space, those that tell most about the data first.

    They are ordered by the variance over the data of the posterior means, and reach three standard deviations of the
    aggregate posterior to either side of its mean. What a knob is depends on the space:

    - real numbers, or numbers in an interval: a knob for each dimension, within the interval;
    - counts: a knob of whole numbers for each dimension;
    - points of a sphere: a knob for each coordinate; all of them together are brought to length 1;
    - one-hot groups: a knob for each variable, whose value is the number of the category.

    Arguments:
        space: `"counts"`, `"sphere"`, `"one-hot"`, `"interval"` or anything else, as a posterior's `support` says.
        prior: p(z), `batch_shape ()`, `event_shape (D,)`.
        aggregate: The moments of the aggregate posterior.

    Examples:
        >>> prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
        >>> aggregate = Aggregate(torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.9]), torch.tensor([0.9, 0.1]), 10)
        >>> knobs = Knobs("real", prior, aggregate)
        >>> [knob.label for knob in knobs.each], knobs.latent([2.0, -1.0])
        (['dimension 1', 'dimension 0'], tensor([[-1.,  2.]]))
    """

    def __init__(self, space: str, prior: Distribution, aggregate: Aggregate) -> None:
        self.space = space
        self.categories = int(getattr(prior, "categories", 0)) if space == "one-hot" else 0
        activity = aggregate.variance_of_means.cpu()
        if self.categories:
            activity = activity.view(-1, self.categories).sum(-1)
        self.order = activity.nan_to_num().argsort(descending=True, stable=True)
        self.each = tuple(self._knob(int(number), prior, aggregate) for number in self.order)

    def __len__(self) -> int:
        return len(self.each)

    def _knob(self, number: int, prior: Distribution, aggregate: Aggregate) -> Knob:
        if self.categories:
            return Knob(f"variable {number}", 0, self.categories - 1, 1)
        label = f"dimension {number}"
        if self.space == "sphere":
            return Knob(label, -1.0, 1.0, 2.0 / _STEPS)
        mean, spread = float(aggregate.mean[number]), 3.0 * float(aggregate.variance[number]) ** 0.5
        if self.space == "counts":
            return Knob(label, 0, max(math.ceil(mean + spread), 1), 1)
        if not (math.isfinite(spread) and spread > 0.0):
            mean, spread = 0.0, 3.0
        low, high = mean - spread, mean + spread
        ends = bounds(prior)
        if ends is not None and self.space == "interval":
            least, most = (float(end.expand(prior.event_shape)[number]) for end in ends)
            low, high = max(low, least), min(high, most)
        # Rounded to a short step, so that a slider does not show a row of digits.
        step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / _STEPS))
        digits = _digits(step)
        return Knob(label, round(low, digits), round(high, digits), round(step, digits))

    def latent(self, values: Sequence[float]) -> Tensor:
        """Return the latent (1, D) that the values of all knobs, in their order, stand for."""
        given = torch.tensor([float(value) for value in values])
        z = torch.empty_like(given)
        z[self.order] = given
        if self.categories:
            chosen = z.round().long().clamp(0, self.categories - 1)
            z = torch.nn.functional.one_hot(chosen, self.categories).float().flatten()
        elif self.space == "counts":
            z = z.round().clamp_min(0.0)
        elif self.space == "sphere":
            z = torch.nn.functional.normalize(z, dim=-1)
        return z.unsqueeze(0)

    def values(self, z: Tensor) -> list[float]:
        """Return the values of all knobs, in their order, at a latent (1, D)."""
        z = z.detach().cpu().float().flatten()
        if self.categories:
            z = z.view(-1, self.categories).argmax(-1).float()
        elif self.space == "counts":
            z = z.round()
        chosen: list[float] = z[self.order].tolist()
        return chosen


def _digits(step: float) -> int:
    """Return how many decimal places a number needs that is a multiple of a step."""
    return max(math.ceil(-math.log10(step)), 0)
