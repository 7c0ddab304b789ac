"""Drawings of a sweep: score by trial, score by option, and how much each option matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from vaekit.reporting.canvas import COLOURS, INK, new_figure, save_figure, style
from vaekit.reporting.wording import number
from vaekit.sweeping.result import Sweep, Trial
from vaekit.sweeping.space import Choices, Option

__all__ = ["draw_history", "draw_importance", "draw_slice"]

_LETTERS = 14  # Characters of a choice below an axis.


def draw_history(found: Sweep, *, dark: bool = False) -> bytes:
    """Draw the score of every trial by its number, with the best so far as a line, an SVG.

    Arguments:
        found: The sweep, with one complete trial or more.
        dark: Whether it will stand on a dark ground.
    """
    figure = new_figure(6.6, 2.9, dark)
    axes = figure.add_subplot()
    style(axes, dark, found.definition.judge, "trial")
    _dots(axes, found, [(trial, trial.number) for trial in found.trials], dark)
    better = max if found.definition.direction == "higher" else min
    complete = found.of("complete")
    best = [better(trial.score for trial in complete[: index + 1]) for index in range(len(complete))]
    axes.plot(
        [trial.number for trial in complete], best, drawstyle="steps-post", color=COLOURS[dark][1], linewidth=1.9,
        label="best so far", zorder=1,
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.legend(loc="best", frameon=False, fontsize=8.5, labelcolor=INK[dark], handlelength=1.6)
    return save_figure(figure, "svg")


def draw_slice(found: Sweep, option: Option, *, dark: bool = False) -> bytes:
    """Draw the score of every trial by the value of one option, an SVG.

    Arguments:
        found: The sweep, with one complete trial or more.
        option: The option.
        dark: Whether it will stand on a dark ground.
    """
    figure = new_figure(4.4, 2.9, dark)
    axes = figure.add_subplot()
    style(axes, dark, option.key, "", found.definition.judge)
    if isinstance(option, Choices):
        texts = list(option.values)
        places: dict[str, Any] = {text: place for place, text in enumerate(texts)}
        by_value = [(trial, places[_text(option, trial)]) for trial in found.trials if option.key in trial.values]
        shown = [text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…" for text in texts]
        axes.set_xticks(range(len(texts)), shown)
        axes.set_xlim(-0.5, len(texts) - 0.5)
    else:
        by_value = [(trial, trial.values[option.key]) for trial in found.trials if option.key in trial.values]
        if option.log:
            axes.set_xscale("log")
            if option.high / option.low >= 100:
                axes.xaxis.set_minor_formatter(NullFormatter())
            else:
                axes.xaxis.set_minor_formatter(_numbers())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=option.whole))
        axes.xaxis.set_major_formatter(_numbers())
    _dots(axes, found, by_value, dark)
    return save_figure(figure, "svg")


def draw_importance(shares: Mapping[str, float], *, dark: bool = False) -> bytes:
    """Draw the share of each option in the variance of the score as bars, an SVG.

    Arguments:
        shares: Option to share.
        dark: Whether it will stand on a dark ground.
    """
    figure = new_figure(6.6, 0.9 + 0.36 * len(shares), dark)
    axes = figure.add_subplot()
    style(axes, dark, "importance", "share of the variance of the score")
    names = sorted(shares, key=lambda name: shares[name])
    axes.barh(names, [shares[name] for name in names], color=COLOURS[dark][0], height=0.6)
    for place, name in enumerate(names):
        axes.text(shares[name] + 0.01, place, f"{shares[name]:.0%}", va="center", fontsize=9, color=INK[dark])
    axes.set_xlim(0.0, 1.08)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    return save_figure(figure, "svg")


def _numbers() -> FuncFormatter:
    return FuncFormatter(lambda value, _: number(value))


def _text(option: Choices, trial: Trial) -> str:
    """Return the text of the choice of a trial."""
    return next(text for text, value in option.values.items() if value == trial.values[option.key])


def _dots(axes: Axes, found: Sweep, places: Sequence[tuple[Trial, float]], dark: bool) -> None:
    """Draw a dot for every complete trial, a cross for every pruned one, and a ring around the best one."""
    dot, cross, *_ = COLOURS[dark]
    scores = [trial.score for trial, _ in places if trial.state == "complete"]
    low, high = min(scores), max(scores)
    for state, marker, colour in (("complete", "o", dot), ("pruned", "x", cross)):
        # Pruned trials may be far off: they stand at the edge then, so that the others can be told apart.
        drawn = [(place, min(max(trial.score, low), high)) for trial, place in places if trial.state == state]
        if drawn:
            axes.plot(*zip(*drawn, strict=True), marker, color=colour, markersize=5, alpha=0.8, label=state)
    best = found.best
    ring = [(place, trial.score) for trial, place in places if best is not None and trial.number == best.number]
    axes.plot(*zip(*ring, strict=True), "o", color=INK[dark], markersize=10, fillstyle="none", label="best")
    axes.margins(y=0.1)
    if low > 0 and high / low > 30:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(_numbers())
