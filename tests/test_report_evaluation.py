"""The evaluation's figures on a report, `vaekit report`, and the page of several runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import call, tiny
from test_reporting import CONFIG, check_page, make_run

import vaekit as vk
from vaekit.config import resolve
from vaekit.errors import VaekitError
from vaekit.evaluation.memorisation import memorisation, suspects
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.records import Record, keep_record, plain
from vaekit.files import sha256
from vaekit.reporting import save_grid, side_by_side, write_report
from vaekit.reporting.several_runs import write_side_by_side

DIGITS = {"data": {"data": "digits", "limit": None}, "split": "test", "samples": 180}
INCEPTION = {"name": "inception-v3-compat", "sha256": "6726", "defines_fid": True}
OTHER = {"name": "mobilenet.ts", "sha256": "abcd", "defines_fid": False}


def keep(out: Path, metric: str, values: dict[str, Any], **more: Any) -> None:
    made = {"weights_sha256": more.pop("weights", "w"), "seed": 0}
    keep_record(out, Record(metric, values, {**DIGITS, **more}, made, ["a note"]))


# ---- the section of a report -----------------------------------------------------------------------------------------


def test_a_column_holds_one_protocol(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", epochs=())
    for sampler, value in (("prior", 41.5), ("aggregate-gaussian", 33.25)):
        keep(out, "frechet", {"fid": value}, sampler=sampler, extractor=INCEPTION)
        keep(out, "frechet", {"frechet_distance": value / 2}, sampler=sampler, extractor=OTHER)
    keep(out, "likelihood", {"log_likelihood": {"mean": -91.25, "standard_error": 0.5, "count": 180}}, particles=512)
    keep(out, "latent", {"marginal_kl": {"mean": 1.75, "standard_error": 0.1, "count": 180}, "by": list(range(50))})
    page = check_page(write_report(out))
    row = page.html.split('<th scope="row">FID</th>')[1].split("</tr>")[0]
    assert row.count("<td") == 4
    assert row.count("41.50") == row.count("33.25") == 1
    row = page.html.split('<th scope="row">Fréchet distance (mobilenet.ts)</th>')[1].split("</tr>")[0]
    assert (row.count("20.75"), row.count("41.50")) == (1, 0)
    for words in ("sampler prior", "particles 512", "-91.25 ± 0.5", "log p(x)", "split test", "50 numbers", "a note"):
        assert words in page.text, words
    assert page.text.count("extractor.name") == 4, "the whole protocol stands in the details"
    assert page.html.index("<h2>Figures") < page.html.index("<h2>Evaluation")


def test_inception_names_are_for_the_inception_network_alone(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", epochs=())
    keep(out, "frechet", {"frechet_distance": 3.0}, extractor=OTHER)
    text = check_page(write_report(out)).text
    assert "FID" not in text
    assert "Fréchet distance (mobilenet.ts)" in text


def test_the_gap_stands_with_the_histograms(tmp_path: Path) -> None:
    out = tmp_path / "run"
    vk.Run(tiny("vae", trainer={"max_steps": 2, "accelerator": "cpu"}), out).fit()
    assert "KL of the aggregate posterior" not in check_page(out / "report.html").text
    keep(out, "latent", {"marginal_kl": {"mean": 1.75, "standard_error": 0.1, "count": 180}})
    text = check_page(write_report(out)).text
    assert "KL of the aggregate posterior to the prior: 1.75 nats, from 180 samples of test." in text
    assert "Figures of latent were computed with earlier weights" in text
    keep(out, "latent", {"marginal_kl": {"mean": 1.5, "standard_error": 0.1, "count": 180}},
         weights=sha256(out / "model.safetensors"))  # fmt: skip
    assert "earlier weights" not in check_page(write_report(out)).text


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 9, "records": []}', '{"format": 1, "records": [{"metric": 1}]}']
)
def test_a_damaged_evaluation_is_said(tmp_path: Path, content: str) -> None:
    out = make_run(tmp_path / "run", epochs=())
    (out / "evaluation.json").write_text(content)
    assert "evaluation.json" in check_page(write_report(out)).text


@pytest.mark.parametrize("value", [3, "text", None, [1, 2], {"near": {"mean": "x"}}])
def test_nonsense_among_the_figures_still_gives_a_page(tmp_path: Path, value: Any) -> None:
    out = make_run(tmp_path / "run", epochs=())
    record = {"metric": "memorisation", "values": value, "protocol": value, "made": value, "notes": [value]}
    (out / "evaluation.json").write_text(json.dumps({"format": 1, "records": [record]}))
    assert "valuation" in check_page(write_report(out)).text


def test_copies_of_training_images_are_said_and_shown(tmp_path: Path) -> None:
    """A model that has learned sixteen images by heart gives them out again where latents are drawn around them."""
    out = tmp_path / "run"
    trainer = {"epochs": 250, "sample_every": 0, "accelerator": "cpu", "optimizer": {"name": "adam", "lr": 0.005}}
    config = tiny("vae", latent_dim=16, backbone={"hidden": [128]}, regularizers={"kl": None}, trainer=trainer)
    run = vk.Run(resolve(config.model_dump(), {"data": {"limit": 16, "batch_size": 16}}), out)
    run.fit()
    options = Options(samplers=("aggregate-mixture", "prior"), sampler=run.sampler)
    for found in memorisation(run.model.eval(), run.data, options):
        protocol = plain({"data": run.data.protocol, "split": "test", "samples": 16, **found.protocol})
        keep_record(out, Record("memorisation", plain(found.values), protocol, {}, found.notes))
    samples, neighbours, _ = suspects(run.model, run.data, options, 4)
    save_grid(out / "samples" / "neighbours.png", side_by_side(samples, neighbours), (0.0, 255.0))
    page = check_page(write_report(out))
    assert "By pixels, 100% of the samples from aggregate-mixture and" in page.text
    assert "Samples from aggregate-mixture are close to copies of training images." in page.text
    assert any("each with the nearest training image to its right" in image["alt"] for image in page.of("img"))


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "first"
    vk.Run(tiny("vae", trainer={"max_steps": 30, "accelerator": "cpu"}), out).fit()
    return out


def test_report_makes_again_what_is_missing(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for name in ("latent.json", "report.html", "samples/traversals.png"):
        (out / name).unlink()
    assert call("report", str(out)) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    assert (out / "latent.json").read_bytes() == (finished / "latent.json").read_bytes()
    assert (out / "samples" / "traversals.png").is_file()
    # What is there already is left alone.
    before = (out / "latent.json").stat().st_mtime_ns
    assert call("report", str(out)) == 0
    assert (out / "latent.json").stat().st_mtime_ns == before


def test_report_does_without_data_that_are_gone(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "latent.json").unlink()
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config.replace("name: digits", f"name: {tmp_path / 'gone.npz'}"))
    assert call("report", str(out)) == 0
    assert "note: what shows the latent space could not be made again" in capsys.readouterr().err
    assert "<h2>Latent space" not in check_page(out / "report.html").html


def test_report_of_a_run_that_was_cut_off(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run", environment={}, epochs=(1,))
    assert call("report", str(out)) == 0
    assert "No end of the training is recorded" in check_page(out / "report.html").text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is not a run directory"),
        (["first", "--out", "page.html"], "--out is the .html page of several runs"),
        (["first", "second", "--out", "page.txt"], "--out is the .html page of several runs"),
        (["first", "first"], "needs two or more different ones"),
    ],
)
def test_mistakes_are_sentences(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        make_run(tmp_path / name, epochs=())
    assert call("report", *arguments) == 2
    assert says in capsys.readouterr().err


# ---- several runs ----------------------------------------------------------------------------------------------------


def test_several_runs_side_by_side(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    second = tmp_path / "second"
    config = tiny("vae", regularizers={"kl": {"weight": 1000.0}}, trainer={"max_steps": 60, "accelerator": "cpu"})
    vk.Run(config, second).fit()
    for out in (finished, second):
        keep(out, "likelihood", {"log_likelihood": {"mean": -25.5, "standard_error": 0.5, "count": 180}}, particles=64)
    assert call("report", str(finished), str(second)) == 0
    assert "side by side: comparison.html" in capsys.readouterr().out
    page = check_page(tmp_path / "comparison.html")
    alts = [image["alt"] for image in page.of("img")]
    (curve,) = [alt for alt in alts if alt.startswith("Curve of reconstruction")]
    assert "first from" in curve
    assert "second from" in curve
    # Losses of two kinds share no panel.
    (surrogate,) = [alt for alt in alts if alt.startswith("Curve of surrogate loss")]
    assert "first" not in surrogate
    for kind in ("Reconstructions", "Samples from the prior", "Traversals"):
        assert [alt.split(":")[0] for alt in alts if kind in alt] == ["first", "second"], kind
    for words in ("These runs differ in regularizers", "0 of 4", "-25.50", "particles 64"):
        assert words in page.text, words


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    outs = [make_run(tmp_path / name / "run", {**CONFIG, "latent_dim": size}) for name, size in (("a", 4), ("b", 8))]
    page = check_page(write_side_by_side(outs, tmp_path / "page.html"))
    assert "a/run" in page.text
    assert "b/run" in page.text
    with pytest.raises(VaekitError, match="two or more different ones"):
        write_side_by_side([outs[0], outs[0] / ".." / "run"], tmp_path / "page.html")


def test_many_runs_have_lines_of_their_own(tmp_path: Path) -> None:
    outs = []
    for number in range(8):
        lines = [
            {"split": "valid", "step": step, "epoch": step, "loss": 100.0 / step + number, "logits_real": float(number)}
            for step in range(1, 5)
        ]
        outs.append(make_run(tmp_path / f"run-{number}", lines=lines, epochs=()))
        save_grid(outs[-1] / "samples" / "prior.png", torch.rand(4, 1, 8, 8), (0.0, 1.0))
    page = check_page(write_side_by_side(outs, tmp_path / "page.html"))
    (curve,) = [image["alt"] for image in page.of("img") if image["alt"].startswith("Curve of surrogate loss")]
    assert all(f"run-{number} from" in curve for number in range(8))
