"""Weights & Biases."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.registry import loggers
from vaekit.training.loggers.base import Logger, require

__all__ = ["WeightsAndBiases"]


@loggers.register(
    "wandb",
    about="Weights & Biases",
    source="L. Biewald, Experiment Tracking with Weights and Biases, 2020, wandb.com",
    needs=("the extra vaekit[wandb]",),
)
class WeightsAndBiases(Logger):
    """Sends to Weights & Biases; its files lie in the folder `wandb` of the run directory.

    `WANDB_MODE=offline` in the environment keeps everything there, for `wandb sync`; `wandb login` comes before
    anything is sent.

    Source: L. Biewald, Experiment Tracking with Weights and Biases, 2020, wandb.com.

    Arguments:
        project: The project.
        entity: The user or team; `None` for the default one.
        group: A name that several runs share; `None` for none.
        tags: Words to find the run by.

    Raises:
        VaekitError: wandb is not installed.
    """

    def __init__(
        self, *, project: str = "vaekit", entity: str | None = None, group: str | None = None, tags: Sequence[str] = ()
    ) -> None:
        require("wandb", "wandb")
        self._options: dict[str, Any] = {"project": project, "entity": entity, "group": group, "tags": list(tags)}

    def start(self, out: Path, identity: str | None, config: Mapping[str, Any], notes: Sequence[str]) -> str:
        """Begin a run under a new id, or go on with that of the id."""
        import wandb

        if identity is not None:
            time.sleep(1.0)  # Offline runs are kept by the second: two parts within one would be one part.
        identity = identity or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            **self._options,
            id=identity,
            resume="allow",
            reinit="create_new",  # A sweep trains several in one process.
            name=out.name,
            dir=str(out),
            config=dict(config),
            notes="\n".join(notes),
            settings=wandb.Settings(console="off"),  # The progress bar is no record.
        )
        return identity

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Add to the history."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, file: Path, step: int) -> None:
        """Add to the history."""
        import wandb

        self._run.log({name: wandb.Image(str(file))}, step=step)

    def finish(self, complete: bool) -> None:
        """Mark the run as finished or failed, and wait for what is still to be sent."""
        self._run.finish(exit_code=0 if complete else 1)
