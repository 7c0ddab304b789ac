"""Evaluating a run: its weights and its data, and figures that are kept in its directory."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vaekit.config import LOADER_OPTIONS, RunConfig, resolve
from vaekit.data import Dataset
from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError, memory_errors
from vaekit.evaluation.classifiers import Classifiers
from vaekit.evaluation.extractors import load_extractor
from vaekit.evaluation.memorisation import suspects
from vaekit.evaluation.metrics import Evaluation, evaluate
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.records import Record, keep_record
from vaekit.files import sha256
from vaekit.reporting.images import save_grid, side_by_side
from vaekit.reporting.report import write_report
from vaekit.run import Run
from vaekit.sources import BY_FEATURES

__all__ = ["classifiers_command", "evaluate_run"]


def evaluate_run(
    run: Run,
    metrics: Sequence[str] | None = None,
    *,
    data: str | None = None,
    split: str | None = None,
    samples: int | None = None,
    samplers: Sequence[str] = ("prior",),
    extractor: str | None = None,
    weights: Path | None = None,
    classifiers: Path | None = None,
    particles: int = 512,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Callable[[Record], Any] | None = None,
) -> Evaluation:
    """Compute metrics of a run and keep each in the run's `evaluation.json` as soon as it is there.

    At the end the run's report is written again, with the figures, and after `memorisation` with the samples that lie
    nearest to a training image.

    Arguments:
        run: A run that was loaded from its directory, or has just been fitted.
        metrics: Metrics by name; all that suit the run if not given.
        data: Another data set, by name or path, of the shape that the model takes; the run's own if not given.
        split: The split; test where there is one and otherwise valid, if not given.
        samples: How many samples of the split; 1,000 or all where there are fewer, if not given.
        samplers: Where latents of generated samples are drawn from, and `"reconstructions"`.
        extractor: A feature extractor by name, or a TorchScript file; Inception where its weights are at hand, if not
            given.
        weights: The weights of a named extractor.
        classifiers: What `vaekit classifiers` wrote.
        particles: Particles per sample in importance sampling.
        batch_size: Samples at a time.
        seed: Seed of the choice of samples and of all draws.
        progress: Called as `progress(done, total, what)`.
        keep: Called with each record once it lies in the file.

    Raises:
        VaekitError: The run has no weights on disk, or something asked for does not exist or cannot be computed.
    """
    out = run.out
    if out is None or not (out / "model.safetensors").is_file():
        raise VaekitError(f"{out or 'the run'} has no trained weights to evaluate: train it to the end first")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, chosen = run.model.to(device), _data(run, data)
    # Without a word about extractors nothing is downloaded: what needs one is left out.
    silent = metrics is None and extractor is None
    found, why = None, "give one with --extractor"
    if silent or extractor is not None or any(name in BY_FEATURES for name in metrics or ()):
        try:
            found = load_extractor(
                extractor or "inception", weights=weights, offline=run.offline or silent, device=device
            )
        except VaekitError as error:
            if not silent:
                raise
            why = str(error)
    options = Options(
        split=split or ("test" if "test" in chosen.splits else "valid"),
        samples=samples,
        seed=seed,
        particles=particles,
        batch_size=batch_size,
        classifiers=None if classifiers is None else Classifiers.load(classifiers),
        classifiers_command=classifiers_command(run.config),
        binarize=run.sampler.binarize,
        extractor=found,
        no_extractor=why,
        samplers=tuple(samplers),
        sampler=run.sampler,  # Of the data that the model was trained on, whatever it is evaluated on.
        store=out / "features",
        weights_sha256=sha256(out / "model.safetensors"),
        progress=progress,
    )

    def kept(record: Record) -> None:
        keep_record(out, record)
        if keep is not None:
            keep(record)

    with memory_errors(f"evaluate with a batch size smaller than {batch_size}; figures do not depend on it"):
        evaluation = evaluate(model, chosen, metrics, options, kept)
        if any(record.metric == "memorisation" for record in evaluation):
            nearest, copied, _ = suspects(model, chosen, options)
            save_grid(out / "samples" / "neighbours.png", side_by_side(nearest, copied), (0.0, 255.0))
    write_report(out)
    return evaluation


def classifiers_command(config: RunConfig) -> str:
    """Return the command that trains classifiers on the data of a run."""
    data = config.data
    options = [f"--set={key}={value}" for key, value in data.items() if key not in (*LOADER_OPTIONS, "name", "root")]
    root = [f"--data-root={data['root']}"] if data.get("root") else []
    return shlex.join(["vaekit", "classifiers", str(data["name"]), *root, *options, "--out=classifiers.safetensors"])


def _data(run: Run, name: str | None) -> Dataset:
    """Return the run's data set, or another one prepared as the run prepares its own."""
    if name is None:
        return run.data
    other = Run(resolve(run.config.model_dump(), data=name), offline=run.offline, progress=run.progress).data
    if other.shape != run.model.data_shape:
        raise VaekitError(
            f"samples of '{name}' have shape {other.shape}, and the model takes {run.model.data_shape}: give data that "
            "fits, or set its options in a recipe"
        )
    return other
