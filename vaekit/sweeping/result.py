"""What a sweep found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vaekit.reporting.comparison_cells import Cell
from vaekit.sweeping.definition import Definition
from vaekit.sweeping.space import written

__all__ = ["State", "Sweep", "Trial"]

State: TypeAlias = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """A trial.

    Arguments:
        number: Its number, from 0.
        state: `"complete"`, `"pruned"`, `"failed"`, or `"running"`, which is also what an interrupted trial is.
        values: Path of each option in the configuration to its value.
        scores: What it was judged by, for each seed; of a pruned trial the last validation loss.
        error: Why it failed; empty for others.
        seconds: How long it took.
    """

    number: int
    state: State
    values: Mapping[str, Any]
    scores: tuple[float, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def score(self) -> float:
        """The mean over seeds."""
        return self.cell.mean

    @property
    def cell(self) -> Cell:
        """Mean and confidence interval over seeds."""
        return Cell(dict(enumerate(self.scores)))

    def describe(self) -> str:
        """Write the values as one line.

        Examples:
            >>> Trial(0, "running", {"latent_dim": 8, "posterior.components": 2}).describe()
            'latent_dim=8 posterior.components=2'
        """
        return " ".join(f"{key}={_short(value)}" for key, value in self.values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else written(value)


@dataclass(frozen=True)
class Sweep:
    """What a sweep found so far.

    Arguments:
        out: Its folder.
        definition: What it is.
        trials: The trials, by number.
        signal: The signal that stopped it early, or 0.
    """

    out: Path
    definition: Definition
    trials: tuple[Trial, ...]
    signal: int = 0

    def of(self, state: State) -> list[Trial]:
        """Return the trials in a state."""
        return [trial for trial in self.trials if trial.state == state]

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials, the best first."""
        higher = self.definition.direction == "higher"
        return sorted(self.of("complete"), key=lambda trial: -trial.score if higher else trial.score)

    @property
    def best(self) -> Trial | None:
        """The best trial; `None` where none is complete."""
        return next(iter(self.ranked), None)

    def runs(self, trial: Trial) -> list[Path]:
        """Return the run directories of a trial, a seed each, whether they are there or not."""
        return [run_place(self.out, trial.number, seed) for seed in seeds_of(self.definition)]

    def command(self, trial: Trial) -> str:
        """Return the command that trains a trial again, with its first seed."""
        return command_of(self.definition, trial.values, self.definition.first_seed)


def run_place(out: Path, number: int, seed: int) -> Path:
    """Return the run directory of a trial and a seed."""
    return out / f"trial-{number:04d}-seed-{seed}"


def seeds_of(definition: Definition) -> range:
    """Return the seeds that each trial is trained with."""
    return range(definition.first_seed, definition.first_seed + definition.seeds)


def command_of(definition: Definition, values: Mapping[str, Any], seed: int) -> str:
    """Return the command that trains values of the options with a seed."""
    # What is set last counts, and `--set` counts for more than `--seed`.
    options = [f"--set={key}={written(value)}" for key, value in {**values, "trainer.seed": seed}.items()]
    return shlex.join([*definition.command, *options])
