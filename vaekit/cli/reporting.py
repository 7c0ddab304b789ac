"""`vaekit report`: the pages of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekit.errors import VaekitError

__all__ = ["report"]


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The page of several runs; comparison.html if not given.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Forbid downloads.")] = False,
) -> None:
    """Write the report of each run again; of several runs also a page that puts them side by side."""
    from rich.console import Console

    from vaekit.reporting.progress import decode_progress
    from vaekit.reporting.several_runs import write_side_by_side
    from vaekit.run_report import report_run

    if out is not None and (len(runs) < 2 or out.suffix != ".html"):
        raise VaekitError(
            "--out is the .html page of several runs: name two runs or more and such a file, or leave it out"
        )
    progress = decode_progress(Console(stderr=True))
    for run in runs:
        path, missing = report_run(run, offline=offline, progress=progress)
        typer.echo(f"report: {path}")
        if missing:
            typer.echo(f"note: {missing}", err=True)
    if len(runs) > 1:
        typer.echo(f"side by side: {write_side_by_side(runs, out or Path('comparison.html'))}")
