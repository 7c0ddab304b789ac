"""Published tables made again: definitions that hold, runs that go on where they stopped, and a page that is filled."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import call, random_images

import vaekit.reporting.progress
import vaekit.reporting.report
from vaekit.config import LOADER_OPTIONS
from vaekit.data import Dataset, load
from vaekit.errors import VaekitError
from vaekit.evaluation.metrics import METRICS_OF_ONE, METRICS_OF_SEVERAL
from vaekit.evaluation.records import Record, read_records
from vaekit.evaluation.samplers import SOURCES
from vaekit.files import save_text
from vaekit.registry import datasets
from vaekit.reporting.comparison_cells import Cell
from vaekit.reproducing import read_table, reproduce, table_names, to_markdown, write_section
from vaekit.reproducing.parts import Figure, Measured
from vaekit.reproducing.reading import STAMP, figure_of
from vaekit.reproducing.writing import check_section, command_of, grid
from vaekit.run import Run
from vaekit.training.listeners import Listener

DOCS = Path(__file__).parents[1] / "docs" / "results.md"
TABLES = {name: read_table(name) for name in table_names()}
SIZES = {"mnist": (1, 28), "fashion-mnist": (1, 28), "cifar10": (3, 32), "celeba": (3, 64)}
TINY = """
title: Likelihood of tiny digits
source: {authors: A. Author, title: A Paper, year: 2020, arxiv: "2001.00001", where: table 1}
published_protocol: All of it.
difference: Everything.
published: [NLL]
shared:
  latent_dim: 2
  backbone: {name: mlp, hidden: [8]}
  data: {name: digits, limit: 60, batch_size: 20}
  trainer: {epochs: 9, sample_every: 0, accelerator: cpu}
full: {about: "9 epochs."}
short: {about: "1 epoch.", config: {trainer: {epochs: 1}}, evaluate: {particles: 5}}
evaluate: {metrics: [likelihood, elbo], samples: 1000, particles: 50}
figures:
  - {heading: our NLL, path: likelihood.log_likelihood, derive: negated, beside: NLL}
  - {heading: rate, path: elbo.rate, digits: 4}
rows:
  - {name: vae, recipe: vae, published: {NLL: "90.1 (0.2)"}}
  - {name: beta-5, recipe: vae, overrides: {regularizers: {kl: {weight: 5.0}}}}
