"""The live line of a sweep."""

from __future__ import annotations

from rich import progress as bars
from rich.console import Console
from rich.table import Column

from vaekit.reporting.wording import duration, number
from vaekit.sweeping import Sweep, Trial, Watcher
from vaekit.training.listeners import Plan

__all__ = ["SweepProgress"]


class SweepProgress(Watcher):
    """Writes a line for every trial that has ended; in a terminal, also a bar for the run that is trained.

    Arguments:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)
        self._line = ""

    def on_trial(self, trial: Trial, found: Sweep) -> None:
        """Keep what the bar says."""
        self._line = f"trial {trial.number} of {found.definition.trials}  {trial.describe()}"

    def on_start(self, plan: Plan) -> None:
        """Show a bar for a run."""
        if self.console.is_interactive:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}", markup=False, table_column=Column(ratio=2, no_wrap=True)),
                bars.BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
                bars.TextColumn("{task.percentage:>3.0f}%"),
                console=self.console,
                refresh_per_second=4,
                expand=True,
                transient=True,
            )
            self._task = self._bar.add_task(self._line, total=plan.steps, completed=plan.first_step)
            self._bar.start()

    def on_step(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def on_finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_result(self, trial: Trial, found: Sweep) -> None:
        """Write a line about a trial that has ended."""
        what = trial.error if trial.state == "failed" else number(trial.score, padded=True)
        mark = "  best so far" if found.best is not None and found.best.number == trial.number else ""
        state = "" if trial.state == "complete" else f"{trial.state}: "
        line = f"{self._line}  {state}{what}  {duration(trial.seconds)}{mark}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
