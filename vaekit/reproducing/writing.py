"""The table with published figures and ours, as rows of text, as Markdown, and as a section of a Markdown file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaekit.errors import VaekitError
from vaekit.files import save_text
from vaekit.reporting.comparison_cells import Cell
from vaekit.reporting.wording import duration
from vaekit.reproducing.definition import Table
from vaekit.reproducing.parts import Figure, MadeRow, Measured, Source

__all__ = ["check_section", "cited", "command_of", "fitted", "grid", "lines_below", "to_markdown", "write_section"]

_NONE = "-"


def grid(table: Table, made: Measured | None) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table, published figures before ours; what was not measured is a dash.

    A published column stands before the column that is the same figure, if there is one. Columns of ours without any
    figure are left out.

    Arguments:
        table: The table.
        made: What was measured.

    Examples:
        >>> from vaekit.reproducing.definition import read_table
        >>> head, rows = grid(read_table("mnist-nll"), None)
        >>> head[:2], rows[0][:2]
        (['row', 'pythae (published)'], ['vae', '89.78 (0.01)'])
    """
    measured = {} if made is None else made.rows
    figures = [each for each in table.figures if any(each.heading in row.figures for row in measured.values())]
    columns: list[str | Figure] = [name for name in table.published if all(name != each.beside for each in figures)]
    for figure in figures:
        columns += [figure.beside, figure] if figure.beside else [figure]
    head = ["row"]
    for column in columns:
        head.append(f"{column} ({table.given})" if isinstance(column, str) else _heading(column, made))
    rows = []
    for row in table.rows:
        here = measured.get(row.name)
        cells = [
            row.published.get(column, _NONE) if isinstance(column, str) else _cell(column, here) for column in columns
        ]
        rows.append([row.name, *cells, *([_trained(here)] if measured else [])])
    return [*head, *(["trained"] if measured else [])], rows