"""


# ---- definitions -----------------------------------------------------------------------------------------------------


@cache
def stand_in(kind: str, size: int | None) -> Dataset:
    """Return noise in the shape of a data set, or the data set itself where it is made on the spot."""
    if kind not in SIZES:
        return load(kind, samples=600)
    channels, side = SIZES[kind]
    return random_images(700, (channels, size or side, size or side))


@pytest.mark.parametrize("full", [False, True], ids=["short", "full"])
@pytest.mark.parametrize("name", TABLES)
def test_every_row_can_be_trained(name: str, full: bool) -> None:
    """Parts and options exist and go together, and the objective can be computed."""
    table = TABLES[name]
    for row in table.rows:
        config = table.config(row, full=full)
        kind = config.data["name"]
        options = {key: value for key, value in config.data.items() if key not in (*LOADER_OPTIONS, "name")}
        datasets.check(kind, options, where="data")
        run = Run(config)
        run.data = stand_in(kind, config.data.get("image_size"))
        trainer, _, _ = run.prepare()
        assert trainer.sample_every == 0, "pictures of every epoch cost time and are of no account here"
        known = METRICS_OF_ONE if config.modalities is None else METRICS_OF_SEVERAL
        assert set(table.evaluation(full).metrics) <= known.keys()
        assert set(table.evaluation(full).samplers) <= {*SOURCES, "reconstructions"}


@pytest.mark.parametrize("name", TABLES)
def test_a_short_schedule_is_shorter(name: str) -> None:
    table = TABLES[name]
    for row in table.rows:
        short, full = (table.config(row, full=full).trainer["epochs"] for full in (False, True))
        assert short < full
        assert f"{short:,}" in table.short.about or (short == 1 and "1 epoch" in table.short.about)


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.ours is not None])
def test_the_page_shows_what_the_tables_keep(name: str) -> None:
    table, page = TABLES[name], DOCS.read_text(encoding="utf-8")
    assert table.ours is not None
    section = page.split(f"<!-- reproduce: {name} -->\n")[1].split(f"\n<!-- end: {name} -->")[0]
    assert section == to_markdown(table, table.ours)


def test_tables_and_rows_that_pages_name_are_there() -> None:
    named = 0
    for page in (DOCS.parents[1] / "README.md", *DOCS.parent.rglob("*.md")):
        for name, options in re.findall(r"^vaekit reproduce ([\w-]+)(.*)$", page.read_text(encoding="utf-8"), re.M):
            rows = [TABLES[name].row(row) for row in re.findall(r"--row[= ](\S+)", options)]
            assert bool(rows) == ("--row" in options)
            assert TABLES[name].needs_extractor == ("--extractor" in options)
            named += 1
    assert named >= 3


def test_a_distance_of_another_extractor_stands_beside_nothing() -> None:
    fashion = TABLES["evae-fashion"]
    head, rows = grid(fashion, fashion.ours)
    assert head[1:3] == ["FID (published)", "Fréchet distance (mobilenet_v1_075_features.ts)"]
    assert rows[0][1:3] == ["39.1 (0.3)", "198.75"]
    changed = fashion.model_dump()
    changed["figures"][1]["beside"] = "FID"
    with pytest.raises(ValueError, match="depends on the extractor: no published column stands beside it"):
        type(fashion)(**changed)


BROKEN = {
    "recipe: vae, published: {NLL": ("recipe: vae, published: {NLLL", "unknown 'NLLL', did you mean 'NLL'"),
    "path: elbo.rate": ("path: elbow.rate", "unknown 'elbow', did you mean 'elbo'"),
    "derive: negated": ("derive: squared", "figures.0.derive"),
    "name: beta-5": ("name: vae", "two of the rows have one name"),
    "year: 2020, ": ("", "source.year: Field required"),
    "title: Likelihood": ("titel: Likelihood", "title: Field required"),
}


@pytest.mark.parametrize("old", BROKEN)
def test_a_wrong_definition_is_one_sentence(old: str, tmp_path: Path) -> None:
    new, sentence = BROKEN[old]
    (tmp_path / "t.yaml").write_text(TINY.replace(old, new))
    with pytest.raises(VaekitError, match=re.escape(sentence)):
        read_table(tmp_path / "t.yaml")


def test_files_that_hold_no_table(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "bad.yaml").write_text("a: [")
    for name, sentence in (
        ("list.yaml", "must hold the definition of a table, not list"),
        ("bad.yaml", "is not readable YAML"),
        ("none.yaml", "there is no file"),
    ):
        with pytest.raises(VaekitError, match=sentence):
            read_table(tmp_path / name)
    with pytest.raises(VaekitError, match="unknown table 'mnist-nl': did you mean 'mnist-nll'"):
        read_table("mnist-nl")


# ---- figures ---------------------------------------------------------------------------------------------------------


def figure(path: str, derive: str | None = None) -> Figure:
    return Figure(heading="f", path=path, derive=derive)


def test_figures_are_found_by_their_path() -> None:
    estimate = {"mean": -2.0, "standard_error": 0.5, "count": 4}
    records = [
        Record("frechet", {"fid": 3.0}, {"sampler": "prior"}),
        Record("frechet", {"fid": 4.0}, {"sampler": "reconstructions"}),
        Record("likelihood", {"log_likelihood": estimate, "broken": None}, {}),
        Record("latent", {"kl_by_dimension": [0.001, 0.02, 0.2]}, {}),
    ]
    expected = {
        figure("frechet[reconstructions].fid"): 4.0,
        figure("frechet[prior].fid"): 3.0,
        figure("frechet[prior].frechet_distance"): None,
        figure("likelihood.log_likelihood"): -2.0,
        figure("likelihood.log_likelihood", "negated"): 2.0,
        figure("likelihood.log_likelihood.standard_error"): 0.5,
        figure("likelihood.broken"): None,
        figure("latent.kl_by_dimension", "share above 0.01"): 2 / 3,
        figure("latent.kl_by_dimension", "share above 0.1"): 1 / 3,
    }
    assert {each: figure_of(each, records) for each in expected} == expected
    for wrong in (figure("latent.kl_by_dimension"), figure("frechet[prior].fid", "share above 1")):
        with pytest.raises(VaekitError, match="which is no number"):
            figure_of(wrong, records)


# ---- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, which holds a tiny table; reports of runs are left undrawn."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vaekit.reporting.report, "write_report", lambda out: save_text(out / "report.html", ""))
    monkeypatch.setattr(Run, "portray", lambda run: None)
    return tmp_path


def test_a_table_is_made_and_fills_a_page(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = tiny / "page.md"
    page.write_text("# Before\n\ntext\n")

    class Interrupting(Listener):
        """Ends the third run at its second step."""

        runs = 0

        def __init__(self, console: Any) -> None:
            pass

        def on_start(self, plan: Any) -> None:
            Interrupting.runs += 1

        def on_step(self, step: int) -> None:
            if (Interrupting.runs, step) == (3, 2):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(vaekit.reporting.progress, "Progress", Interrupting)
    arguments = ("tiny.yaml", "--seeds=2", "--write=page.md")
    assert call("reproduce", *arguments) == 128 + signal.SIGINT
    assert "go on by repeating the command" in capsys.readouterr().out
    out = tiny / "reproductions" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in out.glob("vae-*/*") if path.is_file()}
    assert page.read_text() == "# Before\n\ntext\n"

    assert call("reproduce", *arguments) == 0
    assert Interrupting.runs == 5, "the interrupted run and the last one"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    first = page.read_text()
    capsys.readouterr()
    assert call("reproduce", *arguments) == 0
    shown = capsys.readouterr()
    assert (Interrupting.runs, page.read_text()) == (5, first)
    assert "A. Author, A Paper, 2020, arXiv 2001.00001: table 1" in shown.out
    assert "row" not in shown.err, "nothing is trained or evaluated again"

    # The figures are those of the runs, with the interval of a comparison.
    rates = [
        record.values["rate"]["mean"]
        for seed in (0, 1)
        for record in read_records(out / f"beta-5-seed-{seed}")
        if record.metric == "elbo"
    ]
    cell = Cell(dict(enumerate(rates)))
    (row,) = re.findall(r"^\| beta-5 \| (.+) \|$", first, re.M)
    assert row.split(" | ")[0] == "-"
    assert row.split(" | ")[2] == f"{statistics.fmean(rates):.4f} ± {cell.half_width:.4f}"
    assert row.split(" | ")[3].startswith("3 steps, ")
    assert "| row | NLL (published) | our NLL | rate | trained |" in first
    assert "| vae | 90.1 (0.2) |" in first
    assert "samples 60, " in first
    assert "- Trained for a shortened schedule: 1 epoch.\n" in first
    assert "vaekit reproduce tiny.yaml --seeds=2\n" in first
    assert first.startswith("# Before\n\ntext\n\n<!-- reproduce: tiny -->\n## Likelihood")
    # An interrupted run ends where an undisturbed one does.
    config = read_table("tiny.yaml")
    whole = reproduce(config, rows=["beta-5"], out=tiny / "whole")
    assert whole.rows["beta-5"].figures["rate"] == pytest.approx(rates[:1], abs=0)
    # What was measured is kept in the form of a table's `ours`.
    content = yaml.safe_load((out / "measured.yaml").read_text())
    assert to_markdown(config, Measured(**content)) in first
    assert json.loads((out / "vae-seed-1" / "environment.json").read_text())["command"] == (
        "vaekit reproduce tiny.yaml --row=vae --seeds=2"
    )


def test_what_is_missing_is_made_and_nothing_else(tiny: Path) -> None:
    said: list[str] = []
    found = reproduce("tiny.yaml", rows=["vae"], say=said.append)
    assert list(found.rows) == ["vae"]
    out = tiny / "reproductions" / "tiny"
    head, rows = grid(read_table("tiny.yaml"), found)
    assert rows[1][1:] == ["-"] * (len(head) - 1)
    # Another row: the first one stays and is shown.
    assert list(reproduce("tiny.yaml", rows=["beta-5"], say=said.append).rows) == ["vae", "beta-5"]
    assert said == ["tiny: row vae, seed 0 (1 of 1)", "tiny: row beta-5, seed 0 (1 of 1)"]
    # Figures that are lost, of other weights, or whose stamp is damaged, are computed again; nothing is trained.
    trained = (out / "vae-seed-0" / "metrics.jsonl").read_bytes()
    stamp = out / "vae-seed-0" / STAMP
    other = json.dumps({**json.loads(stamp.read_text()), "weights_sha256": "0" * 64})
    for harm in (
        (out / "vae-seed-0" / "evaluation.json").unlink,
        lambda: stamp.write_text(other),
        lambda: stamp.write_text("{}"),
        stamp.unlink,
    ):
        harm()
        said.clear()
        again = reproduce("tiny.yaml", say=said.append)
        assert said == ["tiny: row vae, seed 0 (1 of 2)"]
        assert again.rows["vae"].figures == found.rows["vae"].figures
    assert (out / "vae-seed-0" / "metrics.jsonl").read_bytes() == trained
    # The published length lies elsewhere.
    full = reproduce("tiny.yaml", rows=["vae"], full=True)
    assert full.rows["vae"].steps == 27
    assert (tiny / "reproductions" / "tiny-full" / "vae-seed-0").is_dir()
    assert "particles 50," in full.protocols["likelihood"]
    assert command_of(read_table("tiny.yaml"), full) == "vaekit reproduce tiny.yaml --full"


def test_other_configurations_are_refused(tiny: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("reproduce", "tiny.yaml", "--row=vae") == 0
    capsys.readouterr()
    for change, sentence in (
        ("latent_dim=3", "was trained with latent_dim = 2, not 3"),
        ("trainer.epochs=2", "was trained with trainer.epochs = 1, not 2"),
    ):
        assert call("reproduce", "tiny.yaml", "--row=beta-5", f"--set={change}") == 2
        assert sentence in capsys.readouterr().err
    assert call("reproduce", "tiny.yaml", "--row=vae", "--set=latent_dim=3", "--out=other", "--write=new.md") == 0
    assert "Changed besides: latent_dim=3.\n" in (tiny / "new.md").read_text()


class Means(torch.nn.Module):
    """Means of four patches, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        return self.factor * patches / 255


