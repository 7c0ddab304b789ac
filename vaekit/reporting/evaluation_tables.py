"""The figures of one metric as a table of texts, and their protocol in words: what every page says of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vaekit.evaluation.records import Record
from vaekit.reporting.comparison_notes import differences
from vaekit.reporting.comparison_reading import entries
from vaekit.reporting.wording import figure_title, number

__all__ = ["protocol_in_words", "table_of"]

_FEW = 4  # Numbers of a list that are written out; evaluation.json has them all.


def table_of(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Return the records of one metric as a table: a column for each protocol, a row for each figure.

    Arguments:
        records: The records.

    Returns:
        The heads of the columns: in what the protocols differ, `value` for a single one; and the rows, the name of the
        figure first.

    Examples:
        >>> values = {"accuracy": {"mean": 0.9, "standard_error": 0.01, "count": 100}}
        >>> table_of([Record("probe", values, {"split": "test"}), Record("probe", values, {"split": "valid"})])
        (['split test', 'split valid'], [['accuracy', '0.9000 ± 0.01', '0.9000 ± 0.01']])
    """
    heads = ["; ".join(words) or "value" for words in differences([each.protocol for each in records])]
    columns = [{figure_title(name, each.protocol): text for name, text in _figures(each.values)} for each in records]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return heads, [[name, *(column.get(name, "") for column in columns)] for name in names]


def protocol_in_words(records: Sequence[Record]) -> str:
    """Return what the protocols of records have in common, in a line; of the data set the name alone.

    Examples:
        >>> protocol_in_words([Record("likelihood", {}, {"data": {"data": "digits", "limit": 9}, "particles": 512})])
        'data digits; particles 512'
    """
    first, *others = [entries(each.protocol) for each in records]
    common = {key: value for key, value in first.items() if all(each.get(key) == value for each in others)}
    shown = {"data" if name == "data.data" else name: value for name, value in common.items()}
    return "; ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in shown.items() if not name.startswith("data.")
    )


def _figures(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name of each figure and the figure as text."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and "standard_error" in value:
            error = value["standard_error"]
            about = f" ± {error:.2g}" if isinstance(error, int | float) else ""
            yield name, "none" if value["mean"] is None else f"{number(value['mean'], padded=True)}{about}"
        elif isinstance(value, Mapping):
            yield from _figures(value, f"{name}.")
        elif isinstance(value, list) and len(value) > _FEW:
            yield name, f"{len(value)} numbers"
        elif isinstance(value, list):
            yield name, ", ".join(number(each) if isinstance(each, int | float) else str(each) for each in value)
        elif isinstance(value, float):
            yield name, number(value, padded=True)
        else:
            yield name, "none" if value is None else str(value)
