"""Several ranks: the same curve as one, weights shared out, another number of ranks on resume, a rank that dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from curves_of_ranks import curves
from helpers import free_port

import vaekit as vk
from vaekit.distributed import rank_errors

pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node")
# Before batch normalisation the gradient of a bias is 0, and Adam makes steps of what rounding leaves of it.
SMALL = (
    "backbone.width=8",
    "backbone.latent_channels=8",
    "backbone.norm=frozen_affine",
    "adversary.discriminator.width=8",
)


def run(out: Path, *more: str, devices: int = 2, steps: int = 6, launcher: tuple[str, ...] = ()) -> str:
    """Train a small `gamix` and return what it said."""
    command = [
        sys.executable, *launcher, "-m", "vaekit.cli.main", "run", "gamix", "--out", str(out),
        "--devices", str(devices), *more,
        *(word for option in (*SMALL, f"trainer.max_steps={steps}", "trainer.log_every=1", "trainer.ema=0.9")
          for word in ("--set", option)),
    ]  # fmt: skip
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def lines(out: Path, *splits: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if not splits or line["split"] in splits]


def assert_alike(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], rel: float) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == (pytest.approx(other[name], rel=rel, abs=1e-6) if name != "split" else other[name]), name


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_follow_the_curve_of_one(tmp_path: Path, ranks: int) -> None:
    script, file = Path(__file__).with_name("curves_of_ranks.py"), tmp_path / "curves.json"
    command = [sys.executable, *TORCHRUN, str(ranks), str(script), str(file)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(file.read_text()), curves(0, 1)
    assert set(found) == {"vae", "gamix", "mmvm", "rae"}
    for recipe, curve in found.items():
        assert [line["split"] for line in curve].count("train") == 8
        assert_alike(curve, expected[recipe], rel=1e-5)
    assert found["rae"][-1]["split"] == "valid"  # Of which each rank has a part.


def test_nodes_started_by_hand_share_one_run(tmp_path: Path) -> None:
    """Only the first node's process writes and speaks, also before the two have met."""
    port = free_port()
    command = [sys.executable, "-m", "vaekit.cli.main", "run", "vae", "--out", str(tmp_path / "run"), "--nodes", "2"]
    command += ["--set", "trainer.max_steps=6", "--set", "trainer.log_every=1"]
    nodes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**ENVIRONMENT, "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        ) for rank in (0, 1)
    ]  # fmt: skip
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert f"done: {tmp_path / 'run'}" in said[0][0]
    assert said[1][0] == ""
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [1, 2, 3, 4, 5, 6]
    assert vk.Run.load(tmp_path / "run").config.trainer["nodes"] == 2


@pytest.fixture(scope="module")
def data_parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks."""
    out = tmp_path_factory.mktemp("engines") / "ddp"
    run(out, "--strategy", "ddp")
    return out


@pytest.fixture(scope="module")
def shared_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks whose weights are shared out."""
    out = tmp_path_factory.mktemp("engines") / "fsdp"
    run(out, "--strategy", "fsdp")
    return out


def test_weights_that_are_shared_out_train_as_those_that_are_not(shared_out: Path, data_parallel: Path) -> None:
    assert_alike(lines(shared_out, "train"), lines(data_parallel, "train"), rel=1e-5)
    kept = vk.Run.load(shared_out).model.state_dict()
    for name, weight in vk.Run.load(data_parallel).model.state_dict().items():
        assert torch.allclose(kept[name], weight, rtol=1e-4, atol=1e-5), name


def test_weights_that_are_shared_out_resume_on_any_number_of_ranks(shared_out: Path, tmp_path: Path) -> None:
    run(tmp_path / "two", "--strategy", "fsdp", steps=3)
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    run(tmp_path / "two", "--strategy", "fsdp", "--resume")
    assert_alike(lines(tmp_path / "two", "train"), lines(shared_out, "train"), rel=1e-6)
    said = run(tmp_path / "one", "--resume", devices=1)
    assert "the run had 2 processes and has 1 now" in " ".join(said.split())
    assert lines(tmp_path / "one")[-1]["step"] == 6


def test_torchrun_starts_the_same_run(data_parallel: Path, tmp_path: Path) -> None:
    run(tmp_path / "torchrun", launcher=(*TORCHRUN, "2"))
    assert lines(tmp_path / "torchrun") == lines(data_parallel)


def test_second_derivatives_need_whole_weights(tmp_path: Path) -> None:
    place = ["--out", str(tmp_path / "run"), "--strategy", "fsdp", "--set", "adversary.r1=1.0"]
    done = subprocess.run(
        [sys.executable, "-m", "vaekit.cli.main", "run", "gamix", *place],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "adversary.r1 needs second derivatives" in done.stderr


def test_a_rank_that_dies_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "vaekit.cli.main",
        "run",
        "vae",
        "--devices",
        "2",
        "--out",
        str(out),
        "--epochs",
        "999",
    ]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (out / "metrics.jsonl").is_file():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        victims = [c for c in children if "vaekit" in Path(f"/proc/{c}/cmdline").read_text()]
        os.kill(int(victims[0]), signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "another process of this run ended" in said
    assert "Traceback" not in said
    assert (out / "checkpoints" / "last" / "state.pt").is_file()


def test_other_errors_of_ranks_stay_what_they_are() -> None:
    with pytest.raises(vk.VaekitError, match="no part in the loss"), rank_errors():
        raise RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.")
    with pytest.raises(vk.VaekitError, match="freeze or remove weights"):
        vk.Trainer(strategy="ddp_find_unused_parameters_true")
    with pytest.raises(RuntimeError, match="shapes"), rank_errors():
        raise RuntimeError("shapes do not match")
    with pytest.raises(vk.VaekitError, match="another process of this run ended"), rank_errors():
        raise torch.distributed.DistBackendError("NCCL communicator was aborted")
