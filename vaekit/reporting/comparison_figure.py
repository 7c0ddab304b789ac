"""A comparison as a picture: a panel for each figure, a line for each configuration."""

from __future__ import annotations

import math
import textwrap
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vaekit.errors import VaekitError
from vaekit.reporting.canvas import COLOURS, INK, PAPER, new_figure, save_figure, style
from vaekit.reporting.comparison import Comparison
from vaekit.reporting.comparison_tables import Sheet, sheets
from vaekit.reporting.wording import number

__all__ = ["draw_comparison"]

_WIDE = 3  # Panels beside each other.
_LETTERS = 30  # Characters of a row's name on one line.
_TITLE = 28  # Characters of a title on one line.
_LEGEND = "Filled: mean over seeds with its 95 % confidence interval, seeds as ticks. Hollow: one seed."


def draw_comparison(comparison: Comparison, *, format: Literal["png", "svg"] = "png", dark: bool = False) -> bytes:
    """Draw the figures as dots with their intervals, and return the picture.

    A filled dot is a mean over seeds, with its 95 % confidence interval as a line and the seeds as ticks; a hollow one
    is a figure of one seed. Every panel holds one figure under one protocol and has a scale of its own; the protocols
    stand below.

    Arguments:
        comparison: The comparison.
        format: `"png"` or `"svg"`.
        dark: Whether it will stand on a dark ground.

    Raises:
        VaekitError: No figure is finite.
    """
    bands: list[tuple[Sheet, list[str], list[int]]] = []
    stale = any(cell.stale for row in comparison.rows for cell in row.cells.values())
    below = [f"{_LEGEND}{' †: the weights have changed since.' if stale else ''}"]
    for sheet in sheets(comparison):
        below += sheet.protocols
        drawn = [index for index in range(len(sheet.heads)) if _finite(sheet, index)]
        names = [textwrap.fill(name, _LETTERS) for name in sheet.names]
        bands += [(sheet, names, drawn[start : start + _WIDE]) for start in range(0, len(drawn), _WIDE)]
    if not bands:
        raise VaekitError("there is nothing to draw: no figure is finite")
    wide = max(len(drawn) for _, _, drawn in bands)
    longest = max(len(line) for _, names, _ in bands for name in names for line in name.split("\n"))
    width = 0.085 * longest + 2.9 * wide
    below = [line for text in below for line in textwrap.wrap(text, int(16 * width))]
    heights = [
        0.6
        + 0.18 * max(len(_title(sheet, index)) for index in drawn)
        + sum(0.16 + 0.16 * len(name.split("\n")) for name in names)
        for sheet, names, drawn in bands
    ]
    figure = new_figure(width, sum(heights) + 0.13 * len(below), dark)
    grid = figure.add_gridspec(len(bands), wide, height_ratios=heights)
    for band, (sheet, names, drawn) in enumerate(bands):
        for place, index in enumerate(drawn):
            axes = figure.add_subplot(grid[band, place])
            _draw(axes, sheet, index, dark)
            axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names))
    figure.supxlabel(
        "\n".join(below), x=0.01, ha="left", fontsize=7, color=INK[dark], linespacing=1.35, parse_math=False
    )
    return save_figure(figure, format)


def _finite(sheet: Sheet, index: int) -> bool:
    key = sheet.comparison.columns[index].key
    return any(key in row.cells and math.isfinite(row.cells[key].mean) for row in sheet.comparison.rows)


def _title(sheet: Sheet, index: int) -> list[str]:
    metric, *words, _ = sheet.heads[index]
    return [line for text in (f"{metric} on {sheet.data}", *words) for line in textwrap.wrap(text, _TITLE)]


def _draw(axes: Axes, sheet: Sheet, index: int, dark: bool) -> None:
    """Draw one figure."""
    column = sheet.comparison.columns[index]
    style(axes, dark, "\n".join(_title(sheet, index)), x=f"protocol {sheet.heads[index][-1]}")
    colour, rows = COLOURS[dark][0], sheet.comparison.rows
    for place, row in enumerate(rows):
        cell = row.cells.get(column.key)
        if cell is None or not math.isfinite(cell.mean):
            continue
        half = cell.half_width
        if half is not None:
            axes.plot([cell.mean - half, cell.mean + half], [place, place], color=colour, linewidth=1.8)
            axes.plot(
                list(cell.values.values()), [place] * cell.n, "|", color=INK[dark], markersize=9, markeredgewidth=0.9
            )
        face = PAPER[dark] if half is None else colour
        axes.plot(cell.mean, place, "o", color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.5)
        if cell.stale:
            axes.annotate("†", (cell.mean, place), (0, 5), textcoords="offset points", color=INK[dark])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.grid(axis="x", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