def test_figures_of_an_extractor_carry_its_name(tiny: Path) -> None:
    for name, factor in (("one.ts", 1.0), ("two.ts", 2.0)):
        with pytest.warns(FutureWarning):
            torch.jit.script(Means(factor)).save(tiny / name)
    content = yaml.safe_load(TINY)
    content["evaluate"] = {"metrics": ["frechet", "elbo"], "samplers": ["reconstructions"], "samples": 30}
    content["figures"] = [
        {"heading": "FID", "path": "frechet[reconstructions].fid", "beside": "NLL"},
        {"heading": "distance", "path": "frechet[reconstructions].frechet_distance", "digits": 6},
        {"heading": "mistyped", "path": "elbo.rat"},
    ]
    (tiny / "images.yaml").write_text(yaml.safe_dump(content))
    table = read_table("images.yaml")
    one, two = (reproduce(table, rows=["vae"], extractor=name) for name in ("one.ts", "two.ts"))
    assert grid(table, one)[0] == ["row", "NLL (published)", "distance (one.ts)", "trained"]
    assert command_of(table, two) == "vaekit reproduce images.yaml --extractor=two.ts"
    distances = [made.rows["vae"].figures["distance"][0] for made in (one, two)]
    assert distances[1] == pytest.approx(4 * distances[0], rel=1e-4), "the second extractor's features are twice as far"
    assert one.notes[-1] == "no run has the figure elbo.rat", "and a Fréchet distance goes by one of two names"


