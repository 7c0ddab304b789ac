"""`vaekit evaluate` of a run of one modality: what it leaves, what it leaves out, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import call

from vaekit.evaluation.metrics import METRICS_OF_ONE

QUICK = ["--set", "trainer.max_steps=4", "--set", "trainer.accelerator=cpu", "--set", "data.limit=120"]
BY_FEATURES = {"frechet", "kid", "precision_recall", "inception_score"}


def kept_in(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "evaluation.json").read_text())["records"]


class ChannelMeans(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3)), x[:, :, ::2].mean((2, 3)), x[:, :, 0, 0]], 1)


class Nonsense(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert call("run", "vae", *QUICK, "--out", str(out)) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for name, network in (("means", ChannelMeans()), ("nonsense", Nonsense())):
        torch.jit.save(torch.jit.script(network), str(folder / f"{name}.ts"))
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Any:
    def check(*arguments: str, says: str) -> None:
        capsys.readouterr()
        code = call("evaluate", *arguments)
        error = capsys.readouterr().err.strip().splitlines()
        assert code == 2, error
        assert error[-1].startswith("vaekit: ")
        assert says in error[-1]

    return check


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights lie where torch.hub keeps them, and features of data are kept by this test alone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path / "data"))


def test_everything_that_needs_no_network_is_computed(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("evaluate", str(run), "--n", "40", "--particles", "3") == 0
    said = capsys.readouterr().out
    records = kept_in(run)
    assert {record["metric"] for record in records} == METRICS_OF_ONE.keys() - BY_FEATURES - {"disentanglement"}
    for record in records:
        assert record["protocol"]["data"]["data"] == "digits"
        assert (record["protocol"]["split"], len(record["digest"])) == ("test", 16)
        assert (record["made"]["seed"], len(record["made"]["weights_sha256"])) == (0, 64)
        assert record["made"]["torch"] == torch.__version__
    left = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert left[0].startswith("left out: disentanglement: ")
    assert left[1].startswith("left out: frechet, kid, precision_recall, inception_score: ")
    assert "weights-inception-2015-12-05-6726825d.pth" in left[1]
    assert "--extractor FILE.ts" in left[1]
    assert "latent.kl_by_dimension" in said


def test_samplers_and_extractor_are_part_of_the_protocol(run: Path, networks: Path) -> None:
    asked = ["--metrics", "frechet,kid", "--n", "40", "--extractor", str(networks / "means.ts")]
    assert call("evaluate", str(run), *asked, "--samplers", "prior,reconstructions") == 0
    records = kept_in(run)
    assert [(r["metric"], r["protocol"]["sampler"]) for r in records] == [
        ("frechet", "prior"), ("frechet", "reconstructions"), ("kid", "prior"), ("kid", "reconstructions")
    ]  # fmt: skip
    assert len({record["digest"] for record in records}) == 4
    for record in records:
        assert record["protocol"]["extractor"]["name"] == "means"
        assert len(record["protocol"]["extractor"]["sha256"]) == 64
        assert not any(name.startswith(("fid", "kid")) for name in record["values"])
    assert call("evaluate", str(run), *asked, "--samplers", "prior", "--batch-size", "7") == 0
    again = {r["digest"]: r["values"] for r in kept_in(run)}
    for record in records:
        for name, value in record["values"].items():
            assert again[record["digest"]][name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_other_data(run: Path, tmp_path: Path, refused: Any) -> None:
    rows = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "other.npz", images=rows)
    np.savez(tmp_path / "large.npz", images=np.zeros((60, 9, 9, 1), np.uint8))
    asked = [str(run), "--metrics", "memorisation,reconstruction"]
    assert call("evaluate", *asked, "--data", str(tmp_path / "other.npz"), "--split", "valid") == 0
    for record in kept_in(run):
        assert "other.npz" in record["protocol"]["data"]["data"]
        if record["metric"] == "memorisation":
            assert record["protocol"]["training"] == 120  # digits, which the model was trained on
    refused(*asked, "--data", str(tmp_path / "large.npz"), says="and the model takes (1, 8, 8)")
    refused(*asked, "--data", "digts", says="did you mean 'digits'")


def test_mistakes(run: Path, networks: Path, tmp_path: Path, refused: Any) -> None:
    before = sorted(path.name for path in run.iterdir())
    refused(str(tmp_path), says="is not a run directory")
    refused(str(run), "--metrics", "fid", says="there is no metric 'fid'")
    refused(str(run), "--metrics", "latent", "--n", "100000", says="ask for as many or fewer")
    refused(str(run), "--metrics", "frechet", "--samplers", "prio", "--extractor", str(networks / "means.ts"),
            says="did you mean 'prior'")  # fmt: skip
    refused(str(run), "--metrics", "frechet", "--extractor", str(networks / "nonsense.ts"), says="(images, features)")
    refused(str(run), "--metrics", "frechet", "--extractor", str(tmp_path / "no.ts"), says="there is no file")
    refused(str(run), "--metrics", "frechet", "--offline", says="weights-inception-2015-12-05-6726825d.pth")
    refused(str(run), "--metrics", "frechet", "--weights", str(tmp_path / "w.pth"), says="--weights must name")
    refused(str(run), "--metrics", "disentanglement", says="needs the factors")
    refused(str(run), "--metrics", "coherence", says="there is no metric 'coherence' for this model")
    assert sorted(path.name for path in run.iterdir() if path.name != "features") == before
    (run / "model.safetensors").unlink()
    refused(str(run), says="model.safetensors is not there")


def test_an_interrupted_evaluation_keeps_what_it_has(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekit.evaluation import metrics
    from vaekit.evaluation.protocol import Metric

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    table = {"latent": METRICS_OF_ONE["latent"], "probe": Metric("interrupted", interrupt)}
    monkeypatch.setattr(metrics, "METRICS_OF_ONE", table)
    assert call("evaluate", str(run), "--n", "20") == 130
    assert [record["metric"] for record in kept_in(run)] == ["latent"]
