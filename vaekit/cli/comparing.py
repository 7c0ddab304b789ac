"""`vaekit compare`: runs side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vaekit.errors import VaekitError

__all__ = ["compare"]


class Format(StrEnum):
    """How the comparison is printed."""

    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


_KINDS = {Format.markdown: "md", Format.latex: "tex", Format.csv: "csv", Format.json: "json"}


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or folders that hold some.")],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Metrics or figures by name, such as likelihood or probe.accuracy."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse figures of different protocols instead of separating them.")
    ] = False,
    format: Annotated[Format, typer.Option(help="What is printed.")] = Format.table,
    out: Annotated[
        Path | None, typer.Option(help="A file instead: .csv, .md, .tex, .json, .html, .png or .svg.")
    ] = None,
) -> None:
    """Compare the figures of runs: means over seeds, and only figures of equal protocols in one column."""
    from vaekit.reporting.comparison import compare as read
    from vaekit.reporting.comparison_formats import KINDS, render

    if out is not None and out.suffix.lower()[1:] not in KINDS:
        raise VaekitError(
            f"--out takes a file that ends in {', '.join(f'.{kind}' for kind in KINDS)}, not '{out.name}'"
        )
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    if names == []:
        raise VaekitError("--metrics names nothing: leave it out for all figures")
    found = read(runs, metrics=names, strict=strict)
    if out is not None:
        from vaekit.files import atomic

        content = render(found, out.suffix.lower()[1:])
        with atomic(out) as file:
            file.write(content)
        typer.echo(f"comparison: {out}")
    elif format == Format.table:
        from rich.console import Console

        from vaekit.reporting.comparison_tables import print_table

        print_table(found, Console())
        return
    else:
        typer.echo(render(found, _KINDS[format]).decode(), nl=False)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
