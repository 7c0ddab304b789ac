"""Runs one after another: each to its end from where it stands, and one data set for those that take the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaekit.data import Dataset
from vaekit.documents import read_json
from vaekit.errors import VaekitError
from vaekit.run import Run
from vaekit.training.listeners import Listener

__all__ = ["SharedData", "Stopped", "is_finished", "train_to_end"]

# What the loader does with samples, which are the same for all of these.
_OF_LOADER = ("batch_size", "flip", "binarize", "resident")


class Stopped(Exception):  # noqa: N818
    """A signal stopped a run; what it has is kept, to go on from.

    Arguments:
        signal: The signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class SharedData:
    """Keeps the data set of the last run, so that the next one need not load it again."""

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._data: Dataset | None = None

    def lend(self, run: Run) -> None:
        """Give a run its data: those of the run before, where it asks for the same ones.

        Raises:
            VaekitError: The data are not there, or their options are not right.
        """
        options = {key: value for key, value in run.config.data.items() if key not in _OF_LOADER}
        if self._data is not None and options == self._options:
            run.data = self._data
        else:
            self._options, self._data = options, run.data


def is_finished(out: Path) -> bool:
    """Return whether the run in a directory came to its end: the report is written last."""
    try:
        training = read_json(out / "environment.json")["training"]
        return bool(training) and not training.get("interrupted_by_signal") and (out / "report.html").is_file()
    except (VaekitError, LookupError, TypeError, AttributeError):
        return False


def train_to_end(run: Run, *, listeners: Sequence[Listener] = (), command: str | None = None) -> Run:
    """Train a run to its end from where it stands, and return it; one that is finished is loaded.

    Arguments:
        run: The run, with its directory.
        listeners: Called while it is trained.
        command: The command that makes it again, for the record.

    Raises:
        Stopped: A signal ended it early.
        VaekitError: As `vaekit.run.Run.fit`.
    """
    out = run.out
    assert out is not None
    if is_finished(out):
        return Run.load(out, offline=run.offline, progress=run.progress)
    fit = run.fit(resume=(out / "config.yaml").is_file(), listeners=listeners, command=command)
    if fit.signal:
        raise Stopped(fit.signal)
    return run
