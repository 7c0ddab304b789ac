"""The report page, the curves, the latent map and the progress bar."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from vaekit.errors import VaekitError
from vaekit.reporting import (
    Progress,
    decode_progress,
    draw_curves,
    latent_map,
    panels_of,
    read_record,
    save_grid,
    write_report,
)
from vaekit.reporting.page import embed_file
from vaekit.training.listeners import Plan

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'
CONFIG = {
    "recipe": "gamix",
    "about": "GAMIX-VAE",
    "source": "How to train your VAE",
    "latent_dim": 16,
    "regularizers": {"population_kl": {"variance": "total"}, "variance_collapse": {}},
    "adversary": {"discriminator": {"name": "patchgan"}, "weight": 100},
    "data": {"name": "digits", "batch_size": 64},
    "data_shape": [1, 8, 8],
}
ENVIRONMENT = {
    "label": "surrogate loss",
    "command": "vaekit run gamix --data digits",
    "packages": {"torch": "2.11"},
    "notes": ["population_kl of perfectly standard normal means: 1.97 nats"],
    "training": {"steps": 60, "interrupted_by_signal": 0, "seconds": 83.2, "samples_per_second": 512.0},
}


def metrics(epochs: int = 6, steps: int = 10) -> list[dict[str, Any]]:
    lines = []
    for step in range(1, epochs * steps + 1):
        epoch = (step - 1) // steps
        terms = {
            "loss": 900.0 / step + 60,
            "reconstruction": 900.0 / step + 50,
            "population_kl": 10.0,
            "bits_per_dim": 2.0,
        }
        gan = {"generator": 0.7, "discriminator": 1.3, "logits_real": 0.1, "logits_fake": -0.1}
        lines.append({"split": "train", "step": step, "epoch": epoch, **terms, **gan})
        if step % steps == 0:
            # The lowest validation loss is at the fourth epoch.
            lines.append({"split": "valid", "step": step, "epoch": epoch, **terms, "loss": 77.0 + abs(epoch - 3)})
    return lines


def make_run(
    out: Path, config: Any = CONFIG, environment: Any = ENVIRONMENT, lines: Any = None, epochs: Any = range(1, 7)
) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (out / "environment.json").write_text(json.dumps(environment))
    (out / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in (metrics() if lines is None else lines))
    )
    for epoch in epochs:
        for kind in ("reconstructions", "prior"):
            save_grid(out / "samples" / f"epoch-{epoch:04d}-{kind}.png", torch.rand(4, 1, 8, 8), (0.0, 1.0))
    return out


class Page(HTMLParser):
    """Collects the tags of a page with their attributes, and its text; checks that tags are closed in order."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.open = "", []
        self.feed(self.html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(path: Path) -> Page:
    """What holds for every report: it loads nothing, runs nothing and describes its pictures."""
    page = Page(path)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "a", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "href"], (tag, attributes)
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:image/").startswith("data:image/")
    assert "url(" not in page.html
    assert "@import" not in page.html
    assert all(len(image["alt"]) > 10 for image in page.of("img"))
    assert any(meta.get("name") == "viewport" for meta in page.of("meta"))
    assert page.of("html") == [{"lang": "en"}]
    return page


# ---- the report ------------------------------------------------------------------------------------------------------


