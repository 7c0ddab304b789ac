"""Comparisons as tables, files and pictures, and `vaekit compare`."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from comparison_runs import KID, evaluate, write_run, write_seeds
from helpers import call
from PIL import Image
from rich.console import Console

from vaekit.errors import VaekitError
from vaekit.evaluation.records import digest
from vaekit.reporting.comparison import Comparison, compare
from vaekit.reporting.comparison_cells import Cell
from vaekit.reporting.comparison_figure import draw_comparison
from vaekit.reporting.comparison_formats import render, to_csv, to_html, to_json, to_latex, to_markdown
from vaekit.reporting.comparison_tables import _text, print_table, rules, sheets

MNIST = {"data": "mnist", "split": "official"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two configurations of three seeds, one of one seed that was judged otherwise, one of other data."""
    runs = tmp_path / "runs"
    for seed, run in enumerate(write_seeds(runs, "a", [-90.0, -90.5, -91.0])):
        evaluate(run, "kid", {"kid": 0.1 + seed / 100}, KID)
    gmm = {"posterior": {"name": "gmm", "components": 8}}
    for seed, run in enumerate(write_seeds(runs, "b", [-99.0, -99.5, -99.9], config=gmm)):
        evaluate(run, "kid", {"kid": 0.2 + seed / 100}, KID)
    out = write_run(runs / "c", config={"recipe": "odd_name & 100%"})
    evaluate(out, values=-80.0, samples=1000, notes=["mind the | in 50% of $x_1$"])
    (out / "model.safetensors").write_bytes(b"other weights")
    evaluate(write_run(runs / "d", data=MNIST), values=-70.0, data=MNIST)
    return runs


@pytest.fixture
def found(folder: Path) -> Comparison:
    return compare([folder])


def printed(found: Comparison, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(found, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell({0: -90.0}), "-90.00"),
        (Cell({0: -90.0}, stale=True), "-90.00†"),
        (Cell({0: 1.0, 1: 1.0}), "1.000 ± 0"),
        (Cell({0: 0.0, 1: float("nan")}), "nan"),
        # Half the width is 6.353 times the distance of two seeds.
        (Cell({0: 10.0, 1: 10.5}), "10.2 ± 3.2"),
        (Cell({0: 1000.0, 1: 3000.0}), "2,000 ± 12,706"),
        (Cell({0: 1.0, 1: 1.00001}), "1.000005 ± 0.000064"),
        (Cell({0: 1e-9, 1: 2e-9}), "1.500e-09 ± 6.4e-09"),
        (None, "-"),
    ],
)
def test_figures_have_the_digits_that_their_interval_leaves(cell: Cell | None, text: str) -> None:
    assert _text(cell, 0 if cell is None else cell.n) == text


def test_fewer_seeds_than_the_row_has_are_said() -> None:
    assert _text(Cell({0: 2.0}), 3) == "2.000 (n=1)"


def test_heads_name_protocols_apart_and_footnotes_tell_them(found: Comparison) -> None:
    digits, mnist = sheets(found)
    assert (digits.data, mnist.data) == ("digits", "mnist")
    assert digits.heads == [
        ["likelihood", "log p(x) ↑", "180 samples", "(a)"],
        ["likelihood", "log p(x) ↑", "1,000 samples", "(b)"],
        ["KID ↓", "of prior", "(c)"],
    ]
    assert mnist.heads == [["likelihood", "log p(x) ↑", "(d)"]]
    assert digits.protocols[0].startswith("all on digits: data digits, ")
    for sheet in (digits, mnist):
        for column, head in zip(sheet.comparison.columns, sheet.heads, strict=True):
            (line,) = [line for line in sheet.protocols if line.startswith(head[-1])]
            assert line.endswith(f"[{digest(column.protocol)}]")
            assert f"samples {column.protocol['samples']}" in line


def test_rules_say_what_is_marked(found: Comparison) -> None:
    assert len(rules(found)) == 3
    alone = compare([found.rows[0].runs[0]])
    assert [rule[:2] for rule in rules(alone)] == ["n "]


def test_a_run_that_was_judged_on_other_data_says_so(tmp_path: Path) -> None:
    out = evaluate(write_run(tmp_path / "run"), data=MNIST)
    assert [(sheet.data, sheet.names) for sheet in sheets(compare([out]))] == [("mnist", ["vae (trained on digits)"])]


@pytest.mark.parametrize("width", [50, 80, 200])
def test_the_terminal_shows_everything_at_any_width(found: Comparison, width: int) -> None:
    text = printed(found, width)
    assert max(map(len, text.splitlines())) <= width
    for piece in ("-90.5 ± 1.2*", "-99.5 ± 1.1", "0.110 ± 0.025*", "-80.00†", "-70.00", "data: digits", "data: mnist"):
        assert piece in text
    # All figures beside each other where there is room.
    assert len(re.findall(r"^ *n {3,}", text, re.M)) == {50: 4, 80: 3, 200: 2}[width]


# ---- formats ---------------------------------------------------------------------------------------------------------


