"""Training on streams: broken samples, lost shards, exact resume, the command line."""

from __future__ import annotations

import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import call, numbered_image, numbers_of, streamed, write_shards, write_tar

import vaekit as vk
from vaekit import build
from vaekit.data import Dataset, StreamedBatches, load
from vaekit.errors import VaekitError
from vaekit.training.listeners import Listener


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


# ---- broken samples and lost shards ----------------------------------------------------------------------------------


def broken_shard(folder: Path, broken: set[int], count: int = 200) -> str:
    members = [(f"{n:03d}.png", b"no image" if n in broken else numbered_image(n)) for n in range(count)]
    return str(write_tar(folder / "broken.tar", members))


def test_broken_samples_are_replaced_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = {3, 4, 5, 77, 199, *range(100, 110)}
    data = load("webdataset", urls=broken_shard(tmp_path, broken), image_size=8, examples=200)
    assert any("samples of webdataset cannot be decoded and are left out: the image at byte" in n for n in data.notes)
    assert data.stream is not None
    with caplog.at_level(logging.WARNING, "vaekit"):
        made = StreamedBatches(data.stream, 16, data_range=None)
        first = [numbers_of(x) for x in made.epoch(0)]
    assert not set(flat(first)) & broken
    assert [len(batch) for batch in first] == [16] * len(made)
    held = broken & set(numbers_of(data.valid.samples.float()))
    assert len(broken) - len(held) - 4 <= len(made.skipped) <= len(broken)
    assert set(made.skipped.values()) == {"not an image"}
    assert sum("takes its place" in line for line in caplog.messages) == 10, "ten are named"
    assert f"{len(made.skipped)} samples so far cannot be decoded" in caplog.messages[-1]
    again = StreamedBatches(data.stream, 4, data_range=None, rank=2, world=4)
    assert [numbers_of(x) for x in again.epoch(0)] == [batch[8:12] for batch in first], (
        "the same ones take their places"
    )


def test_a_shard_without_any_image_ends_the_run(tmp_path: Path) -> None:
    good = write_shards(tmp_path, 10, stem="good")
    data = load("webdataset", urls=broken_shard(tmp_path, set(range(20, 200))), valid_urls=good, image_size=8)
    assert data.stream is not None
    with pytest.raises(VaekitError, match="broken.tar cannot be decoded .not an image., nor can the 63 samples before"):
        list(StreamedBatches(data.stream, 16).epoch(0))


def test_image_of_too_many_pixels_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [(f"{n:03d}.png", numbered_image(n, 30 if n == 11 else 8)) for n in range(80)]
    data = load("webdataset", urls=str(write_tar(tmp_path / "a.tar", members)), image_size=8, valid_samples=1)
    assert data.stream is not None
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 600)
    made = StreamedBatches(data.stream, 79, data_range=None)
    assert 11 not in flat([numbers_of(x) for x in made.epoch(0)])
    assert list(made.skipped.values()) == ["more than 600 pixels"]


def train(data: Dataset, out: Path, resume: bool = False, listeners: Any = ()) -> Any:
    run = vk.recipe("vae", data="digits", latent_dim=2, backbone={"hidden": [4]})
    torch.manual_seed(0)
    model, objective = build.model(run.config, data.shape), build.objective(run.config, data.shape)
    trainer = vk.Trainer(epochs=2, log_every=1, checkpoint_every=3, sample_every=0, accelerator="cpu")
    return trainer.fit(model, objective, data, batch_size=16, out=out, resume=resume, listeners=listeners)


@pytest.mark.parametrize("how", ["gone", "changed", "shorter"])
def test_a_shard_lost_in_mid_run_leaves_a_run_to_resume(tmp_path: Path, how: str) -> None:
    (tmp_path / "a").mkdir()
    data = streamed(tmp_path / "a", 150, 90, window=2)
    whole = train(data, tmp_path / "whole").metrics
    lost = tmp_path / "a" / "train-001.tar"
    content, stamp = lost.read_bytes(), lost.stat()

    class Lose(Listener):
        def on_step(self, step: int) -> None:
            if step == 7 and how == "gone":
                lost.unlink()
            if step == 7 and how == "changed":
                lost.write_bytes(content)
            if step == 7 and how == "shorter":
                lost.write_bytes(content[:2000])

    with pytest.raises(VaekitError, match=r"train-001.tar cannot be read .*go on with --resume") as raised:
        train(data, tmp_path / "run", listeners=[Lose()])
    assert "\n" not in str(raised.value)
    lost.write_bytes(content)
    os.utime(lost, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert train(data, tmp_path / "run", resume=True).metrics == whole


# ---- runs ------------------------------------------------------------------------------------------------------------

TINY = ["--set", "latent_dim=2", "--set", "backbone.hidden=[4]", "--set", "data.image_size=8"]
STREAM = ["--data", "webdataset", "--set", "data.batch_size=16", "--set", "data.valid_samples=10"]


def test_command_line_trains_on_a_stream_and_resumes_exactly(tmp_path: Path) -> None:
    urls = write_shards(tmp_path, 150, 90, 77)
    options = [*TINY, *STREAM, "--set", f"data.urls={urls}", "--set", "data.examples=40", "--set", "data.window=4"]
    options += ["--set", "trainer.log_every=1", "--set", "data.flip=true", "--offline", "--epochs", "2"]
    assert call("run", "vae", *options, "--out", str(tmp_path / "whole")) == 0
    assert call("run", "vae", *options, "--set", "trainer.max_steps=23", "--out", str(tmp_path / "two")) == 0
    more = ["--set", "trainer.max_steps=null", "--set", "data.workers=1", "--resume"]
    assert call("run", str(tmp_path / "two"), *more, "--offline") == 0
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "two")]
    trained = [[line for line in part if '"train"' in line] for part in lines]
    assert len(trained[0]) == 38
    assert trained[0] == trained[1]
    assert lines[0][-1] == lines[1][-1]
    environment = json.loads((tmp_path / "whole" / "environment.json").read_text())
    assert environment["data"]["samples"]["train"] == 307
    assert any("307 samples as a stream" in note for note in environment["notes"])
    whole = str(tmp_path / "whole")
    assert call("evaluate", whole, "--offline", "--metrics", "elbo") == 0
    assert call("sample", whole, "--from", "aggregate-mixture", "--n", "4", "--out", f"{whole}/four.png") == 0


def test_schedules_know_the_length_of_the_stream(tmp_path: Path) -> None:
    urls = write_shards(tmp_path, 150, 90)
    linear = {"name": "linear", "start": 0.0, "end": 1.0, "portion": 0.5}
    run = vk.recipe(
        "vae",
        data={"name": "webdataset", "urls": urls, "image_size": 8, "examples": 20, "batch_size": 8},
        trainer={"epochs": 3},
        regularizers={"kl": {"weight": linear}},
    )
    weight = run.prepare()[2].terms["kl"].weight
    steps = 3 * (216 // 8)
    assert weight(round(steps * 0.5)) == pytest.approx(1.0, abs=0.02)
    assert weight(round(steps * 0.25)) == pytest.approx(0.5, abs=0.02)
