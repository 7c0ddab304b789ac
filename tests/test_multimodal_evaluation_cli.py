"""`vaekit evaluate` and `vaekit classifiers`: what they leave, and one sentence with exit code 2 for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import call

SMALL = ["--set", "data.digits=digits", "--set", "data.image_size=8", "--set", "data.limit=300"]
QUICK = ["--set", "trainer.max_steps=30", "--set", "trainer.accelerator=cpu", "--set", "backbone.hidden=[32]"]


def kept_in(run: Path) -> dict[str, Any]:
    return {record["metric"]: record for record in json.loads((run / "evaluation.json").read_text())["records"]}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("several") / "run"
    assert call("run", "masked-multimodal", "--data", "mnist-labels", *SMALL, *QUICK, "--out", str(out)) == 0
    return out


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judges") / "judges.safetensors"
    small = [word.replace("data.", "") for word in SMALL]
    assert call("classifiers", "mnist-labels", *small, "--epochs", "2", "--out", str(out)) == 0
    return out


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> object:
    def check(*arguments: str, says: str) -> None:
        capsys.readouterr()
        code = call(*arguments)
        error = capsys.readouterr().err.strip()
        assert code == 2, error
        assert says in error.splitlines()[-1]
        assert error.splitlines()[-1].startswith("vaekit: ")

    return check


def test_classifiers_say_how_good_they_are(judges: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = [word.replace("data.", "") for word in SMALL]
    assert call("classifiers", "mnist-labels", *small, "--epochs", "1", "--out", str(tmp_path / "c.safetensors")) == 0
    said = capsys.readouterr()
    assert "label (argmax): 100.00% of the real test samples" in said.out
    assert "note: the classifier of image gets" in said.out
    assert "training on image  1 of 1" in said.err
    assert judges.is_file()


def test_evaluation_is_printed_and_kept(several: Path, judges: Path, capsys: pytest.CaptureFixture) -> None:
    quick = ["--n", "40", "--particles", "4"]
    assert call("evaluate", str(several), *quick, "--metrics", "likelihood,rates") == 0
    said = capsys.readouterr().out
    assert "likelihood.log_likelihood" in said
    assert "rates.cross_rate.1" in said
    kept = kept_in(several)
    assert set(kept) == {"likelihood", "rates"}
    protocol, made = kept["likelihood"]["protocol"], kept["likelihood"]["made"]
    assert (protocol["split"], protocol["samples"], protocol["particles"]) == ("test", 40, 4)
    assert (made["seed"], len(made["weights_sha256"])) == (0, 64)
    assert protocol["data"]["data"] == "mnist-labels"
    again = ["evaluate", str(several), *quick, "--metrics", "coherence", "--classifiers", str(judges)]
    assert call(*again) == 0
    both = kept_in(several)
    assert set(both) == {"likelihood", "rates", "coherence"}
    assert both["rates"] == kept["rates"]
    judged = both["coherence"]["protocol"]["classifiers"]
    assert judged["accuracy"]["label"] == 1.0
    assert len(judged["sha256"]) == 64
    said = capsys.readouterr().out
    assert "note on coherence: the classifier of image" in said
    assert "on other data" not in said
    assert call(*again) == 0
    assert kept_in(several) == both
    assert not list(several.glob("*.tmp"))


def test_without_names_everything_that_can_be_computed_is(several: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("evaluate", str(several), "--n", "30", "--particles", "2", "--split", "valid") == 0
    said = capsys.readouterr().out
    kept = kept_in(several)
    assert {"likelihood", "conditional", "rates", "probe"} <= set(kept)
    assert kept["probe"]["protocol"]["split"] == "valid"
    assert "left out: coherence: the metric 'coherence' needs classifiers" in said
    assert "left out: linear: the metric 'linear' is for the data set 'linear-gaussian'" in said
    assert "linear" not in kept


def test_the_linear_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "run")
    quick = ["--set", "trainer.max_steps=30", "--set", "data.samples=500", "--set", "fusion=poe"]
    assert call("run", "masked-multimodal", "--data", "linear-gaussian", *quick, "--out", out) == 0
    assert call("evaluate", out, "--metrics", "linear,likelihood", "--n", "50", "--particles", "5") == 0
    assert "linear.posterior_kl.5" in capsys.readouterr().out
    found = kept_in(tmp_path / "run")["linear"]
    assert found["protocol"]["samples"] == 500
    assert 0.0 < found["values"]["best_gap"]["mean"] < found["values"]["gap"]["mean"]


def test_mistakes(several: Path, judges: Path, tmp_path: Path, refused: object) -> None:
    run = str(several)
    refused("evaluate", str(tmp_path), says="is not a run directory")
    refused("evaluate", run, "--metrics", "rate", says="did you mean 'rates'")
    refused("evaluate", run, "--metrics", ",", says="--metrics names nothing")
    refused("evaluate", run, "--metrics", "coherence", says="--set=image_size=8 --set=limit=300 --out=")
    refused("evaluate", run, "--metrics", "linear", says="is for the data set 'linear-gaussian'")
    refused("evaluate", run, "--split", "tset", "--metrics", "rates", says="did you mean 'test'")
    refused("evaluate", run, "--n", "0", says="samples must be 1 or more")
    refused("evaluate", run, "--n", "100000", "--metrics", "rates", says="ask for as many or fewer")
    refused("evaluate", run, "--classifiers", str(tmp_path / "no"), says="there is no file")
    refused("evaluate", run, "--classifiers", str(several / "model.safetensors"), says="holds no classifiers")
    out = ("--out", str(tmp_path / "c.safetensors"))
    refused("classifiers", "digits", *out, says="several modalities")
    refused("classifiers", "linear-gaussian", *out, says="need labels")
    refused("classifiers", "mnist-labls", *out, says="did you mean 'mnist-labels'")
    assert not (tmp_path / "c.safetensors").exists()


def test_classifiers_of_other_data_are_refused(several: Path, tmp_path: Path, refused: object) -> None:
    out = tmp_path / "other.safetensors"
    larger = ["--set", "digits=digits", "--set", "image_size=12", "--set", "limit=100"]
    assert call("classifiers", "mnist-labels", *larger, "--epochs", "1", "--out", str(out)) == 0
    refused("evaluate", str(several), "--metrics", "coherence", "--classifiers", str(out), says="shape (1, 12, 12)")


def test_a_damaged_record_is_not_overwritten(several: Path, refused: object) -> None:
    record = several / "evaluation.json"
    before = record.read_text() if record.is_file() else None
    record.write_text("{")
    refused("evaluate", str(several), "--metrics", "rates", "--n", "10", says="is damaged")
    assert record.read_text() == "{"
    record.unlink() if before is None else record.write_text(before)