def test_csv_has_the_protocol_beside_every_number(found: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(lines) == sum(len(row.cells) for row in found.rows) == 6
    assert all(digest(json.loads(line["protocol"])) == line["digest"] for line in lines)
    first, alone = lines[0], next(line for line in lines if line["n"] == "1")
    assert (first["metric"], first["figure"], first["mean"]) == ("likelihood", "log_likelihood", "-90.5")
    assert (first["seeds"], first["values"], first["best"]) == ("0 1 2", "-90.0 -90.5 -91.0", "True")
    assert float(first["high"]) - float(first["low"]) == pytest.approx(2 * 4.302652729911275 * 0.5 / 3**0.5)
    assert (alone["low"], alone["high"], alone["weights_changed"]) == ("", "", "True")


def test_json_has_rows_numbers_and_notes(found: Comparison) -> None:
    content = json.loads(to_json(found))
    assert [len(row["runs"]) for row in content["rows"]] == [3, 3, 1, 1]
    assert content["notes"] == found.notes
    assert {number["digest"] for number in content["numbers"]} == {column.key[2] for column in found.columns}


def test_markdown_is_tables(found: Comparison) -> None:
    lines = to_markdown(found).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    counts = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert counts == [6] * 5 + [4] * 3
    assert "| vae, posterior=gaussian | 3 | **-90.5 ± 1.2** | - | **0.110 ± 0.025** |" in lines
    assert sum("[" in line for line in lines if line.startswith("- (")) == 4


def test_latex_is_escaped(found: Comparison) -> None:
    text = to_latex(found)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"odd\_name \& 100\%" in text
    assert r"\textbf{$-$90.5 $\pm$ 1.2}" in text
    assert r"mind the | in 50\% of \$x\_1\$" in text
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%#_]", body)
    assert not re.search(r"[^\x00-\x7f]", body)
    plain = re.sub(r"\\[{}]", "", body)
    assert plain.count("{") == plain.count("}")
    assert all(line.count(" & ") == 4 for line in body.splitlines() if line.startswith("vae, posterior"))


def test_html_loads_nothing_and_escapes(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", config={"recipe": "<script>alert(1)</script>"})
    text = to_html(compare([evaluate(out)]))
    assert "<script" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "unit nats per sample" in text


def test_pictures(found: Comparison) -> None:
    image = Image.open(io.BytesIO(render(found, "png")))
    assert image.width > 800
    svg = render(found, "svg")
    assert svg == draw_comparison(found, format="svg")
    assert svg != draw_comparison(found, format="svg", dark=True)
    # One hollow dot for each figure of one seed, one filled for each mean.
    root = ElementTree.fromstring(svg)
    dots = [
        use.get("style", "")
        for use in root.iter("{http://www.w3.org/2000/svg}use")
        if "stroke: #0072b2" in use.get("style", "")
    ]
    assert sorted("fill: #ffffff" in dot for dot in dots) == [False] * 4 + [True] * 2


def test_nothing_finite_to_draw(tmp_path: Path) -> None:
    for seed, value in enumerate([1.0, None]):
        out = write_run(tmp_path / str(seed), seed=seed)
        evaluate(out, values={"log_likelihood": value})
    with pytest.raises(VaekitError, match="nothing to draw"):
        draw_comparison(compare([tmp_path]))


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert call("compare", str(folder)) == 0
    assert "likelihood" in capsys.readouterr().out


def test_the_command_needs_no_torch(folder: Path) -> None:
    code = "import sys; from vaekit.cli.main import app; app(standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "compare", str(folder)], check=True)


@pytest.mark.parametrize(("format", "begins"), [("csv", "row,"), ("json", "{"), ("latex", "%"), ("markdown", "###")])
def test_formats_go_to_standard_output_and_notes_beside_them(
    folder: Path, capsys: pytest.CaptureFixture, format: str, begins: str
) -> None:
    assert call("compare", str(folder), "--format", format) == 0
    said = capsys.readouterr()
    assert said.out.startswith(begins)
    assert "note: the weights of" in said.err


@pytest.mark.parametrize("ending", ["csv", "md", "tex", "json", "html", "png", "svg"])
def test_files_by_their_ending(folder: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "deep" / f"figure.{ending}"
    assert call("compare", str(folder / "a-0"), str(folder / "b-0"), "--metrics", "likelihood", "--out", str(out)) == 0
    assert out.stat().st_size > 100
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert capsys.readouterr().out.strip() == f"comparison: {out}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--strict"], "is from 180 samples and of"),
        (
            ["--out", "figure.pdf"],
            "--out takes a file that ends in .csv, .md, .tex, .json, .html, .png, .svg, not 'figure.pdf'",
        ),
        (["--metrics", ","], "--metrics names nothing"),
        (["--metrics", "fid"], "no run has the figure 'fid'"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture, arguments: list[str], says: str
) -> None:
    assert call("compare", str(folder), *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vaekit: ")
    assert "\n" not in error
    assert says in error
