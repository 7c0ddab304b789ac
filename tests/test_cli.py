"""The command line: what every command leaves, and one sentence with exit code 2 for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import call
from PIL import Image

from vaekit.config import recipe_names

QUICK = ["--set", "trainer.max_steps=4", "--set", "trainer.accelerator=cpu", "--set", "data.limit=200"]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert call("run", "gamix", *QUICK, "--set", "backbone.width=8", "--out", str(out)) == 0
    return out


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> object:
    def check(*arguments: str, says: str) -> None:
        capsys.readouterr()
        code = call(*arguments)
        error = capsys.readouterr().err.strip()
        assert code == 2, error
        assert says in error
        assert "Traceback" not in error
        assert error.splitlines()[-1].startswith("vaekit: ")
        # Before the sentence nothing but what was done until then.
        assert all(line.startswith(("reading", "decoding")) for line in error.splitlines()[:-1])

    return check


def test_run_directory_is_complete(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml", "metrics.jsonl", "model.safetensors", "aggregate.safetensors", "environment.json", "report.html",
        "checkpoints/last/state.pt", "checkpoints/best/state.pt", "samples/prior.png",
        "samples/epoch-0001-reconstructions.png", "samples/epoch-0001-prior.png",
    }  # fmt: skip
    assert not [name for name in names if name.endswith(".tmp")]
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["data_shape"] == [1, 8, 8]
    assert config["backbone"]["width"] == 8
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "valid"}
    assert {"loss", "reconstruction", "population_kl", "variance_collapse"} <= lines[0].keys()
    assert "bits_per_dim" not in lines[0], "bits per dimension of a surrogate loss would read like a code length"
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["label"] == "surrogate loss"
    assert environment["training"]["steps"] == 4


@pytest.mark.parametrize("source", ["prior", "aggregate-gaussian", "aggregate-mixture"])
def test_sample(finished: Path, tmp_path: Path, source: str) -> None:
    out = tmp_path / "samples.png"
    assert call("sample", str(finished), "--n", "6", "--from", source, "--out", str(out)) == 0
    assert size_of(out)[0] > 64
    arrays = [tmp_path / f"{name}.npy" for name in "abc"]
    for path, seed in zip(arrays, "778", strict=True):
        assert call("sample", str(finished), "--n", "6", "--from", source, "--out", str(path), "--seed", seed) == 0
    first, again, other = (np.load(path) for path in arrays)
    assert first.shape == (6, 1, 8, 8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_reconstruct_and_interpolate(finished: Path, tmp_path: Path) -> None:
    files = []
    for index, mode in enumerate(("L", "RGB")):
        files.append(str(tmp_path / f"{index}.png"))
        Image.new(mode, (30, 20 + 10 * index), 90).save(files[-1])
    assert call("reconstruct", str(finished), *files, "--out", str(tmp_path / "pairs.png")) == 0
    assert call("interpolate", str(finished), *files, "--steps", "5", "--out", str(tmp_path / "walk.png")) == 0
    assert call("interpolate", str(finished), "--pairs", "3", "--out", str(tmp_path / "walks.png")) == 0
    one, three = (size_of(tmp_path / name) for name in ("walk.png", "walks.png"))
    assert three[1] > 2 * one[1]


def test_resume_goes_on_and_refuses_another_configuration(finished: Path, tmp_path: Path, refused: object) -> None:
    out = tmp_path / "run"
    assert call("run", "vae", *QUICK, "--out", str(out)) == 0
    assert call("run", "vae", *QUICK, "--set", "trainer.max_steps=6", "--out", str(out), "--resume") == 0
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
    assert call("run", str(out), "--set", "trainer.max_steps=7", "--resume") == 0
    refused("run", "vae", *QUICK, "--set", "latent_dim=3", "--out", str(out), "--resume", says="latent_dim = 16, not 3")
    refused("run", "vae", *QUICK, "--out", str(tmp_path / "none"), "--resume", says="nothing to resume")


def test_mistakes(finished: Path, tmp_path: Path, refused: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path / "empty"))
    out = ("--out", str(tmp_path / "out"))
    refused("run", "gamix", "--data", "celeba", *out, says="img_align_celeba")
    refused("run", "gamix", "--data", "mnist", "--offline", *out, says="MNIST")
    refused("run", "gamx", *out, says="did you mean 'gamix'")
    refused("run", "gamix", "--set", "posterior.componets=4", *out, says="did you mean 'components'")
    refused("run", "gamix", "--set", "posterior.components=many", *out, says="is not valid")
    refused("run", "gamix", "--precision", "fp8", *out, says="trainer.precision = 'fp8' is not valid")
    refused("run", "gamix", "--set", "data.batch_size=1", *out, says="batch of two or more")
    refused("run", "gamix", "--set", "data.batch_size=0", *out, says="data.batch_size must be")
    refused("run", "gamix", "--set", "data.batch_size=5000", *out, says="5,000")
    refused("run", "gamix", "--set", "data.batchsize=5", *out, says="did you mean 'batch_size'")
    refused("run", "gamix", "--set", "trainer.devices=0", *out, says="trainer.devices must be 1 or more")
    refused("run", "gamix", "--data", str(tmp_path / "nowhere.npz"), *out, says="nowhere.npz")
    refused("run", "gamix", *QUICK, "--out", str(finished), says="already holds another run")
    refused("sample", str(tmp_path), says="is not a run directory")
    refused("sample", str(finished), "--n", "0", says="must be 1 or more")
    refused("reconstruct", str(finished), str(tmp_path / "no.png"), says="cannot be read as an image")
    refused("interpolate", str(finished), "a.png", says="two image files")
    refused("list", "posterior", says="did you mean 'posteriors'")
    refused("show", "gamx", says="did you mean 'gamix'")
    refused("show", "posteriors/gm", says="did you mean 'gmm'")
    refused("data", "check", "cifr10", says="did you mean 'cifar10'")
    assert not (tmp_path / "out").exists()


def test_images_too_small_for_the_backbone(tmp_path: Path, refused: object) -> None:
    np.save(tmp_path / "tiny.npy", np.zeros((40, 3, 3, 1), np.uint8))
    refused("run", "gamix", "--data", str(tmp_path / "tiny.npy"), "--out", str(tmp_path / "out"), says="mlp")


def test_damaged_weights(tmp_path: Path, refused: object) -> None:
    out = tmp_path / "run"
    assert call("run", "vae", *QUICK, "--out", str(out)) == 0
    (out / "model.safetensors").write_bytes(b"\x00" * 100)
    refused("sample", str(out), says="is damaged")
    (out / "model.safetensors").unlink()
    refused("sample", str(out), says="is not there")


def test_usage_errors_are_exit_code_2(capsys: pytest.CaptureFixture) -> None:
    assert call("run") == 2
    assert call("run", "gamix", "--no-such-option") == 2
    assert call("no-such-command") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_list_and_show(capsys: pytest.CaptureFixture) -> None:
    assert call("list") == 0
    everything = capsys.readouterr().out
    for name in (
        *recipe_names(),
        "gmm",
        "standard_normal",
        "patchgan",
        "resnetv2",
        "population_kl",
        "celeba",
        "cosine",
    ):
        assert name in everything
    assert call("list", "posteriors", "ga*") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["posteriors", "gaussian"]
    assert call("show", "gamix") == 0
    assert "2309.13160" in capsys.readouterr().out
    assert call("show", "posteriors/gmm") == 0
    assert "components: int = 4" in capsys.readouterr().out


def test_data_check(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("data", "check", "digits", "--out", str(tmp_path / "digits.png")) == 0
    said = capsys.readouterr().out
    assert "samples of shape (1, 8, 8)" in said
    assert "train 1,437" in said
    assert size_of(tmp_path / "digits.png")[0] > 64


@pytest.mark.slow
def test_doctor() -> None:
    done = subprocess.run([sys.executable, "-m", "vaekit.cli.main", "doctor"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "all is well" in done.stdout


@pytest.mark.slow
def test_celeba_from_the_command_line(tmp_path: Path, real_data: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "faces"
    small = ["--set", "backbone.width=8", "--set", "adversary.discriminator.width=8", "--set", "posterior.components=2"]
    steps = ["--set", "trainer.max_steps=5", "--set", "data.batch_size=8", "--set", "data.limit=64"]
    assert (
        call("run", "gamix", "--data", "celeba", "--data-root", str(real_data), *small, *steps, "--out", str(out)) == 0
    )
    assert "6,000 of 202,599 images found" in capsys.readouterr().err
    assert yaml.safe_load((out / "config.yaml").read_text())["data_shape"] == [3, 64, 64]


@pytest.mark.slow
def test_two_devices_speak_with_one_voice_and_resume(tmp_path: Path) -> None:
    out = tmp_path / "run"
    base = [sys.executable, "-m", "vaekit.cli.main", "run", "gamix", "--devices", "2", "--out", str(out)]
    small = ["--set", "trainer.accelerator=cpu", "--set", "data.limit=200", "--set", "backbone.width=8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for epochs, more in (("1", []), ("2", ["--resume"])):
        command = [*base, *small, "--epochs", epochs, *more]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("done:") == 1
        assert done.stderr.count("minimising the surrogate loss on 2 x cpu") == 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "valid"] == [3, 6]
    assert (out / "report.html").is_file()
