"""`evaluation.json`: figures with their protocols, kept whole and kept apart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vaekit.errors import VaekitError
from vaekit.evaluation.records import Record, digest, keep_record, plain, read_records
from vaekit.evaluation.subsets import Estimate

LISTS = '{"format": 1, "records": [{"metric": "x", "values": [], "protocol": {}, "made": {}, "notes": []}]}'


def record(samples: int = 10, value: float = 1.0, metric: str = "likelihood") -> Record:
    return Record(metric, {"log_likelihood": value}, {"split": "test", "samples": samples}, {"seed": 3}, ["a note"])


def test_a_protocol_has_one_digest() -> None:
    assert digest({"a": 1, "b": {"c": [1, 2]}}) == digest({"b": {"c": [1, 2]}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})
    assert len(digest({})) == 16


def test_figures_of_other_protocols_stay(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []
    for each in (record(10), record(20), record(10, metric="rates")):
        keep_record(tmp_path, each)
    assert read_records(tmp_path) == [record(10), record(20), record(10, metric="rates")]
    keep_record(tmp_path, record(10, value=2.0))
    assert [(r.metric, r.protocol["samples"], r.values["log_likelihood"]) for r in read_records(tmp_path)] == [
        ("likelihood", 20, 1.0),
        ("rates", 10, 1.0),
        ("likelihood", 10, 2.0),
    ]
    shown = json.loads((tmp_path / "evaluation.json").read_text())
    assert shown["format"] == 1
    assert shown["records"][0]["digest"] == record(20).digest
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 1, "records": [{"metric": "x"}]}', LISTS])
def test_a_damaged_file_is_said_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(VaekitError, match="is damaged"):
        keep_record(tmp_path, record())
    assert path.read_text() == content


def test_a_file_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"format": 9, "records": []}')
    with pytest.raises(VaekitError, match="has format 9, not 1"):
        read_records(tmp_path)


def test_plain_figures_are_json() -> None:
    assert plain({"x": math.nan, 2: {("a",): 1}}) == {"x": None, "2": {"a": 1}}
    assert plain([math.inf, (1, 2)]) == [None, [1, 2]]
    assert plain(Estimate(1.0, math.nan, 1)) == {"mean": 1.0, "standard_error": None, "count": 1}
