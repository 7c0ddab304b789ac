"""What may listen to a training run: progress bars, trackers, a user's own code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Listener", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What a run is about to do.

    Arguments:
        first_step: The step it begins at (above 0 when it resumes).
        steps: The step it ends at.
        steps_per_epoch: Steps in an epoch.
        label: What the loss is: `"negative ELBO"` or `"surrogate loss"`.
        device: Where it runs, in words.
        parameters: Trainable parameters by phase.
        notes: Sentences that a reader of the figures should know.
    """

    first_step: int
    steps: int
    steps_per_epoch: int
    label: str
    device: str
    parameters: dict[str, int]
    notes: tuple[str, ...]


class Listener:
    """Called by the trainer on rank zero; subclass it and override what you need."""

    def on_start(self, plan: Plan) -> None:  # noqa: B027
        """Training begins."""

    def on_step(self, step: int) -> None:  # noqa: B027
        """A step is done; `step` counts from 1."""

    def on_metrics(self, line: dict[str, Any]) -> None:  # noqa: B027
        """A line of metrics was written."""

    def on_picture(self, name: str, file: Path, step: int) -> None:  # noqa: B027
        """A grid of pictures was written: `reconstructions`, `prior`, ..."""

    def on_note(self, note: str) -> None:  # noqa: B027
        """Something happened that the user should know of at once."""

    def on_finish(self) -> None:  # noqa: B027
        """Training ended, in whatever way."""
