"""Runs side by side: rows are configurations, columns are protocols, and the sentences say the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from comparison_runs import KID, LIKELIHOOD, evaluate, write_run, write_seeds

import vaekit as vk
from vaekit.errors import VaekitError
from vaekit.evaluation.records import digest
from vaekit.reporting.comparison import Comparison, compare
from vaekit.reporting.comparison_cells import Cell, Column
from vaekit.reporting.comparison_reading import find_runs

MNIST = {"data": "mnist", "split": "official", "samples": {"train": 50000, "valid": 10000, "test": 10000}}


def cells(found: Comparison, name: str) -> list[dict[str, Cell]]:
    """Return for each column of that name the cells by row."""
    return [
        {row.name: row.cells[column.key] for row in found.rows if column.key in row.cells}
        for column in found.columns
        if column.name == name
    ]


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_seeds_are_one_row_with_an_interval(tmp_path: Path) -> None:
    write_seeds(tmp_path, "vae", [1.0, 2.0, 3.0])
    found = compare([tmp_path])
    assert [(row.name, row.data, row.seeds) for row in found.rows] == [("vae", "digits", (0, 1, 2))]
    (by_row,) = cells(found, "likelihood.log_likelihood")
    assert by_row["vae"].mean == 2.0
    # t of two degrees of freedom at 0.975, by a table, over the root of three.
    assert by_row["vae"].half_width == pytest.approx(4.302652729911275 / math.sqrt(3), abs=1e-10)


def test_intervals_of_other_numbers_of_seeds() -> None:
    assert Cell({0: 5.0}).half_width is None
    assert Cell({0: 1.0, 1: 2.0}).half_width == pytest.approx(
        12.706204736432095 * math.sqrt(0.5) / math.sqrt(2), abs=1e-9
    )
    many = Cell({seed: float(seed % 2) for seed in range(10)})
    assert many.half_width == pytest.approx(2.2621571627409915 * math.sqrt(2.5 / 9) / math.sqrt(10), abs=1e-10)


def test_one_seed_twice_counts_once_and_is_said(tmp_path: Path) -> None:
    evaluate(write_run(tmp_path / "a", seed=0), values=1.0)
    evaluate(write_run(tmp_path / "b", seed=0), values=2.0)
    evaluate(write_run(tmp_path / "c", seed=1), values=3.5)
    found = compare([tmp_path])
    assert cells(found, "likelihood.log_likelihood")[0]["vae"].values == {0: 1.5, 1: 3.5}
    assert "vae: seed 0 was trained 2 times, whose figures are averaged and count once" in found.notes


def test_where_a_run_was_made_does_not_matter(tmp_path: Path) -> None:
    for seed, accelerator in enumerate(["cpu", "cuda"]):
        trainer = {"seed": seed, "accelerator": accelerator, "devices": seed + 1, "log_every": 5 + seed}
        config = {"trainer": trainer, "data": {"name": "digits", "root": f"/data/{seed}"}, "about": f"number {seed}"}
        evaluate(write_run(tmp_path / accelerator, config=config))
    assert [len(row.runs) for row in compare([tmp_path]).rows] == [2]


def test_rows_are_named_by_what_differs(tmp_path: Path) -> None:
    gmm = {"posterior": {"name": "gmm", "components": 8}}
    write_seeds(tmp_path, "a", [1.0])
    write_seeds(tmp_path, "b", [1.0], config=gmm)
    write_seeds(tmp_path, "c", [1.0], config={"regularizers": {"kl": {"weight": 4.0}}})
    write_seeds(tmp_path, "d", [1.0], config={"recipe": "iwae", "latent_dim": 3})
    assert [row.name for row in compare([tmp_path]).rows] == [
        "vae, posterior=gaussian",
        "vae, posterior=gmm, posterior.components=8",
        "vae, posterior=gaussian, regularizers.kl.weight=4",
        "iwae",
    ]
    assert [row.name for row in compare([tmp_path / "a-0", tmp_path / "c-0"]).rows] == [
        "vae",
        "vae, regularizers.kl.weight=4",
    ]


def test_a_regularizer_that_is_not_there_is_a_difference(tmp_path: Path) -> None:
    write_seeds(tmp_path, "a", [1.0], config={"regularizers": {"kl": {}}})
    write_seeds(tmp_path, "b", [1.0], config={"regularizers": {"kl": {}, "dip": {}}})
    assert [row.name for row in compare([tmp_path]).rows] == ["vae", "vae, regularizers.dip"]


def test_shapes_that_follow_from_options_of_the_data_go_without_saying(tmp_path: Path) -> None:
    for size in (8, 16):
        config = {"data": {"name": "digits", "image_size": size}, "data_shape": [1, size, size]}
        write_seeds(tmp_path, f"of-{size}", [1.0], config=config)
    assert {row.name for row in compare([tmp_path]).rows} == {"vae, data.image_size=8", "vae, data.image_size=16"}


def test_runs_are_found_once_in_any_mixture(tmp_path: Path) -> None:
    runs = write_seeds(tmp_path / "deep" / "er", "vae", [1.0, 2.0])
    assert find_runs([runs[1], tmp_path, runs[0]]) == [runs[1], runs[0]]


# ---- columns ---------------------------------------------------------------------------------------------------------


def test_protocols_never_share_a_column(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    evaluate(write_run(one), "kid", {"kid": 0.1}, KID)
    evaluate(write_run(other, config={"latent_dim": 8}), "kid", {"kid": 0.2}, KID, samples=5000)
    found = compare([one, other])
    assert [(c.metric, c.figure, c.protocol["samples"]) for c in found.columns] == [
        ("kid[prior]", "kid", 1000),
        ("kid[prior]", "kid", 5000),
    ]
    assert [len(by_row) for by_row in cells(found, "kid[prior].kid")] == [1, 1]
    sentence = f"kid[prior] of {one} is from 1,000 samples and of {other} from 5,000 samples"
    assert f"{sentence}: they stand in columns of their own" in found.notes
    with pytest.raises(VaekitError) as error:
        compare([one, other], strict=True)
    assert str(error.value).startswith(sentence)


def test_every_number_of_a_column_has_its_protocol(tmp_path: Path) -> None:
    for number, changes in enumerate([{}, {"split": "valid"}, {"particles": 5}, {"data": MNIST}, {"clip": True}] * 2):
        out = write_run(tmp_path / f"run-{number}", seed=number // 5, config={"latent_dim": 2 + number % 5})
        evaluate(out, values=float(number), **changes)
    found = compare([tmp_path])
    held: dict[tuple[str, str, str], set[float]] = {
        column.key: {value for row in found.rows for value in row.cells.get(column.key, Cell({})).values.values()}
        for column in found.columns
    }
    assert sorted(map(sorted, held.values())) == [[0.0, 5.0], [1.0, 6.0], [2.0, 7.0], [3.0, 8.0], [4.0, 9.0]]
    assert all(column.key[2] == digest(column.protocol) for column in found.columns)


def test_seeds_of_other_protocols_are_no_evidence_for_each_other(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"vae-{seed}", seed=seed) for seed in range(3)]
    for run, samples in zip(runs, (180, 180, 90), strict=True):
        evaluate(run, values=float(samples), samples=samples)
    assert [by_row["vae"].n for by_row in cells(compare([tmp_path]), "likelihood.log_likelihood")] == [2, 1]


def test_a_protocol_that_all_have_is_no_conflict(tmp_path: Path) -> None:
    for name, also in (("one", 90), ("other", 45)):
        out = write_run(tmp_path / name, config={"latent_dim": also})
        evaluate(out)
        evaluate(out, samples=also)
        for sampler in ("prior", "reconstructions"):
            evaluate(out, "kid", {"kid": 0.1}, KID, sampler=sampler)
    found = compare([tmp_path], strict=True)
    assert not [note for note in found.notes if "columns of their own" in note]
    assert [column.metric for column in found.columns].count("likelihood") == 3
    assert {"kid[prior]", "kid[reconstructions]"} <= {column.metric for column in found.columns}


def test_of_several_protocols_the_nearest_is_named(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other", config={"latent_dim": 8})
    evaluate(one)
    evaluate(other, particles=5, split="valid", clip=True)
    evaluate(other, particles=500)
    with pytest.raises(VaekitError, match=r"one is from 50 particles and of \S+other from 500 particles: evaluate"):
        compare([one, other], strict=True)


def test_data_sets_have_tables_of_their_own(tmp_path: Path) -> None:
    evaluate(write_run(tmp_path / "digits"))
    both = write_run(tmp_path / "mnist", data=MNIST)
    evaluate(both, data=MNIST)
    evaluate(both)
    tables = {data: [row.name for row in part.rows] for data, part in compare([tmp_path]).tables()}
    assert tables == {"digits": ["vae", "vae"], "mnist": ["vae"]}
    evaluate(write_run(tmp_path / "apart" / "one"))
    evaluate(write_run(tmp_path / "apart" / "other", data=MNIST), data=MNIST)
    with pytest.raises(
        VaekitError, match="one is from data digits and of .*other from data mnist: evaluate them alike"
    ):
        compare([tmp_path / "apart"], strict=True)


def test_nested_figures_have_dotted_names_and_lists_are_no_columns(tmp_path: Path) -> None:
    values = {
        "kl": {"mean": 3.0, "standard_error": None, "count": 1},
        "kl_per_dimension": [0.1, 0.2],
        "by_size": {"1": 0.5, "2": {"mean": 0.6, "standard_error": 0.1, "count": 9}},
        "method": "histogram",
        "exact": True,
    }
    evaluate(write_run(tmp_path / "run"), "latent", values)
    found = compare([tmp_path])
    assert [column.name for column in found.columns] == ["latent.kl", "latent.by_size.1", "latent.by_size.2"]
    assert [cells(found, column.name)[0]["vae"].mean for column in found.columns] == [3.0, 0.5, 0.6]


def test_figures_nested_into_many_are_shown_when_asked_for(tmp_path: Path) -> None:
    subsets = {f"m{number}": number / 10 for number in range(9)}
    evaluate(write_run(tmp_path / "run"), "probe", {"accuracy": {"1": 0.5}, "subsets": subsets})
    found = compare([tmp_path])
    assert [column.name for column in found.columns] == ["probe.accuracy.1"]
    assert "probe.subsets is not shown, with 9 figures: ask for it with --metrics probe.subsets" in found.notes
    assert len(compare([tmp_path], metrics=["probe.subsets"]).columns) == 9
    assert len(compare([tmp_path], metrics=["probe"]).columns) == 10
    evaluate(write_run(tmp_path / "alone" / "run"), "probe", {"subsets": subsets})
    assert len(compare([tmp_path / "alone"]).columns) == 9


def test_columns_by_name(tmp_path: Path) -> None:
    out = evaluate(write_run(tmp_path / "run"))
    for sampler in ("prior", "reconstructions"):
        evaluate(out, "kid", {"kid": 0.1, "kid_std": 0.01}, KID, sampler=sampler)

    def names(*metrics: str) -> list[str]:
        return [column.name for column in compare([out], metrics=metrics).columns]

    assert names("kid[prior]") == ["kid[prior].kid", "kid[prior].kid_std"]
    assert names("kid.kid") == ["kid[prior].kid", "kid[reconstructions].kid"]
    assert names("training", "likelihood") == ["likelihood.log_likelihood", "training.negative_elbo"]
    with pytest.raises(VaekitError, match="no run has the figure 'likelyhood': did you mean 'likelihood'"):
        names("kid", "likelyhood")


# ---- figures of the training -----------------------------------------------------------------------------------------


def surrogate(folder: Path, name: str, **config: Any) -> Path:
    return write_run(folder / name, config={"latent_dim": len(name), **config}, label="surrogate loss")


def test_a_run_without_evaluation_has_its_lowest_validation_loss(tmp_path: Path) -> None:
    one, other = evaluate(write_run(tmp_path / "one")), write_run(tmp_path / "two", config={"latent_dim": 8})
    found = compare([tmp_path])
    (by_row,) = cells(found, "training.negative_elbo")
    assert {name: cell.mean for name, cell in by_row.items()} == {"vae, latent_dim=16": 28.0, "vae, latent_dim=8": 28.0}
    assert (
        f"{other} has no figures but those of the training: compute them with `vaekit evaluate {other}`" in found.notes
    )
    assert [column.metric for column in compare([one]).columns] == ["likelihood"]


@pytest.mark.parametrize(
    "change",
    [
        {"objective": {"name": "elbo", "draws": 5}},
        {"regularizers": {"kl": {"weight": 4}}},
        {"likelihood": {"name": "bernoulli", "temperature": 2}},
        {"data": {"name": "digits", "batch_size": 128}},
        {"data": {"name": "digits", "batch_size": 64, "binarize": True}},
    ],
)
def test_surrogate_losses_of_different_objectives_never_share_a_column(tmp_path: Path, change: dict[str, Any]) -> None:
    surrogate(tmp_path, "a")
    surrogate(tmp_path, "bb")
    surrogate(tmp_path, "ccc", **change)
    assert [len(by_row) for by_row in cells(compare([tmp_path]), "training.surrogate_loss")] == [2, 1]


def test_bounds_on_the_likelihood_share_a_column_where_it_is_of_the_same_kind(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", config={"likelihood": {"name": "bernoulli", "temperature": 2}, "latent_dim": 8})
    write_run(tmp_path / "c", config={"likelihood": {"name": "gaussian"}})
    write_run(tmp_path / "d", config={"modalities": {"one": {"likelihood": {"name": "laplace"}}, "two": {}}})
    found = compare([tmp_path])
    assert [len(by_row) for by_row in cells(found, "training.negative_elbo")] == [2, 1, 1]
    assert found.columns[2].protocol["likelihood"] == {"others": "bernoulli", "one": "laplace"}


def test_a_real_run(tmp_path: Path) -> None:
    trainer = {"max_steps": 3, "accelerator": "cpu", "sample_every": 0, "seed": 5}
    run = vk.recipe("vae", data="digits", out=tmp_path, backbone={"hidden": [8]}, latent_dim=2, trainer=trainer)
    run.fit()
    found = compare([tmp_path])
    assert [(row.name, row.data, row.seeds) for row in found.rows] == [("vae", "digits", (5,))]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    lowest = min(line["loss"] for line in lines if line["split"] == "valid")
    assert cells(found, "training.negative_elbo")[0]["vae"].values == {5: lowest}
    assert found.columns[0].protocol["data"] == json.loads(json.dumps(run.data.protocol))
    assert len(found.notes) == 1


# ---- what is best ----------------------------------------------------------------------------------------------------


def best(found: Comparison) -> list[list[str]]:
    return [[row.name.rpartition("=")[2] for row in found.best(column)] for column in found.columns]


def test_the_best_and_all_whose_interval_overlaps_its(tmp_path: Path) -> None:
    write_seeds(tmp_path, "low", [-100.0, -100.1, -100.2], config={"latent_dim": 1})
    write_seeds(tmp_path, "high", [-90.0, -90.1, -90.2], config={"latent_dim": 2})
    write_seeds(tmp_path, "wide", [-95.0, -91.0, -93.0], config={"latent_dim": 3})
    assert best(compare([tmp_path])) == [["2", "3"]]
    for run in sorted(tmp_path.iterdir()):
        evaluate(run, "kid", {"kid": 1.0 if run.name.startswith("low") else 2.0 + len(run.name)}, KID)
    assert best(compare([tmp_path], metrics=["kid"])) == [["1"]]


def test_nothing_is_best_beside_a_row_of_one_seed(tmp_path: Path) -> None:
    write_seeds(tmp_path, "a", [-90.0, -90.1], config={"latent_dim": 1})
    write_seeds(tmp_path, "b", [-100.0], config={"latent_dim": 2})
    assert best(compare([tmp_path])) == [[]]
    assert best(compare([tmp_path / "a-0", tmp_path / "a-1"])) == [[]]


def test_nothing_is_best_where_the_better_side_is_not_known(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for seed, run in enumerate(write_seeds(tmp_path, name, [-90.0, -90.1], config={"latent_dim": ord(name)})):
            evaluate(run, "rates", {"full_rate": ord(name) + seed / 100})
    assert best(compare([tmp_path], metrics=["rates"])) == [[]]


@pytest.mark.parametrize(
    ("metric", "figure", "better"),
    [
        ("likelihood", "log_likelihood", "higher"),
        ("likelihood", "effective_sample_size", None),
        ("kid[prior]", "kid", "lower"),
        ("kid[prior]", "kid_std", None),
        ("probe", "accuracy.2", "higher"),
        ("coherence", "joint", "higher"),
        ("coherence", "joint_classes", None),
        ("training", "surrogate_loss", "lower"),
    ],
)
def test_the_better_side_is_said_where_it_is_known(metric: str, figure: str, better: str | None) -> None:
    assert Column(metric, figure, {}).better == better


# ---- what must be said -----------------------------------------------------------------------------------------------


def test_changed_weights_are_marked_and_said(tmp_path: Path) -> None:
    one, other = write_seeds(tmp_path, "vae", [1.0, 2.0])
    (one / "model.safetensors").write_bytes(b"trained further")
    (other / "model.safetensors").unlink()
    found = compare([tmp_path])
    assert cells(found, "likelihood.log_likelihood")[0]["vae"].stale
    assert (
        f"the weights of {one} have changed since the figures marked † were computed: compute them again" in found.notes
    )
    assert f"the weights of {other} are not there: whether they are those evaluated cannot be said" in found.notes


def test_unchanged_weights_are_not(tmp_path: Path) -> None:
    write_seeds(tmp_path, "vae", [1.0, 2.0])
    found = compare([tmp_path])
    assert not found.rows[0].cells[found.columns[0].key].stale
    assert found.notes == []


def test_training_that_was_cut_short_is_said(tmp_path: Path) -> None:
    out = evaluate(write_run(tmp_path / "run", finished=False))
    assert compare([out]).notes == [f"no end of the training is recorded for {out}: the figures may not be final"]


def test_a_figure_that_is_not_finite_is_not_averaged_away(tmp_path: Path) -> None:
    runs = write_seeds(tmp_path, "vae", [1.0, 2.0])
    evaluate(runs[1], values={"log_likelihood": {"mean": None, "standard_error": None, "count": 180}})
    cell = cells(compare([tmp_path]), "likelihood.log_likelihood")[0]["vae"]
    assert cell.n == 2
    assert math.isnan(cell.mean)
    assert cell.half_width is None


def test_notes_of_figures_are_passed_on(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", seed=1)
    evaluate(one, notes=["all of them", "the first alone"])
    evaluate(two, notes=["all of them"])
    assert compare([tmp_path]).notes == ["likelihood: all of them", f"likelihood of {one}: the first alone"]


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    evaluate(write_run(tmp_path / "one"))
    evaluate(write_run(tmp_path / "other", config={"latent_dim": 8}), "kid", {"kid": 0.1}, KID)
    assert (
        "no column has two figures: nothing here compares one configuration with another" in compare([tmp_path]).notes
    )
    with pytest.raises(VaekitError, match="no figure in common"):
        compare([tmp_path], strict=True)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match="there is no .*/missing: give run directories"):
        compare([tmp_path / "missing"])
    with pytest.raises(VaekitError, match="there is no run in"):
        compare([tmp_path])


def test_no_figures(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", losses=())
    with pytest.raises(VaekitError, match=f"the runs have no figures: compute some with `vaekit evaluate {out}`"):
        compare([out])


@pytest.mark.parametrize("content", ["{", '{"format": 1, "records": [{"metric": "kid"}]}', '{"format": 7}'])
def test_a_damaged_evaluation(tmp_path: Path, content: str) -> None:
    out = write_run(tmp_path / "run")
    (out / "evaluation.json").write_text(content)
    with pytest.raises(VaekitError, match=r"evaluation\.json (is damaged|has format 7)"):
        compare([out])


def test_a_record_of_the_wrong_kind_is_damage(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    record = {"metric": "kid", "values": [1.0], "protocol": LIKELIHOOD, "made": None, "notes": None}
    (out / "evaluation.json").write_text(json.dumps({"format": 1, "records": [record]}))
    with pytest.raises(VaekitError, match=r"evaluation\.json is damaged"):
        compare([out])


@pytest.mark.parametrize("content", ["a: [", "- 1"])
def test_a_damaged_configuration(tmp_path: Path, content: str) -> None:
    out = evaluate(write_run(tmp_path / "run"))
    (out / "config.yaml").write_text(content)
    with pytest.raises(VaekitError, match=r"config\.yaml is not a readable configuration"):
        compare([out])
