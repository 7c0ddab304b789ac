"""The figures of runs, read from their directories, each with the protocol that says what it may be compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vaekit.errors import VaekitError, printable
from vaekit.evaluation.records import digest, read_records
from vaekit.reporting.record import RunRecord, mapping, read_record

__all__ = ["ComparedRun", "Number", "entries", "find_runs", "read_run"]

TRAINING = "training"

# What makes no other experiment of a run: where it ran, what it wrote, and the seed, over which figures are averaged.
_FREE = {
    "about", "source", "data.root", "data.resident", "trainer.seed", "trainer.accelerator", "trainer.devices",
    "trainer.nodes", "trainer.strategy", "trainer.loggers", "trainer.log_every", "trainer.checkpoint_every",
    "trainer.sample_every",
}  # fmt: skip


@dataclass(frozen=True)
class Number:
    """One figure of one run.

    Arguments:
        metric: The metric, with the sampler in brackets where it has one.
        figure: Its name within the metric, dotted where it is nested.
        value: The figure; NaN where it is not finite.
        protocol: What two figures must have in common to be compared.
        stale: Whether the weights have changed since.
    """

    metric: str
    figure: str
    value: float
    protocol: Mapping[str, Any]
    stale: bool = False

    @cached_property
    def key(self) -> tuple[str, str, str]:
        """Metric, figure and digest of the protocol: only numbers of equal keys are ever compared."""
        return self.metric, self.figure, digest(self.protocol)


@dataclass(frozen=True)
class ComparedRun:
    """What a comparison knows of a run.

    Arguments:
        out: The run directory.
        recipe: The recipe's name.
        data: The name of the training data.
        seed: The seed of the training.
        settings: The configuration, dotted names to values as text, without what makes no other experiment.
        numbers: The figures.
        notes: Metrics and what a reader of their figures should know.
        evaluated: Whether there are any besides those of the training.
        finished: Whether the training came to its end.
        checked: Whether the weights could be held against those that were evaluated.
    """

    out: Path
    recipe: str
    data: str
    seed: int
    settings: dict[str, str]
    numbers: list[Number]
    notes: list[tuple[str, str]]
    evaluated: bool
    finished: bool
    checked: bool


def find_runs(places: Iterable[str | Path]) -> list[Path]:
    """Return the run directories among places and below them, each once, in order.

    Raises:
        VaekitError: A place is not there, or holds no run.
    """
    found: dict[Path, Path] = {}
    for place in map(Path, places):
        if not place.exists():
            raise VaekitError(f"there is no {place}: give run directories, or folders that hold some")
        configs = [place / "config.yaml"] if (place / "config.yaml").is_file() else sorted(place.rglob("config.yaml"))
        if not configs:
            raise VaekitError(f"there is no run in {place}: no folder in it holds a config.yaml")
        for config in configs:
            found.setdefault(config.parent.resolve(), config.parent)
    return list(found.values())


def read_run(out: str | Path) -> ComparedRun:
    """Read what a comparison must know of a run: `evaluation.json`, and the training's lowest validation loss.

    Raises:
        VaekitError: It is no run directory, or its config.yaml or evaluation.json is damaged.
    """
    records, record = read_records(out), read_record(out)
    if not record.config:
        raise VaekitError(f"{record.out / 'config.yaml'} is not a readable configuration: restore it or leave it out")
    if not all(isinstance(part, Mapping) for each in records for part in (each.values, each.protocol, each.made)):
        raise VaekitError(f"{record.out / 'evaluation.json'} is damaged: move it away and evaluate again")
    now, hashes = record.weights_sha256, [each.made.get("weights_sha256") for each in records]
    numbers = [
        Number(_title(each.metric, each.protocol), name, value, each.protocol, bool(now and known) and known != now)
        for each, known in zip(records, hashes, strict=True)
        for name, value in _numbers(each.values)
    ]
    training = mapping(record.environment.get("training"))
    config, data = record.config, mapping(record.config.get("data"))
    return ComparedRun(
        out=record.out,
        recipe=printable(str(config.get("recipe") or "run")),
        data=_name(data.get("name", "unknown")),
        seed=mapping(config.get("trainer")).get("seed", 0),
        settings={key: value for key, value in entries(config).items() if key not in _FREE},
        numbers=[*numbers, *_validation(record)],
        notes=[(_title(each.metric, each.protocol), printable(note)) for each in records for note in each.notes],
        evaluated=bool(numbers),
        finished=bool(training) and not training.get("interrupted_by_signal"),
        checked=bool(now) or not any(hashes),
    )


def entries(nested: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return a nested mapping as dotted names and texts, in which equal values are written alike.

    Examples:
        >>> entries({"posterior": {"name": "gmm", "components": 4.0}, "regularizers": {"kl": {}}, "shape": [1, 8]})
        {'posterior.name': 'gmm', 'posterior.components': '4', 'regularizers.kl': '{}', 'shape': '[1, 8]'}
    """
    found: dict[str, str] = {}
    for key, value in nested.items():
        name = printable(f"{above}{key}")
        if isinstance(value, Mapping) and value:
            found |= entries(value, f"{name}.")
        elif isinstance(value, float) and value.is_integer():
            found[name] = str(int(value))
        else:
            found[name] = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return found


def _title(metric: str, protocol: Mapping[str, Any]) -> str:
    """Return a metric's name, with the sampler where it has one: samples of other latents are another question."""
    sampler = protocol.get("sampler")
    return printable(f"{metric}[{sampler}]" if sampler else metric)


def _name(data: Any) -> str:
    """Return a data set's name: the last part of a path."""
    return printable(Path(str(data)).name or str(data))


def _numbers(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Yield the figures that can be columns: numbers and estimates, but no lists."""
    for key, value in values.items():
        name = printable(f"{above}{key}")
        if isinstance(value, Mapping):
            if "mean" not in value or "standard_error" not in value:
                yield from _numbers(value, f"{name}.")
                continue
            value = value["mean"]
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield name, math.nan if value is None else float(value)


def _validation(record: RunRecord) -> Iterator[Number]:
    """Yield the lowest validation loss; its protocol is the whole loss unless that is a bound on the likelihood."""
    loss = record.best.get("loss") if record.of_split("valid") else None
    if not isinstance(loss, int | float) or not math.isfinite(loss):
        return
    config, data = record.config, mapping(record.config.get("data"))
    protocol: dict[str, Any] = {
        "data": mapping(record.environment.get("data")) or {"data": data.get("name")},
        "split": "valid",
        "binarize": bool(data.get("binarize", False)),
        "chosen": "the lowest of all validations",
        "loss": record.label,
        "unit": "nats per sample",
        # Densities and probabilities, and densities of differently scaled data, do not compare.
        "likelihood": _likelihoods(config, names=record.label == "negative ELBO"),
    }
    if record.label != "negative ELBO":
        protocol |= {key: config.get(key) for key in ("objective", "regularizers")}
        protocol["batch_size"] = data.get("batch_size")
    yield Number(TRAINING, record.label.replace(" ", "_").lower(), float(loss), protocol)


def _likelihoods(config: Mapping[str, Any], names: bool) -> Any:
    """Return the likelihood, or that of each modality that has its own; by name alone if wanted."""
    parts = {"": config.get("likelihood")} | {
        name: mapping(part)["likelihood"]
        for name, part in mapping(config.get("modalities")).items()
        if "likelihood" in mapping(part)
    }
    found = {name: mapping(part).get("name") if names else part for name, part in parts.items()}
    return found[""] if len(found) == 1 else {name or "others": part for name, part in found.items()}