def test_full_report(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run")
    save_grid(out / "samples" / "aggregate-gaussian.png", torch.rand(4, 1, 8, 8), (0.0, 1.0))
    path = write_report(out)
    assert path == out / "report.html"
    page = check_page(path)
    for words in (
        "gamix on digits",
        "The loss is a surrogate, reconstruction + population KL (variance total) + 0.1 × variance collapse",
        "patchgan, weight 100",
        "validation, lowest loss (epoch 4)",
        "population_kl of perfectly standard normal means",
        "vaekit run gamix --data digits",
        "packages.torch",
        "1 min 23 s",
    ):
        assert words in page.text, words
    assert "Interrupted" not in page.text
    assert "ELBO" not in page.text
    alts = [image["alt"] for image in page.of("img")]
    for words in (
        "after epoch 6",
        "epoch 1",
        "epoch 4",
        "aggregate posterior",
        "Curve of surrogate loss",
        "Curve of logits",
    ):
        assert any(words in alt for alt in alts), words
    assert not any("epoch 2" in alt for alt in alts)
    # Pictures come first.
    assert page.html.index("<h2>Pictures") < page.html.index("<h2>Curves") < page.html.index("<h2>Figures")


def test_report_is_the_same_when_made_again(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", lines=[{"split": "train", "step": 1, "epoch": 0, "loss": 1.0}])
    assert write_report(out).read_bytes() == write_report(out).read_bytes()


def test_negative_elbo_is_called_so(tmp_path: Path) -> None:
    config = {**CONFIG, "regularizers": {"kl": {}}, "adversary": None}
    page = check_page(write_report(make_run(tmp_path, config, {**ENVIRONMENT, "label": "negative ELBO"})))
    assert "The loss is the negative ELBO, reconstruction + KL: an upper bound on -log p(x)" in page.text
    assert "surrogate" not in page.text


def test_unknown_label_claims_nothing(tmp_path: Path) -> None:
    page = check_page(write_report(make_run(tmp_path, environment={})))
    assert "whether it is a bound on the likelihood was not recorded" in page.text
    assert "ELBO" not in page.text


def test_interrupted_run(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "training": {"steps": 7, "interrupted_by_signal": 15}}
    out = make_run(tmp_path, environment=environment, lines=metrics(1)[:7], epochs=())
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"split": "train", "st')
    page = check_page(write_report(out))
    assert "Interrupted by SIGTERM at step 7" in page.text
    assert f"vaekit run {out} --resume" in page.text
    assert "metrics.jsonl has 1 line that cannot be read" in page.text
    assert "No validation was reached" in page.text
    assert "There are no pictures." in page.text
    assert page.of("img"), "the curves of the training lines are there"


def test_run_cut_off_without_a_word(tmp_path: Path) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "training"}
    assert (
        "No end of the training is recorded"
        in check_page(write_report(make_run(tmp_path, environment=environment))).text
    )


def test_empty_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "data_shape": [30]}))
    page = check_page(write_report(tmp_path))
    for words in (
        "environment.json is missing",
        "metrics.jsonl is missing",
        "samples are vectors",
        "There are no figures",
    ):
        assert words in page.text, words
    assert not page.of("img")


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match="is not a run directory"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_said(tmp_path: Path) -> None:
    out = make_run(tmp_path, epochs=(1, 2))
    (out / "config.yaml").write_text("a: [1")
    (out / "environment.json").write_bytes(b'{"label": \xff')
    (out / "samples" / "epoch-0002-prior.png").write_bytes(b"\x89PNG and no more")
    page = check_page(write_report(out))
    for words in (
        "config.yaml is not readable",
        "environment.json is not readable",
        "epoch-0002-prior.png cannot be read",
    ):
        assert words in page.text, words


@pytest.mark.parametrize("value", [3, "text", None, [1, 2], {"name": [1]}])
def test_nonsense_in_any_place_still_gives_a_page(tmp_path: Path, value: Any) -> None:
    lines = [{"split": "train", "step": 1, "epoch": 0, "loss": 1.0}]
    out = make_run(tmp_path, dict.fromkeys(CONFIG, value), dict.fromkeys(ENVIRONMENT, value), lines, epochs=(1,))
    with open(out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"split": "valid", "step": 1, "epoch": value, "loss": value, "kl": value}) + "\n")
        file.write(json.dumps(value) + "\n")
    assert "Curves" in check_page(write_report(out)).text
    for name in ("config.yaml", "environment.json"):
        (out / name).write_text(json.dumps(value))
    assert "Curves" in check_page(write_report(out)).text


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    config = {**CONFIG, "recipe": HOSTILE, "about": HOSTILE, "source": HOSTILE, "data": {"name": HOSTILE}}
    config["regularizers"] = {HOSTILE: {"weight": 2.0, HOSTILE: HOSTILE}}
    environment = {**ENVIRONMENT, "notes": [HOSTILE], HOSTILE: {"a": HOSTILE}, "command": HOSTILE, "label": HOSTILE}
    environment["odd"] = "\ud800 and \x00"
    lines = [{"split": "train", "step": 1, "epoch": 0, "loss": 1.0, HOSTILE: 2.0, "$x_": 1.0, "损失": 1.0}]
    out = make_run(tmp_path / "a run & <b>", config, environment, lines, epochs=())
    save_grid(out / "samples" / 'x" onload="y.png', torch.rand(4, 1, 8, 8), (0.0, 1.0))
    page = check_page(write_report(out))
    assert "<script" not in page.html
    assert "onload" in page.text
    assert page.text.count(HOSTILE) >= 5


