"""trackio."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any

from vaekit.registry import loggers
from vaekit.training.loggers.base import Logger, require

__all__ = ["Trackio"]


@loggers.register(
    "trackio",
    about="trackio: a local dashboard, or one in a Hugging Face Space",
    source="Hugging Face, trackio, 2025, github.com/gradio-app/trackio",
    needs=("the extra vaekit[trackio]",),
)
class Trackio(Logger):
    """Writes the local database of trackio, which `trackio show` shows, or sends to a Space on the Hugging Face Hub.

    Source: Hugging Face, trackio, 2025, github.com/gradio-app/trackio.

    Arguments:
        project: The project.
        space: The Space to send to, such as `"me/runs"`; `None` to stay on this machine.

    Raises:
        VaekitError: trackio is not installed.
    """

    def __init__(self, *, project: str = "vaekit", space: str | None = None) -> None:
        require("trackio", "trackio")
        self._project, self._space = project, space

    def start(self, out: Path, identity: str | None, config: Mapping[str, Any], notes: Sequence[str]) -> str:
        """Begin a run under a new name, or go on with that of the name."""
        import trackio

        identity = identity or f"{out.name}-{uuid.uuid4().hex[:6]}"
        with _aside():
            # In a context of its own: trackio ends a run when the next one begins, and again when Python does.
            self._run = Context().run(
                trackio.init,
                self._project,
                identity,
                space_id=self._space,
                config={**config, "notes": list(notes)},
                resume="allow",
                embed=False,
            )
        return identity

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add to the log."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, file: Path, step: int) -> None:
        """Add to the log."""
        import trackio

        self._run.log({name: trackio.Image(file)}, step=step)

    def finish(self, complete: bool) -> None:
        """Wait for what is still to be written."""
        with _aside():
            self._run.finish()


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Have what is printed go where messages go: standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
