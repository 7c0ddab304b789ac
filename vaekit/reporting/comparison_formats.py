"""A comparison in the formats of others: Markdown, LaTeX, CSV, JSON and HTML, every number with its protocol."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from vaekit.errors import one_line
from vaekit.evaluation.records import plain
from vaekit.reporting.comparison import Comparison
from vaekit.reporting.comparison_tables import rules, sheets
from vaekit.reporting.page import escape, notice, page, table, themed

__all__ = ["render", "to_csv", "to_html", "to_json", "to_latex", "to_markdown", "to_parts"]

_BREAK = r" \\"
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "†": r"$^\dagger$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}  # fmt: skip


def to_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown tables, with protocols and notes below."""
    lines = []
    for sheet in sheets(comparison):
        heads = ["", "n", *(" ".join(head) for head in sheet.heads)]
        rows = [
            [name, str(count), *(f"**{text}**" if best else text for text, best in cells)]
            for name, count, cells in zip(sheet.names, sheet.seeds, sheet.cells, strict=True)
        ]
        lines += [f"### {_plain(sheet.data)}", ""]
        lines += [_pipes(heads), "|---|--:|" + "--:|" * len(sheet.heads), *map(_pipes, rows), ""]
        lines += [*(f"- {_plain(line)}" for line in sheet.protocols), ""]
    below = [*rules(comparison), *(f"Note: {note}." for note in comparison.notes)]
    return "\n".join([*lines, *(f"- {_plain(line)}" for line in below)]) + "\n"


def _pipes(cells: list[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Return text in which Markdown finds no column, no link and no HTML."""
    return re.sub(r"([|\[<`])", r"\\\1", one_line(text))


def to_latex(comparison: Comparison) -> str:
    """Return a comparison as LaTeX tables for the package booktabs, with the protocols below."""
    lines = [r"% needs \usepackage{booktabs}"]
    for sheet in sheets(comparison):
        heads = [rf"\shortstack[r]{{{_BREAK.join(map(_latex, head))}}}" for head in sheet.heads]
        caption = _latex(" ".join([f"Data: {sheet.data}.", *rules(sheet.comparison)]))
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
        lines += [
            rf"\begin{{tabular}}{{lr{'r' * len(heads)}}}",
            r"\toprule",
            _ampersands(["", "$n$", *heads]),
            r"\midrule",
        ]
        for name, count, cells in zip(sheet.names, sheet.seeds, sheet.cells, strict=True):
            shown = [rf"\textbf{{{_latex(text)}}}" if best else _latex(text) for text, best in cells]
            lines.append(_ampersands([_latex(name), str(count), *shown]))
        lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip\footnotesize\raggedright"]
        notes = [f"Note: {note}." for note in comparison.notes]
        lines += [rf"{_latex(line)}\par" for line in [*sheet.protocols, *notes]]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _ampersands(cells: list[str]) -> str:
    return f"{' & '.join(cells)}{_BREAK}"


def _latex(text: str) -> str:
    """Return text with what LaTeX takes for commands written out, and negative numbers with a minus sign."""
    return re.sub(r"^-(?=[\d.])", "$-$", "".join(_LATEX.get(sign, sign) for sign in one_line(text)))


def to_json(comparison: Comparison) -> str:
    """Return a comparison as JSON: rows, numbers with their protocols, and notes."""
    rows = [
        {"row": row.name, "data": row.data, "runs": [str(run) for run in row.runs], "seeds": list(row.seeds)}
        for row in comparison.rows
    ]
    content = {"format": 1, "rows": rows, "numbers": list(_flat(comparison)), "notes": comparison.notes}
    return json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV: a line for each number, with the digest of its protocol and the protocol as JSON."""
    buffer = io.StringIO()
    lines = list(_flat(comparison))
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        words = {key: " ".join(map(str, line[key])) for key in ("seeds", "values")}
        writer.writerow({**line, **words, "protocol": json.dumps(line["protocol"], sort_keys=True)})
    return buffer.getvalue()


def _flat(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield every number with all that belongs to it."""
    for column in comparison.columns:
        best = comparison.best(column)
        for row in comparison.rows:
            if (cell := row.cells.get(column.key)) is not None:
                half = cell.half_width
                yield {
                    "row": row.name,
                    "trained_on": row.data,
                    "metric": column.metric,
                    "figure": column.figure,
                    "better": column.better,
                    "mean": cell.mean,
                    "low": None if half is None else cell.mean - half,
                    "high": None if half is None else cell.mean + half,
                    "n": cell.n,
                    "best": row in best,
                    "weights_changed": cell.stale,
                    "seeds": list(cell.values),
                    "values": list(cell.values.values()),
                    "digest": column.key[2],
                    "protocol": column.protocol,
                }


def to_html(comparison: Comparison) -> str:
    """Return a comparison as a page that loads nothing from elsewhere."""
    from vaekit.reporting.comparison_figure import draw_comparison

    alt = "The figures of the tables as dots with their intervals."
    figure = themed(lambda dark: draw_comparison(comparison, format="svg", dark=dark), "svg+xml", alt)
    return page("Comparison of runs", ["<h1>Comparison of runs</h1>", *to_parts(comparison), figure])


def to_parts(comparison: Comparison) -> list[str]:
    """Return the tables of a comparison as pieces of a page, with protocols and notes."""
    parts = []
    for sheet in sheets(comparison):
        rows = [
            [name, str(count), *(f"{text}*" if best else text for text, best in cells)]
            for name, count, cells in zip(sheet.names, sheet.seeds, sheet.cells, strict=True)
        ]
        heads = ["configuration", "n", *(" ".join(head) for head in sheet.heads)]
        parts += [f"<h2>Figures on {escape(sheet.data)}</h2>", table(heads, rows, numbers=range(1, len(heads)))]
        parts += [f'<p class="quiet">{escape(line)}</p>' for line in sheet.protocols]
    parts += [f"<p>{escape(line)}</p>" for line in rules(comparison, "*")]
    return parts + [notice(note) for note in comparison.notes]


def render(comparison: Comparison, kind: str) -> bytes:
    """Return a comparison as the bytes of a file.

    Arguments:
        comparison: The comparison.
        kind: The ending of the file: `csv`, `md`, `tex`, `json`, `html`, `png` or `svg`.
    """
    if kind in ("png", "svg"):
        from vaekit.reporting.comparison_figure import draw_comparison

        return draw_comparison(comparison, format="svg" if kind == "svg" else "png")
    return _WRITERS[kind](comparison).encode("utf-8", "backslashreplace")


# How a comparison is written, by the ending of the file.
_WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex, "json": to_json, "html": to_html}
KINDS = (*_WRITERS, "png", "svg")
