"""Curves of training as small multiples, drawn without matplotlib's global state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from vaekit.errors import VaekitError
from vaekit.reporting.canvas import COLOURS, INK, new_figure, save_figure, style
from vaekit.reporting.wording import number, title_of, unit_of

__all__ = ["Panel", "draw_curves", "panels_of"]

_SPLITS = {"train": "training", "valid": "validation"}
# Terms that are read against each other share a panel: title, then the terms with their names in the legend.
_TOGETHER = {
    "adversarial losses": {"generator": "generator", "discriminator": "discriminator"},
    "logits": {"logits_real": "of data", "logits_fake": "of reconstructions"},
    "gradient norms": {"vae_gradient_norm": "VAE", "discriminator_gradient_norm": "discriminator"},
}
_FIRST = ("loss", "bits_per_dim", "reconstruction")
_DASHES: tuple[Any, ...] = ("--", (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_POINTS = 400  # More than this no screen can show; above it, neighbours are averaged.
_LARGEST = 1e30  # Larger values overflow inside matplotlib's transforms.


@dataclass(frozen=True)
class Panel:
    """One panel of curves.

    Arguments:
        title: What is drawn.
        unit: Its unit, or an empty string.
        series: Legend to steps and values, one or more, all of which can be drawn.
    """

    title: str
    unit: str
    series: dict[str, tuple[list[float], list[float]]]

    def describe(self) -> str:
        """Say in words what the panel shows."""
        parts = [
            f"{name} from {number(values[0])} at step {steps[0]:.0f} to {number(values[-1])} at step {steps[-1]:.0f}"
            for name, (steps, values) in self.series.items()
        ]
        unit = f" in {self.unit}" if self.unit else ""
        return f"Curve of {self.title}{unit}: {'; '.join(parts)}."


def panels_of(lines: Iterable[Mapping[str, Any]], label: str = "loss", regularizers: Sequence[str] = ()) -> list[Panel]:
    """Sort lines of metrics into panels: the loss, bits per dimension, the terms, and the adversary's if it is there.

    Values that cannot be drawn are left out, and panels without any other.

    Arguments:
        lines: Lines of metrics.jsonl.
        label: What the loss is called.
        regularizers: The names of the regularizers, whose unit is nats per sample.
    """
    values: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        for term, value in line.items():
            if term not in ("step", "epoch") and isinstance(value, int | float) and not isinstance(value, bool):
                of_split = values.setdefault(term, {}).setdefault(line["split"], [])
                of_split.append((line["step"], value))
    terms = [*(term for term in _FIRST if term in values), *(term for term in values if term not in _FIRST)]
    grouped = {term: group for group, members in _TOGETHER.items() for term in members}
    plans: dict[str, tuple[str, dict[str, list[tuple[float, float]]]]] = {}
    for term in terms:
        if term in grouped:
            _, series = plans.setdefault(grouped[term], ("", {}))
            name = _TOGETHER[grouped[term]][term]
            series |= {
                name if split == "train" else f"{name}, {split}": points for split, points in values[term].items()
            }
        else:
            series = {_SPLITS.get(split, split): points for split, points in values[term].items()}
            plans[label if term == "loss" else title_of(term)] = (unit_of(term, regularizers), series)
    panels = []
    for title, (unit, series) in plans.items():
        kept = {name: [point for point in points if drawable(point[1])] for name, points in series.items()}
        drawn = {name: ([s for s, _ in points], [v for _, v in points]) for name, points in kept.items() if points}
        if drawn:
            panels.append(Panel(title, unit, drawn))
    return panels


def drawable(value: float) -> bool:
    """Whether a value is finite, and not so large that drawing it would overflow."""
    return abs(value) < _LARGEST


def draw_curves(
    panels: Sequence[Panel], *, columns: int = 3, format: Literal["png", "svg"] = "png", dark: bool = False
) -> bytes:
    """Draw panels as small multiples over the steps and return the picture.

    A panel has a logarithmic scale where its values are all positive and span a factor above 30.

    Arguments:
        panels: What to draw, from `panels_of`.
        columns: Panels in a row, at most.
        format: The picture's format.
        dark: Whether it will stand on a dark ground.

    Raises:
        VaekitError: There is nothing to draw.

    Examples:
        >>> lines = [{"split": "train", "step": step, "loss": 100.0 / step} for step in (1, 2, 3)]
        >>> draw_curves(panels_of(lines, "negative ELBO"))[1:4]
        b'PNG'
    """
    if not panels:
        raise VaekitError("there are no curves to draw: the metrics hold no finite values")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.4 * columns, 2.9 * rows, dark)
    for index, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, index + 1), panel, dark)
    return save_figure(figure, format)


def _draw(axes: Axes, panel: Panel, dark: bool) -> None:
    everything = [value for _, values in panel.series.values() for value in values]
    style(axes, dark, panel.title, "step", panel.unit)
    if min(everything) > 0 and max(everything) / min(everything) > 30:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    for index, (name, (steps, values)) in enumerate(panel.series.items()):
        x, y = _thin(steps), _thin(values)
        # Never by colour alone: every further series is dashed in its own way, or marked.
        later = index or int(name == "validation")
        drawn: dict[str, Any] = {"color": COLOURS[dark][later % len(COLOURS[dark])], "linewidth": 1.9 if later else 1.3}
        if name == "validation":
            drawn |= {"marker": "o", "markersize": 3.2, "markevery": max(1, len(x) // 12)}
        elif index:
            drawn |= {"linestyle": _DASHES[(index - 1) % len(_DASHES)]}
        if len(x) == 1:
            drawn |= {"marker": "o", "markersize": 5}
        axes.plot(x, y, label=name, **drawn)
    # Beside the title where there is room, else where the curves leave some.
    beside: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "ncols": 2}
    roomy = len(panel.title) + sum(map(len, panel.series)) <= 42 and len(panel.series) <= 2
    axes.legend(
        **beside if roomy else {"loc": "best"}, frameon=False, fontsize=8.5, labelcolor=INK[dark], borderaxespad=0.2,
        handlelength=1.6, columnspacing=1.0,
    )  # fmt: skip


def _thin(values: Sequence[float]) -> np.ndarray:
    """Average neighbours until a screen can show the rest."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) <= _POINTS:
        return array
    return np.array([part.mean() for part in np.array_split(array, _POINTS)])
