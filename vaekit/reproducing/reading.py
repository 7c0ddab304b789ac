"""Figures of a table, taken out of the run directories of its rows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaekit.documents import read_json
from vaekit.errors import VaekitError
from vaekit.evaluation.records import Record, read_records
from vaekit.files import sha256
from vaekit.reporting.comparison_reading import entries
from vaekit.reproducing.definition import Table
from vaekit.reproducing.parts import Figure, MadeRow, Measured
from vaekit.series import is_finished

__all__ = ["STAMP", "Stamp", "figure_of", "measured", "read_stamp"]

STAMP = "reproduction.json"
_ASIDE = "LPIPS is left out"  # Of figures that no table has; the sentence names folders of this machine.


@dataclass(frozen=True)
class Stamp:
    """What is written beside a run once a table's figures of it are there.

    Arguments:
        asked: What was asked of the evaluation.
        weights_sha256: The hash of the weights.
        date: The day.
        records: Metric and digest of the protocol of each record.
        notes: What the data are announced with.
    """

    asked: Mapping[str, Any]
    weights_sha256: str
    date: str
    records: list[list[str]]
    notes: list[str] = field(default_factory=list)


def read_stamp(out: Path, asked: Mapping[str, Any]) -> Stamp | None:
    """Return the stamp of a finished run, or `None` where figures are missing, are others, or are of other weights."""
    if not is_finished(out):
        return None
    try:
        stamp = Stamp(**read_json(out / STAMP))
        datetime.date.fromisoformat(stamp.date)
    except (ValueError, TypeError):
        return None
    there = [[record.metric, record.digest] for record in read_records(out)]
    good = all(record in there for record in stamp.records)
    same = stamp.asked == asked and stamp.weights_sha256 == sha256(out / "model.safetensors")
    return stamp if same and good else None


def figure_of(figure: Figure, records: Sequence[Record]) -> float | None:
    """Return a figure of a run; `None` where it is not there or not finite.

    Arguments:
        figure: The column.
        records: The records of the run.

    Raises:
        VaekitError: What stands there is no number, and for a share no list of numbers.

    Examples:
        >>> active = Figure(heading="active", path="latent.kl_by_dimension", derive="share above 0.01")
        >>> figure_of(active, [Record("latent", {"kl_by_dimension": [0.0, 0.5, 1.0, 0.002]}, {})])
        0.5
    """
    for record in records:
        if record.metric == figure.metric and record.protocol.get("sampler") == figure.sampler:
            value: Any = record.values
            for key in figure.keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return _derived(value, figure)
    return None


def _derived(value: Any, figure: Figure) -> float | None:
    share = (figure.derive or "").startswith("share above")
    if isinstance(value, Mapping):
        value = value.get("mean", value) if "standard_error" in value else value
    if share and isinstance(value, list) and value and all(isinstance(part, int | float) for part in value):
        least = float(str(figure.derive).removeprefix("share above"))
        return sum(part > least for part in value) / len(value)
    if share or isinstance(value, Mapping | list | str):
        raise VaekitError(f"the figure '{figure.heading}' is made of {figure.path}, which is no number: name another")
    if value is None:
        return None
    return -float(value) if figure.derive == "negated" else float(value)


def measured(
    table: Table,
    places: Mapping[str, Sequence[Path]],
    asked: Mapping[str, Any],
    *,
    full: bool = False,
    changes: Sequence[str] = (),
    extractor: str | None = None,
) -> Measured:
    """Return what the run directories of a table tell, rows without figures left out.

    Arguments:
        table: The table.
        places: Name of a row to its run directories, one for each seed.
        asked: What was asked of the evaluation.
        full: Whether the runs are of the published length.
        changes: Further changes, as `--set` takes them.
        extractor: The feature extractor, as `--extractor` took it, without its folder.

    Raises:
        VaekitError: A column would mix protocols, or a file is damaged.
    """
    rows: dict[str, MadeRow] = {}
    dates, machines = [], []
    protocols: dict[str, tuple[Record, Path]] = {}
    notes: dict[str, list[tuple[str, str]]] = {}
    for name, outs in places.items():
        found: dict[str, list[float]] = {}
        trained = []
        for out in outs:
            stamp = read_stamp(out, asked)
            if stamp is None:
                continue
            records = [each for each in read_records(out) if [each.metric, each.digest] in stamp.records]
            for figure in table.figures:
                if (value := figure_of(figure, records)) is not None:
                    found.setdefault(figure.heading, []).append(value)
            environment = read_json(out / "environment.json")
            trained.append(environment["training"])
            dates.append(datetime.date.fromisoformat(stamp.date))
            machines.append(_machine(environment))
            for sentence in stamp.notes:
                notes.setdefault(sentence, [])
            for record in records:
                title = _title(record)
                first, place = protocols.setdefault(title, (record, out))
                if first.digest != record.digest:
                    raise VaekitError(
                        f"{place} and {out} were evaluated by different protocols of '{title}': delete {STAMP} in both "
                        "and repeat the command"
                    )
                for note in record.notes:
                    if not note.startswith(_ASIDE):
                        notes.setdefault(note, []).append((title, name))
        if trained:
            seconds = sum(each["seconds"] for each in trained) / len(trained)
            rows[name] = MadeRow(figures=found, steps=trained[0]["steps"], seconds=round(seconds, 1))
    there = {heading for row in rows.values() for heading in row.figures}
    for figure in table.figures if rows else []:
        # A Fréchet distance goes by one of two names.
        if figure.heading not in there and not figure.compares_images:
            notes[f"no run has the figure {figure.path}"] = []
    return Measured(
        date=max(dates, default=datetime.date.today()),
        machine="; ".join(dict.fromkeys(machines)),
        schedule="full" if full else "short",
        changes=list(changes),
        extractor=extractor,
        rows=rows,
        protocols=_written({title: record for title, (record, _) in protocols.items()}),
        notes=[_said(note, of, rows) for note, of in notes.items()],
    )


def _title(record: Record) -> str:
    sampler = record.protocol.get("sampler")
    return f"{record.metric}[{sampler}]" if sampler else record.metric


def _written(records: Mapping[str, Record]) -> dict[str, str]:
    """Write protocols, first what all have in common."""
    flat = {title: set(entries(record.protocol).items()) for title, record in records.items()}
    common = set.intersection(*flat.values()) if len(flat) > 1 else set()
    found = {"all": _listed(records, common)} if common else {}
    for title, protocol in flat.items():
        own = _listed(records, protocol - common)
        found[title] = f"{own}{', ' if own else ''}digest {records[title].digest}"
    return found


def _listed(records: Mapping[str, Record], chosen: set[tuple[str, str]]) -> str:
    """Write entries of protocols in their order; what is null is not used."""
    order = dict.fromkeys(entry for record in records.values() for entry in entries(record.protocol).items())
    words = ((name, value) for name, value in order if (name, value) in chosen and value != "null")
    return ", ".join(f"{'data' if name == 'data.data' else name} {value}" for name, value in words)


def _said(note: str, of: Sequence[tuple[str, str]], rows: Mapping[str, MadeRow]) -> str:
    """Write a note with the metrics and the rows that it is about, unless it is about all."""
    metrics, names = ([*dict.fromkeys(pair[part] for pair in of)] for part in (0, 1))
    before = f"{', '.join(metrics)}: " if metrics else ""
    return f"{before}{note}" if len(names) in (0, len(rows)) else f"{before}{note} ({', '.join(names)})"


def _machine(environment: Mapping[str, Any]) -> str:
    packages = environment.get("packages") or {}
    threads = f", threads: {environment.get('threads')}" if environment.get("device") == "cpu" else ""
    return f"{environment.get('device')}{threads}, torch {packages.get('torch')}"
