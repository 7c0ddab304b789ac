"""Campaigns of faults: hundreds of bad configurations, broken images and damaged run directories, and no traceback."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bad_configurations import cases
from bad_images import Picture, pictures
from helpers import call
from PIL import Image

import vaekit as vk
from vaekit.data import load
from vaekit.data.images import read_images
from vaekit.errors import VaekitError
from vaekit.evaluation.records import Record, keep_record
from vaekit.reporting.comparison import compare
from vaekit.reporting.comparison_formats import render
from vaekit.reporting.report import write_report

CONFIGURATIONS = 200
PARTS = 4  # The campaign of configurations goes in parts, so that a failure says which.
LONGEST = 120  # Seconds that one case may take on a busy machine; few take one.
REPORTS = 40
HOSTILE = "\"><script>alert(1)</script>'javascript:x"

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def limited(seconds: int = LONGEST) -> Iterator[None]:
    """End what hangs."""

    def end(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- configurations --------------------------------------------------------------------------------------------------


def fault(code: int, lines: list[str], words: tuple[str, ...], out: Path) -> str:
    """Return what is wrong with how a configuration was met; an empty string if nothing is."""
    said = [line for line in lines if line.startswith("vaekit: ")]
    others = [line for line in lines[:-1] if not line.startswith(("making ", "reading ", "decoding "))]
    if not words:
        return "" if code == 0 and (out / "report.html").is_file() else f"refused, though it is right: {lines[-1:]}"
    if code != 2:
        return f"ended with {code}"
    if len(said) != 1 or lines[-1] not in said or others:
        return f"said other things than one sentence: {lines}"
    if not any(word in said[0] for word in words):
        return f"said none of {words}: {said[0]}"
    return "left a run directory" if out.exists() else ""


@pytest.mark.parametrize("part", range(PARTS))
def test_bad_configurations(part: int, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    problems = []
    for case in cases(CONFIGURATIONS, seed=0)[part::PARTS]:
        file, out = tmp_path / "mine.yaml", tmp_path / "run"
        file.write_text(case.text, encoding="utf-8")
        with limited():
            code = call("run", str(file), "--out", str(out))
        if found := fault(code, capsys.readouterr().err.strip().splitlines(), case.words, out):
            problems.append(f"{case.name}: {found}")
        shutil.rmtree(out, ignore_errors=True)
    assert not problems, "\n".join(problems)


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "images"
    place.mkdir()
    for number in range(3):
        Image.new("RGB", (9, 9), (0, 0, 255)).save(place / f"0{number}.png")
    return place


def looked_at(picture: Picture, file: Path) -> str:
    """Return what is wrong with how a single file was met."""
    try:
        (pixels,) = read_images([file], (3, 8, 8), (0.0, 255.0), crop=None, antialias=True)
    except VaekitError as error:
        named = str(file) in str(error)
        return f"refused: {error}" if picture.good else "" if named else f"not named: {error}"
    if not picture.good:
        return "read"
    off = 0.0 if picture.colour is None else float((pixels[:, 1, 4] - torch.tensor(picture.colour)).abs().max())
    return "" if off <= 3 else f"wrong pixels: {pixels[:, 1, 4].tolist()}"


@pytest.mark.parametrize("seed", [0, 1])
def test_broken_images(seed: int, place: Path, capsys: pytest.CaptureFixture) -> None:
    found, problems = pictures(seed), []
    assert len(found) > 100
    for picture in found:
        file = place / picture.name
        picture.write(file)
        with limited():
            data = load(place, image_size=8)
            problem = looked_at(picture, file)
        count = sum(map(len, data.splits.values())) - 3
        skipped = "1 unreadable files skipped: " in " ".join(data.notes)
        # What lies in a folder that is called like an image is looked for there.
        if (count, skipped) != (picture.good, not picture.good and not file.is_dir()):
            problem += f"; {count} images more, and {data.notes}"
        if problem:
            problems.append(f"{picture.name!r}: {problem}")
        file.rmdir() if file.is_dir() else file.unlink()
    assert not problems, "\n".join(problems)
    for picture in found:
        picture.write(place / picture.name)
    assert call("data", "check", str(place), "--set", "image_size=8") == 0
    said = capsys.readouterr().out
    assert f"{sum(not picture.good for picture in found) - 1} unreadable files skipped: " in said
    assert all(line.isprintable() for line in said.splitlines())


# ---- run directories -------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, -1, 0, 1e308, math.nan, math.inf, 10**40, "", HOSTILE, "\ud800\x1b[31m", [], ["a"], [None], [{}], {},
    {"a": 1}, {"mean": "x", "standard_error": "y"}, {"name": HOSTILE}, HOSTILE * 200,
]  # fmt: skip


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in nested ones, of a list the first three."""
    yield above
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*above, key))


def damaged(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    changed = place = copy.deepcopy(value)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = other
    return changed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("campaign") / "run"
    quick = {"max_steps": 2, "sample_every": 0, "accelerator": "cpu"}
    vk.recipe("vae", out=out, latent_dim=3, backbone={"hidden": [8]}, trainer=quick).fit()
    estimate = {"mean": -3.0, "standard_error": 0.1, "count": 5}
    values = {"log_likelihood": estimate, "list": [0.1] * 6}
    keep_record(out, Record("likelihood", values, {"split": "test"}, {}, ["a"]))
    keep_record(out, Record("latent", {"marginal_kl": estimate}, {"split": "test", "samples": 4}))
    return out


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return yaml.safe_load(text)
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def written(path: Path, value: Any) -> str:
    if path.suffix == ".yaml":
        return yaml.safe_dump(value, allow_unicode=True)
    lines = value if path.suffix == ".jsonl" and isinstance(value, list) else [value]
    return "\n".join(map(json.dumps, lines))


def raw(out: Path, other: Path) -> str:
    """Return which of the pages of a run holds a script; an empty string for none."""
    pages = {"report": write_report(out).read_text(encoding="utf-8")}
    with contextlib.suppress(VaekitError):  # A comparison refuses what it cannot read.
        found = compare([out, other])
        pages |= {kind: render(found, kind).decode() for kind in ("html", "md", "tex", "csv")}
        pages["md"] = pages["md"].replace("\\<script", "")
    return " ".join(name for name in ("report", "html", "md") if "<script" in pages.get(name, ""))


def test_damaged_run_directories_still_have_a_page(finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    names = ["config.yaml", "environment.json", "metrics.jsonl", "evaluation.json", "latent.json"]
    chances = [(out / name, path, value) for name in names for path in places(read(out / name)) for value in VALUES]
    problems = []
    for file, path, value in random.Random(0).sample(chances, REPORTS):
        whole = file.read_bytes()
        file.write_text(written(file, damaged(read(file), path, value)), encoding="utf-8")
        try:
            with limited():
                problem = raw(out, other)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            problems.append(f"{file.name}: {path} is {value!r:.60}: {problem}")
        file.write_bytes(whole)
    assert not problems, "\n".join(problems)