def test_values_that_are_not_finite_are_said(tmp_path: Path) -> None:
    lines = metrics(2)
    lines[3]["loss"], lines[4]["population_kl"], lines[10]["loss"] = math.nan, math.inf, math.nan
    page = check_page(write_report(make_run(tmp_path, lines=lines)))
    assert "Not finite, and so not drawn: 3" in page.text


def test_heavy_pictures_are_made_light(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.frombytes("RGB", (1000, 1000), torch.randint(256, (3_000_000,), dtype=torch.uint8).numpy().tobytes()).save(
        path
    )
    uri = embed_file(path, 320)
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        assert (image.format, image.size) == ("JPEG", (320, 320))


def test_record_orders_pictures_by_epoch(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path, epochs=(10, 9, 10000)))
    assert [epoch for epoch, _ in record.epoch_pictures["prior"]] == [9, 10, 10000]


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_pictures() -> None:
    panels = panels_of(metrics(), "negative ELBO", ["population_kl"])
    assert [panel.title for panel in panels] == [
        "negative ELBO", "bits/dim", "reconstruction", "population KL", "adversarial losses", "logits",
    ]  # fmt: skip
    assert [panel.unit for panel in panels[:4]] == [
        "nats per sample", "bits per dimension", "nats per sample", "nats per sample",
    ]  # fmt: skip
    assert set(panels[0].series) == {"training", "validation"}
    for dark in (False, True):
        with Image.open(io.BytesIO(draw_curves(panels, dark=dark))) as image:
            image.load()
            assert image.width > 1000
        assert ElementTree.fromstring(draw_curves(panels, format="svg", dark=dark)).tag.endswith("svg")


@pytest.mark.parametrize(
    "values",
    [[1.0], [math.nan, 2.0], [1e-30, 1e29], [-1e29, 1e29], [5.0, 5.0], [0.0], list(range(1, 5000)), [1e308, 1.0]],
)
def test_curves_of_difficult_values(values: list[float]) -> None:
    panels = panels_of([{"split": "train", "step": step, "loss": value} for step, value in enumerate(values)])
    assert draw_curves(panels).startswith(b"\x89PNG")
    assert ElementTree.fromstring(draw_curves(panels, format="svg")) is not None


def test_nothing_to_draw() -> None:
    assert panels_of([{"split": "train", "step": 1, "loss": math.nan, "flag": True, "word": "x"}]) == []
    with pytest.raises(VaekitError, match="no curves to draw"):
        draw_curves([])


# ---- the latent map --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, torch.arange(60) % 10, torch.arange(60) % 30, torch.rand(60)])
def test_latent_map(labels: torch.Tensor | None) -> None:
    with Image.open(io.BytesIO(latent_map(torch.randn(60, 5), labels))) as image:
        image.load()
        assert image.format == "PNG"


def test_latent_map_of_a_collapsed_posterior() -> None:
    assert latent_map(torch.zeros(5, 3)).startswith(b"\x89PNG")


def test_latent_map_refuses() -> None:
    for means, labels in ((torch.zeros(5), None), (torch.zeros(5, 1), None), (torch.zeros(5, 2), torch.zeros(4))):
        with pytest.raises(VaekitError, match="latent_map takes"):
            latent_map(means, labels)
    with pytest.raises(VaekitError, match="NaN"):
        latent_map(torch.full((5, 2), math.nan))


def test_principal_components_carry_their_share() -> None:
    from vaekit.reporting.plots import principal_components

    x = torch.randn(5000, 4).double() * torch.tensor([1.0, 3.0, 0.1, 2.0])
    points, shares = principal_components(x)
    assert shares[0] == pytest.approx(9 / 14, abs=0.03)
    assert shares[1] == pytest.approx(4 / 14, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([torch.from_numpy(points[:, 0]), x[:, 1]]))[0, 1]) > 0.99


# ---- progress --------------------------------------------------------------------------------------------------------


