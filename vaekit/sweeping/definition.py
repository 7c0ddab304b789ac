"""What a sweep is: kept beside its trials as `sweep.yaml`, so that it can be resumed exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import yaml

from vaekit.config import RunConfig, resolve
from vaekit.documents import read_yaml
from vaekit.errors import VaekitError, suggest
from vaekit.files import save_text
from vaekit.sweeping.space import Option, as_texts, read_space, written
from vaekit.sweeping.target import Direction, Target

__all__ = ["Definition", "Sampler"]

Sampler: TypeAlias = Literal["tpe", "random", "grid"]

_FILE = "sweep.yaml"
_FORMAT = 1


@dataclass(frozen=True)
class Definition:
    """What a sweep is.

    Arguments:
        config: The configuration that the options are laid over.
        over: Path in the configuration to its values, as text.
        sampler: `"tpe"` for the tree-structured Parzen estimator, `"random"` or `"grid"`.
        trials: How many trials, all in all.
        seeds: Seeds that each trial is trained with.
        metric: What is judged by, `metric.figure`; `None` for the lowest validation loss.
        direction: Which side of it is better.
        prune: Whether trials whose validation loss is worse than the median are ended early.
        evaluation: Options of the metric.
        command: The command that trains the configuration as it is.

    Raises:
        VaekitError: An option is out of its range, or options do not go together.
    """

    config: RunConfig
    over: Mapping[str, str]
    sampler: Sampler
    trials: int
    seeds: int
    metric: str | None
    direction: Direction
    prune: bool
    evaluation: Mapping[str, Any]
    command: Sequence[str]

    def __post_init__(self) -> None:
        if self.sampler not in get_args(Sampler):
            raise VaekitError(f"unknown sampler '{self.sampler}': {suggest(self.sampler, get_args(Sampler))}")
        if self.direction not in get_args(Direction):
            raise VaekitError(f"--direction is lower or higher, not '{self.direction}'")
        for name, value in (("trials", self.trials), ("seeds", self.seeds)):
            if value < 1:
                raise VaekitError(f"--{name} must be 1 or more, not {value}")
        for key in ("devices", "nodes"):
            if self.config.trainer.get(key, 1) != 1 or f"trainer.{key}" in self.over:
                raise VaekitError(
                    f"a trial is trained on one device: leave trainer.{key} at 1, and start the sweep once more with "
                    "--resume for every further device"
                )
        if self.metric is None and (self.direction != "lower" or self.evaluation):
            raise VaekitError(
                "a validation loss is the better the lower it is, and has no options: name a --metric, or leave out "
                "--direction, --n, --extractor and --weights"
            )
        if self.prune and self.metric is not None:
            raise VaekitError("--prune compares validation losses: leave it out, or leave out --metric")

    @classmethod
    def start(
        cls,
        config: RunConfig,
        over: Mapping[str, str | Sequence[Any]],
        command: Sequence[str],
        *,
        sampler: Sampler | None = None,
        trials: int | None = None,
        seeds: int | None = None,
        metric: str | None = None,
        direction: Direction | None = None,
        prune: bool | None = None,
        evaluation: Mapping[str, Any],
    ) -> Definition:
        """Return the definition of a new sweep, with defaults for what is not given.

        Raises:
            VaekitError: As for the class; and where it is not known which side of the metric is better.
        """
        options = read_space(over)
        grid = _size(options) if sampler == "grid" else 20
        if metric is not None and direction is None:
            direction = Target.read(metric, config).better
            if direction is None:
                raise VaekitError(
                    f"it is not known which side of '{metric}' is better: say --direction lower or higher"
                )
        return cls(
            config,
            as_texts(over),
            sampler or "tpe",
            grid if trials is None else min(trials, grid) if sampler == "grid" else trials,
            1 if seeds is None else seeds,
            metric,
            direction or "lower",
            bool(prune),
            dict(evaluation),
            list(command),
        )

    @cached_property
    def options(self) -> list[Option]:
        """What is searched."""
        return read_space(self.over)

    @cached_property
    def target(self) -> Target | None:
        """The figure that is judged by; `None` for the lowest validation loss."""
        return None if self.metric is None else Target.read(self.metric, self.config)

    @property
    def judge(self) -> str:
        """What is judged by, in words."""
        return self.metric or "lowest validation loss"

    @property
    def first_seed(self) -> int:
        """The first seed of every trial."""
        return int(self.config.trainer.get("seed", 0))

    @property
    def most(self) -> int | None:
        """How many trials there can be; `None` for no end."""
        return _size(self.options) if self.sampler == "grid" else None

    def laid(self, values: Mapping[str, Any], seed: int | None = None) -> RunConfig:
        """Return the configuration with values of options laid over it, and a seed.

        Raises:
            VaekitError: The result is no configuration.
        """
        chosen = values if seed is None else {**values, "trainer.seed": seed}
        return resolve(self.config.model_dump(), assignments=[f"{k}={written(v)}" for k, v in chosen.items()])

    # ---- on disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `sweep.yaml` into the folder of the sweep."""
        content: dict[str, Any] = {"format": _FORMAT}
        for field in fields(self):
            value = getattr(self, field.name)
            content[field.name] = value.model_dump(mode="json") if field.name == "config" else value
        save_text(folder / _FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    @staticmethod
    def at(folder: Path) -> bool:
        """Whether a folder holds a sweep."""
        return (folder / _FILE).is_file()

    @classmethod
    def load(cls, folder: Path) -> Definition:
        """Read `sweep.yaml` from the folder of a sweep.

        Raises:
            VaekitError: It is damaged, or of another version.
        """
        path = folder / _FILE
        try:
            content = read_yaml(path)
            version = content.pop("format")
            if version == _FORMAT:
                found = cls(**{**content, "config": RunConfig(**content["config"])})
                if not all(isinstance(part, str) for pair in found.over.items() for part in pair):
                    raise TypeError("options and their values are words")
                found.evaluation.items()
                return found
        except VaekitError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise VaekitError(f"{path} is not the definition of a sweep: restore it, or start another sweep") from error
        raise VaekitError(f"{path} has format {version}, and this version reads {_FORMAT}: start another sweep")

    def resumed(self, folder: Path, trials: int | None, given: Mapping[str, Any]) -> Definition:
        """Return this definition with another number of trials, if given.

        Arguments:
            folder: Where it was kept.
            trials: The number of trials; `None` to leave it.
            given: What was asked for anew, which must be as it was; `None` where nothing was said.

        Raises:
            VaekitError: Something else than the number of trials is to change.
        """
        for name, now in given.items():
            before = getattr(self, name)
            if isinstance(now, RunConfig):
                changed, what = now.to_yaml() != before.to_yaml(), "another configuration"
            else:
                changed, what = now is not None and now != before, f"{name} = {before!r}, not {now!r}"
            if changed:
                raise VaekitError(
                    f"the sweep in {folder} was started with {what}: go on with `vaekit sweep {folder} --resume` "
                    "alone, or start another one with another --out"
                )
        total = self.trials if trials is None else trials
        return replace(self, trials=min(total, self.most or total))


def _size(options: Sequence[Option]) -> int:
    size = 1
    for option in options:
        size *= len(option.grid)
    return size
