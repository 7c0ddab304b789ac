"""Schedules: any scalar option may be a number or a function of the step.

In a recipe a schedule is a mapping: `weight: {name: linear, start: 0.0, end: 1.0, steps: 1000}`.
Steps count optimiser updates from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from vaekit.errors import VaekitError
from vaekit.registry import schedules

__all__ = ["Scalar", "Schedule", "as_schedule", "constant", "cosine", "cyclic", "linear", "step"]

Schedule: TypeAlias = Callable[[int], float]
Scalar: TypeAlias = float | Mapping[str, Any] | Schedule


def as_schedule(value: Scalar) -> Schedule:
    """Turn a number, a mapping with `name` or a function of the step into a function of the step.

    Examples:
        >>> as_schedule({"name": "linear", "start": 0.0, "end": 2.0, "steps": 4})(1)
        0.5
        >>> as_schedule(3)(1000)
        3.0
    """
    if callable(value):
        return value
    if isinstance(value, Mapping):
        return schedules.build(value)
    return constant(value=float(value))


def _positive(steps: int, name: str) -> None:
    if steps < 1:
        raise VaekitError(f"{name} schedule: steps must be 1 or more, not {steps}")


class _Described:
    """A schedule with a readable repr."""

    def __init__(self, text: str, function: Schedule) -> None:
        self._text, self._function = text, function

    def __call__(self, step: int) -> float:
        return self._function(step)

    def __repr__(self) -> str:
        return self._text


@schedules.register("constant", about="The same value at every step")
def constant(*, value: float) -> Schedule:
    """Return the schedule that is always `value`.

    Arguments:
        value: The value.
    """
    return _Described(f"{value:g}", lambda step: value)


@schedules.register("linear", about="A straight line from start to end over so many steps, then end")
def linear(*, start: float = 0.0, end: float = 1.0, steps: int, delay: int = 0) -> Schedule:
    """Return a straight line from `start` to `end` over `steps` steps, beginning at step `delay`; `end` afterwards.

    Arguments:
        start: The value at first.
        end: The value at last.
        steps: Steps from one to the other.
        delay: Steps before it begins.

    Raises:
        VaekitError: `steps` is below 1.
    """
    _positive(steps, "linear")
    return _Described(
        f"linear({start:g} -> {end:g} in {steps})",
        lambda step: start + (end - start) * min(max((step - delay) / steps, 0.0), 1.0),
    )


@schedules.register("cosine", about="Half a cosine from start to end over so many steps, then end")
def cosine(*, start: float = 1.0, end: float = 0.0, steps: int, delay: int = 0) -> Schedule:
    """Return half a cosine period from `start` to `end` over `steps` steps, beginning at step `delay`.

    Arguments:
        start: The value at first.
        end: The value at last.
        steps: Steps from one to the other.
        delay: Steps before it begins.

    Raises:
        VaekitError: `steps` is below 1.
    """
    _positive(steps, "cosine")

    def value(step: int) -> float:
        progress = min(max((step - delay) / steps, 0.0), 1.0)
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return _Described(f"cosine({start:g} -> {end:g} in {steps})", value)


@schedules.register(
    "cyclic",
    about="Repeated linear ramps from start to end, each followed by a plateau",
    source="Fu et al., Cyclical Annealing Schedule, 2019, arXiv 1903.10145",
)
def cyclic(*, start: float = 0.0, end: float = 1.0, period: int, ramp: float = 0.5) -> Schedule:
    """Return a ramp from `start` to `end` over the share `ramp` of each `period`, then `end` until the next period.

    Source: Fu et al., Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing, 2019,
    arXiv 1903.10145.

    Arguments:
        start: The value at which each period begins.
        end: The value of the plateau.
        period: Steps from one ramp to the next.
        ramp: The share of a period that the ramp takes.

    Raises:
        VaekitError: `period` is below 1, or `ramp` not within (0, 1].
    """
    _positive(period, "cyclic")
    if not 0.0 < ramp <= 1.0:
        raise VaekitError(f"cyclic schedule: ramp must be above 0 and at most 1, not {ramp:g}")
    return _Described(
        f"cyclic({start:g} -> {end:g} every {period})",
        lambda step: start + (end - start) * min((step % period) / (ramp * period), 1.0),
    )


@schedules.register("step", about="start, multiplied by factor at each milestone")
def step(*, start: float = 1.0, factor: float = 0.1, milestones: list[int]) -> Schedule:
    """Return `start * factor ** (number of milestones reached)`.

    Arguments:
        start: The value before the first milestone.
        factor: What each milestone multiplies it by.
        milestones: The steps at which it does.
    """
    return _Described(
        f"step({start:g} x {factor:g} at {milestones})",
        lambda now: start * factor ** sum(now >= milestone for milestone in milestones),
    )
