"""`vaekit sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaekit.cli.training import Data, DataRoot, Epochs, Offline, Precision, Seed, Set, trainer_options
from vaekit.errors import VaekitError

if TYPE_CHECKING:
    from vaekit.sweeping import Sweep

__all__ = ["sweep"]

_BEST = 5  # Trials in the table at the end.


def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, a YAML file, or the folder of a sweep to resume.")],
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC", help="What to search: latent_dim=8..128, posterior=gaussian,gmm, KEY=LOW..HIGH:log."
        ),
    ] = None,
    data: Data = None,
    data_root: DataRoot = None,
    epochs: Epochs = None,
    set_: Set = None,
    trials: Annotated[
        int | None, typer.Option(help="How many trials in all; 20, or all of a grid, if not given.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds that each trial is trained with; 1 if not given.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, random or grid; tpe if not given.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC.FIGURE",
            help="A figure of `vaekit evaluate` to judge by; the lowest validation loss if not given.",
        ),
    ] = None,
    direction: Annotated[str | None, typer.Option(help="lower or higher, whichever is better.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="End hopeless trials early.")] = False,
    n: Annotated[int | None, typer.Option(help="How many validation samples the metric takes.")] = None,
    extractor: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.ts", help="The feature extractor of the metric.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named extractor.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the sweep.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep.")] = False,
    precision: Precision = None,
    seed: Seed = None,
    offline: Offline = False,
) -> None:
    """Search options of a recipe; every trial is a run."""
    from rich.console import Console

    from vaekit.cli.sweep_progress import SweepProgress
    from vaekit.reporting.progress import decode_progress
    from vaekit.sweeping import sweep as search

    console = Console(stderr=True)
    found = search(
        recipe,
        _over(over) if over else None,
        data=data,
        assignments=set_ or [],
        trials=trials,
        seeds=seeds,
        sampler=sampler,  # type: ignore[arg-type]
        metric=metric,
        direction=direction,  # type: ignore[arg-type]
        prune=prune or None,
        samples=n,
        extractor=extractor,
        weights=weights,
        out=out,
        resume=resume,
        offline=offline,
        progress=decode_progress(console),
        watcher=SweepProgress(console),
        **trainer_options(data_root, epochs=epochs, precision=precision, seed=seed),
    )
    _print(found)
    if found.signal:
        typer.echo(f"stopped; go on with: vaekit sweep {found.out} --resume")
        raise typer.Exit(128 + found.signal)


def _over(assignments: list[str]) -> dict[str, str]:
    """Return `KEY=SPEC` options as a mapping."""
    found: dict[str, str] = {}
    for assignment in assignments:
        key, equals, spec = assignment.partition("=")
        key = key.strip()
        if not equals or not key.strip(".") or not spec.strip():
            raise VaekitError(
                f"--over takes KEY=CHOICES or KEY=LOW..HIGH, for instance latent_dim=8..128, not '{assignment}'"
            )
        if key in found:
            raise VaekitError(f"--over {key} is given twice: put all of its values into one")
        found[key] = spec.strip()
    return found


def _print(found: Sweep) -> None:
    """Print the best trials and what can be done with them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vaekit.sweeping.page import rows

    best = found.best
    if best is not None:
        head, body = rows(found, found.ranked[:_BEST])
        shown = Table(
            title=Text(f"The best of {len(found.of('complete'))} complete trials by {found.definition.judge}"),
            title_justify="left", box=SIMPLE_HEAD,
        )  # fmt: skip
        for place, name in enumerate([head[0], "score", *head[2:]]):
            shown.add_column(Text(name), justify="right" if place == 1 else "left", overflow="fold")
        for row in body:
            shown.add_row(*map(Text, row))
        Console().print(shown)
        typer.echo(f"the best again: {found.command(best)}")
    for state in ("pruned", "failed"):
        if trials := found.of(state):
            typer.echo(f"{state}: {len(trials)} of {len(found.trials)} trials")
    typer.echo(f"all trials: {found.out / 'sweep.html'} and `vaekit compare {found.out}`")
