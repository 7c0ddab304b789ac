"""Whatever ends a sweep, it goes on exactly; and several processes share one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import call
from sweep_helpers import ARGUMENTS, OVER, TINY, draw_no_reports

import vaekit.cli.sweep_progress
import vaekit.sweeping.search
from vaekit.config import read_recipe, resolve
from vaekit.errors import VaekitError
from vaekit.sweeping import Sweep, Trial, Watcher, sweep
from vaekit.sweeping.definition import Definition
from vaekit.sweeping.locks import Locks
from vaekit.sweeping.store import Store
from vaekit.training.checkpoint import path_of

pytest.importorskip("optuna", reason="the sweep extra is not installed")


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw_no_reports(monkeypatch)
        monkeypatch.setattr(vaekit.sweeping.search, "write_page", lambda found, study: None)
        yield


def metrics(out: Path) -> dict[str, bytes]:
    """Return what the runs of a sweep logged."""
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("trial-*/metrics.jsonl"))}


def outcomes(found: Sweep) -> list[Any]:
    return [(trial.state, trial.values, trial.scores) for trial in found.trials]


class Interrupting(Watcher):
    """Sends a signal at a step of a trial."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step, self.now = number, step, -1

    def on_trial(self, trial: Trial, found: Sweep) -> None:
        self.now = trial.number

    def on_step(self, step: int) -> None:
        if (self.now, step) == (self.number, self.step):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def undisturbed(_quick: None, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return sweep("vae", OVER, trials=3, seeds=2, out=tmp_path_factory.mktemp("whole") / "s", **TINY)


def test_an_interrupted_sweep_goes_on_exactly(tmp_path: Path, undisturbed: Sweep) -> None:
    out = tmp_path / "s"
    found = sweep("vae", OVER, trials=3, seeds=2, out=out, watcher=Interrupting(1, 3), **TINY)
    assert (found.signal, [trial.state for trial in found.trials]) == (signal.SIGINT, ["complete", "running"])
    with pytest.raises(VaekitError, match="was started with seeds = 2, not 3"):
        sweep(out, resume=True, seeds=3)
    with pytest.raises(VaekitError, match="was started with another configuration"):
        sweep("vae", OVER, resume=True, out=out, latent_dim=3, **TINY)
    with pytest.raises(VaekitError, match="already holds another sweep"):
        sweep("vae", OVER, out=out, **TINY)
    with pytest.raises(VaekitError, match="add --resume to go on with it"):
        sweep(out)
    again = sweep("vae", OVER, resume=True, out=out, **TINY)
    assert outcomes(again) == outcomes(undisturbed)
    assert metrics(out) == metrics(undisturbed.out)


def test_more_trials_and_all_done(tmp_path: Path) -> None:
    out = tmp_path / "s"
    first = sweep("vae", OVER, trials=1, out=out, **TINY)
    assert len(sweep(out, resume=True).trials) == 1
    more = sweep(out, resume=True, trials=2)
    assert more.trials[0] == first.trials[0]
    assert len(more.trials) == 2


def test_ctrl_c_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(vaekit.cli.sweep_progress, "SweepProgress", lambda console: Interrupting(0, 3))
    arguments = ["--over=latent_dim=2..9", "--trials=2", f"--out={tmp_path / 's'}"]
    assert call("sweep", "vae", *ARGUMENTS, *arguments) == 128 + signal.SIGINT
    assert f"go on with: vaekit sweep {tmp_path / 's'} --resume" in capsys.readouterr().out


KILLED = """
import sys
import vaekit.reporting.report
from vaekit.cli.main import main
vaekit.reporting.report.write_report = lambda out: (out / "report.html").write_text("")
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_sigkill_loses_nothing(tmp_path: Path, undisturbed: Sweep) -> None:
    out = tmp_path / "s"
    over = [f"--over={key}={spec}" for key, spec in OVER.items()]
    command = ["sweep", "vae", *ARGUMENTS, *over, "--trials=3", "--seeds=2", f"--out={out}"]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *command], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not path_of(out / "trial-0001-seed-0", "last").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    found = sweep(out, resume=True)
    assert outcomes(found) == outcomes(undisturbed)
    assert metrics(out) == metrics(undisturbed.out)


# ---- the study on disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Definition]:
    definition = Definition.start(resolve(read_recipe("vae"), TINY), OVER, [], trials=3, evaluation={})
    definition.save(tmp_path)
    return tmp_path, Definition.load(tmp_path)


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_no_trial_is_taken_by_two_processes(kept: tuple[Path, Definition]) -> None:
    out, definition = kept
    store = Store(out, definition)
    _, first = store.claim()  # type: ignore[misc]
    store.close()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out / ".locks"), "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        store = Store(out, definition)
        _, second = store.claim()  # type: ignore[misc]
        store.close()
    finally:
        other.kill()
        other.communicate()
    assert (first.number, second.number) == (0, 1)
    # What nobody works on any more is gone on with, with the values that it had.
    store = Store(out, definition)
    _, again = store.claim()  # type: ignore[misc]
    store.close()
    assert again == first


def test_locks_are_released(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "locks")
    with locks.holding(5):
        assert locks.take(6)
        codes = []
        for number in "567":
            command = [sys.executable, "-c", HOLD, str(tmp_path / "locks"), number]
            codes.append(subprocess.run(command, input="", text=True, capture_output=True, check=False).returncode)
        assert codes == [1, 1, 0]
    locks.close()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "locks"), "6"]
    assert subprocess.run(command, input="", text=True, capture_output=True, check=False).returncode == 0


def test_a_line_cut_off_is_taken_away(kept: tuple[Path, Definition]) -> None:
    out, definition = kept
    store = Store(out, definition)
    _, first = store.claim()  # type: ignore[misc]
    store.close()
    path = out / "study.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    store = Store(out, definition)
    assert path.read_bytes().startswith(whole)
    assert [trial.values for trial in store.trials] == [first.values]
    store.close()
    path.write_bytes(b"not JSON\n" + whole)
    with pytest.raises(VaekitError, match="is damaged and cannot be read"):
        Store(out, definition)


def test_values_depend_on_seed_number_and_history_alone(kept: tuple[Path, Definition]) -> None:
    out, definition = kept

    def values(folder: Path, reopen: bool) -> list[Any]:
        folder.mkdir()
        store, found = Store(folder, definition), []
        while (claimed := store.claim()) is not None:
            trial, started = claimed
            found.append(started.values)
            store.tell(trial, Trial(started.number, "complete", started.values, (float(started.values["latent_dim"]),)))
            if reopen:
                store.close()
                store = Store(folder, definition)
        store.close()
        return found

    straight, reopened = values(out / "a", False), values(out / "b", True)
    assert straight == reopened
    assert len({json.dumps(each) for each in straight}) == 3
