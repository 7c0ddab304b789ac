"""Sweeps: every trial is a run, failures and pruned trials are kept, and the best can be made again."""

from __future__ import annotations

import json
import shlex
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers import call
from sweep_helpers import ARGUMENTS, TINY, draw_no_reports

from vaekit import run_base
from vaekit.config import read_recipe, resolve
from vaekit.errors import VaekitError
from vaekit.evaluation.records import read_records
from vaekit.reporting.comparison import compare
from vaekit.reporting.record import read_record
from vaekit.run import Run
from vaekit.sweeping import sweep
from vaekit.sweeping.page import importance, write_page

optuna = pytest.importorskip("optuna", reason="the sweep extra is not installed")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_reports(monkeypatch)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        "--over=latent_dim=2,5",
        "--over=trainer.optimizer.lr=1e-4..1e-1:log",
        "--trials=3",
        "--epochs=1",
        "--seed=4",
    ]
    assert call("sweep", "vae", *ARGUMENTS, *given, "--seeds=2") == 0
    shown = capsys.readouterr()
    assert [line.split(" of ")[0] for line in shown.err.splitlines()] == ["trial 0", "trial 1", "trial 2"]
    out = tmp_path / "sweeps" / "vae-digits"
    runs = {f"trial-000{number}-seed-{seed}" for number in range(3) for seed in (4, 5)}
    assert {path.name for path in out.iterdir()} == {"sweep.yaml", "sweep.html", "study.jsonl", ".locks", *runs}
    page = (out / "sweep.html").read_text()
    found = sweep(out, resume=True)
    best = found.best
    assert best is not None
    assert found.command(best) in page.replace("&#x27;", "'")
    assert found.command(best) in shown.out
    # The mean over seeds of the lowest validation loss.
    for trial in found.trials:
        lowest = []
        for run in found.runs(trial):
            lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            lowest.append(min(line["loss"] for line in lines if line["split"] == "valid"))
        assert trial.score == pytest.approx(statistics.fmean(lowest))
        assert best.score <= trial.score
    # Every trial is a run as any other, and its command makes it again.
    rows = compare([out]).rows
    assert sorted(row.seeds for row in rows) == [(4, 5)] * 3
    command = shlex.split(found.command(best))
    assert json.loads((found.runs(best)[0] / "environment.json").read_text())["command"] == shlex.join(command)
    assert call(*command[1:], "--out=again") == 0
    assert Path("again/metrics.jsonl").read_bytes() == (found.runs(best)[0] / "metrics.jsonl").read_bytes()
    more = replace(found, definition=replace(found.definition, trials=9))
    study = optuna.create_study()
    assert (
        f"3 of 9 trials have ended. Go on with: vaekit sweep {found.out} --resume"
        in write_page(more, study).read_text()
    )
    # The next sweep of the same recipe lies elsewhere.
    assert call("sweep", "vae", *ARGUMENTS, *given[:2], "--trials=1", "--epochs=1") == 0
    assert (tmp_path / "sweeps" / "vae-digits-2").is_dir()


def test_nothing_in_the_study_is_code(tmp_path: Path) -> None:
    found = sweep("vae", {"latent_dim": [2, 3]}, trials=1, out=tmp_path / "s", **TINY)
    for line in (found.out / "study.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
    assert yaml.safe_load((found.out / "sweep.yaml").read_text())["over"] == {"latent_dim": "2,3"}


def test_grid_goes_through_all_and_failures_are_kept(tmp_path: Path) -> None:
    over = {"posterior": ["gaussian", "epanechnikov"], "prior": ["standard_normal", "epanechnikov"]}
    found = sweep("vae", over, sampler="grid", out=tmp_path / "s", latent_dim=2, **TINY)
    points = [(trial.values["posterior"], trial.values["prior"], trial.state) for trial in found.trials]
    assert points == [
        ("gaussian", "standard_normal", "complete"),
        ("gaussian", "epanechnikov", "failed"),
        ("epanechnikov", "standard_normal", "complete"),
        ("epanechnikov", "epanechnikov", "complete"),
    ]
    assert "it needs a finite KL" in found.trials[1].error
    assert found.trials[1].error in (found.out / "sweep.html").read_text().replace("&#x27;", "'")
    assert not found.runs(found.trials[1])[0].exists()


def test_all_failing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [
        "--over=trainer.optimizer.lr=1e36,1e37",
        "--sampler=grid",
        "--over=latent_dim=2,3,4",
        f"--out={tmp_path / 's'}",
    ]
    assert call("sweep", "vae", *ARGUMENTS, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6, "five failures say enough"
    assert lines[-1].startswith("vaekit: all of 5 trials failed; the first one: ")
    assert "step" in lines[-1]


def test_pruned_runs_say_so_and_can_be_finished(tmp_path: Path) -> None:
    over = {"trainer.optimizer.lr": [0.01, 0.011, 0.012, 0.013, 0.014, 1e-9]}
    found = sweep("vae", over, sampler="grid", prune=True, out=tmp_path / "s", latent_dim=2, **TINY)
    assert [trial.state for trial in found.trials] == ["complete"] * 5 + ["pruned"]
    run = found.runs(found.trials[5])[0]
    environment = json.loads((run / "environment.json").read_text())
    assert any("ended this run after epoch 1" in note for note in environment["notes"])
    assert "training" not in environment
    assert len(read_record(run).of_split("valid")) == 1
    assert "no end of the training is recorded" in " ".join(compare([found.out]).notes)
    assert Run(resolve(read_recipe(run)), run).fit(resume=True).steps == 6


def test_a_metric_is_computed_on_validation_data(tmp_path: Path) -> None:
    over = {"regularizers.kl.weight": "0.5..2"}
    found = sweep(
        "vae", over, trials=2, metric="neighbours.accuracy", samples=6, out=tmp_path / "s", latent_dim=2, **TINY
    )
    assert found.definition.direction == "higher"
    for trial in found.trials:
        (record,) = read_records(found.runs(trial)[0])
        assert (record.protocol["split"], record.protocol["samples"]) == ("valid", 6)
        assert trial.score == record.values["accuracy"]
    assert found.ranked[0].score >= found.ranked[1].score


def test_a_figure_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match=r"'neighbours' has no figure 'acuracy' here: did you mean 'accuracy'"):
        sweep(
            "vae", {"latent_dim": "2,3"}, trials=1, metric="neighbours.acuracy", direction="higher",
            out=tmp_path / "s", **TINY,
        )  # fmt: skip


def test_data_are_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = run_base.load
    monkeypatch.setattr(run_base, "load", lambda *given, **options: loaded.append(options) or load(*given, **options))
    over = {"data.batch_size": [10, 20], "latent_dim": [2, 3]}
    sweep("vae", over, sampler="grid", trials=2, metric="neighbours.accuracy", samples=6, out=tmp_path / "s", **TINY)
    assert len(loaded) == 1


def test_importance_finds_the_option_that_matters() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: trial.suggest_float("matters", 0, 1) + 0.0 * trial.suggest_float("idle", 0, 1), n_trials=20
    )
    shares = importance(study)
    assert shares["matters"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)
    study.tell(study.ask(), 1.0)
    few = optuna.create_study()
    few.optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials=2)
    assert importance(few) == {}
