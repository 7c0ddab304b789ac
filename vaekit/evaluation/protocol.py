"""How a metric is asked for and answered: what it is computed from, and what is written down beside its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch

from vaekit.data import Dataset, PairedSplit, Split, make_batches
from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.classifiers import Classifiers
from vaekit.models import Model

__all__ = ["Metric", "Options", "Result", "plain"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What metrics are computed from.

    Arguments:
        split: The split.
        samples: How many of its samples, chosen at random; all where there are fewer.
        seed: Seed of that choice and of every draw.
        particles: Particles per sample in importance sampling.
        batch_size: Samples at a time.
        classifiers: Classifiers of the modalities, for the coherence.
        classifiers_command: The command that trains them on the run's data, for the sentence that asks for them.
        binarize: Whether grey values are drawn as black or white, as in training.
        progress: Called as `progress(done, total, what)` after every batch.

    Raises:
        VaekitError: A number is below 1, or the seed below 0.
    """

    split: str = "test"
    samples: int = 1000
    seed: int = 0
    particles: int = 512
    batch_size: int = 64
    classifiers: Classifiers | None = None
    classifiers_command: str = "vaekit classifiers DATA --out classifiers.safetensors"
    binarize: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "particles", "batch_size"):
            if getattr(self, name) < 1:
                raise VaekitError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.seed < 0:
            raise VaekitError(f"seed must be 0 or more, not {self.seed}")

    def rows(self, data: Dataset, split: str | None = None, count: int | None = None) -> Any:
        """Return the chosen samples of a split, in the order in which they lie there.

        They are not its first ones: data sets may be sorted by class.

        Arguments:
            data: The data set.
            split: The split; that of the options if not given.
            count: How many; as many as the options say if not given.

        Raises:
            VaekitError: There is no such split.
        """
        name, count = split or self.split, count or self.samples
        if name not in data.splits:
            raise VaekitError(f"data set '{data.name}' has no split '{name}': {suggest(name, data.splits)}")
        whole = data.splits[name]
        if count >= len(whole):
            return whole
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(self.seed))
        return whole.rows(order[:count].sort().values)

    def batches(self, model: Model, data: Dataset, rows: Split | PairedSplit, what: str) -> Iterator[Any]:
        """Yield samples in batches on the model's device, and report on them.

        Arguments:
            model: The model.
            data: The data set.
            rows: The samples.
            what: What is being computed, for the report.
        """
        batches = make_batches(
            data,
            rows,
            min(self.batch_size, len(rows)),
            model.data_range,
            device=model.last_layer.device,
            shuffle=False,
            binarize=self.binarize,
            seed=self.seed,
            drop_last=False,
        )
        for number, x in enumerate(batches.epoch(0)):
            yield x
            if self.progress is not None:
                self.progress(number + 1, len(batches), what)


@dataclass(frozen=True)
class Result:
    """What a metric gives.

    Arguments:
        values: Its figures: numbers and `Estimate`s, by name and nested as is apt.
        protocol: What they depend on besides the options that all metrics share.
        notes: Sentences that a reader of the figures should know.
    """

    values: Mapping[str, Any]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Metric:
    """A metric by name: what it is and how it is computed.

    Arguments:
        about: One line.
        compute: Model, data set and options to figures.
    """

    about: str
    compute: Callable[[Any, Dataset, Options], Result]


def plain(value: Any) -> Any:
    """Return figures as JSON has them: dataclasses and mappings as objects, NaN as null.

    Examples:
        >>> plain({1: float("nan"), ("a", "b"): 0.5})
        {'1': None, 'a+b': 0.5}
    """
    if is_dataclass(value):
        value = {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, Mapping):
        return {"+".join(key) if isinstance(key, tuple) else str(key): plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
