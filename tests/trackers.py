"""What trackers know of a run, read back from their local files."""

from __future__ import annotations

import atexit
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Of a run: name of a scalar to its steps and values, in the order in which they were told.
Told = dict[str, list[tuple[int, float]]]


@functools.cache
def shared() -> str:
    """Return one folder for all tests: trackio reads the environment once, MLflow takes seconds to make a database."""
    place = tempfile.TemporaryDirectory()
    atexit.register(place.cleanup)
    return place.name


def stay_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have no tracker use the network, nor files outside of a folder."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONFIG_DIR": str(folder / "wandb-config"),
        "WANDB_CACHE_DIR": str(folder / "wandb-cache"),
        "WANDB_DATA_DIR": str(folder / "wandb-data"),
        "TRACKIO_DIR": shared(),
        "MLFLOW_TRACKING_URI": f"sqlite:///{shared()}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }.items():
        monkeypatch.setenv(name, value)


def require(name: str) -> None:
    """Skip a test without the tracker, and see to it that it can begin another run."""
    pytest.importorskip(name)
    if name == "wandb":
        time.sleep(1.1)  # Folders of offline runs are named by the second.
    if name == "mlflow":
        mlflow_experiment()


@functools.cache
def mlflow_experiment() -> None:
    """Make the experiment once, with its artifacts beside the database and not where the tests run."""
    from mlflow import MlflowClient

    MlflowClient().create_experiment("vaekit", artifact_location=f"file://{shared()}/artifacts")


def tensorboard(out: Path, identity: str) -> Told:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def wandb_records(out: Path) -> Iterator[Any]:
    """Yield the records of the offline runs, in order: blocks of 32 KiB of records that may be in several parts."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted((out / "wandb").glob("offline-run-*/*.wandb")):
        content, at, parts = file.read_bytes(), 7, b""
        while at < len(content):
            if (left := 32768 - at % 32768) < 7:
                at += left
            length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6 : at + 7]
            if not kind or kind == b"\0":
                break
            parts += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind[0] in (1, 4):  # Whole, or the last part.
                record, parts = wandb_internal_pb2.Record.FromString(parts), b""
                yield record


def wandb(out: Path, identity: str) -> Told:
    told: Told = {}
    # A process of its own writes, and may be late on a busy machine.
    deadline = time.monotonic() + 30
    files = len(list((out / "wandb").glob("offline-run-*/*.wandb")))
    while sum(record.WhichOneof("record_type") == "exit" for record in wandb_records(out)) < files:
        assert time.monotonic() < deadline, "a run of wandb was not finished"
        time.sleep(0.1)
    for record in wandb_records(out):
        if record.WhichOneof("record_type") == "run":
            assert record.run.run_id == identity
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name, value in items.items():
                if isinstance(value, float | int) and not name.startswith("_"):
                    told.setdefault(name, []).append((items["_step"], float(value)))
    return told


def mlflow(out: Path, identity: str) -> Told:
    from mlflow import MlflowClient

    client = MlflowClient()
    names = client.get_run(identity).data.metrics
    return {name: [(m.step, m.value) for m in client.get_metric_history(identity, name)] for name in names}


def trackio(out: Path, identity: str) -> Told:
    from trackio.sqlite_storage import SQLiteStorage

    told: Told = {}
    for line in SQLiteStorage.get_logs("vaekit", identity):
        for name, value in line.items():
            if isinstance(value, float):
                told.setdefault(name, []).append((line["step"], value))
    return told


READERS: dict[str, Callable[[Path, str], Told]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}
