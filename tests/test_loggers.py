"""Loggers: every line and picture once, in one run of the tracker across resumes, and never at training's cost."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trackers
from helpers import built, random_images, tiny
from lightning_fabric import Fabric
from rich.console import Console

import vaekit as vk
from vaekit.reporting.progress import Progress
from vaekit.training.listeners import Listener
from vaekit.training.loggers import Logger
from vaekit.training.loop import Fit


class Recorder(Logger):
    """Remembers what it is told; fails at a step if asked to."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails_at = fails_at

    def start(self, out: Path, identity: str | None, config: Mapping[str, Any], notes: Sequence[str]) -> str:
        self.calls.append(("start", identity, dict(config), list(notes)))
        if self.fails_at == 0:
            raise ConnectionError("no route\n  to host")
        return identity or "number 1"

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if self.fails_at is not None and step >= self.fails_at:
            raise ConnectionError("no route\n  to host")
        self.calls.append(("metrics", step, dict(values)))

    def picture(self, name: str, file: Path, step: int) -> None:
        assert file.is_file()
        self.calls.append(("picture", step, name))

    def finish(self, complete: bool) -> None:
        self.calls.append(("finish", complete))

    def of(self, kind: str) -> list[Any]:
        return [call[1:] for call in self.calls if call[0] == kind]

    def steps(self, split: str) -> list[int]:
        return [step for step, values in self.of("metrics") if f"{split}/loss" in values]


class Stop(Listener):
    """Ends training without warning after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt


class Notes(Listener):
    """Keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, note: str) -> None:
        self.notes.append(note)


def train(out: Path, logger: Logger, *listeners: Listener, resume: bool = False, **options: Any) -> Fit:
    """Train two epochs of three steps on 24 images."""
    trainer = vk.Trainer(**{"epochs": 2, "log_every": 1, "accelerator": "cpu", **options})
    trainer.loggers = {"recorder": logger}
    model, objective = built(tiny("vae"))
    return trainer.fit(
        model, objective, random_images(32), batch_size=8, out=out, resume=resume, listeners=[Notes(), *listeners]
    )


# ---- what a logger is told -------------------------------------------------------------------------------------------


def test_everything_is_told(tmp_path: Path) -> None:
    logger = Recorder()
    (tmp_path / "config.yaml").write_text("latent_dim: 4\nposterior: {name: gmm}\n")
    fit = train(tmp_path, logger)
    ((identity, config, notes),) = logger.of("start")
    assert (identity, config) == (None, {"latent_dim": 4, "posterior": {"name": "gmm"}})
    assert isinstance(notes, list)
    assert [(step, values) for step, values in logger.of("metrics")] == [
        (
            line["step"],
            {f"{line['split']}/{name}": value for name, value in line.items() if isinstance(value, float)}
            | {"epoch": float(line["epoch"])},
        )
        for line in fit.metrics
    ]
    assert logger.of("picture") == [
        (step, f"pictures/{name}") for step in (3, 6) for name in ("reconstructions", "prior")
    ]
    assert logger.calls[-1] == ("finish", True)


def test_notes_of_the_plan_are_told(tmp_path: Path) -> None:
    logger = Recorder()
    trainer = vk.Trainer(max_steps=1, accelerator="cpu")
    trainer.loggers = {"recorder": logger}
    model, objective = built(tiny("vae", likelihood="sum_squared_error"))
    trainer.fit(model, objective, random_images(16), batch_size=8, out=tmp_path)
    assert any("leaves out its constant" in note for note in logger.of("start")[0][2])


