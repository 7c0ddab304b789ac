"""`vaekit evaluate` and `vaekit classifiers`: figures of a run, and what judges generated samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vaekit.errors import VaekitError

__all__ = ["classifiers", "evaluate"]


def classifiers(
    data: Annotated[str, typer.Argument(help="A data set of several modalities, with labels.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of weights, dropout and order.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Forbid downloads.")] = False,
) -> None:
    """Train a classifier of each modality on real data, for `vaekit evaluate --metrics coherence`."""
    import torch
    from rich.console import Console

    from vaekit.config import apply_overrides
    from vaekit.data import load
    from vaekit.evaluation.classifiers import train_classifiers
    from vaekit.reporting.progress import decode_progress

    progress = decode_progress(Console(stderr=True))
    loaded = load(data, data_root, progress=progress, offline=offline, **apply_overrides({}, set_ or []))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = train_classifiers(loaded, epochs=epochs, seed=seed, device=device, progress=progress)
    trained.save(out)
    for name, accuracy in trained.accuracy.items():
        kind = trained.networks[name].kind
        typer.echo(f"{name} ({kind}): {accuracy:.2%} of the real {trained.protocol['judged_on']} samples")
    for note in trained.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"classifiers: {out}")


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Metrics by name; all that suit the run if not given.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    n: Annotated[int, typer.Option(help="How many samples of the split, chosen at random.")] = 1000,
    classifiers: Annotated[Path | None, typer.Option(help="What `vaekit classifiers` wrote, for coherence.")] = None,
    particles: Annotated[int, typer.Option(help="Particles per sample in importance sampling.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the choice of samples and of all draws.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Forbid downloads.")] = False,
) -> None:
    """Compute figures of a run, print them, and keep them with their protocol in its evaluation.json."""
    import torch
    from rich.console import Console

    from vaekit.evaluation.classifiers import Classifiers
    from vaekit.evaluation.metrics import evaluate as compute
    from vaekit.evaluation.protocol import Options
    from vaekit.reporting.progress import decode_progress
    from vaekit.run import Run
    from vaekit.rundir import classifiers_command, keep_evaluation

    progress = decode_progress(Console(stderr=True))
    made = Run.load(run, offline=offline, progress=progress)
    options = Options(
        split=split,
        samples=n,
        seed=seed,
        particles=particles,
        classifiers=None if classifiers is None else Classifiers.load(classifiers),
        classifiers_command=classifiers_command(made.config),
        binarize=bool(made.config.data.get("binarize", False)),
        progress=progress,
    )
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    if names == []:
        raise VaekitError("--metrics names no metric: leave it out for all that suit the run")
    model = made.model.to("cuda" if torch.cuda.is_available() else "cpu")
    records = compute(model, made.data, names, options)
    place = keep_evaluation(run, records, classifiers)
    rows = [row for name, record in records.items() for row in _rows(name, record.get("values", {}))]
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        typer.echo(f"{label:<{width}}  {value}")
    for name, record in records.items():
        for note in record["notes"]:
            typer.echo(f"note on {name}: {note}")
    typer.echo(f"figures and how they were made: {place}")


def _rows(label: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table: the path of a figure within the file, and the figure."""
    if isinstance(value, Mapping) and "standard_error" in value:
        error = "" if value["standard_error"] is None else f" ± {value['standard_error']:.4g}"
        yield label, f"{value['mean']:.4f}{error}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _rows(f"{label}.{key}", part)
    else:
        yield label, "none" if value is None else f"{value:.4f}"
