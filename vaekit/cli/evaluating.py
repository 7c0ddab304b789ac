"""`vaekit evaluate` and `vaekit classifiers`: figures of a run, and what judges generated samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaekit.errors import VaekitError
from vaekit.sources import SOURCES

if TYPE_CHECKING:
    from vaekit.evaluation.records import Record

__all__ = ["classifiers", "evaluate"]

_SHOWN = 8


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
    from vaekit.data.loading import refuse_own
    from vaekit.evaluation.classifiers import train_classifiers
    from vaekit.reporting.progress import decode_progress

    progress = decode_progress(Console(stderr=True))
    options = apply_overrides({}, set_ or [])
    refuse_own(options)
    loaded = load(data, data_root, progress=progress, offline=offline, **options)
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
    data: Annotated[
        str | None, typer.Option(help="Another data set, by name or path; the run's own if not given.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, valid or test; test where there is one if not given.")
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="How many samples of the split, chosen at random; 1,000 at most if not given.")
    ] = None,
    samplers: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME", help=f"Where generated samples come from: {', '.join((*SOURCES, 'reconstructions'))}."
        ),
    ] = "prior",
    extractor: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.ts", help="inception, another of torch-fidelity's, or a TorchScript file."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named extractor.")] = None,
    classifiers: Annotated[Path | None, typer.Option(help="What `vaekit classifiers` wrote, for coherence.")] = None,
    particles: Annotated[int, typer.Option(help="Particles per sample in importance sampling.")] = 512,
    batch_size: Annotated[int, typer.Option(help="Samples at a time; figures do not depend on it.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the choice of samples and of all draws.")] = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Forbid downloads.")] = False,
) -> None:
    """Compute figures of a run, print them, and keep them with their protocol in its evaluation.json."""
    from rich.console import Console

    from vaekit.reporting.progress import decode_progress
    from vaekit.run import Run
    from vaekit.run_evaluation import evaluate_run

    progress = decode_progress(Console(stderr=True))
    found = evaluate_run(
        Run.load(run, offline=offline, progress=progress),
        None if metrics is None else _names("--metrics", metrics),
        data=data,
        split=split,
        samples=n,
        samplers=_names("--samplers", samplers),
        extractor=extractor,
        weights=weights,
        classifiers=classifiers,
        particles=particles,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    rows = [row for record in found for row in _rows(_title(record), record.values)]
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        typer.echo(f"{label:<{width}}  {value}")
    for note, names in _grouped((note, _title(record)) for record in found for note in record.notes).items():
        typer.echo(f"note on {', '.join(names)}: {note}")
    for why, names in _grouped((why, name) for name, why in found.left_out.items()).items():
        typer.echo(f"left out: {', '.join(names)}: {why}")
    typer.echo(f"figures and how they were made: {run / 'evaluation.json'}")


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise VaekitError(f"{option} names nothing: leave it out for what suits the run")
    return names


def _grouped(said: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return each sentence once, with what it was said of."""
    found: dict[str, list[str]] = {}
    for sentence, name in said:
        found.setdefault(sentence, []).append(name)
    return found


def _title(record: Record) -> str:
    """Return a metric's name, with the sampler where it has one."""
    sampler = record.protocol.get("sampler")
    return f"{record.metric}[{sampler}]" if sampler else record.metric


def _rows(label: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table: the path of a figure within the file, and the figure."""
    if isinstance(value, Mapping) and "standard_error" in value:
        error = "" if value["standard_error"] is None else f" ± {value['standard_error']:.4g}"
        yield label, f"{value['mean']:.4f}{error}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _rows(f"{label}.{key}", part)
    elif isinstance(value, list):
        shown = ", ".join("none" if part is None else f"{part:.3g}" for part in value[:_SHOWN])
        yield label, f"{shown}, ... ({len(value)} values)" if len(value) > _SHOWN else shown
    else:
        yield label, "none" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
