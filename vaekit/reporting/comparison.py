"""Runs side by side: equal configurations are averaged over seeds, and no column mixes two protocols."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vaekit.errors import VaekitError, suggest
from vaekit.reporting.comparison_cells import Cell, Column, Row
from vaekit.reporting.comparison_notes import conflicts, notes_on
from vaekit.reporting.comparison_reading import TRAINING, ComparedRun, Number, find_runs, read_run

__all__ = ["Comparison", "compare"]

_MOST = 8  # A figure that is nested into more than so many columns is shown when asked for by name.


@dataclass(frozen=True)
class Comparison:
    """Rows and columns, and what a reader must know of them.

    Arguments:
        rows: The configurations.
        columns: The figures, one column for each protocol.
        notes: Sentences.
    """

    rows: list[Row]
    columns: list[Column]
    notes: list[str] = field(default_factory=list)

    def tables(self) -> Iterator[tuple[str, Comparison]]:
        """Yield the name of each data set that was measured on, with its part of the comparison."""
        for data in dict.fromkeys(column.data for column in self.columns):
            columns = [column for column in self.columns if column.data == data]
            yield data, Comparison([r for r in self.rows if any(c.key in r.cells for c in columns)], columns)

    def best(self, column: Column) -> list[Row]:
        """Return the row of the best mean, and those whose intervals overlap its interval.

        None where it is not known which side is better, where there is one row, and where a row has no interval:
        one seed cannot say how far another one would fall.
        """
        cells = [(row, row.cells[column.key]) for row in self.rows if column.key in row.cells]
        sign = {"higher": 1, "lower": -1, None: 0}[column.better]
        ends = [(row, cell.mean, cell.half_width) for row, cell in cells if cell.half_width is not None]
        if not sign or len(cells) < 2 or len(ends) < len(cells):
            return []
        _, best, width = max(ends, key=lambda end: sign * end[1])
        return [row for row, mean, half in ends if abs(best - mean) <= width + half]


def compare(runs: Iterable[str | Path], *, metrics: Sequence[str] | None = None, strict: bool = False) -> Comparison:
    r"""Set runs side by side.

    Runs of the same configuration but the seed are one row, with the mean $\bar x$ of their figures and the 95 %
    confidence interval $\bar x\pm t_{0.975,\,n-1}\,s/\sqrt n$ over their n seeds (Student t). A column is one figure
    under one protocol: the same figure under another protocol, or of another data set, is another column.

    Arguments:
        runs: Run directories, and folders that hold some.
        metrics: The columns by name, as `"likelihood"`, `"kid[prior]"` or `"probe.accuracy"`. If not given: all but
            those of figures that are nested into more than eight, and figures of the training only where a run has no
            others.
        strict: Whether to refuse figures of different protocols instead of separating them.

    Raises:
        VaekitError: There is no run or no figure, a run is damaged, there is no such metric, or the comparison is
            strict and the protocols differ or no figure is shared.

    Examples:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for seed, value in enumerate([-90.0, -92.0]):
        ...         out = Path(folder) / f"vae-{seed}"
        ...         out.mkdir()
        ...         config = f"{{recipe: vae, data: {{name: digits}}, trainer: {{seed: {seed}}}}}"
        ...         values, protocol = {"log_likelihood": value}, {"data": {"data": "digits"}, "samples": 180}
        ...         record = {"metric": "likelihood", "values": values, "protocol": protocol, "made": {}, "notes": []}
        ...         _ = (out / "config.yaml").write_text(config)
        ...         _ = (out / "evaluation.json").write_text(json.dumps({"format": 1, "records": [record]}))
        ...     found = compare([folder])
        >>> cell = found.rows[0].cells[found.columns[0].key]
        >>> found.rows[0].name, found.columns[0].name, cell.mean, round(cell.half_width, 2), cell.n
        ('vae', 'likelihood.log_likelihood', -91.0, 12.71, 2)
    """
    read = [read_run(out) for out in find_runs(runs)]
    columns, left_out = _columns(read, metrics)
    if not columns:
        raise VaekitError(f"the runs have no figures: compute some with `vaekit evaluate {read[0].out}`")
    rows = _rows(read, {column.key for column in columns})
    apart = conflicts(read, columns)
    if strict and apart:
        raise VaekitError(f"{apart[0]}: evaluate them alike, or leave out --strict to have columns of their own")
    notes = [f"{sentence}: they stand in columns of their own" for sentence in apart]
    if len(rows) > 1 and not any(sum(column.key in row.cells for row in rows) > 1 for column in columns):
        if strict:
            raise VaekitError("the runs have no figure in common: compute the same metrics of all with vaekit evaluate")
        notes.append("no column has two figures: nothing here compares one configuration with another")
    return Comparison(rows, columns, [*notes, *notes_on(read, rows, columns, left_out)])


def _columns(read: Sequence[ComparedRun], metrics: Sequence[str] | None) -> tuple[list[Column], dict[str, int]]:
    """Return the columns, and the figures that are left out because they are nested into many."""
    holders: dict[Column, list[ComparedRun]] = {}
    by_key: dict[tuple[str, str, str], Column] = {}
    for run in read:
        for number in run.numbers:
            if math.isfinite(number.value):
                column = by_key.setdefault(number.key, Column(number.metric, number.figure, number.protocol))
                holders.setdefault(column, []).append(run)
    # What was computed together stands together.
    metrics_found, digests = ([*dict.fromkeys(column.key[part] for column in holders)] for part in (0, 2))
    columns = sorted(holders, key=lambda column: (metrics_found.index(column.metric), digests.index(column.key[2])))
    if metrics is not None:
        valid = {f"{column.bare}" for column in columns} | {f"{column.bare}.{column.group}" for column in columns}
        for name in metrics:
            if not any(column.is_called(name) for column in columns):
                raise VaekitError(f"no run has the figure '{name}': {suggest(name, valid)}")
        return [column for column in columns if any(column.is_called(name) for name in metrics)], {}
    columns = [c for c in columns if c.metric != TRAINING or not all(run.evaluated for run in holders[c])]
    figures = {(column.metric, column.group, column.figure) for column in columns}
    sizes = Counter(f"{metric}.{group}" for metric, group, _ in figures)
    left_out = {name: size for name, size in sizes.items() if size > _MOST}
    kept = [column for column in columns if f"{column.metric}.{column.group}" not in left_out]
    return (kept, left_out) if kept else (columns, {})


def _rows(read: Sequence[ComparedRun], wanted: Collection[tuple[str, str, str]]) -> list[Row]:
    """Return a row for each configuration, in order."""
    alike: dict[tuple[str, frozenset[tuple[str, str]]], list[ComparedRun]] = {}
    for run in read:
        alike.setdefault((run.recipe, frozenset(run.settings.items())), []).append(run)
    rows = []
    for runs in alike.values():
        one = runs[0]
        rivals = [
            group[0].settings for group in alike.values() if (group[0].recipe, group[0].data) == (one.recipe, one.data)
        ]
        found: dict[tuple[str, str, str], list[tuple[int, Number]]] = {}
        for run in runs:
            for number in run.numbers:
                if number.key in wanted:
                    found.setdefault(number.key, []).append((run.seed, number))
        cells = {key: _cell(numbers) for key, numbers in found.items()}
        name = ", ".join([one.recipe, *_distinctions(one.settings, rivals)])
        rows.append(Row(name, one.data, tuple(run.out for run in runs), tuple(run.seed for run in runs), cells))
    return rows


def _cell(numbers: Sequence[tuple[int, Number]]) -> Cell:
    by_seed: dict[int, list[float]] = {}
    for seed, number in numbers:
        by_seed.setdefault(seed, []).append(number.value)
    values = {seed: statistics.fmean(found) for seed, found in sorted(by_seed.items())}
    return Cell(values, any(number.stale for _, number in numbers))


def _distinctions(settings: Mapping[str, str], rivals: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the settings that not all rivals have, as `posterior.components=8`."""
    apart = [name for name in settings if not all(_has(other, name, settings[name]) for other in rivals)]
    if any(name.startswith("data.") for name in apart):
        # What follows from the options of the data.
        apart = [name for name in apart if not name.startswith(("data_shape", "data_values"))]
    for name in apart:
        yield name if settings[name] == "{}" else f"{name.removesuffix('.name')}={settings[name]}"


def _has(settings: Mapping[str, str], name: str, value: str) -> bool:
    """Whether settings have this one; a part without options is there as well where it has some."""
    return settings.get(name) == value or (value == "{}" and any(key.startswith(f"{name}.") for key in settings))
