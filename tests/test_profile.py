"""`--profile N`: times of the parts of a step, a trace and a page."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path

import pytest
import torch
from helpers import call

import vaekit as vk
from vaekit.reporting.profile_page import profile_page
from vaekit.training.profile import Profile, StepTimes

SMALL = (
    "--set", "backbone.width=8", "--set", "backbone.latent_channels=8", "--set", "adversary.discriminator.width=8",
    "--set", "trainer.ema=0.9", "--epochs", "1",
)  # fmt: skip


def test_a_profiled_run_leaves_a_trace_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        call("run", "gamix", *SMALL, "--set", "trainer.ema=0.9", "--epochs", "1", "--out", str(out), "--profile", "8")
        == 0
    )
    assert f"{out}/profile/summary.html" in capsys.readouterr().out
    page = (out / "profile" / "summary.html").read_text()
    for part in (
        "data",
        "vae forward",
        "vae backward",
        "vae update",
        "discriminator update",
        "moving average",
        "logging",
    ):
        assert f'<th scope="row">{part}</th>' in page, part
    assert 'src="data:' in page
    assert not re.search(r'(src|href)="http', page)
    trace = json.loads(gzip.decompress((out / "profile" / "trace.json.gz").read_bytes()))
    named = [event["name"] for event in trace["traceEvents"] if "name" in event]
    assert any("convolution" in name for name in named)
    # Looking changes nothing: the same run without it.
    assert (
        call("run", "gamix", *SMALL, "--set", "trainer.ema=0.9", "--epochs", "1", "--out", str(tmp_path / "plain")) == 0
    )
    assert (out / "metrics.jsonl").read_text() == (tmp_path / "plain" / "metrics.jsonl").read_text()


def test_a_run_too_short_to_profile_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "vae", "--set", "trainer.max_steps=9", "--out", str(tmp_path / "run"), "--profile", "20") == 2
    assert "needs a run of 28 steps, and this one has 9 to go" in capsys.readouterr().err
    assert call("run", "vae", "--out", str(tmp_path / "other"), "--profile", "-1") == 2
    assert "profile must be 1 step or more" in capsys.readouterr().err


def test_times_are_put_down_to_what_they_went_to(tmp_path: Path) -> None:
    times = StepTimes("cpu, 1 thread", 4)
    clock = Profile(4, tmp_path / "profile", times, torch.device("cpu"))
    assert clock.needed == 11
    for step in range(clock.needed):
        time.sleep(0.002)
        clock.mark("data")
        time.sleep(0.006)
        clock.mark("vae forward")
        if step == 4:
            time.sleep(0.2)
            clock.restart()  # A validation belongs to no step.
        clock.end_step()
    assert times.steps == 4
    assert times.parts["data"] == pytest.approx(4 * 0.002, rel=0.8)
    assert 0.5 < times.share("vae forward") < 0.9
    assert times.seconds == pytest.approx(sum(times.parts.values()))
    assert (tmp_path / "profile" / "summary.html").is_file()


def test_a_device_is_never_busier_than_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads beside those that compute work as well."""
    began = time.process_time()
    monkeypatch.setattr(time, "process_time", lambda: began + 1000 * time.perf_counter())
    times = StepTimes("cpu, 1 thread", 1)
    clock = Profile(1, tmp_path / "profile", times, torch.device("cpu"))
    for _ in range(clock.needed):
        torch.ones(2).sum()
        clock.end_step()
    assert times.busy == 1.0
    assert "for 100 % of their time, and for 0 % they do not" in profile_page(times)


def test_names_on_the_page_are_text() -> None:
    page = profile_page(StepTimes("<b>cpu</b>", 4, steps=1, seconds=1.0, parts={"<i>data</i>": 1.0}))
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_profile_needs_a_place() -> None:
    run = vk.recipe("vae", data="digits", trainer={"max_steps": 30})
    trainer, model, objective = run.prepare()
    with pytest.raises(vk.VaekitError, match="a profile needs the run directory"):
        trainer.fit(model, objective, run.data, profile=5)
