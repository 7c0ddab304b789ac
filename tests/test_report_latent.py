"""What a report says and shows of a latent space, of models that are sound or not, and of every support."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from helpers import TINY_PAIRED, tiny
from test_reporting import Page, check_page

import vaekit as vk
from vaekit.config import resolve
from vaekit.distributions import ExpertMixture, GaussianMixture, RelaxedOneHot
from vaekit.evaluation import Aggregate
from vaekit.reporting import write_report
from vaekit.reporting.portrait import is_current
from vaekit.reporting.traversals import traverse
from vaekit.reporting.units import as_units, histogram, kl_by_unit, marginals


def fitted(recipe: str, out: Path, **changes: Any) -> tuple[dict[str, Any], Page]:
    """Return the portrait and the page of a run."""
    trainer = {"max_steps": 4, "accelerator": "cpu", **changes.pop("trainer", {})}
    data = {"data": changes.pop("data")} if "data" in changes else {}
    vk.Run(resolve(tiny(recipe, trainer=trainer, **changes).model_dump(), data), out).fit()
    return json.loads((out / "latent.json").read_text()), check_page(out / "report.html")


def alts(page: Page) -> str:
    return " | ".join(image["alt"] for image in page.of("img"))


# ---- three models, recognised by the words on their pages ------------------------------------------------------------


def test_a_collapsed_posterior_is_said(tmp_path: Path) -> None:
    out = tmp_path / "run"
    trainer = {"max_steps": 80, "sample_every": 0, "optimizer": {"name": "adam", "lr": 0.01}}
    portrait, page = fitted("vae", out, regularizers={"kl": {"weight": 1000.0}}, trainer=trainer, latent_dim=16)
    assert portrait["activity"] == {"by": "variance_of_means", "threshold": 0.01, "dead": list(range(16))}
    assert "0 of 16 latent units are active: the posterior has collapsed to the prior" in page.text
    assert "0 of 16" in page.text.split("active latent units")[1][:20]
    assert "dead: z[0]" in alts(page).replace(f"dead: z[{portrait['order'][0]}]", "dead: z[0]")


def test_one_dead_unit_is_named(tmp_path: Path) -> None:
    """Data of three factors leave a linear model of four units one to spare."""
    random = np.random.RandomState(0)
    loadings = random.randn(3, 12)
    samples = random.randn(2000, 3) @ loadings + random.randn(2000, 12)
    np.save(tmp_path / "factors.npy", samples.astype(np.float32))
    portrait, page = fitted(
        "vae",
        tmp_path / "run",
        data={"name": str(tmp_path / "factors.npy"), "batch_size": 64},
        backbone={"name": "mlp", "hidden": []},
        likelihood={"name": "gaussian", "scale": 1.0},
        regularizers={"kl": {"weight": 3.0}},
        trainer={"max_steps": None, "epochs": 15, "sample_every": 0, "optimizer": {"name": "adam", "lr": 0.02}},
    )
    (dead,) = portrait["activity"]["dead"]
    assert portrait["order"][-1] == dead
    assert f"1 of 4 latent units is dead (z[{dead}])" in page.text
    assert f"; dead: z[{dead}]." in alts(page)
    assert "There are no traversals: the samples are no images." in page.text
    assert min(portrait["kl"][unit] for unit in portrait["order"][:3]) > 0.3 > 0.01 > portrait["kl"][dead]


def test_a_model_that_learns_its_training_images_by_heart_is_said_to_overfit(tmp_path: Path) -> None:
    _, page = fitted(
        "vae",
        tmp_path / "run",
        data={"name": "digits", "limit": 8, "batch_size": 8},
        regularizers={"kl": None},
        latent_dim=8,
        backbone={"hidden": [128]},
        trainer={"max_steps": None, "epochs": 120, "sample_every": 0, "optimizer": {"name": "adam", "lr": 0.01}},
    )
    assert "All 8 latent units are active." in page.text
    assert "the model has overfitted" in page.text


def test_a_sound_model_is_not_called_anything(tmp_path: Path) -> None:
    _, page = fitted("vae", tmp_path / "run", trainer={"max_steps": None, "epochs": 4})
    assert "overfitted" not in page.text
    assert "collapsed" not in page.text


# ---- every support ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "by", "kl", "note"),
    [
        ("gamix-small", "variance_of_means", True, ""),
        ("full-gaussian-vae", "variance_of_means", True, ""),
        ("iaf-vae", "variance_of_means", False, "The KL of single units is not known"),
        ("rae", "variance_of_means", False, "The KL of single units is not known"),
        ("vampprior", "variance_of_means", True, ""),
        ("pvae", "kl", True, "A unit is dead where its KL is 0.01 nats or less"),
        ("categorical-vae", "kl", True, "its categories in turn"),
        ("hyperspherical-vae", None, False, "On a sphere no coordinate moves alone"),
    ],
)
def test_portraits_of_every_support(tmp_path: Path, recipe: str, by: str | None, kl: bool, note: str) -> None:
    changes = {"latent_dim": 20} if recipe == "categorical-vae" else {}
    portrait, page = fitted(recipe, tmp_path / "run", **changes)
    assert note in page.text
    assert (portrait["activity"] or {}).get("by") == by
    assert (portrait["kl"] is not None) == kl
    units = len(portrait["order"])
    assert sorted(portrait["order"]) == list(range(units))
    for each in portrait["histograms"]:
        assert sum(each["aggregate"]) * each["width"] == pytest.approx(1.0, abs=0.02)
        assert all(math.isfinite(value) for value in (*each["points"], *each["prior"]))
    assert (tmp_path / "run" / "samples" / "traversals.png").is_file() == (by is not None)
    assert "Map: posterior means of 180 validation samples" in alts(page)
    assert ("Traversals, one row a unit" in alts(page)) == (by is not None)


@pytest.mark.parametrize(
    ("recipe", "data", "says"),
    [
        ("mmvae-plus", {}, "the private ones stay at their prior's mean"),
        ("mmvm", {"missing": 0.3}, "Each modality has a latent of its own"),
        ("mopoe", {}, ""),
    ],
)
def test_portraits_of_several_modalities(tmp_path: Path, recipe: str, data: dict[str, Any], says: str) -> None:
    portrait, page = fitted(recipe, tmp_path / "run", data={**TINY_PAIRED, **data})
    assert says in page.text
    assert len(portrait["map"]["points"]) == len(portrait["map"]["labels"])
    assert "Traversals, rows of m0, m1 for each unit" in alts(page)


# ---- the pieces ------------------------------------------------------------------------------------------------------


def test_marginals_have_the_densities_of_their_dimensions() -> None:
    loc, scale = torch.randn(5, 2, 3), torch.rand(5, 2, 3) + 0.2
    mixture = GaussianMixture(torch.randn(5, 2), loc, scale)
    z = mixture.sample()
    alone = marginals(mixture).log_prob(z)
    for dimension in range(3):
        one = GaussianMixture(mixture.log_probs, loc[..., [dimension]], scale[..., [dimension]])
        torch.testing.assert_close(alone[:, dimension], one.log_prob(z[:, [dimension]]))
    covariance = torch.eye(3) + 0.5
    full = dist.MultivariateNormal(torch.zeros(3), covariance)
    torch.testing.assert_close(marginals(full).variance, covariance.diagonal())
    components = dist.Laplace(loc, scale).to_event(1)
    experts = ExpertMixture(components, torch.tensor([[True, False]]).expand(5, 2))
    expected = dist.Laplace(loc[:, 0], scale[:, 0]).log_prob(z)
    torch.testing.assert_close(marginals(experts).log_prob(z), expected)
    assert marginals(dist.Delta(torch.zeros(3), event_dim=1)) is None


def test_kl_by_unit_adds_up_where_units_are_independent() -> None:
    p = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    q = dist.Normal(torch.randn(6, 3), torch.rand(6, 3) + 0.1).to_event(1)
    kl, exact = kl_by_unit(q, p)
    assert exact
    torch.testing.assert_close(kl.sum(1), torch.distributions.kl_divergence(q, p))
    # Of categories it is that of each variable.
    q, p = RelaxedOneHot(torch.randn(6, 3, 4)), RelaxedOneHot(torch.zeros(3, 4))
    kl, exact = kl_by_unit(q, p)
    assert kl.shape == (6, 3)
    torch.testing.assert_close(kl.sum(1), torch.distributions.kl_divergence(q, p))
    # A mixture has none in closed form; the estimate is right in the mean.
    loc = torch.tensor([[-1.0], [1.0]]).expand(20000, 2, 1)
    mixture, normal = GaussianMixture(torch.zeros(20000, 2), loc, torch.ones(20000, 2, 1)), dist.Normal(0.0, 1.0)
    kl, exact = kl_by_unit(mixture, normal.expand((1,)).to_event(1))
    grid = torch.linspace(-9, 9, 4001)
    own = GaussianMixture(torch.zeros(2), loc[0], torch.ones(2, 1)).log_prob(grid.unsqueeze(-1))
    expected = torch.trapezoid(own.exp() * (own - normal.log_prob(grid)), grid)
    assert not exact
    assert float(kl.mean()) == pytest.approx(float(expected), abs=0.02)


def test_histograms_hold_the_prior_beside_the_draws() -> None:
    drawn, others = torch.randn(4000, 2) * torch.tensor([0.5, 1.0]), torch.randn(2000, 2)
    prior = dist.Normal(torch.zeros(2), 1.0)
    exact, drawn_prior = (histogram(drawn, others, known, 0, False) for known in (prior, None))
    assert max(exact["prior"]) == pytest.approx(1 / math.sqrt(2 * math.pi), abs=0.01)
    assert max(exact["aggregate"]) == pytest.approx(2 / math.sqrt(2 * math.pi), rel=0.15)
    assert sum(drawn_prior["prior"]) * drawn_prior["width"] == pytest.approx(1.0, abs=0.01)
    counts = histogram(torch.tensor([[0.0], [0.0], [2.0], [1.0]]), torch.tensor([[0.0], [3.0]]), None, 0, True)
    assert list(counts["centres"]) == [0, 1, 2, 3]
    assert list(counts["aggregate"]) == [0.5, 0.25, 0.25, 0.0]
    assert list(counts["prior"]) == [0.5, 0.0, 0.0, 0.5]
    one_hot = RelaxedOneHot(torch.zeros(2, 3))
    assert as_units(one_hot, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 1.0])).tolist() == [1, 2]


def test_traversals_move_one_unit() -> None:
    mean, variance = torch.tensor([1.0, -2.0, 0.4]), torch.tensor([4.0, 1.0, 0.0])
    moments = Aggregate(mean.double(), variance.double(), torch.zeros(3).double(), 9)
    z = traverse(moments, "continuous", [0, 2])
    assert z.shape == (2, 9, 3)
    torch.testing.assert_close(z[0, [0, -1], 0], torch.tensor([-5.0, 7.0]))
    assert (z[0, :, 1:] == mean[1:]).all()
    assert (z[1] == mean).all()  # a unit that never moves
    counts = traverse(moments, "counting", [1])
    assert counts[0, :, 1].tolist() == list(range(9))
    assert counts[0, :, 2].tolist() == [0.0] * 9
    probabilities = Aggregate(torch.tensor([0.1, 0.9, 0.7, 0.3]).double(), *[torch.zeros(4).double()] * 2, 9)
    assert traverse(probabilities, "one-hot", [0], 2).tolist() == [[[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]]


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_a_portrait_is_of_the_weights_that_lie_there(tmp_path: Path) -> None:
    out = tmp_path / "run"
    portrait, _ = fitted("vae", out)
    assert is_current(out)
    assert portrait == json.loads((out / "latent.json").read_text())
    before = (out / "latent.json").read_bytes()
    vk.Run.load(out).portray()
    assert (out / "latent.json").read_bytes() == before
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert not is_current(out)
    page = check_page(write_report(out))
    assert "latent.json is of other weights" in page.text
    assert "Traversals, one row" not in alts(page)


@pytest.mark.parametrize(
    "content", ["{", '{"order": 3}', '{"order": [0], "kl": "x", "activity": 3}', '{"map": {"points": 1}}']
)
def test_a_damaged_portrait_still_gives_a_page(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text("recipe: vae\n")
    (tmp_path / "latent.json").write_text(content)
    page = check_page(write_report(tmp_path))
    assert "latent.json is damaged" in page.text or "latent.json is not readable" in page.text


def test_a_model_that_is_not_finite_is_said(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = vk.Run(tiny("vae", trainer={"max_steps": 2, "accelerator": "cpu"}), out)
    run.fit()
    with torch.no_grad():
        run.model.posterior.loc.weight.fill_(math.nan)
    run.portray()
    assert "Some posteriors are not finite" in check_page(write_report(out)).text
