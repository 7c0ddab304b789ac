"""What a logger is told, and when: every line once, across resumes, whatever happens to the tracker."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vaekit.documents import parse_json, read_yaml
from vaekit.files import save_text
from vaekit.training.listeners import Listener, Plan
from vaekit.training.loggers import Logger

__all__ = ["Tracking"]


class Tracking(Listener):
    """Tells a logger about a run: its configuration, every line of metrics and every picture, each of them once.

    What was told is noted in the file `loggers/<name>` of the run directory, below what the tracker knows the run by. A
    resumed run goes on with the same run of the tracker: lines that are written a second time are not told a second
    time, and lines that were missed are told first.

    A tracker that fails costs the run nothing but its log: it is told nothing more until the run is resumed, and a note
    says so.

    Arguments:
        name: The logger's name.
        logger: The logger.
        out: The run directory.
        others: Who hears of a failure; there is a warning where none of them takes notes.
    """

    def __init__(self, name: str, logger: Logger, out: Path, others: Sequence[Listener] = ()) -> None:
        self._name, self._logger, self._out, self._others = name, logger, out, others
        self._told: dict[str, int] = {}  # What to the last step.
        self._working = False
        self._step = self._last = 0

    def on_start(self, plan: Plan) -> None:
        """Begin, or go on; tell what was missed."""
        self._step, self._last = plan.first_step, plan.steps
        self._working = True
        self._try(lambda: self._start(plan))

    def on_step(self, step: int) -> None:
        """Remember how far training came."""
        self._step = step

    def on_metrics(self, line: dict[str, Any]) -> None:
        """Tell the line's numbers, as `<split>/<term>`."""
        values = {f"{line['split']}/{name}": value for name, value in line.items() if isinstance(value, float)}
        values["epoch"] = float(line["epoch"])
        self._tell(line["split"], line["step"], lambda: self._logger.metrics(values, line["step"]))

    def on_picture(self, name: str, file: Path, step: int) -> None:
        """Show the picture."""
        self._tell(f"pictures/{name}", step, lambda: self._logger.picture(f"pictures/{name}", file, step))

    def on_finish(self) -> None:
        """End."""
        self._try(lambda: self._logger.finish(self._step >= self._last))

    def _start(self, plan: Plan) -> None:
        path, configuration, metrics = (
            self._out / place for place in (f"loggers/{self._name}", "config.yaml", "metrics.jsonl")
        )
        known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        config = read_yaml(configuration) if configuration.is_file() else {}
        identity = self._logger.start(self._out, known[0] if known else None, config, plan.notes)
        if not known:
            save_text(path, identity)
        for entry in known[1:]:
            what, _, step = entry.rpartition(" ")
            if step.isdigit():
                self._told[what] = max(self._told.get(what, 0), int(step))
        self._file = path
        for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
            self.on_metrics(parse_json(line))

    def _tell(self, what: str, step: int, tell: Callable[[], None]) -> None:
        """Tell something of a step, unless it was told before, and note that."""

        def tell_and_note() -> None:
            tell()
            self._told[what] = step
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(f"\n{what} {step}")  # A line that a power cut ended early stays a line of its own.

        if step > self._told.get(what, -1):
            self._try(tell_and_note)

    def _try(self, action: Callable[[], object]) -> None:
        if not self._working:
            return
        try:
            action()
        except Exception as error:  # Whatever a tracker, its server or the network between comes up with.
            self._working = False
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            said = (
                f"{self._name} is told no more of this run ({reason}); training goes on, and what it misses is told "
                "when the run is resumed"
            )
            for other in self._others:
                other.on_note(said)
            if all(type(other).on_note is Listener.on_note for other in self._others):
                warnings.warn(said, stacklevel=2)