@pytest.mark.parametrize(("old", "new"), [("elbo", "elbow"), ("[likelihood,", "[likelihood, sharpness,")])
def test_metrics_and_samplers_are_known_before_anything_is_trained(old: str, new: str, tiny: Path) -> None:
    text = TINY.replace(old, new).replace("samples: 1000,", "samples: 1000, samplers: [priory],")
    (tiny / "wrong.yaml").write_text(text)
    with pytest.raises(VaekitError, match="no metric 'elbow'.*'elbo'" if new == "elbow" else "no sampler 'priory'"):
        reproduce("wrong.yaml")
    assert not (tiny / "reproductions").exists()


def test_protocols_are_never_mixed(tiny: Path) -> None:
    reproduce("tiny.yaml")
    out = tiny / "reproductions" / "tiny" / "vae-seed-0"
    content = json.loads((out / "evaluation.json").read_text())
    content["records"][0]["protocol"]["particles"] = 6
    stamp = json.loads((out / STAMP).read_text())
    (out / "evaluation.json").write_text(json.dumps(content))
    stamp["records"][0][1] = read_records(out)[0].digest
    (out / STAMP).write_text(json.dumps(stamp))
    with pytest.raises(VaekitError, match="were evaluated by different protocols of 'likelihood'"):
        reproduce("tiny.yaml")


