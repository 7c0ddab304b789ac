"""`vaekit explore`: a page for looking into a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["explore"]


def explore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port; the first free one from 7860 if not given.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the browser.")] = False,
) -> None:
    """Look into a run in the browser: sliders, pictures dropped in, walks. Nothing leaves this machine."""
    import torch

    from vaekit.exploring.server import serve
    from vaekit.run import Run

    made = Run.load(run, offline=True)
    made.model.to("cuda" if torch.cuda.is_available() else "cpu")
    serve(made, port, not no_browser, lambda address: typer.echo(f"{address} (Ctrl-C ends it)"))
