"""The page about where the time of a step goes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vaekit.reporting.canvas import COLOURS, new_figure, save_figure, style
from vaekit.reporting.page import escape, page, table, themed

if TYPE_CHECKING:
    from vaekit.training.profile import StepTimes

__all__ = ["profile_page"]

_WORDS = {
    "data": "waiting for a batch, gathering and scaling it",
    "moving average": "the moving average of the weights",
    "logging": "metrics, checkpoints between epochs and the progress bar",
}


def profile_page(times: StepTimes) -> str:
    """Return a self-contained page about the times of some steps.

    Arguments:
        times: What was measured.
    """
    parts = sorted(times.parts.items(), key=lambda item: -item[1])
    per_step = times.seconds / times.steps
    rows = [
        [name, f"{1000 * spent / times.steps:.3f}", f"{100 * times.share(name):.1f} %", _meaning(name)]
        for name, spent in parts
    ]
    on_gpu = "cpu" not in times.device
    busy = "the GPU computes" if on_gpu else "the processor's threads work"
    idle = f"{100 * (1 - times.busy):.0f} %"
    tiles = {
        "a step": f"{1000 * per_step:.2f} ms",
        "throughput": f"{times.batch_size / per_step:,.0f} samples/s",
        "data": f"{100 * times.share('data'):.1f} %",
        "idle": idle,
    }
    operations = [[name, f"{100 * share:.1f} %", f"{calls:.0f}"] for name, share, calls in times.operations]
    return page(
        "Where the time of a step goes",
        [
            "<h1>Where the time of a step goes</h1>",
            f'<p class="quiet">{times.steps} steps of {times.batch_size} samples on {escape(times.device)}, after the '
            "first few; validation and pictures are not counted.</p>",
            '<dl class="tiles">'
            + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())
            + "</dl>",
            themed(partial(_bars, times), "svg+xml", "Bars: milliseconds of a step by what they went to."),
            "<h2>Parts</h2>",
            table(["part", "ms per step", "share", "what it is"], rows, numbers=(1, 2)),
            "<h2>Costliest operations</h2>",
            f"<p>Of the steps that were traced (which slows them): {busy} for {100 * times.busy:.0f} % of their time, "
            f"and for {idle} they do not. Shares are of the time in operations. The whole trace is in "
            "<code>trace.json.gz</code> beside this page; "
            "chrome://tracing and ui.perfetto.dev show it.</p>",
            table(["operation", "share", "calls per step"], operations, numbers=(1, 2)),
        ],
    )


def _meaning(part: str) -> str:
    phase, _, what = part.rpartition(" ")
    meanings = {
        "forward": f"networks, terms and loss of the phase {phase}",
        "backward": f"gradients of the phase {phase}",
        "update": f"clipping and optimiser of the phase {phase}",
    }
    return _WORDS.get(part) or meanings.get(what, "")


def _bars(times: StepTimes, *, dark: bool = False) -> bytes:
    parts = list(times.parts.items())[::-1]
    figure = new_figure(8, 0.6 + 0.36 * len(parts), dark)
    axes = figure.add_subplot()
    style(axes, dark, x="milliseconds per step")
    axes.barh([name for name, _ in parts], [1000 * spent / times.steps for _, spent in parts], color=COLOURS[dark][0])
    return save_figure(figure, "svg")