SENTENCES = {
    ("mnist-nl",): "unknown table 'mnist-nl': did you mean 'mnist-nll'?",
    ("mnist-nll", "--row=va"): "the table 'mnist-nll' has no row 'va': did you mean 'vae'?",
    ("mnist-nll", "--seeds=0"): "--seeds must be 1 or more, not 0",
    ("mnist-nll", "--offline", "--data-root=nowhere"): "data set 'mnist' is missing or damaged",
    ("evae-fashion",): "the table 'evae-fashion' compares images by features: give --extractor inception",
    ("evae-fashion", "--extractor=none.ts"): "there is no file none.ts",
    ("mnist-nll", "--extractor=none.ts"): "compares no images by features: leave the extractor out",
    ("tiny.yaml", "--set=latent_dimm=3"): "unknown key 'latent_dimm'",
    ("tiny.yaml", "--set=trainer.devices=2"): "a row is trained on one device",
    ("tiny.yaml", "--write=half.md"): "needs '<!-- reproduce: tiny -->' and then '<!-- end: tiny -->'",
    ("--seeds=2",): "name the table that the options are for",
}


@pytest.mark.parametrize("arguments", SENTENCES, ids=" ".join)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], tiny: Path, capsys: pytest.CaptureFixture) -> None:
    (tiny / "half.md").write_text("<!-- reproduce: tiny -->\n")
    assert call("reproduce", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert SENTENCES[arguments] in line
    assert not (tiny / "reproductions").exists()


def test_the_list_needs_no_torch() -> None:
    code = "import sys; from vaekit.cli.main import app; app(standalone_mode=False); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "reproduce"], check=True, stdout=subprocess.DEVNULL)


def test_the_list(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call("reproduce") == 0
    shown = capsys.readouterr().out
    for name, table in TABLES.items():
        part = shown.split(f"\n{command_of(table)}\n")[0].rpartition(f"{name}  {table.title}")[2]
        assert part, "every table has its command"
        for row in table.rows:
            assert all(figure in part for figure in row.published.values())
        if table.ours is not None:
            assert all(f"{made.steps:,} steps" in part for made in table.ours.rows.values())


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_only_the_section_of_the_table_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "a\r\n<!-- reproduce: x -->\r\nold\r\n<!-- end: x -->\r\nb\r\n<!-- reproduce: xy -->\nc\n<!-- end: xy -->\n"
    page.write_bytes(text.encode())
    write_section(page, "x", "new")
    expected = text.replace("<!-- reproduce: x -->\r\nold\r\n", "<!-- reproduce: x -->\nnew\n")
    assert page.read_bytes().decode() == expected
    write_section(page, "z", "more")
    assert page.read_bytes().decode() == f"{expected}\n<!-- reproduce: z -->\nmore\n<!-- end: z -->\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<!-- reproduce: x -->", "needs"),
        ("<!-- end: x -->\n<!-- reproduce: x -->", "and then"),
        ("<!-- reproduce: x --><!-- reproduce: x --><!-- end: x -->", "twice"),
    ],
)
def test_a_page_with_marks_amiss(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(VaekitError, match=sentence):
        check_section(tmp_path / "page.md", "x")
    with pytest.raises(VaekitError, match="is no text file"):
        check_section(tmp_path, "x")
