"""Drawings of the units of a latent: bars in order of activity, and histograms beside the prior."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from vaekit.reporting.canvas import COLOURS, INK, new_figure, save_figure, style
from vaekit.reporting.wording import number

__all__ = ["draw_histogram", "draw_units"]

_NAMED = 20  # More units than this are not named below the bars.


def draw_units(
    values: Sequence[float],
    order: Sequence[int],
    dead: Collection[int] | None = None,
    *,
    title: str,
    unit: str = "",
    threshold: float | None = None,
    dark: bool = False,
) -> bytes:
    """Draw one bar for each unit, an SVG; dead units are hatched and crossed, however small their bars are.

    Arguments:
        values: A figure for each unit.
        order: The units in the order of their bars.
        dead: The units that are dead; `None` where that is not known.
        title: What is drawn.
        unit: Its unit.
        threshold: A line to draw, below which a unit is dead; the scale is then logarithmic.
        dark: Whether it will stand on a dark ground.

    Examples:
        >>> draw_units([0.0, 2.0], [1, 0], [0], title="KL")[:5]
        b'<?xml'
    """
    figure = new_figure(4.4, 2.9, dark)
    axes = figure.add_subplot()
    style(axes, dark, title, "unit", unit)
    heights = np.array([values[each] for each in order], dtype=np.float64)
    places = np.arange(len(order))
    if threshold is not None:
        least = min(threshold / 100, max(heights[heights > 0].min(initial=threshold) / 2, threshold / 1e6))
        heights = np.maximum(heights, least)
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhline(threshold, color=INK[dark], linewidth=1.2, linestyle="--", label=f"threshold {threshold:g}")
    lost = np.array([each in (dead or ()) for each in order], dtype=bool)
    live, gone, *_ = COLOURS[dark]
    if not lost.all():
        axes.bar(places[~lost], heights[~lost], color=live, label=f"active: {(~lost).sum()}")
    if lost.any():
        axes.bar(places[lost], heights[lost], color=gone, hatch="///", linewidth=0, label=f"dead: {lost.sum()}")
        axes.plot(places[lost], heights[lost], "x", color=gone, markersize=6 if len(order) <= 64 else 3, clip_on=False)
    # Room for the legend above the bars.
    # A KL of one draw may come out below zero.
    bottom, top = (
        (min(0.0, heights.min()), heights.max()) if threshold is None else (least, max(heights.max(), threshold))
    )
    axes.set_ylim(bottom, top * (1.35 if threshold is None else (top / bottom) ** 0.4) or 1.0)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    if len(order) <= _NAMED:
        axes.set_xticks(places, [str(each) for each in order])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("rank", fontsize=9, color=INK[dark])
    if dead is not None:
        axes.legend(loc="upper right", frameon=False, fontsize=8.5, labelcolor=INK[dark])
    return save_figure(figure, "svg")


def draw_histogram(kept: Mapping[str, Any], *, dark: bool = False) -> bytes:
    """Draw a histogram of one unit of the aggregate posterior with the prior as a line over it, an SVG.

    Arguments:
        kept: What `vaekit.reporting.units.histogram` gave.
        dark: Whether it will stand on a dark ground.
    """
    figure = new_figure(2.9, 2.1, dark)
    axes = figure.add_subplot()
    style(axes, dark, f"z[{kept['unit']}]")
    bars, line, *_ = COLOURS[dark]
    axes.bar(kept["centres"], kept["aggregate"], kept["width"], color=bars, alpha=0.75, linewidth=0)
    axes.plot(kept["points"], kept["prior"], color=line, linewidth=1.8, marker="o" if kept["discrete"] else "", ms=3)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=kept["discrete"]))
    return save_figure(figure, "svg")
