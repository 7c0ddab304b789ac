"""The objectives `masked` and `mixture` against what is known of them on the linear-Gaussian model."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from linear_models import BestOfMixture, exact_model, linear_model, observed
from torch import Tensor

from vaekit.distributions import LinearGaussian
from vaekit.errors import VaekitError
from vaekit.evaluation import mixture_gap
from vaekit.fusions.poe import ProductOfExperts
from vaekit.models import MultimodalVAE
from vaekit.objectives import masked as module
from vaekit.objectives.masked import Masked, Mixture
from vaekit.objectives.masks import random_mask, size_probabilities
from vaekit.observed import Observed
from vaekit.registry import fusions
from vaekit.testing import small_multimodal_data, small_multimodal_vae

pytestmark = pytest.mark.usefixtures("float64")

SUBSETS = [subset for size in range(6) for subset in itertools.combinations(range(5), size)]


def by_sample(objective: Masked | Mixture, model: MultimodalVAE, x: Observed) -> Tensor:
    """The loss of every sample, distortion plus rate."""
    found = []

    def note(model: Any, distortion: Tensor, rate: Tensor, step: int, **named: Tensor) -> Any:
        found.append(distortion.sum(-1) + rate)
        return type(objective).sum_up(objective, model, distortion, rate, step, **named)

    objective.sum_up = note  # type: ignore[method-assign]
    objective.run(model, x)
    return found[0]


def give(monkeypatch: pytest.MonkeyPatch, subset: tuple[int, ...]) -> None:
    """Make the random subset this one."""
    chosen = torch.tensor([number in subset for number in range(5)])
    monkeypatch.setattr(module, "random_mask", lambda law, available: available & chosen)


def draws_of(sparse: bool, count: int) -> tuple[LinearGaussian, Observed]:
    random = np.random.default_rng(3)
    truth = LinearGaussian.benchmark(random, sparse=sparse)
    return truth, observed(truth.sample(count, random))


def assert_mean(values: Tensor, expected: float, largest_error: float) -> None:
    """The mean is the expected one within four standard errors, which are small enough to tell."""
    error = (values.std() / math.sqrt(len(values))).item()
    assert error < largest_error
    assert abs(values.mean().item() - expected) < 4 * error + 1e-9


# ---- masked ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "sparse", "private"),
    [
        ("sampled", False, 0),
        ("sampled", True, 0),
        ("sampled", True, 5),
        ("sticking_the_landing", False, 0),
        ("sticking_the_landing", True, 0),
    ],
)
def test_masked_is_the_log_likelihood(
    sparse: bool, private: int, estimator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exact posteriors both halves add up to log p(x), for every sample, every subset and every single draw."""
    truth, x = draws_of(sparse, 100)
    model = exact_model(truth, private)
    for subset in SUBSETS:
        give(monkeypatch, subset)
        loss = by_sample(Masked(estimator=estimator), model, x)
        torch.testing.assert_close(-loss, truth.log_prob(x.values), atol=1e-10, rtol=0)