def fitted(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[list[list[str]]]:
    """Yield a table in parts that are no wider than so many characters, each with the names of the rows.

    Arguments:
        head: The headings, which may be broken between words.
        rows: The rows.
        width: The number of characters.

    Examples:
        >>> [part[0] for part in fitted(["row", "a b", "c"], [["x", "1", "22222"]], 14)]
        [['row', 'a b'], ['row', 'c']]
    """
    table = [head, *rows]
    widths = [
        3 + max(*map(len, column[0].split()), *map(len, column[1:])) for column in map(list, zip(*table, strict=True))
    ]
    start = 1
    while start < len(head):
        end = start + 1
        while end < len(head) and widths[0] + sum(widths[start : end + 1]) < width:
            end += 1
        yield [[row[0], *row[start:end]] for row in table]
        start = end


def _heading(figure: Figure, made: Measured | None) -> str:
    extractor = made.extractor if made is not None and figure.by_features else None
    return f"{figure.heading} ({extractor})" if extractor else figure.heading


def _cell(figure: Figure, row: MadeRow | None) -> str:
    values = [] if row is None else row.figures.get(figure.heading, [])
    if not values:
        return _NONE
    cell = Cell(dict(enumerate(values)))
    text = f"{cell.mean:,.{figure.digits}f}"
    return text if cell.half_width is None else f"{text} ± {cell.half_width:,.{figure.digits}f}"


def _trained(row: MadeRow | None) -> str:
    if row is None:
        return _NONE
    seeds = max(map(len, row.figures.values()), default=1)
    return f"{row.steps:,} steps, {duration(row.seconds)}{f', {seeds} seeds' if seeds > 1 else ''}"


def cited(source: Source) -> str:
    """Return a source as one line."""
    arxiv = f", arXiv {source.arxiv}" if source.arxiv else ""
    return f"{source.authors}, {source.title}, {source.year}{arxiv}: {source.where}"


def command_of(table: Table, made: Measured | None = None) -> str:
    """Return the command that makes a table again.

    Arguments:
        table: The table.
        made: What was measured, if the command is to make that again.

    Examples:
        >>> from vaekit.reproducing.definition import read_table
        >>> command_of(read_table("evae-fashion"))
        'vaekit reproduce evae-fashion --extractor=EXTRACTOR'
    """
    given = []
    if made is not None:
        given += ["--full"] if made.schedule == "full" else []
        given += [f"--seeds={made.seeds}"] if made.seeds > 1 else []
        given += [f"--set={change}" for change in made.changes]
    if table.needs_extractor:
        given.append(f"--extractor={(made.extractor if made is not None else None) or 'EXTRACTOR'}")
    return shlex.join(["vaekit", "reproduce", table.spec, *given])


def lines_below(table: Table, made: Measured) -> list[str]:
    """Return what must be said below a table: how long was trained, on what, how sure it is, and by what protocols."""
    schedule = table.schedule(made.schedule == "full")
    kind = "Trained for the published length" if made.schedule == "full" else "Trained for a shortened schedule"
    lines = [f"{kind}: {schedule.about}"]
    if made.changes:
        lines.append(f"Changed besides: {', '.join(made.changes)}.")
    lines.append(
        "± is half of the 95 % confidence interval over the seeds of training (Student t)."
        if made.seeds > 1
        else "One seed of training each, which cannot say how far another would fall."
    )
    lines.append(f"Measured on {made.date.isoformat()} on {made.machine}.")
    lines += [f"Protocol of {title}: {protocol}" for title, protocol in made.protocols.items()]
    return lines + [f"Note: {note}" for note in made.notes]


def to_markdown(table: Table, made: Measured) -> str:
    """Return the section of a table: its source, its command, what differs, the figures, and how they were made.

    Arguments:
        table: The table.
        made: What was measured.
    """
    source = table.source
    arxiv = f", [arXiv {source.arxiv}](https://arxiv.org/abs/{source.arxiv})" if source.arxiv else ""
    head, rows = grid(table, made)
    return "\n".join(
        [
            f"## {table.title}",
            "",
            f"{source.authors}, *{source.title}*, {source.year}{arxiv}: {source.where}.",
            "",
            "```bash",
            command_of(table, made),
            "```",
            "",
            f"{table.given.capitalize()}: {table.published_protocol.strip()}",
            "",
            f"Here: {table.difference.strip()}",
            "",
            _pipes(head),
            f"|---|{'--:|' * (len(head) - 1)}",
            *map(_pipes, rows),
            "",
            *(f"- {line.strip()}" for line in lines_below(table, made)),
        ]
    )


def _pipes(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def write_section(path: str | Path, name: str, section: str) -> None:
    """Put a section between its marks in a Markdown file, atomically; without marks there it is appended.

    The marks are `<!-- reproduce: NAME -->` and `<!-- end: NAME -->`. What stands outside of them stays as it is.

    Arguments:
        path: The file; it is made if it is not there.
        name: The name of the table.
        section: The section.

    Raises:
        VaekitError: The file cannot be read, or one of the marks is missing or there twice.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = Path(folder) / "results.md"
        ...     for section in ("old", "new"):
        ...         write_section(page, "mnist-nll", section)
        ...     page.read_text().splitlines()
        ['<!-- reproduce: mnist-nll -->', 'new', '<!-- end: mnist-nll -->']
    """
    text, start, end = _marks(Path(path), name)
    first, last = f"<!-- reproduce: {name} -->", f"<!-- end: {name} -->"
    marked = f"{first}\n{section}\n{last}"
    if start < 0:
        text = f"{text.rstrip()}\n\n" if text.strip() else ""
        save_text(path, f"{text}{marked}\n")
    else:
        save_text(path, f"{text[:start]}{marked}{text[end + len(last) :]}")


def check_section(path: str | Path, name: str) -> None:
    """Refuse a Markdown file into which the section of a table cannot be put.

    Arguments are those of `write_section`.

    Raises:
        VaekitError: The file cannot be read, or one of the marks is missing or there twice.
    """
    _marks(Path(path), name)


def _marks(path: Path, name: str) -> tuple[str, int, int]:
    """Return the text of a file and where the marks of a section begin, -1 where there are none."""
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise VaekitError(f"{path} is no text file that can be read: name a Markdown file") from error
    places = []
    for mark in (f"<!-- reproduce: {name} -->", f"<!-- end: {name} -->"):
        if text.count(mark) > 1:
            raise VaekitError(f"{path} has '{mark}' twice: take one of them away")
        places.append(text.find(mark))
    start, end = places
    if (start < 0) != (end < 0) or end < start:
        raise VaekitError(
            f"{path} needs '<!-- reproduce: {name} -->' and then '<!-- end: {name} -->': put both, or take away the one"
        )
    return text, start, end
