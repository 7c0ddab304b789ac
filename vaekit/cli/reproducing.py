"""`vaekit reproduce`: published tables made again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaekit.cli.training import DataRoot, Offline, Set
from vaekit.errors import VaekitError

if TYPE_CHECKING:
    from rich.console import Console

    from vaekit.reproducing import Measured, Table

__all__ = ["reproduce"]


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="A table by name, or a YAML file; all are listed if not given.")
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="A row to train; may be repeated. All if not given.")] = None,
    data_root: DataRoot = None,
    seeds: Annotated[int, typer.Option(help="Seeds that each row is trained with.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Train for the published length.")] = False,
    set_: Set = None,
    extractor: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.ts", help="The feature extractor of tables that compare images by features."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named extractor.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the runs lie.")] = None,
    write: Annotated[Path | None, typer.Option(help="A Markdown file to put the table into.")] = None,
    offline: Offline = False,
) -> None:
    """Make rows of a published table again, or list the tables: published figures, ours, and what differs."""
    from rich.console import Console

    from vaekit.reproducing import read_table, table_names

    if name is None:
        if row or data_root or seeds != 1 or full or set_ or extractor or weights or out or write or offline:
            raise VaekitError(f"name the table that the options are for: {', '.join(table_names())}")
        for known in table_names():
            _show(read_table(known), None, Console())
        return
    from vaekit.reporting.progress import Progress, decode_progress
    from vaekit.reproducing import reproduce as make
    from vaekit.reproducing import to_markdown, write_section
    from vaekit.reproducing.writing import check_section
    from vaekit.series import Stopped

    table, console = read_table(name), Console(stderr=True)
    if write is not None:
        check_section(write, table.name)
    try:
        made = make(
            name,
            rows=row or (),
            seeds=seeds,
            full=full,
            assignments=set_ or (),
            data_root=data_root,
            extractor=extractor,
            weights=weights,
            out=out,
            offline=offline,
            listeners=[Progress(console)],
            progress=decode_progress(console),
            say=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
        )
    except Stopped as stopped:
        typer.echo("stopped; go on by repeating the command")
        raise typer.Exit(128 + stopped.signal) from None
    _show(table, made, Console())
    if write is not None:
        write_section(write, table.name, to_markdown(table, made))
        typer.echo(f"written: {write}")


def _show(table: Table, made: Measured | None, console: Console) -> None:
    """Print a table with what is to be said of it; what the project measured, if nothing else is given."""
    from textwrap import wrap

    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    from vaekit.reproducing.writing import cited, command_of, fitted, grid, lines_below

    shown = made or table.ours
    console.print(Text(f"{table.name}  {table.title}", style="bold"))
    for line in (
        cited(table.source),
        f"{table.given}: {table.published_protocol.strip()}",
        f"here: {table.difference.strip()}",
    ):
        console.print(Text(line))
    for first, *others in fitted(*grid(table, shown), console.width):
        drawn = Grid(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for place, column in enumerate(first):
            least = max(map(len, [*column.split(), *(cells[place] for cells in others)]))
            broken = "\n".join(wrap(column, least))
            drawn.add_column(Text(broken), justify="right" if place else "left", overflow="fold")
        for cells in others:
            drawn.add_row(*map(Text, cells))
        console.print(drawn)
    if shown is not None:
        for line in lines_below(table, shown):
            console.print(Text(line))
    else:
        console.print(Text("not measured here yet"))
    console.print(Text(f"{command_of(table, made)}\n"))
