"""Mutual information, total correlation, dimension-wise KL: the identity, exact mixtures, unbiased estimates."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from helpers import built, random_images, tiny
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import vaekit as vk
from vaekit.compatibility import missing
from vaekit.distributions import GaussianMixture, draw, pairwise_log_prob, pairwise_log_prob_by_dimension
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.information import DimensionKL, MutualInformation, TotalCorrelation

pytestmark = pytest.mark.usefixtures("float64")

TERMS = (MutualInformation, TotalCorrelation, DimensionKL)
LOC = torch.tensor([[0.0, 0.5], [1.5, -1.0], [-0.5, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([[0.5, 1.0], [0.7, 0.4], [0.9, 0.6]], dtype=torch.float64)


def gaussian(loc: Tensor, scale: Any = 1.0) -> Any:
    return dist.Normal(loc, scale * torch.ones_like(loc)).to_event(1)


def laplace(loc: Tensor, scale: Tensor) -> Any:
    return dist.Laplace(loc, scale).to_event(1)


def latents(q: Any, count: int = 1) -> Latents:
    return Latents(q, gaussian(torch.zeros(q.event_shape[0])), *draw(q, count))


def ready(kind: Any, samples: int, estimator: Any = "stratified") -> Any:
    term = kind(estimator=estimator)
    term.prepare(1, samples)
    return term


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_three_parts_are_the_sampled_kl(estimator: str) -> None:
    record = latents(gaussian(torch.randn(7, 4), torch.rand(7, 4) + 0.1), 3)
    parts = sum(ready(kind, 50, estimator)(record) for kind in TERMS)
    sampled = record.expect(record.q.log_prob(record.z) - record.p.log_prob(record.z)).mean()
    torch.testing.assert_close(parts, sampled, rtol=0, atol=1e-10)


def test_densities_are_those_of_the_mixture_where_the_batch_is_the_whole_data_set() -> None:
    record = latents(gaussian(LOC, SCALE), 5)
    term, uniform = ready(TotalCorrelation, 3), Categorical(torch.ones(3))
    joint = MixtureSameFamily(uniform, Independent(Normal(LOC, SCALE), 1)).log_prob(record.z)
    product = sum(MixtureSameFamily(uniform, Normal(LOC[:, d], SCALE[:, d])).log_prob(record.z[..., d]) for d in (0, 1))
    torch.testing.assert_close(term.log_joint(record), joint, rtol=0, atol=1e-10)
    torch.testing.assert_close(term.log_product(record), product, rtol=0, atol=1e-10)


def quadrature() -> list[float]:
    """The three terms of the mixture of LOC and SCALE, by sums over a fine grid."""
    line = torch.linspace(-6, 8, 1401)
    step = float(line[1] - line[0])
    each = Normal(LOC.unsqueeze(-1), SCALE.unsqueeze(-1)).log_prob(line).exp()  # (3, 2, points)
    first, second = each.mean(0)
    joint = torch.einsum("nx,ny->xy", each[:, 0], each[:, 1]) / 3

    def entropy(density: Tensor, volume: float) -> float:
        return -torch.special.xlogy(density, density).sum().item() * volume

    own = (0.5 * math.log(2 * math.pi * math.e) * 2 + SCALE.log().sum(-1)).mean().item()
    whole, apart = entropy(joint, step**2), entropy(first, step) + entropy(second, step)
    cross = 0.5 * ((LOC.square() + SCALE.square()).sum(-1).mean().item() + 2 * math.log(2 * math.pi))
    return [whole - own, apart - whole, cross - apart]


def test_values_are_those_of_quadrature() -> None:
    torch.manual_seed(1)
    record = latents(gaussian(LOC, SCALE), 40_000)
    # 120,000 draws of spreads of about 1 nat: the standard errors are below 0.005.
    for kind, expected in zip(TERMS, quadrature(), strict=True):
        assert ready(kind, 3)(record).item() == pytest.approx(expected, abs=0.015), kind
        assert expected > 0.05


def test_total_correlation_of_a_gaussian() -> None:
    """Posterior means with covariance A and variance s give N(0, A + s I): TC = (sum log diag - log det) / 2."""
    torch.manual_seed(2)
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    total = mixing @ mixing.T + 0.3 * torch.eye(2)
    expected = 0.5 * (total.diagonal().log().sum() - torch.logdet(total)).item()
    record = latents(gaussian(torch.randn(1500, 2) @ mixing.T, 0.3**0.5), 2)
    # One data set of 1500 means scatters the correlation by 0.02, hence the TC by about 0.02.
    assert ready(TotalCorrelation, 1500)(record).item() == pytest.approx(expected, abs=0.05)
    assert expected > 0.2


def test_stratified_density_is_unbiased() -> None:
    """Over all batches that hold sample 0, the mean of the estimate at its draw is the density of all N."""
    loc, scale, z = torch.randn(6, 2), torch.rand(6, 2) + 0.2, torch.randn(1, 1, 2)
    exact = gaussian(loc, scale).log_prob(z[0]).exp().mean()
    term, values = ready(MutualInformation, 6), []
    for others in itertools.combinations(range(1, 6), 2):
        chosen = [0, *others]
        q = gaussian(loc[chosen], scale[chosen])
        record = Latents(q, q, z.expand(1, 3, 2), torch.ones(1, 3))
        values.append(term.log_joint(record)[0, 0].exp())
    torch.testing.assert_close(torch.stack(values).mean(), exact, rtol=0, atol=1e-12)


def test_weighted_is_the_published_sum() -> None:
    record = latents(gaussian(LOC, SCALE))
    posteriors = [Independent(Normal(LOC[j], SCALE[j]), 1) for j in range(3)]
    sums = [sum(posterior.log_prob(z).exp() for posterior in posteriors) for z in record.z[0]]
    expected = torch.stack(sums).log() - math.log(40 * 3)
    torch.testing.assert_close(ready(MutualInformation, 40, "weighted").log_joint(record)[0], expected)


@pytest.mark.parametrize("kind", TERMS)
def test_gradient_is_that_of_finite_differences(kind: Any) -> None:
    noise = torch.randn(1, 4, 2)

    def value(loc: Tensor, log_scale: Tensor) -> Tensor:
        scale = log_scale.exp()
        record = Latents(gaussian(loc, scale), gaussian(torch.zeros(2)), loc + scale * noise, torch.ones(1, 4))
        return ready(kind, 100)(record)

    assert torch.autograd.gradcheck(value, (LOC[[0, 1, 2, 0]].requires_grad_(), torch.zeros(4, 2, requires_grad=True)))


def test_pairs_are_the_densities_one_by_one() -> None:
    z, loc, scale = torch.randn(2, 4, 3), torch.randn(4, 2, 3), torch.rand(4, 2, 3) + 0.1
    logits = torch.randn(4, 2)
    for q, one in (
        (GaussianMixture(logits, loc, scale), lambda j: GaussianMixture(logits[j], loc[j], scale[j])),
        (laplace(loc[:, 0], scale[:, 0]), lambda j: laplace(loc[j, 0], scale[j, 0])),
    ):
        expected = torch.stack([one(j).log_prob(z) for j in range(4)], -1)
        torch.testing.assert_close(pairwise_log_prob(q, z), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pairwise_log_prob_by_dimension(q, z).sum(-1), expected)


def test_mistakes_are_told() -> None:
    record = latents(gaussian(LOC, SCALE))
    with pytest.raises(VaekitError, match="call objective.prepare"):
        TotalCorrelation()(record)
    mixture = GaussianMixture(torch.zeros(3, 2), torch.zeros(3, 2, 2), torch.ones(3, 2, 2))
    with pytest.raises(VaekitError, match="no densities of single dimensions"):
        ready(TotalCorrelation, 9)(latents(mixture))
    joint = Latents(record.q, GaussianMixture(torch.zeros(2), torch.zeros(2, 2), torch.ones(2, 2)), *draw(record.q))
    with pytest.raises(VaekitError, match="needs a prior of independent dimensions"):
        ready(DimensionKL, 9)(joint)


def test_the_trainer_tells_the_size_of_the_training_split() -> None:
    torch.set_default_dtype(torch.float32)  # what a run has; the fixture puts it back
    model, objective = built(tiny("beta-tcvae"))
    fit = vk.Trainer(max_steps=2, accelerator="cpu").fit(model, objective, random_images(32), batch_size=8)
    assert objective.terms["total_correlation"].samples == 24
    assert objective.label == "surrogate loss"
    assert math.isfinite(fit.metrics[-1]["total_correlation"])


def test_a_code_without_a_density_is_refused() -> None:
    for name in ("mutual_information", "total_correlation", "dimension_kl"):
        assert missing(regularizers.info(name), "delta", "standard_normal")
        assert not missing(regularizers.info(name), "gaussian", "standard_normal")
