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

__all__ = [
    "Scalar",
    "Schedule",
    "as_schedule",
    "constant",
    "cosine",
    "cyclic",
    "exponential",
    "linear",
    "step",
    "with_steps",
]

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


def _length(steps: int | None, portion: float | None, name: str) -> Callable[[], int]:
    """Return what gives a ramp's length in steps; a share of a run that was never filled in has none."""
    if (steps is None) == (portion is None):
        raise VaekitError(f"{name} schedule: give either steps or portion, a share of the run's steps")
    if portion is not None and not 0.0 < portion <= 1.0:
        raise VaekitError(f"{name} schedule: portion must be above 0 and at most 1, not {portion:g}")
    if steps is not None:
        _positive(steps, name)

    def length() -> int:
        if steps is None:
            raise VaekitError(f"{name} schedule: 'portion' is for runs from recipes; give 'steps' here")
        return steps

    return length


def _written(steps: int | None, portion: float | None) -> str:
    return f"{steps}" if portion is None else f"{100 * portion:g} %"


def with_steps(options: Any, total: int) -> Any:
    """Return options in which every schedule's `portion` has become `steps`, of a run of `total` steps.

    Raises:
        VaekitError: A portion is not within (0, 1], or stands beside `steps`.

    Examples:
        >>> with_steps({"weight": {"name": "linear", "portion": 0.5}}, 300)
        {'weight': {'name': 'linear', 'steps': 150}}
    """
    if isinstance(options, Mapping):
        done = {key: with_steps(value, total) for key, value in options.items()}
        if done.get("name") in schedules.names() and done.get("portion") is not None:
            schedules.build(done)  # What is wrong with it is said here.
            done["steps"] = max(1, round(done.pop("portion") * total))
        return done
    return options


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
def linear(
    *, start: float = 0.0, end: float = 1.0, steps: int | None = None, portion: float | None = None, delay: int = 0
) -> Schedule:
    """Return a straight line from `start` to `end` over `steps` steps, beginning at step `delay`; `end` afterwards.

    Arguments:
        start: The value at first.
        end: The value at last.
        steps: Steps from one to the other.
        portion: The share of a run's steps from one to the other, instead of `steps`; in recipes, where a run fills in
            the number.
        delay: Steps before it begins.

    Raises:
        VaekitError: `steps` is below 1, `portion` not within (0, 1], or not exactly one of them is given.
    """
    length = _length(steps, portion, "linear")
    return _Described(
        f"linear({start:g} -> {end:g} in {_written(steps, portion)})",
        lambda step: start + (end - start) * min(max((step - delay) / length(), 0.0), 1.0),
    )


@schedules.register("cosine", about="Half a cosine from start to end over so many steps, then end; with a warm-up")
def cosine(
    *,
    start: float = 1.0,
    end: float = 0.0,
    steps: int | None = None,
    portion: float | None = None,
    delay: int = 0,
    warmup: int = 0,
) -> Schedule:
    """Return half a cosine period from `start` to `end` over `steps` steps, beginning at step `delay`.

    Arguments:
        start: The value at first.
        end: The value at last.
        steps: Steps from one to the other.
        portion: The share of a run's steps from one to the other, instead of `steps`; in recipes, where a run fills in
            the number.
        delay: Steps before it begins.
        warmup: Steps over which the value first rises from 0 in a straight line: a factor on all of the above.

    Raises:
        VaekitError: `steps` is below 1, `portion` not within (0, 1], or not exactly one of them is given.
    """
    length = _length(steps, portion, "cosine")

    def value(step: int) -> float:
        progress = min(max((step - delay) / length(), 0.0), 1.0)
        rise = min((step + 1) / warmup, 1.0) if warmup > 0 else 1.0
        return rise * (end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress)))

    return _Described(f"cosine({start:g} -> {end:g} in {_written(steps, portion)})", value)


@schedules.register("exponential", about="Equal factors from start to end over so many steps, then end")
def exponential(
    *, start: float = 1.0, end: float = 0.0, steps: int | None = None, portion: float | None = None, delay: int = 0
) -> Schedule:
    """Return a straight line of the logarithm from `start` to `end` over `steps` steps, beginning at step `delay`.

    Both ends are shifted by 1e-10, so that one of them may be 0: from 1 to 0 the value halves every 3 % of the way.

    Arguments:
        start: The value at first, 0 or more.
        end: The value at last, 0 or more.
        steps: Steps from one to the other.
        portion: The share of a run's steps from one to the other, instead of `steps`; in recipes, where a run fills in
            the number.
        delay: Steps before it begins.

    Raises:
        VaekitError: An end is negative, `steps` is below 1, `portion` not within (0, 1], or not exactly one of them is
            given.
    """
    if start < 0.0 or end < 0.0:
        raise VaekitError(f"exponential schedule: start and end must be 0 or more, not {start:g} and {end:g}")
    length = _length(steps, portion, "exponential")
    shift = 1e-10

    def value(step: int) -> float:
        progress = min(max((step - delay) / length(), 0.0), 1.0)
        if progress == 1.0:
            return end
        return (start + shift) * ((end + shift) / (start + shift)) ** progress - shift

    return _Described(f"exponential({start:g} -> {end:g} in {_written(steps, portion)})", value)


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
