"""Progress in the terminal: a bar where there is one, plain lines where there is not."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich import progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

from vaekit.reporting.wording import duration, number
from vaekit.training.listeners import Listener, Plan

__all__ = ["Progress", "decode_progress"]

_REFRESH = 0.1  # Seconds between drawings of a bar.
_SPARSE = 30.0  # Seconds between plain lines about training.


class Progress(Listener):
    """Shows a run as it trains: what it is, a bar, and a line for every validated epoch.

    Where the console is not a terminal (a pipe, a batch job's log, a notebook) it writes plain lines: one for every
    validated epoch, and one about training every 30 seconds.

    Arguments:
        console: Where to write; standard error if not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)
        self._drawn = self._said = -math.inf
        self._step = 0

    def on_start(self, plan: Plan) -> None:
        """Write the header and show the bar."""
        self._plan, self._step = plan, plan.first_step
        self._began = time.perf_counter()
        parameters = ", ".join(f"{name} {count:,}" for name, count in plan.parameters.items())
        self._say(f"minimising the {plan.label} on {plan.device}; trainable parameters: {parameters}")
        where = f", going on from step {plan.first_step:,}" if plan.first_step else ""
        self._say(f"{_plural(self._epochs, 'epoch')} of {_plural(plan.steps_per_epoch, 'step')}{where}")
        for note in plan.notes:
            self._say(f"note: {note}")
        if not self.console.is_interactive:
            return
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            bars.TextColumn("{task.percentage:>3.0f}%"),
            bars.TextColumn("{task.fields[losses]}", markup=False),
            bars.TextColumn("{task.fields[speed]}"),
            bars.TimeRemainingColumn(compact=True),
            console=self.console,
            auto_refresh=False,
            expand=True,
            transient=True,
            # What a user's code prints goes above the bar; what goes to a file stays in the file.
            redirect_stdout=_is_terminal(sys.stdout),
            redirect_stderr=_is_terminal(sys.stderr),
        )
        self._task = self._bar.add_task(
            self._epoch_of(plan.first_step), total=plan.steps, completed=plan.first_step, losses="", speed=""
        )
        self._bar.start()
        self._bar.refresh()

    def on_step(self, step: int) -> None:
        """Move the bar, ten times a second at most."""
        self._step = step
        if self._bar is None:
            return
        now = time.perf_counter()
        if now - self._drawn < _REFRESH and step < self._plan.steps:
            return
        self._drawn = now
        speed = self._bar.tasks[0].speed or self._rate(now)
        self._bar.update(
            self._task, completed=step, description=self._epoch_of(step), speed=f"{number(_round(speed))} steps/s"
        )
        self._bar.refresh()

    def on_metrics(self, line: dict[str, Any]) -> None:
        """Put the training losses beside the bar; write a line for every validation."""
        losses = f"{number(line['loss'], padded=True)} nats"
        if "bits_per_dim" in line:
            losses += f"  {line['bits_per_dim']:.3f} bits/dim"
        if line["split"] != "train":
            named = ("split", "step", "epoch", "loss", "bits_per_dim")
            terms = "".join(
                f"  {name} {number(value, padded=True)}" for name, value in line.items() if name not in named
            )
            epoch = f"epoch {line['epoch'] + 1}/{self._epochs}"
            self._say(f"{epoch}  {line['split']} {self._plan.label} {losses}{terms}")
        elif self._bar is not None:
            self._bar.update(self._task, losses=losses)
        elif (now := time.perf_counter()) - self._said >= _SPARSE:
            self._said = now
            step, rate = line["step"], self._rate(now, line["step"])
            left = duration((self._plan.steps - step) / rate) if rate else "?"
            self._say(
                f"{self._epoch_of(step)}  step {step}/{self._plan.steps}  train {losses}  "
                f"{number(_round(rate))} steps/s  {left} left"
            )

    def on_note(self, note: str) -> None:
        """Write it."""
        self._say(f"note: {note}")

    def on_finish(self) -> None:
        """Take the bar away and say how far training came."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        seconds = duration(time.perf_counter() - self._began)
        self._say(f"{_plural(self._step - self._plan.first_step, 'step')} in {seconds}, at step {self._step:,}")

    @property
    def _epochs(self) -> int:
        return math.ceil(self._plan.steps / self._plan.steps_per_epoch)

    def _epoch_of(self, step: int) -> str:
        return f"epoch {max(step - 1, 0) // self._plan.steps_per_epoch + 1}/{self._epochs}"

    def _rate(self, now: float, step: int | None = None) -> float:
        return ((self._step if step is None else step) - self._plan.first_step) / max(now - self._began, 1e-9)

    def _say(self, text: str) -> None:
        # Names and notes are not markup, and a log's lines are not to be broken at 80 columns.
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def decode_progress(console: Console | None = None) -> Callable[[int, int, str], None]:
    """Return a callback `(done, total, what)` that shows how far decoding is: the `progress` of `vaekit.data.load`.

    Arguments:
        console: Where to write; standard error if not given.

    Examples:
        >>> import io
        >>> report = decode_progress(Console(file=io.StringIO()))
        >>> report(10, 10, "decoding celeba")
    """
    console = console or Console(stderr=True)
    said: dict[str, float] = {}

    def report(done: int, total: int, what: str) -> None:
        now = time.perf_counter()
        pause = _REFRESH if console.is_interactive else _SPARSE
        if done < total and now - said.get(what, -math.inf) < pause:
            return
        said[what] = now
        counted = f"{what}  {done:,} of {total:,}"
        if not console.is_interactive:
            console.print(counted, markup=False, highlight=False, soft_wrap=True)
            return
        filled = round(30 * done / max(total, 1))
        mark = "-" if console.options.ascii_only else "━"
        line = Text.assemble((mark * filled, "bar.complete"), (mark * (30 - filled), "bar.back"), f"  {counted}")
        # A line that ends in a carriage return, and no live display: if decoding fails, nothing is left to put right.
        console.print(line, end="\n" if done >= total else "\r", no_wrap=True, overflow="crop")

    return report


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _round(rate: float) -> float:
    """Keep three digits of a rate: more would only flicker."""
    return float(f"{rate:.3g}")