@pytest.mark.parametrize("sparse", [False, True])
def test_masked_with_closed_forms(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed-form KLs give log p(x) as an expectation over the draws."""
    truth, x = draws_of(sparse, 2000)
    model = exact_model(truth)
    for subset in [(), (0, 3), (0, 1, 2, 3, 4)]:
        give(monkeypatch, subset)
        assert_mean(by_sample(Masked(draws=4), model, x) + truth.log_prob(x.values), 0.0, 0.1)


def test_each_half_is_its_own_log_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, x = draws_of(False, 50)
    model = exact_model(truth)
    for subset in [(), (1,), (0, 2, 4)]:
        give(monkeypatch, subset)
        objective = Masked(estimator="sampled")
        _, _, terms = objective.evaluate(objective.run(model, x), x)
        marginal = terms["marginal_distortion"] + terms["partial_rate"]
        cross = terms["conditional_distortion"] + terms["cross_rate"]
        torch.testing.assert_close(-marginal, truth.log_prob(x.values, subset).mean())
        torch.testing.assert_close(-cross, truth.log_prob(x.values, given=subset).mean())


def test_masked_is_no_bound_sample_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial posterior that fits the whole better than the true one does beats log p(x)."""
    truth, x = draws_of(False, 1)
    model = exact_model(truth)
    give(monkeypatch, (0,))
    with torch.no_grad():
        # The expert of m0 says, of this very sample, what all modalities together say.
        mean = truth.posterior(x.values).mean[0]
        model.fusion.experts.heads[0].loc.weight.zero_()
        model.fusion.experts.heads[0].loc.bias.copy_(2 * mean)
    losses = torch.cat([by_sample(Masked(estimator="sampled", draws=2000), model, x)])
    assert not Masked().bound
    assert (-losses).item() > truth.log_prob(x.values).item() + 0.1


def test_sticking_the_landing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the exact posteriors nothing is left of the gradient but what trains the partial posterior.

    That is the score of q(z|x_S) at draws of q(z|x), which is not held fixed; q of no modality has no parameters.
    """
    truth, x = draws_of(False, 20)
    model = exact_model(truth)
    encoders = list(model.fusion.parameters())
    for subset in [(), (0, 3)]:
        give(monkeypatch, subset)
        objective = Masked(estimator="sticking_the_landing")
        torch.manual_seed(5)
        found = torch.autograd.grad(by_sample(objective, model, x).mean(), encoders)
        torch.manual_seed(5)
        encoded = model.encode(x)
        z = encoded.posterior().draw(1).z.detach()
        mask = torch.tensor([number in subset for number in range(5)]).expand(20, -1)
        score = -encoded.fuse(mask).log_prob(z).mean()
        expected = torch.autograd.grad(score, encoders) if subset else [torch.zeros_like(p) for p in encoders]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
        if subset:
            assert max(gradient.abs().max() for gradient in found) > 1e-3


def test_closed_forms_and_estimates_have_one_gradient() -> None:
    """The three estimators agree in expectation, away from the exact posterior."""
    truth, x = draws_of(False, 2)
    torch.manual_seed(0)
    model, found = linear_model(truth), {}
    parameter = model.fusion.experts.heads[2].log_variance.bias
    for estimator in ("auto", "sampled", "sticking_the_landing"):
        draws = []
        for seed in range(30):
            torch.manual_seed(seed)
            loss = by_sample(Masked(estimator=estimator, draws=500), model, x).mean()
            draws.append(torch.autograd.grad(loss, parameter)[0])
        stacked = torch.stack(draws)
        found[estimator] = stacked.mean(0), stacked.std(0) / math.sqrt(30)
    for estimator in ("sampled", "sticking_the_landing"):
        difference = (found[estimator][0] - found["auto"][0]).abs()
        assert (difference < 4.5 * (found[estimator][1].square() + found["auto"][1].square()).sqrt()).all()


def test_sticking_the_landing_is_refused_for_private_latents() -> None:
    truth, x = draws_of(True, 2)
    with pytest.raises(VaekitError, match="private latents"):
        Masked(estimator="sticking_the_landing").prepare(exact_model(truth, 5), 10)


def test_a_modality_is_decoded_once() -> None:
    model, x, seen = small_multimodal_vae().double(), small_multimodal_data(8, dtype=torch.float64), []
    for modality in model.parts.values():
        modality.decoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    Masked(draws=2).run(model, x)
    assert seen == [(16, 4)] * 3


def test_terms_add_up() -> None:
    model, x = small_multimodal_vae().double(), small_multimodal_data(50, dtype=torch.float64)
    objective = Masked()
    _, _, terms = objective.evaluate(objective.run(model, x), x)
    torch.testing.assert_close(terms["partial_rate"] + terms["cross_rate"], terms["kl"])
    torch.testing.assert_close(terms["marginal_distortion"] + terms["conditional_distortion"], terms["reconstruction"])
    encoded = model.encode(x)
    full = torch.distributions.kl_divergence(encoded.posterior().shared, encoded.prior_of_shared).mean()
    torch.testing.assert_close(terms["full_rate"], full.detach())


@pytest.mark.parametrize("objective", [Masked, Mixture])
@pytest.mark.parametrize("fusion", ["moe", "mopoe", "average", "sum_pooling", "self_attention"])
def test_every_fusion(objective: type[Masked | Mixture], fusion: str) -> None:
    """Whatever the posterior is made of: finite loss and gradients, from several draws too."""
    if fusion not in fusions.names():
        pytest.skip("this fusion is not here")
    model, x = small_multimodal_vae(fusion).double(), small_multimodal_data(8, dtype=torch.float64)
    for estimator in ("auto", "sampled"):
        loss = by_sample(objective(draws=2, estimator=estimator), model, x).mean()
        gradients = torch.autograd.grad(loss, list(model.fusion.parameters()), allow_unused=True)
        assert loss.isfinite()
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


# ---- mixture ---------------------------------------------------------------------------------------------------------


def test_gap_of_the_mixture_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the truth the bound is loose by d(M - |S|) / 2(1 + |S|) nats with the best posteriors.

    With the exact ones it is looser: by r d - d / 2 log(1 + r), r = (M - |S|) / (1 + |S|). All modalities leave no gap.
    """
    truth, x = draws_of(False, 10_000)
    model = exact_model(truth).requires_grad_(False)
    for size, gap in enumerate([12.5, 5.0, 2.5, 1.25, 0.5, 0.0]):
        give(monkeypatch, tuple(range(size)))
        model.fusion.__class__ = BestOfMixture
        assert_mean(by_sample(Mixture(), model, x) + truth.log_prob(x.values), gap, 0.03 + gap / 60)
        model.fusion.__class__ = ProductOfExperts
        gap = 2 * gap - 2.5 * math.log1p((5 - size) / (1 + size))
        assert_mean(by_sample(Mixture(estimator="sampled"), model, x) + truth.log_prob(x.values), gap, 0.03 + gap / 60)


@pytest.mark.parametrize(
    ("law", "sparse", "gap"),
    [
        ("bernoulli", False, 2.4219),
        ("uniform_size", False, 3.6250),
        ("bernoulli", True, 8.6719),
        ("uniform_size", True, 9.8750),
    ],
)
def test_gap_of_the_mixture(law: Any, sparse: bool, gap: float) -> None:
    truth, x = draws_of(sparse, 20_000)
    model = exact_model(truth).requires_grad_(False)
    model.fusion.__class__ = BestOfMixture
    found = by_sample(Mixture(mask_law=law), model, x)
    assert_mean(found + truth.log_prob(x.values), gap, gap / 50)
    assert mixture_gap(truth, size_probabilities(law, 5)) == pytest.approx(gap, abs=5e-5)


def test_the_mixture_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the posterior is, the mean of each sample's loss over draws is at least -log p(x)."""
    truth, x = draws_of(False, 50)
    torch.manual_seed(1)
    model = exact_model(truth)
    for parameter in model.fusion.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for subset in [(), (1, 2), (0, 1, 2, 3, 4)]:
        give(monkeypatch, subset)
        assert (by_sample(Mixture(draws=500), model, x) > -truth.log_prob(x.values)).all()
    assert Mixture().bound


# ---- mask laws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["bernoulli", "uniform_size"])
def test_mask_law(law: Any) -> None:
    """Sizes, and subsets of one size, come as often as they should (chi-square, 31 degrees of freedom)."""
    count = 64_000
    mask = random_mask(law, torch.ones(count, 5, dtype=torch.bool))
    code = (mask * 2 ** torch.arange(5)).sum(1)
    found = torch.bincount(code, minlength=32)
    sizes = torch.tensor([bin(number).count("1") for number in range(32)])
    probabilities = torch.tensor(size_probabilities(law, 5))[sizes] / torch.bincount(sizes)[sizes]
    assert probabilities.sum().item() == pytest.approx(1.0)
    expected = count * probabilities
    assert ((found - expected).square() / expected).sum() < 61.1  # the 99.9 % quantile
    torch.testing.assert_close(mask.double().mean(0), torch.full((5,), 0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize("law", ["bernoulli", "uniform_size"])
def test_masks_keep_to_what_is_there(law: Any) -> None:
    available = torch.rand(500, 4) < 0.5
    mask = random_mask(law, available)
    assert not (mask & ~available).any()
    assert 0.4 < mask[available].double().mean() < 0.6
    assert not torch.equal(mask, random_mask(law, available)), "a new subset every time"
