"""`evaluation.json`: figures, each with its protocol and with the circumstances in which it was made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from vaekit.documents import read_json
from vaekit.errors import VaekitError
from vaekit.files import save_json

__all__ = ["Record", "digest", "keep_record", "plain", "read_records"]

_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """The figures of one metric under one protocol.

    Arguments:
        metric: The name of the metric.
        values: Its figures as JSON has them: numbers and estimates (`mean`, `standard_error`, `count`), nested as is
            apt.
        protocol: What two figures must have in common to be compared: data, split, number of samples, sampler,
            extractor and whatever else the metric depends on.
        made: The circumstances, which may differ between figures that compare: seed, versions, device, hash of the
            weights.
        notes: Sentences that a reader of the figures should know.
    """

    metric: str
    values: Mapping[str, Any]
    protocol: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that are the same for equal protocols."""
        return digest(self.protocol)


def digest(protocol: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits of the SHA-256 of a protocol, whatever the order of its entries.

    Examples:
        >>> digest({"split": "test", "samples": 10}) == digest({"samples": 10, "split": "test"})
        True
    """
    return hashlib.sha256(json.dumps(plain(protocol), sort_keys=True).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return figures as JSON has them: dataclasses and mappings as objects, what is not finite as null.

    Examples:
        >>> plain({1: float("nan"), ("a", "b"): [0.5, float("inf")]})
        {'1': None, 'a+b': [0.5, None]}
    """
    if is_dataclass(value):
        value = {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, Mapping):
        return {"+".join(key) if isinstance(key, tuple) else str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(out: str | Path) -> list[Record]:
    """Return the records of a run directory, none where it was never evaluated.

    Raises:
        VaekitError: The file is damaged, or another version of vaekit wrote it.
    """
    path = Path(out) / "evaluation.json"
    if not path.is_file():
        return []
    try:
        content = read_json(path)
        version = content["format"]
        names = [part.name for part in fields(Record)]
        records = (
            [] if version != _FORMAT else [Record(**{n: record[n] for n in names}) for record in content["records"]]
        )
        if not all(isinstance(part, Mapping) for each in records for part in (each.values, each.protocol, each.made)):
            raise TypeError("values, protocol and circumstances are objects")
        words = [word for each in records for word in (each.metric, *each.notes)]
        if not all(isinstance(word, str) for word in words):
            raise TypeError("metrics and notes are words")
    except (ValueError, TypeError, KeyError) as error:
        raise VaekitError(f"{path} is damaged and cannot be read: move it away and evaluate again") from error
    if version != _FORMAT:
        raise VaekitError(f"{path} has format {version}, not {_FORMAT}: move it away and evaluate again")
    return records


def keep_record(out: str | Path, record: Record) -> Path:
    """Add a record to the `evaluation.json` of a run directory, atomically, and return the file.

    It takes the place of an earlier record of the same metric and protocol; all others stay.

    Raises:
        VaekitError: The file that is there is damaged, or cannot be written.
    """
    kept = [old for old in read_records(out) if (old.metric, old.digest) != (record.metric, record.digest)]
    shown = [{**plain(each), "digest": each.digest} for each in (*kept, record)]
    path = Path(out) / "evaluation.json"
    save_json(path, {"format": _FORMAT, "records": shown})
    return path