def test_a_resumed_run_tells_no_line_twice(tmp_path: Path) -> None:
    first, second, third = Recorder(), Recorder(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, first, Stop(5))
    assert first.steps("train") == [1, 2, 3, 4, 5]
    assert first.calls[-1] == ("finish", False)
    # The checkpoint is of step 3: steps 4 and 5 are made, and logged, again.
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, second, Stop(4), resume=True)
    assert second.of("start")[0][0] == "number 1"
    assert second.steps("train") == second.steps("valid") == []
    fit = train(tmp_path, third, resume=True)
    assert [line["step"] for line in fit.metrics if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert third.steps("train") == third.steps("valid") == [6]
    assert {step for step, _ in third.of("picture")} == {6}
    assert third.calls[-1] == ("finish", True)


def test_a_logger_that_is_added_hears_of_what_was_before(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Recorder(), Stop(5))
    (tmp_path / "loggers" / "recorder").unlink()
    logger = Recorder()
    train(tmp_path, logger, resume=True)
    assert logger.of("start")[0][0] is None
    assert logger.steps("train") == [1, 2, 3, 4, 5, 6]
    assert logger.steps("valid") == [3, 6]


def test_a_record_that_was_cut_short(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Recorder(), Stop(5))
    file = tmp_path / "loggers" / "recorder"
    lines = file.read_text().splitlines()
    assert lines[:3] == ["number 1", "train 1", "train 2"]
    assert lines[-1] == "train 5"
    file.write_text("\n".join(lines[:-1]) + "\ntrai")
    for told, epochs in (([5, 6], 2), ([7, 8, 9], 3)):
        logger = Recorder()
        train(tmp_path, logger, resume=True, epochs=epochs)
        assert logger.steps("train") == told


# ---- a tracker that fails --------------------------------------------------------------------------------------------


def test_a_failing_tracker_costs_only_its_log(tmp_path: Path) -> None:
    logger, notes, screen = Recorder(fails_at=2), Notes(), io.StringIO()
    fit = train(tmp_path, logger, notes, Progress(Console(file=screen, width=400)))
    assert fit.steps == 6
    assert logger.steps("train") == [1]
    assert not logger.of("picture")
    assert not logger.of("finish"), "a tracker that fails may hang when it is asked to end"
    said = (
        "recorder is told no more of this run (ConnectionError: no route to host); training goes on, and what it "
        "misses is told when the run is resumed"
    )
    assert notes.notes == [said]
    assert screen.getvalue().count(said) == 1
    plain = train(tmp_path / "plain", Recorder())
    assert plain.metrics == fit.metrics
    # What it missed comes first when it works again.
    again = Recorder()
    train(tmp_path, again, resume=True, epochs=3)
    assert again.of("start")[0][0] == "number 1"
    assert again.steps("train") == [2, 3, 4, 5, 6, 7, 8, 9]
    assert again.steps("valid") == [3, 6, 9]


def test_a_tracker_that_cannot_begin(tmp_path: Path) -> None:
    logger, notes = Recorder(fails_at=0), Notes()
    assert train(tmp_path, logger, notes).steps == 6
    assert len(logger.calls) == len(notes.notes) == 1
    again = Recorder()
    train(tmp_path, again, resume=True)
    assert again.of("start")[0][0] is None
    assert again.steps("train") == [1, 2, 3, 4, 5, 6]


def test_a_warning_where_nobody_takes_notes(tmp_path: Path) -> None:
    trainer = vk.Trainer(max_steps=3, log_every=1, accelerator="cpu")
    trainer.loggers = {"recorder": Recorder(fails_at=2)}
    model, objective = built(tiny("vae"))
    with pytest.warns(UserWarning, match="recorder is told no more of this run") as caught:
        trainer.fit(model, objective, random_images(32), batch_size=8, out=tmp_path)
    assert len(caught) == 1


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loggers", "sentence"),
    [
        (["tensorbord"], "unknown logger 'tensorbord': did you mean 'tensorboard'"),
        ([{"name": "wandb", "projet": "x"}], r"unknown option 'trainer.loggers\[0\].projet'.*did you mean 'project'"),
        (["tensorboard", "tensorboard"], "trainer.loggers has 'tensorboard' twice"),
        ([{"project": "x"}], r"trainer.loggers\[0\] must be a logger's name or a mapping with 'name'"),
    ],
)
def test_options_that_are_refused(loggers: list[Any], sentence: str) -> None:
    with pytest.raises(vk.VaekitError, match=sentence):
        vk.Trainer(loggers=loggers)


@pytest.mark.parametrize("name", trackers.READERS)
def test_a_package_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.training.loggers.base.find_spec", lambda package: None)
    with pytest.raises(vk.VaekitError, match=rf'the logger {name} needs {name}: pip install "vaekit\[{name}\]", or'):
        vk.Trainer(loggers=[name])


def test_loggers_need_a_run_directory() -> None:
    pytest.importorskip("tensorboard")
    model, objective = built(tiny("vae"))
    with pytest.raises(vk.VaekitError, match="trainer.loggers need the run directory: give out"):
        vk.Trainer(loggers=["tensorboard"]).fit(model, objective, random_images(32), batch_size=8)


# ---- the trackers themselves -----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for runs, and no network."""
    trackers.stay_here(monkeypatch, tmp_path)
    return tmp_path


def run(out: Path, loggers: list[Any], **trainer: Any) -> vk.Run:
    options = {
        "max_steps": 6,
        "log_every": 1,
        "checkpoint_every": 3,
        "accelerator": "cpu",
        "loggers": loggers,
        **trainer,
    }
    return vk.Run(tiny("pvae", backbone={"hidden": []}, trainer=options, data={"limit": 250}), out)


