"""A comparison as tables: heads, cells and the footnotes with the protocols, and how a terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaekit.errors import printable
from vaekit.reporting.comparison import Comparison
from vaekit.reporting.comparison_cells import Cell, Column
from vaekit.reporting.comparison_notes import differences
from vaekit.reporting.comparison_reading import entries
from vaekit.reporting.wording import figure_title, number, title_of

__all__ = ["Sheet", "print_table", "rules", "sheets"]

_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
_NAMES = 32  # Characters of a row name on one line of the terminal.
_SHOWN = 2  # Entries of a protocol that a head names.


@dataclass(frozen=True)
class Sheet:
    """A table that is ready to be set.

    Arguments:
        data: The data that the figures are measured on.
        comparison: Its rows and columns.
        heads: The lines of each column's head: metric, figure with an arrow to the better side, what distinguishes its
            protocol, and the letter of the footnote.
        names: The names of the rows, with the training data where that is another.
        seeds: The number of seeds of each row.
        cells: For each row its cells: text, and whether it is among the best.
        protocols: The footnotes: what all protocols have in common, and each one by its letter.
    """

    data: str
    comparison: Comparison
    heads: list[list[str]]
    names: list[str]
    seeds: list[int]
    cells: list[list[tuple[str, bool]]]
    protocols: list[str]


def sheets(comparison: Comparison) -> Iterator[Sheet]:
    """Yield a table for each data set that was measured on."""
    letters = _letters(comparison)
    for data, part in comparison.tables():
        best = [part.best(column) for column in part.columns]
        names = [row.name if row.data == data else f"{row.name} (trained on {row.data})" for row in part.rows]
        seeds = [len(set(row.seeds)) for row in part.rows]
        cells = [
            [
                (_text(row.cells.get(column.key), count), row in winners)
                for column, winners in zip(part.columns, best, strict=True)
            ]
            for row, count in zip(part.rows, seeds, strict=True)
        ]
        heads = [
            [*_named(column), *_apart(column, part.columns), f"({letters[column.key[2]]})"] for column in part.columns
        ]
        heads = [[printable(line) for line in head] for head in heads]  # A name may come from a file.
        yield Sheet(data, part, heads, names, seeds, cells, _footnotes(data, part, letters))


def rules(comparison: Comparison, mark: str = "Bold") -> list[str]:
    """Return the sentences on what the numbers of a table are.

    Arguments:
        comparison: The comparison.
        mark: How the best are marked.
    """
    said = [
        "n is the number of training seeds; with two or more, a figure is the mean ± half of the 95 % confidence "
        "interval (Student t), and one seed has no interval."
    ]
    if any(comparison.best(column) for column in comparison.columns):
        said.append(f"{mark}: the best mean of a column, and every one whose interval overlaps that of the best.")
    if len(comparison.rows) > 1 and any(cell.n == 1 for row in comparison.rows for cell in row.cells.values()):
        said.append("No best is marked where a figure is of one seed, which cannot say how far another would fall.")
    return said


def print_table(comparison: Comparison, console: Console) -> None:
    """Print a comparison, in as many tables side by side as the console is wide.

    Arguments:
        comparison: The comparison.
        console: Where to.
    """
    for sheet in sheets(comparison):
        console.print(Text(f"data: {sheet.data}", style="bold"))
        columns = list(zip(sheet.heads, *sheet.cells, strict=True))
        widths = [max(*map(len, head), *(len(text) + best for text, best in cells)) + 2 for head, *cells in columns]
        names = min(max(map(len, sheet.names)), _NAMES) + 2
        start = 0
        while start < len(columns):
            end = start + 1
            while end < len(columns) and names + 5 + sum(widths[start : end + 1]) < console.width:
                end += 1
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
            table.add_column("", max_width=names, overflow="fold")
            table.add_column("n", justify="right", vertical="top")
            for head, *_ in columns[start:end]:
                table.add_column(Text("\n".join(head)), justify="right", no_wrap=True)
            for name, count, cells in zip(sheet.names, sheet.seeds, sheet.cells, strict=True):
                shown = [Text(f"{text}*" if best else text, "bold" if best else "") for text, best in cells[start:end]]
                table.add_row(Text(name), str(count), *shown)
            console.print(table)
            start = end
        for line in [*sheet.protocols, ""]:
            console.print(Text(line))
    for line in [*rules(comparison, "Bold and *"), *(f"note: {note}" for note in comparison.notes)]:
        console.print(Text(line))


def _named(column: Column) -> list[str]:
    """Return a metric, what it is of, and its figure; one line of them where the figure says the metric's name."""
    metric = title_of(column.bare)
    figure = f"{figure_title(column.figure, column.protocol)}{_ARROWS[column.better]}"
    of = [f"of {column.sampler}"] if column.sampler else []
    return [figure, *of] if figure.startswith(metric) else [metric, *of, figure]


def _apart(column: Column, columns: list[Column]) -> list[str]:
    """Return what distinguishes the protocol of a column from those of the same figure."""
    alike = [other for other in columns if (other.metric, other.figure) == (column.metric, column.figure)]
    words = differences([other.protocol for other in alike])[alike.index(column)]
    return [*words[:_SHOWN], *([f"and {len(words) - _SHOWN} more"] if len(words) > _SHOWN else [])]


def _letters(comparison: Comparison) -> dict[str, str]:
    """Return digest to footnote: a, b, ..., z, aa, ab, ..."""
    found = dict.fromkeys(column.key[2] for _, part in comparison.tables() for column in part.columns)
    names = (f"{a}{b}" for a in ["", *ascii_lowercase] for b in ascii_lowercase)
    return dict(zip(found, names, strict=False))


def _footnotes(data: str, comparison: Comparison, letters: dict[str, str]) -> list[str]:
    protocols = {column.key[2]: entries(column.protocol) for column in comparison.columns}
    first, *others = protocols.values()
    shared = {name: value for name, value in first.items() if others and all(o.get(name) == value for o in others)}
    lines = [f"all on {data}: {_listed(shared)}"] if shared else []
    for digest, protocol in protocols.items():
        own = {name: value for name, value in protocol.items() if name not in shared}
        lines.append(f"({letters[digest]}) {_listed(own)} [{digest}]")
    return lines


def _listed(protocol: dict[str, str]) -> str:
    """Write a protocol; what is null is not used."""
    named = {"data" if name == "data.data" else name: value for name, value in protocol.items() if value != "null"}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def _text(cell: Cell | None, seeds: int) -> str:
    """Write a figure to the digits that its interval leaves it."""
    if cell is None:
        return "-"
    text, half = number(cell.mean, padded=True), cell.half_width
    if half:
        places = 1 - math.floor(math.log10(half))
        text = (
            f"{cell.mean:,.{max(places, 0)}f} ± {half:,.{max(places, 0)}f}" if places <= 6 else f"{text} ± {half:.2g}"
        )
    elif half == 0:
        text = f"{text} ± 0"
    return f"{text}{'†' * cell.stale}{f' (n={cell.n})' * (cell.n != seeds)}"
