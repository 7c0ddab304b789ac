"""`vaekit run`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["run", "trainer_options"]

# What `vaekit sweep` takes too.
Data = Annotated[str | None, typer.Option(help="A data set's name, a folder of images, a .npz, .npy or .csv file.")]
DataRoot = Annotated[Path | None, typer.Option(help="Where named data sets lie.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any option, e.g. posterior.components=8.")
]
Precision = Annotated[str | None, typer.Option(help="float32 or bf16.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, noise and data order.")]
Offline = Annotated[bool, typer.Option("--offline", help="Forbid downloads.")]


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, a YAML file, or a run directory to resume.")],
    data: Data = None,
    data_root: DataRoot = None,
    epochs: Epochs = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="The run directory.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    devices: Annotated[int | None, typer.Option(help="Devices on this machine.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines.")] = None,
    strategy: Annotated[str | None, typer.Option(help="auto, ddp or fsdp.")] = None,
    precision: Precision = None,
    seed: Seed = None,
    offline: Offline = False,
    profile: Annotated[int, typer.Option(metavar="N", help="Time N steps; see RUN/profile/summary.html.")] = 0,
) -> None:
    """Train a model and leave a complete run directory."""
    from rich.console import Console

    from vaekit.config import read_recipe, resolve
    from vaekit.reporting.progress import Progress, decode_progress
    from vaekit.run import Run
    from vaekit.rundir import is_leader

    options = trainer_options(
        data_root, epochs=epochs, devices=devices, nodes=nodes, strategy=strategy, precision=precision, seed=seed
    )
    console = Console(stderr=True)
    config = resolve(read_recipe(recipe), options, data=data, assignments=set_ or [])
    if out is None and (Path(recipe) / "config.yaml").is_file():
        out = Path(recipe)
    made = Run(config, out, offline=offline, progress=decode_progress(console))
    command = shlex.join(["vaekit", *sys.argv[1:]])
    fit = made.fit(resume=resume, listeners=[Progress(console)], command=command, profile=profile)
    leader = is_leader(config.trainer.get("nodes", 1) != 1)
    if fit.signal:
        if leader:
            typer.echo(f"stopped at step {fit.steps}; go on with: vaekit run {made.out} --resume")
        raise typer.Exit(128 + fit.signal)
    if leader:
        typer.echo(f"done: {made.out} (look at {made.out}/report.html)")
        if profile:
            typer.echo(f"where the time of a step goes: {made.out}/profile/summary.html")


def trainer_options(data_root: Path | None, **trainer: object) -> dict[str, dict[str, object]]:
    """Return what options of the command line lay over a recipe.

    Arguments:
        data_root: Where named data sets lie; `None` for nothing.
        trainer: Options of the trainer; `None` for nothing.

    Examples:
        >>> trainer_options(None, epochs=3, seed=None)
        {'trainer': {'epochs': 3}}
    """
    options: dict[str, dict[str, object]] = {"trainer": {k: v for k, v in trainer.items() if v is not None}}
    if data_root is not None:
        options["data"] = {"root": str(data_root)}
    return options