def stopped_and_resumed(out: Path, name: str) -> tuple[str, list[dict[str, Any]]]:
    """Train a run that is killed at step 5 and goes on from step 3; return its identity and its lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the trackers and what they stand on
        with pytest.raises(KeyboardInterrupt):
            run(out, [name]).fit(listeners=[Stop(5)])
        if name == "wandb":
            trackers.require(name)
        heard = Notes()
        run(out, [name]).fit(resume=True, listeners=[heard])
    assert not heard.notes, heard.notes
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return (out / "loggers" / name).read_text().splitlines()[0], lines


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", trackers.READERS)
def test_every_line_once_across_a_resume(name: str, here: Path) -> None:
    trackers.require(name)
    identity, lines = stopped_and_resumed(here / "run", name)
    told = trackers.READERS[name](here / "run", identity)
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert {"train/loss", "train/kl", "valid/loss"} <= told.keys()
    for split in ("train", "valid"):
        for term in ("loss", "reconstruction", "kl"):
            expected = [(line["step"], line[term]) for line in lines if line["split"] == split]
            found = told[f"{split}/{term}"]
            assert [step for step, _ in found] == [step for step, _ in expected], f"{split}/{term}"
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)
    {"tensorboard": see_tensorboard, "wandb": see_wandb, "mlflow": see_mlflow, "trackio": see_trackio}[name](
        here / "run", identity
    )


NOTE = "training draws are relaxed"


def see_tensorboard(out: Path, identity: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert [event.step for event in events.Images("pictures/prior")] == [3, 6]
    texts = {
        name: b"".join(event.tensor_proto.string_val[0] for event in events.Tensors(f"{name}/text_summary"))
        for name in ("configuration", "notes")
    }
    assert b"name: poisson" in texts["configuration"]
    assert NOTE.encode() in texts["notes"]


def see_wandb(out: Path, identity: str) -> None:
    records = [record for record in trackers.wandb_records(out) if record.WhichOneof("record_type") == "run"]
    assert {record.run.run_id for record in records} == {identity}
    assert {record.run.project for record in records} == {"vaekit"}
    assert {record.run.display_name for record in records} == {"run"}
    assert NOTE in records[0].run.notes
    config = {item.key: json.loads(item.value_json) for item in records[0].run.config.update}
    assert config["posterior"]["name"] == "poisson"
    pictures = sorted(file.name.split("_")[:2] for file in out.rglob("media/images/pictures/*.png"))
    assert pictures == [[name, step] for name in ("prior", "reconstructions") for step in ("3", "6")]


def see_mlflow(out: Path, identity: str) -> None:
    from mlflow import MlflowClient

    found = MlflowClient().get_run(identity)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["posterior.name"] == "poisson"
    assert found.data.params["trainer.max_steps"] == "6"
    assert NOTE in found.data.tags["mlflow.note.content"]
    names = [file.path for file in MlflowClient().list_artifacts(identity, "pictures")]
    assert names == [
        f"pictures/epoch-000{epoch}-{name}.png" for epoch in (1, 2) for name in ("prior", "reconstructions")
    ]


def see_trackio(out: Path, identity: str) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    assert identity.startswith("run-")
    config = SQLiteStorage.get_run_config("vaekit", identity)
    assert config["posterior"]["name"] == "poisson"
    assert any(NOTE in note for note in config["notes"])
    lines = SQLiteStorage.get_logs("vaekit", identity)
    assert [line["step"] for line in lines if "pictures/prior" in line] == [3, 6]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_without_a_server_stays_in_the_run_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(here)
    run(here / "run", ["mlflow"], max_steps=1).fit()
    identity = (here / "run" / "loggers" / "mlflow").read_text().splitlines()[0]
    client = MlflowClient(tracking_uri=f"sqlite:///{here}/run/mlflow/mlflow.db")
    assert client.get_metric_history(identity, "train/loss")[0].step == 1
    assert len(list((here / "run" / "mlflow" / "artifacts").rglob("*-prior.png"))) == 1
    assert {path.name for path in here.iterdir()} <= {"run", "wandb-config", "wandb-cache", "wandb-data"}


def test_only_the_first_of_several_processes_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fabric, "is_global_zero", False)
    logger = Recorder()
    assert train(tmp_path, logger).steps == 6
    assert not logger.calls


def test_loggers_may_change_when_a_run_is_resumed(here: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(KeyboardInterrupt):
        run(here / "run", []).fit(listeners=[Stop(2)])
    run(here / "run", ["tensorboard"], max_steps=3).fit(resume=True)
    told = trackers.tensorboard(here / "run", "")
    assert [step for step, _ in told["train/loss"]] == [1, 2, 3]
