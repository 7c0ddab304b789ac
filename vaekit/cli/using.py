"""`vaekit sample`, `reconstruct`, `interpolate` and `data check`: looking at a run and at data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekit.errors import VaekitError
from vaekit.sources import SOURCES, Source

__all__ = ["data_check", "interpolate", "reconstruct", "sample"]

Crop = Annotated[
    int | None, typer.Option(help="Side of the centre crop; the data set's own by default, 0 for the largest square.")
]
_COLUMNS = 16
_FROM = "; ".join(f"{name}, {about}" for name, about in SOURCES.items())
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def sample(
    run: RunArgument,
    n: Annotated[int | None, typer.Option(help="How many; 64, or 12 of several modalities.")] = None,
    source: Annotated[Source, typer.Option("--from", help=f"Where latents are drawn from: {_FROM}.")] = "prior",
    given: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=VALUE", help="Generate from this: an image file, numbers, an .npy file or a class."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .png to write, or .npy (.npz of several modalities).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
) -> None:
    """Draw samples from a run; with --given, of all modalities from some of them."""
    from rich.console import Console

    from vaekit.multimodal_run import MultimodalRun
    from vaekit.reporting.progress import decode_progress
    from vaekit.run import Run

    made = Run.load(run, progress=decode_progress(Console(stderr=True)))
    several = isinstance(made, MultimodalRun)
    count = n if n is not None else 12 if several else 64
    rows = f", a row for each of {', '.join(made.model.names)}" if several else ""
    if not given:
        path = made.sample(count, source, seed=seed).save(out or run / f"sample-{source}.png")
        typer.echo(f"{count} samples from {source}{rows}: {path}")
        return
    if not isinstance(made, MultimodalRun):
        raise VaekitError("--given is for runs of several modalities, and this run has one: leave it out")
    read = {}
    for assignment in given:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise VaekitError(
                f"--given takes MODALITY=VALUE, for instance {made.model.names[0]}=FILE, not '{assignment}'"
            )
        read[name] = made.read_modality(name, value)
    path = made.generate(read, count, seed=seed).save(out or run / f"sample-given-{'-'.join(read)}.png")
    typer.echo(f"{count} draws given {', '.join(read)}{rows}: {path}")


def reconstruct(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    crop: Crop = None,
    out: Annotated[Path | None, typer.Option(help="The .png to write.")] = None,
) -> None:
    """Show images beside their reconstructions."""
    from vaekit.reporting.images import save_grid, side_by_side
    from vaekit.run import Run

    made = Run.load(run)
    x = made.read(images, crop)
    pairs = side_by_side(x, made.reconstruct(x).tensor)
    save_grid(path := out or run / "reconstruct.png", pairs, made.model.data_range)
    typer.echo(f"{len(images)} image(s), each with its reconstruction to its right: {path}")


def interpolate(
    run: RunArgument,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Two image files; none for pairs of validation images.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Pictures in a row.")] = 6,
    crop: Crop = None,
    pairs: Annotated[int, typer.Option(help="Rows, when no files are given.")] = 4,
    out: Annotated[Path | None, typer.Option(help="The .png to write.")] = None,
) -> None:
    """Walk between images in the latent space."""
    from vaekit.run import Run

    if images and len(images) != 2:
        raise VaekitError(f"interpolate takes two image files, or none for validation images, not {len(images)}")
    made = Run.load(run)
    first, second = made.read(images, crop).split(1) if images else made.validation_pairs(pairs)
    path = made.interpolate(first, second, steps).save(out or run / "interpolate.png", columns=steps)
    typer.echo(f"{len(first)} walk(s) of {steps} steps: {path}")


def data_check(
    data: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="A data set's name, a folder, a .npz, .npy or .csv file.")
    ],
    data_root: Annotated[Path | None, typer.Option(help="Where named data sets lie.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write a grid of samples and the mean image (.png).")
    ] = None,
) -> None:
    """Load a data set, say what is in it and what is wrong with it."""
    import torch
    from rich.console import Console

    from vaekit.config import apply_overrides
    from vaekit.data import Report, check
    from vaekit.data.loading import refuse_own
    from vaekit.reporting.grids import Views
    from vaekit.reporting.images import save_grid
    from vaekit.reporting.progress import decode_progress

    options = apply_overrides({}, set_ or [])
    refuse_own(options)
    report = check(data, data_root, progress=decode_progress(Console(stderr=True)), **options)
    typer.echo("\n".join(report.lines()))
    if out is not None:
        if not report.is_image:
            raise VaekitError("--out draws images, and these samples are not images: leave it out")
        if isinstance(report, Report):
            save_grid(out, torch.cat([report.mean_sample[None], report.first.float()]), (0.0, 255.0))
            typer.echo(f"the mean image, then the first samples: {out}")
            return
        first = {name: found.first[:_COLUMNS] for name, found in report.modalities.items()}
        Views(first, {name: (0.0, 255.0) for name, part in first.items() if part.dtype == torch.uint8}).save(out)
        typer.echo(f"the first samples, one row for each modality: {out}")
