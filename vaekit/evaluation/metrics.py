"""The metrics by name, and what computes those that are asked for."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vaekit import __version__
from vaekit.data import Dataset
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.one import METRICS_OF_ONE
from vaekit.evaluation.protocol import Metric, Options, Result
from vaekit.evaluation.records import Record, plain
from vaekit.evaluation.several import METRICS_OF_SEVERAL
from vaekit.models import VAE, Model

__all__ = ["METRICS_OF_ONE", "METRICS_OF_SEVERAL", "Evaluation", "evaluate", "metrics_of"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Arguments:
        records: The figures, with their protocols.
        left_out: Metrics that could not be computed, and why.
    """

    records: list[Record] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> Record:
        """Return the first record of a metric.

        Raises:
            KeyError: There is none.
        """
        for record in self:
            if record.metric == metric:
                return record
        raise KeyError(metric)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def evaluate(
    model: Model,
    data: Dataset,
    names: Sequence[str] | None = None,
    options: Options | None = None,
    keep: Callable[[Record], Any] | None = None,
) -> Evaluation:
    """Compute metrics of a model, each with its protocol.

    Each metric starts from the seed: its figures do not depend on which others are asked for.

    Arguments:
        model: The model.
        data: The data set.
        names: The metrics; all that suit the model and the data if not given.
        options: What they are computed from.
        keep: Called with each record as soon as it is there, so that an interruption loses none.

    Returns:
        The records. Where no names are given, a metric that cannot be computed is left out with the reason.

    Raises:
        VaekitError: There is no such metric for this model, or one that was asked for by name cannot be computed.

    Examples:
        >>> import vaekit as vk
        >>> from vaekit.evaluation.protocol import Options
        >>> run = vk.recipe("vae", data="digits", trainer={"max_steps": 2})
        >>> found = evaluate(run.model, run.data, ["likelihood"], Options(samples=10, particles=5))
        >>> found["likelihood"].protocol["particles"], found["likelihood"].values["log_likelihood"]["count"]
        (5, 10)
    """
    from vaekit.evaluation.samplers import Sampler

    options, table = options or Options(), metrics_of(model)
    for name in names or ():
        if name not in table:
            raise VaekitError(f"there is no metric '{name}' for this model: {suggest(name, table)}")
    if options.sampler is None:
        sampler = Sampler(model, data, binarize=options.binarize, batch_size=options.batch_size, seed=options.seed)
        options = replace(options, sampler=sampler)
    found, mode, device = Evaluation(), model.training, model.last_layer.device
    model.eval()
    folder = TemporaryDirectory()
    # Metrics share the features of generated images, also where none are kept.
    shared: dict[str, Any] = (
        {"store": Path(folder.name), "weights_sha256": "this model"} if options.store is None else {}
    )
    try:
        for name in names or table:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(options.seed)
                try:
                    for result in table[name].compute(model, data, replace(options, **shared)):
                        found.records.append(record := _record(name, result, data, options, device))
                        if keep is not None:
                            keep(record)
                except VaekitError as error:
                    if names:
                        raise
                    found.left_out[name] = str(error)
    finally:
        folder.cleanup()
        model.train(mode)
    return found


def metrics_of(model: Model) -> Mapping[str, Metric]:
    """Return the metrics that there are for a kind of model."""
    return METRICS_OF_ONE if isinstance(model, VAE) else METRICS_OF_SEVERAL


def _record(name: str, result: Result, data: Dataset, options: Options, device: torch.device) -> Record:
    protocol = {
        "data": data.protocol or {"data": data.name},
        "split": options.split,
        "samples": options.count(data),
        "binarize": options.binarize,
        **result.protocol,
    }
    packages = ("torchvision", "torch-fidelity", "torchmetrics", "scikit-learn", "numpy")
    made = {
        "seed": options.seed,
        "batch_size": options.batch_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "weights_sha256": options.weights_sha256,
        "vaekit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
    return Record(name, plain(result.values), plain(protocol), plain(made), result.notes)
