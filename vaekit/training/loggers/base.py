"""The contract of a logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vaekit.errors import VaekitError

__all__ = ["Logger", "require"]


class Logger:
    """Tells a tracker about a run; `vaekit.training.tracking.Tracking` says when, and catches what goes wrong.

    A subclass takes its options as keywords only, and says whether what it needs is installed when it is made.
    """

    def start(self, out: Path, identity: str | None, config: Mapping[str, Any], notes: Sequence[str]) -> str:
        """Begin, or go on with what was begun.

        Arguments:
            out: The run directory; its name is the run's.
            identity: What `start` returned when the run began; `None` for a new one.
            config: The configuration, as in `config.yaml`.
            notes: Sentences that a reader of the figures should know.

        Returns:
            What the tracker knows the run by.
        """
        raise NotImplementedError

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Tell the values of a step, named `<split>/<term>`."""
        raise NotImplementedError

    def picture(self, name: str, file: Path, step: int) -> None:
        """Show a picture."""
        raise NotImplementedError

    def finish(self, complete: bool) -> None:
        """End, and wait until everything is told.

        Arguments:
            complete: Whether the run came to its last step.
        """
        raise NotImplementedError


def require(package: str, extra: str) -> None:
    """Refuse a logger without its package; the import itself waits for the process that logs.

    Arguments:
        package: The package.
        extra: The extra of vaekit that brings it.

    Raises:
        VaekitError: It is not installed.
    """
    if find_spec(package) is None:
        raise VaekitError(
            f'the logger {extra} needs {package}: pip install "vaekit[{extra}]", or take it out of trainer.loggers'
        )
