"""SIGKILL, SIGTERM and Ctrl-C leave a run that resumes exactly; disk and checkpoint faults are sentences."""

from __future__ import annotations

import ast
import errno
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import built, call, random_images, tiny

from vaekit.errors import VaekitError, memory_errors
from vaekit.files import half_written, save_state
from vaekit.latents import Latents
from vaekit.regularizers.base import Regularizer
from vaekit.reporting import read_record
from vaekit.training.checkpoint import latest, load, path_of
from vaekit.training.meter import NotFiniteError
from vaekit.training.trainer import Trainer

SETTINGS = [
    "run", "gamix", "--epochs", "3", "--set", "backbone.width=8", "--set", "backbone.latent_channels=8",
    "--set", "adversary.discriminator.width=8", "--set", "posterior.components=2", "--set", "latent_dim=4",
    "--set", "trainer.checkpoint_every=3", "--set", "trainer.log_every=4", "--set", "trainer.ema=0.9",
    "--set", "trainer.sample_every=1", "--set", "data.limit=400", "--set", "data.flip=true",
]  # fmt: skip
END = 18  # optimiser steps of these settings


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "vaekit.cli.main", *SETTINGS, "--out", str(out), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def begin(out: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(out, *more), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(out: Path, *more: str) -> None:
    done = subprocess.run(command(out, *more), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for_checkpoint(out: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path_of(out, "last").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out)
    assert load(out)["step"] == END
    return out


def same(out: Path, undisturbed: Path) -> None:
    assert (out / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert (out / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_fifty_sigkills_at_random_instants(tmp_path: Path, undisturbed: Path) -> None:
    """Killed while it starts, trains, writes checkpoints, draws and keeps; then it ends as if nothing had been."""
    out, campaign = tmp_path / "run", Path(__file__).with_name("kill_campaign.py")
    done = subprocess.run(
        [sys.executable, str(campaign), "50", str(out), *SETTINGS],
        env=environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    hit = ast.literal_eval(done.stdout)
    assert sum(hit.values()) == 50
    assert hit["after"] >= 25, hit
    same(out, undisturbed)
    assert not half_written(out)
    assert read_record(out).environment["training"]["steps"] == END


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_end(tmp_path: Path, undisturbed: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = begin(out)
    wait_for_checkpoint(out, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output
    if process.returncode != 0:  # It may have ended before the signal came.
        assert process.returncode == 128 + number
        assert "--resume" in output
        assert load(out)["step"] < END
        finish(out, "--resume")
    same(out, undisturbed)


def test_resume_in_process_is_exact_at_every_step(tmp_path: Path) -> None:
    """Stop after each of the steps in turn, resume, and compare with a run that never stopped."""

    def fit(out: Path, resume: bool, stop: int | None) -> list[dict]:
        model, objective = built(tiny("gamix"))
        trainer = Trainer(epochs=2, ema=0.9, log_every=3, checkpoint_every=1, sample_every=0, accelerator="cpu")
        listener = StopAfter(stop)
        return trainer.fit(
            model, objective, random_images(48), batch_size=12, flip=True, out=out, resume=resume, listeners=[listener]
        ).metrics

    from vaekit.training.listeners import Listener

    class StopAfter(Listener):
        def __init__(self, step: int | None) -> None:
            self.stop = step

        def on_step(self, step: int) -> None:
            if step == self.stop:
                os.kill(os.getpid(), signal.SIGTERM)

    whole = fit(tmp_path / "whole", resume=False, stop=None)
    assert len(whole) >= 4
    for stop in (1, 2, 3, 4, 5):
        out = tmp_path / str(stop)
        fit(out, resume=False, stop=stop)
        assert fit(out, resume=True, stop=None) == whole
        assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_time_of_a_run_counts_what_it_resumed(tmp_path: Path) -> None:
    def fit(steps: int, resume: bool) -> float:
        model, objective = built(tiny("vae"))
        trainer = Trainer(max_steps=steps, sample_every=0, accelerator="cpu")
        data = random_images(48)
        return trainer.fit(model, objective, data, batch_size=12, out=tmp_path, resume=resume).seconds

    assert fit(2, resume=False) < 1000.0
    save_state(path_of(tmp_path, "last"), {**load(tmp_path), "seconds": 1000.0})
    assert 1000.0 < fit(4, resume=True) < 2000.0


def test_not_finite_names_step_and_term_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    model, objective = built(tiny("vae"))

    class Explodes(Regularizer):
        calls = 0

        def forward(self, latents: Latents) -> torch.Tensor:
            self.calls += self.training
            return latents.z.sum() * (float("nan") if self.calls > 9 and self.training else 0.0)

    objective.regularizers["penalty"] = Explodes()
    trainer = Trainer(epochs=9, log_every=2, sample_every=0, checkpoint_every=1, accelerator="cpu")
    with pytest.raises(NotFiniteError, match="'penalty' became NaN or infinite at step") as caught:
        trainer.fit(model, objective, random_images(48), batch_size=12, out=tmp_path)
    state = load(tmp_path)
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert f"at step {state['step']}" in str(caught.value)  # The step after the last good one, counted from 0.


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_is_a_sentence_and_keeps_the_checkpoint(tmp_path: Path, kind: type[Exception]) -> None:
    model, objective = built(tiny("vae"))

    class Greedy(Regularizer):
        calls = 0

        def forward(self, latents: Latents) -> torch.Tensor:
            self.calls += 1
            if self.calls == 4:  # The first is a trial, before anything is kept.
                raise kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
            return latents.z.sum() * 0.0

    objective.regularizers["penalty"] = Greedy()
    trainer = Trainer(max_steps=4, sample_every=0, checkpoint_every=1, accelerator="cpu")
    with pytest.raises(
        VaekitError, match="out of memory: set trainer.activation_chec.* make data.batch_size smaller than 12 "
    ):
        trainer.fit(model, objective, random_images(48), batch_size=12, out=tmp_path)
    assert load(tmp_path)["step"] == 2


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="another"), memory_errors("use less"):
        raise RuntimeError("another")


def test_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = built(tiny("vae"))
    trainer = Trainer(epochs=2, sample_every=0, accelerator="cpu")
    trainer.fit(model, objective, random_images(48), batch_size=12, out=tmp_path)
    before = path_of(tmp_path, "last").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    trainer = Trainer(epochs=4, sample_every=0, accelerator="cpu")
    with pytest.raises(VaekitError, match="no space left to write .*--out"):
        trainer.fit(model, objective, random_images(48), batch_size=12, out=tmp_path, resume=True)
    assert path_of(tmp_path, "last").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_that_ended_before_its_first_step_resumes(tmp_path: Path, kept: bool) -> None:
    """Killed with the directory just made, or stopped by a signal before the first step."""
    import vaekit as vk
    from vaekit.training.listeners import Listener

    class StopAtOnce(Listener):
        def on_start(self, plan: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def fresh() -> vk.Run:
        return vk.recipe("vae", out=tmp_path / "run", trainer={"max_steps": 2, "sample_every": 0})

    assert fresh().fit(listeners=[StopAtOnce()]).steps == 0
    assert load(tmp_path / "run")["step"] == 0
    if not kept:
        shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert fresh().fit(resume=True).steps == 2


def test_a_second_signal_acts_at_once() -> None:
    from vaekit.training.interrupt import listen

    def twice() -> None:
        with listen() as outer, listen() as inner:
            assert inner is outer
            os.kill(os.getpid(), signal.SIGINT)
            assert outer.signal == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    # A shell that starts a job in the background has it ignore Ctrl-C.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            twice()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with listen() as fresh:
            assert fresh.signal == 0
    finally:
        signal.signal(signal.SIGINT, found)


# ---- damaged checkpoints ---------------------------------------------------------------------------------------------

ARGUMENTS = ["run", "vae", "--set=trainer.max_steps=3", "--set=trainer.accelerator=cpu", "--set=trainer.sample_every=0"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps whose last checkpoint is that of step 3, and the one before it that of step 0."""
    out = tmp_path_factory.mktemp("kept") / "run"
    assert call(*ARGUMENTS, "--out", str(out)) == 0
    assert [load(out, which)["step"] for which in ("last", "previous")] == [3, 0]
    return out


def spoil(path: Path, damage: str, draw: random.Random, other: Path) -> None:
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: draw.randrange(1, len(content))]
    elif damage == "flipped":
        # Within the parts of the archive: what lies between them pads it, and nothing reads that.
        with zipfile.ZipFile(path) as archive:
            part = draw.choice([part for part in archive.infolist() if part.compress_size])
        begin = part.header_offset + 30 + sum(struct.unpack("<HH", content[part.header_offset + 26 :][:4]))
        content[begin + draw.randrange(part.compress_size)] ^= 1 << draw.randrange(8)
    elif damage == "empty":
        content = bytearray()
    elif damage == "foreign":
        content = bytearray(draw.randbytes(len(content)))
    elif damage == "swapped":
        content = bytearray(other.read_bytes())
    path.write_bytes(content)


DAMAGES = ["truncated", "flipped", "empty", "foreign", "swapped"]


def test_every_damaged_checkpoint_is_recognised(kept: Path, tmp_path: Path) -> None:
    out, other, draw = tmp_path / "run", tmp_path / "other", random.Random(0)
    assert call(*ARGUMENTS, "--out", str(other)) == 0
    for number in range(30):
        shutil.copytree(kept, out)
        spoil(path_of(out, "last"), DAMAGES[number % len(DAMAGES)], draw, path_of(other, "last"))
        with pytest.raises(VaekitError, match="is damaged and cannot be read|is of another run"):
            load(out)
        state, notes = latest(out)
        assert state["step"] == 0
        assert len(notes) == 1
        shutil.rmtree(out)


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    kept: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture
) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(kept, out)
    shutil.copytree(kept, other)
    (other / "checkpoints" / "mark").unlink()
    state = load(other)
    save_state(path_of(other, "last"), {**state, "mark": "another run's"})
    spoil(path_of(out, "last"), damage, random.Random(0), path_of(other, "last"))
    if damage == "missing":  # Killed between two renames.
        path_of(out, "last").unlink()
    capsys.readouterr()
    assert call(*ARGUMENTS, "--out", str(out), "--resume") == 0
    assert "going on from the checkpoint before it, of step 0" in " ".join(capsys.readouterr().err.split())
    same(out, kept)
    assert load(out)["step"] == 3


def test_without_a_whole_checkpoint_there_is_a_sentence(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    shutil.copytree(kept, out)
    for which in ("last", "previous"):
        spoil(path_of(out, which), "truncated", random.Random(0), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert call(*ARGUMENTS, "--out", str(out), "--resume") == 2
    assert "last/state.pt is damaged and cannot be read: copy " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
