"""`vaekit export` and `vaekit push`: what leaves this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekit.exporting.names import Format, What

__all__ = ["export", "push"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    format: Annotated[Format, typer.Option(help="onnx, or torch-export for torch.export.load.")] = "onnx",
    what: Annotated[What, typer.Option(help="encoder, decoder or both.")] = "both",
    out: Annotated[Path | None, typer.Option(help="The folder; RUN/export/FORMAT if not given.")] = None,
) -> None:
    """Write encoder and decoder of a run as files that run without vaekit, and what is in them."""
    import json

    from vaekit.exporting.writing import DESCRIPTION
    from vaekit.run import Run

    folder = Run.load(run, offline=True).export(format, what, out)
    files = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["files"]
    for name, file in files.items():
        given, made = (", ".join(file[side]) for side in ("inputs", "outputs"))
        worst = file["largest_difference"]
        typer.echo(f"{folder / name}: {given} -> {made}; the same as the model to {worst:.0e}")
    typer.echo(f"shapes, ranges and meanings: {folder / DESCRIPTION}")


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="A repository, such as OWNER/NAME.")],
    license: Annotated[
        str | None, typer.Option(help="The licence for the card, such as mit; none if not given.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository, where there is none.")] = False,
) -> None:
    """Write the model of a run into a repository on the Hugging Face Hub: configuration, weights and a card."""
    from vaekit.run import Run

    commit = Run.load(run).push_to_hub(repo_id, private=private, license=license)
    typer.echo(f"pushed: {commit}")
    typer.echo(f'load it with: vk.Run.from_pretrained("{repo_id}")')
