"""How a metric is asked for and answered: what it is computed from, and what is written down beside its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vaekit.data import Dataset, PairedSplit, Split, make_batches
from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.classifiers import Classifiers
from vaekit.models import Model

if TYPE_CHECKING:
    from vaekit.evaluation.extractors import Extractor
    from vaekit.evaluation.samplers import Sampler

__all__ = ["Metric", "Options", "Result"]

_SAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What metrics are computed from.

    Arguments:
        split: The split.
        samples: How many of its samples, chosen at random; 1,000 or all where there are fewer if not given.
        seed: Seed of that choice and of every draw.
        particles: Particles per sample in importance sampling.
        batch_size: Samples at a time.
        classifiers: Classifiers of the modalities, for the coherence.
        classifiers_command: The command that trains them on the run's data, for the sentence that asks for them.
        binarize: Whether grey values are drawn as black or white, as in training.
        extractor: The feature extractor of metrics that compare images by features.
        no_extractor: What is to be done where such a metric has none, for the sentence that says so.
        samplers: Where the latents of generated samples are drawn from (`vaekit.evaluation.samplers`);
            `"reconstructions"` stands for the reconstructions of the samples of the split.
        sampler: What draws them; made from the model and the data if not given.
        store: A folder for features of generated images, from which an interrupted evaluation goes on.
        weights_sha256: The hash of the weights, by which such features are known.
        progress: Called as `progress(done, total, what)` after every batch.

    Raises:
        VaekitError: A number is below 1, or the seed below 0.
    """

    split: str = "test"
    samples: int | None = None
    seed: int = 0
    particles: int = 512
    batch_size: int = 64
    classifiers: Classifiers | None = None
    classifiers_command: str = "vaekit classifiers DATA --out classifiers.safetensors"
    binarize: bool = False
    extractor: Extractor | None = None
    no_extractor: str = "give one with --extractor"
    samplers: tuple[str, ...] = ("prior",)
    sampler: Sampler | None = None
    store: Path | None = None
    weights_sha256: str | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "particles", "batch_size"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise VaekitError(f"{name} must be 1 or more, not {number}")
        if self.seed < 0:
            raise VaekitError(f"seed must be 0 or more, not {self.seed}")

    def count(self, data: Dataset) -> int:
        """Return the number of samples of the split that are taken.

        Raises:
            VaekitError: There is no such split, or it has fewer samples than were asked for.
        """
        whole = len(self._split(data, self.split))
        if self.samples is not None and self.samples > whole:
            raise VaekitError(
                f"{self.samples:,} samples were asked for, and the split '{self.split}' of '{data.name}' has "
                f"{whole:,}: ask for as many or fewer"
            )
        return self.samples or min(whole, _SAMPLES)

    def rows(self, data: Dataset, split: str | None = None, at_most: int | None = None) -> Any:
        """Return the chosen samples of a split, in the order in which they lie there.

        They are not its first ones: data sets may be sorted by class.

        Arguments:
            data: The data set.
            split: The split; that of the options if not given.
            at_most: How many, or all where there are fewer; as many as `count` says if not given.

        Raises:
            VaekitError: There is no such split, or it has fewer samples than were asked for.
        """
        whole = self._split(data, split or self.split)
        wanted = at_most or self.count(data)
        if wanted >= len(whole):
            return whole
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(self.seed))
        return whole.rows(order[:wanted].sort().values)

    def require_extractor(self) -> Extractor:
        """Return the feature extractor.

        Raises:
            VaekitError: There is none.
        """
        if self.extractor is None:
            raise VaekitError(f"this metric needs a feature extractor: {self.no_extractor}")
        return self.extractor

    @staticmethod
    def _split(data: Dataset, name: str) -> Any:
        if name not in data.splits:
            raise VaekitError(f"data set '{data.name}' has no split '{name}': {suggest(name, data.splits)}")
        return data.splits[name]

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
        protocol: What two of them must have in common to be compared, besides data, split and number of samples.
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
        compute: Model, data set and options to figures, one result for each protocol.
    """

    about: str
    compute: Callable[[Any, Dataset, Options], Iterator[Result]]
