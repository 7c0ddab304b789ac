"""The multimodal baselines against closed forms and quadrature, on a linear model with one latent dimension."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from linear_multimodal import (
    POE,
    SOME,
    data,
    distortion,
    elbo,
    experts,
    importance_bound,
    linear_model,
    log_evidence,
    nodes,
    present,
    product,
    terms,
)
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import vaekit as vk
from vaekit.objectives.mvae import proper_subsets
from vaekit.registry import objectives

pytestmark = pytest.mark.usefixtures("float64")

MASKS = pytest.mark.parametrize("available", [None, SOME], ids=["complete", "incomplete"])


# ---- values ----------------------------------------------------------------------------------------------------------


@MASKS
def test_joint_counts_its_kl_once(available: Tensor | None) -> None:
    model, x = linear_model(POE), data(available)
    parts = [
        elbo(model, x, row, product([qs[m] for m in there]), there)
        for row, (qs, there) in enumerate(zip(experts(model, x), present(x), strict=True))
    ]
    expected, rate = (torch.stack(part).mean().item() for part in zip(*parts, strict=True))
    found = terms(objectives.build({"name": "joint", "draws": 100_000, "beta": 3.0}), model, x)
    assert found["kl"] == pytest.approx(rate, abs=1e-10)
    assert found["regularization"] == pytest.approx(3.0 * rate, abs=1e-10)
    assert found["reconstruction"] == pytest.approx(expected, abs=0.03)


@MASKS
@pytest.mark.parametrize("fusion", ["mopoe", "moe"])
def test_mopoe_is_the_mean_of_the_elbos_of_its_components(fusion: str, available: Tensor | None) -> None:
    model, x = linear_model(fusion), data(available)
    parts = []
    for row, (qs, there) in enumerate(zip(experts(model, x), present(x), strict=True)):
        sizes = range(1, len(there) + 1) if fusion == "mopoe" else [1]
        subsets = [s for size in sizes for s in itertools.combinations(there, size)]
        each = [elbo(model, x, row, product([qs[m] for m in subset]), there) for subset in subsets]
        parts.append([torch.stack(part).mean() for part in zip(*each, strict=True)])
    expected, rate = (torch.stack(part).mean().item() for part in zip(*parts, strict=True))
    found = terms(objectives.build({"name": "mopoe", "draws": 100_000}), model, x)
    assert found["kl"] == pytest.approx(rate, abs=1e-10)
    assert found["reconstruction"] == pytest.approx(expected, abs=0.03)


@MASKS
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_mvtcae_is_its_formula(alpha: float, available: Tensor | None) -> None:
    model, x = linear_model(POE), data(available)
    distortions, rates = [], []
    for row, (qs, there) in enumerate(zip(experts(model, x), present(x), strict=True)):
        q, count = product([qs[m] for m in there]), len(there)
        cost, full = elbo(model, x, row, q, there)
        distortions.append((count - alpha) / count * cost)
        cross = sum(kl_divergence(q, qs[m]) for m in there)
        rates.append((1 - alpha) * full + alpha / count * cross)
    found = terms(vk.objectives.MVTCAE(alpha=alpha, draws=100_000, beta=2.5), model, x)
    rate = torch.stack(rates).mean().item()
    assert found["regularization"] == pytest.approx(2.5 * rate, abs=1e-10)
    assert found["reconstruction"] == pytest.approx(torch.stack(distortions).mean().item(), abs=0.03)


def test_mvtcae_without_conditional_terms_is_joint() -> None:
    model, x = linear_model(POE), data(SOME)
    joint, other = (terms(o, model, x) for o in (vk.objectives.Joint(), vk.objectives.MVTCAE(alpha=0.0)))
    assert other["loss"] == pytest.approx(joint["loss"], abs=1e-12)


@MASKS
@pytest.mark.parametrize("subsets", [0, 2])
def test_mvae_is_the_sum_of_the_elbos_of_its_subsets(subsets: int, available: Tensor | None) -> None:
    model, x = linear_model("poe"), data(available)
    distortions, rates = [], []
    for row, (qs, there) in enumerate(zip(experts(model, x), present(x), strict=True)):
        proper = [list(s) for size in range(1, len(there)) for s in itertools.combinations(there, size)]
        weighted = [(there, 1.0), *(([m], 1.0) for m in there), *((s, subsets / len(proper)) for s in proper)]
        parts = [
            [w * part for part in elbo(model, x, row, product([Normal(0.0, 1.0), *(qs[m] for m in s)]), s)]
            for s, w in weighted
        ]
        cost, rate = (torch.stack(part).sum() for part in zip(*parts, strict=True))
        distortions.append(cost)
        rates.append(rate)
    found = terms(vk.objectives.MVAE(subsets=subsets), model, data(available, repeat=20_000))
    rate = torch.stack(rates).mean().item()
    assert found["kl"] == pytest.approx(rate, abs=1e-10 if subsets == 0 else 0.01)
    assert found["reconstruction"] == pytest.approx(torch.stack(distortions).mean().item(), abs=0.05)


def test_random_subsets_are_uniform_among_proper_ones() -> None:
    available = torch.tensor([[True, False, True, True], [False, True, True, False], [True, False, False, False]])
    masks = proper_subsets(available, 12_000)
    assert not (masks & ~available).any()
    numbers = (masks * torch.tensor([1, 2, 4, 8])).sum(-1)
    for column, allowed in ((0, [1, 4, 5, 8, 9, 12]), (1, [2, 4])):
        values, counts = numbers[:, column].unique(return_counts=True)
        assert values.tolist() == allowed
        share = 1 / len(allowed)
        assert ((counts / 12_000 - share).abs() < 5 * math.sqrt(share * (1 - share) / 12_000)).all()
    assert not numbers[:, 2].any()


@MASKS
@pytest.mark.parametrize(("draws", "beta"), [(1, 1.0), (2, 1.0), (2, 2.5)])
def test_mmvae_is_its_bound_by_quadrature(draws: int, beta: float, available: Tensor | None) -> None:
    model = linear_model("moe")
    expected = importance_bound(model, data(available), draws, beta).item()
    x = data(available, repeat=20_000)
    for estimator in ("standard", "dreg"):
        objective = vk.objectives.MMVAE(draws=draws, beta=beta, estimator=estimator)
        assert terms(objective, model, x)["loss"] == pytest.approx(expected, abs=0.03)


def test_mmvae_with_laplace_experts() -> None:
    model, x = linear_model("moe", posterior="laplace"), data(SOME)
    expected = importance_bound(model, x, 1).item()
    found = terms(vk.objectives.MMVAE(), model, data(SOME, repeat=20_000))
    assert found["loss"] == pytest.approx(expected, abs=0.05)


def test_mmvae_of_one_modality_and_one_draw_is_the_elbo() -> None:
    model, x = linear_model(POE, names="b"), data(names="b")
    joint = terms(vk.objectives.Joint(estimator="sampled"), model, x)
    for estimator in ("standard", "dreg"):
        found = terms(vk.objectives.MMVAE(estimator=estimator), model, x)
        assert found["loss"] == pytest.approx(joint["loss"], abs=1e-12)


def test_mopoe_of_one_modality_is_joint() -> None:
    model, x = linear_model({"name": "mopoe", "stratified": True}, names="b"), data(names="b")
    joint = terms(vk.objectives.Joint(), linear_model(POE, names="b"), x)
    assert terms(vk.objectives.MoPoE(), model, x)["loss"] == pytest.approx(joint["loss"], abs=1e-12)


@MASKS
def test_mmvae_plus_is_its_formula(available: Tensor | None) -> None:
    model = linear_model("moe", private={"name": "independent", "auxiliary": True})
    assert model.private is not None
    with torch.no_grad():
        model.private.log_scale.copy_(torch.tensor([[0.5], [-0.3], [0.2]]))
    x = data(available)
    own = model.encode(x).posterior().private(torch.zeros(1, 5, 1)).base_dist
    costs, rates = [], []
    for row, (qs, there) in enumerate(zip(experts(model, x), present(x), strict=True)):
        cost, rate = torch.zeros(()), torch.zeros(())
        for m in there:
            z, weights = nodes(qs[m])
            mixture = torch.stack([qs[n].log_prob(z) for n in there]).logsumexp(0) - math.log(len(there))
            rate = rate + (weights * (mixture - Normal(0.0, 1.0).log_prob(z))).sum()
            q = Normal(own.loc[0, row, m, 0], own.scale[0, row, m, 0])
            rate = rate + kl_divergence(q, Normal(0.0, 1.0))
            for n in there:
                w = q if n == m else Normal(0.0, model.private.auxiliary().base_dist.scale[n, 0])
                mean, variance = (torch.stack([getattr(one, k) for one in (qs[m], w)]) for k in ("mean", "variance"))
                cost = cost + distortion(model, x, row, n, mean, variance.diag())
        costs.append(cost / len(there))
        rates.append(rate / len(there))
    found = terms(vk.objectives.MMVAEPlus(beta=2.0), model, data(available, repeat=20_000))
    assert found["kl"] == pytest.approx(torch.stack(rates).mean().item(), abs=0.02)
    assert found["regularization"] == pytest.approx(2 * found["kl"], abs=1e-10)
    assert found["reconstruction"] == pytest.approx(torch.stack(costs).mean().item(), abs=0.03)


# ---- bounds ----------------------------------------------------------------------------------------------------------


@MASKS
@pytest.mark.parametrize(
    ("name", "fusion", "options"),
    [
        ("joint", "poe", {}),
        ("mopoe", "mopoe", {}),
        ("mopoe", "moe", {}),
        ("mmvae", "moe", {}),
        ("mmvae", "moe", {"draws": 4}),
        ("mvtcae", POE, {"alpha": 0.0}),
    ],
)
def test_what_is_called_a_bound_is_one(
    name: str, fusion: Any, options: dict[str, Any], available: Tensor | None
) -> None:
    model = linear_model(fusion)
    objective = objectives.build({"name": name, **options})
    assert objective.bound
    exact = -log_evidence(model, data(available))
    assert terms(objective, model, data(available, repeat=5_000))["loss"] > exact


def test_the_importance_weighted_bound_tightens_and_keeps_a_gap() -> None:
    model, x = linear_model("moe"), data(repeat=300)
    losses = [terms(vk.objectives.MMVAE(draws=draws), model, x)["loss"] for draws in (1, 4, 300)]
    limit = importance_bound(model, data(), math.inf).item()
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(limit, abs=0.03)
    assert limit > -log_evidence(model, data()) + 0.01


def test_mmvae_plus_bounds_the_likelihood_with_the_private_prior_as_auxiliary() -> None:
    model, x = linear_model("moe", private="independent"), data(repeat=200)
    losses = [terms(vk.objectives.MMVAEPlus(draws=draws), model, x)["loss"] for draws in (1, 4, 100)]
    assert losses[0] > losses[1] > losses[2] > -log_evidence(model, data())


# ---- what does not suit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "fusion", "private", "posterior", "says"),
    [
        ("mopoe", "poe", None, "gaussian", "set fusion to mopoe or moe"),
        ("mmvae", "sum_pooling", None, "gaussian", "no posterior for each modality"),
        ("mmvae", "moe", None, "gmm", "Gaussian or Laplace"),
        ("mmvae", "moe", "independent", "gaussian", "mmvae_plus"),
        ("mmvae_plus", "moe", None, "gaussian", "set private to independent"),
        ("mvae", "poe", "independent", "gaussian", "set private to null"),
        ("mvtcae", "poe", "independent", "gaussian", "set private to null"),
        ("mvtcae", "sum_pooling", None, "gaussian", "no posterior for each modality"),
    ],
)
def test_models_that_do_not_suit_are_refused(
    objective: str, fusion: str, private: str | None, posterior: str, says: str
) -> None:
    model = linear_model(fusion, private=private, posterior=posterior)
    with pytest.raises(vk.VaekitError, match=says):
        objectives.build(objective).prepare(model, 10)


@pytest.mark.parametrize(
    ("objective", "options", "says"),
    [("mvae", {"subsets": -1}, "0 or more"), ("mvtcae", {"alpha": 1.5}, "from 0 to 1")],
)
def test_options_out_of_range_are_refused(objective: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(vk.VaekitError, match=says):
        objectives.build({"name": objective, **options})