def drive(console: Console, label: str = "surrogate loss") -> Progress:
    progress = Progress(console)
    plan = Plan(
        0, 60, 10, label, "cpu, 2 threads", {"vae": 12345, "discriminator": 67}, ("a [bold]note[/bold]" + 90 * "x",)
    )
    progress.on_start(plan)
    for line in metrics():
        progress.on_metrics(line)
        if line["split"] == "train":
            progress.on_step(line["step"])
    progress.on_finish()
    return progress


def test_plain_progress() -> None:
    file = io.StringIO()
    drive(Console(file=file))
    text = file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), "control characters"
    lines = text.splitlines()
    assert "surrogate loss on cpu, 2 threads; trainable parameters: vae 12,345, discriminator 67" in lines[0]
    assert lines[1] == "6 epochs of 10 steps"
    assert lines[2] == "note: a [bold]note[/bold]" + 90 * "x"
    validated = [line for line in lines if " valid " in line]
    assert len(validated) == 6
    assert validated[2].startswith("epoch 3/6  valid surrogate loss 78.00 nats  2.000 bits/dim  reconstruction ")
    assert "population_kl 10.00" in validated[2]
    assert sum("steps/s" in line for line in lines) == 1, "training is told sparsely"
    assert lines[-1].startswith("60 steps in ")


def test_progress_on_a_terminal() -> None:
    file = io.StringIO()
    drive(Console(file=file, force_terminal=True, width=100), "negative ELBO")
    text = file.getvalue()
    assert "━" in text
    assert "100%" in text
    assert "steps/s" in text
    assert "epoch 3/6  valid negative ELBO 78.00 nats  2.000 bits/dim" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is shown again"


def test_what_goes_to_a_file_stays_out_of_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True))
    progress.on_start(Plan(0, 5, 10, "negative ELBO", "cpu", {"vae": 1}, ()))
    print("a result")
    progress.on_finish()
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in file.getvalue()


def test_progress_of_a_resumed_run_of_vectors() -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file))
    progress.on_start(Plan(25, 30, 10, "negative ELBO", "cpu", {"vae": 1}, ()))
    progress.on_metrics({"split": "train", "step": 26, "epoch": 2, "loss": 1.0})
    progress.on_step(26)
    progress.on_finish()
    text = file.getvalue()
    assert "3 epochs of 10 steps, going on from step 25" in text
    assert "epoch 3/3  step 26/30  train 1.000 nats" in text
    assert "bits" not in text
    assert "1 step in" in text


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    drive(Console(file=file, force_terminal=True))
    assert "\x1b" not in file.getvalue()


def test_progress_costs_next_to_nothing() -> None:
    import time

    progress = Progress(Console(file=io.StringIO(), force_terminal=True))
    progress.on_start(Plan(0, 10**9, 10, "negative ELBO", "cpu", {"vae": 1}, ()))
    began = time.perf_counter()
    for step in range(1, 20001):
        progress.on_step(step)
    seconds = time.perf_counter() - began
    progress.on_finish()
    assert seconds / 20000 < 50e-6


def test_decoding() -> None:
    file = io.StringIO()
    report = decode_progress(Console(file=file))
    for done in range(100, 1001, 100):
        report(done, 1000, "decoding [x]")
    assert file.getvalue() == "decoding [x]  100 of 1,000\ndecoding [x]  1,000 of 1,000\n"
    file = io.StringIO()
    report = decode_progress(Console(file=file, force_terminal=True, width=60))
    for done in range(100, 1001, 100):
        report(done, 1000, "decoding " + 80 * "x")
    assert file.getvalue().count("\r") == 1, "drawn ten times a second at most"
    assert file.getvalue().count("\n") == 1


# ---- the package -----------------------------------------------------------------------------------------------------


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, vaekit.reporting as r; print([m for m in ('matplotlib', 'rich', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_export_is_there_and_pyplot_is_not_touched() -> None:
    import vaekit.reporting as reporting

    assert all(getattr(reporting, name) for name in reporting.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        reporting.nothing  # noqa: B018
    code = (
        "import sys, torch; from vaekit.reporting import draw_curves, latent_map, panels_of; "
        "draw_curves(panels_of([{'split': 'train', 'step': 1, 'loss': 1.0}])); latent_map(torch.randn(9, 3)); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
