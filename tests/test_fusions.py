"""Fusions of experts and the mixture of experts against products, sums, quadrature and closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

from vaekit.distributions import ExpertMixture, draw, kl_divergence, kl_method, location_scale, stopped
from vaekit.errors import VaekitError
from vaekit.fusions import Average, MixtureOfExperts, MixtureOfProducts, ProductOfExperts
from vaekit.posteriors import Gaussian, Laplace
from vaekit.testing import FusionContract
from vaekit.testing.contract import fixed
from vaekit.testing.fusions import all_subsets

pytestmark = pytest.mark.usefixtures("float64")

PRIOR = dist.Normal(torch.tensor([0.3], dtype=torch.float64), 1.7).to_event(1)


def stacked(loc: Any, scale: Any, family: Any = dist.Normal) -> Any:
    """Return experts in one dimension for every row: `batch_shape (B, M)`."""
    return family(torch.as_tensor(loc).unsqueeze(-1), torch.as_tensor(scale).unsqueeze(-1)).to_event(1)


def three(rows: int, family: Any = dist.Normal) -> Any:
    """Return the same three experts in one dimension for every row."""
    loc, scale = torch.tensor([[-1.0, 0.4, 2.0]]), torch.tensor([[0.5, 1.2, 0.8]])
    return stacked(loc.expand(rows, -1), scale.expand(rows, -1), family)


def fusion(kind: Any, modalities: int = 3, **options: Any) -> Any:
    return kind([4] * modalities, 1, lambda features: Gaussian(features, 1), **options)


def grid(low: float = -25.0, high: float = 25.0, count: int = 200_001) -> tuple[Tensor, float]:
    points = torch.linspace(low, high, count)
    return points, (high - low) / (count - 1)


def quadrature(density: Any) -> tuple[Tensor, Tensor]:
    """Return mean and variance of an unnormalised density of a point on the line."""
    points, step = grid()
    values = density(points)
    values = values / (values.sum() * step)
    mean = (values * points).sum() * step
    return mean, (values * (points - mean).square()).sum() * step


# ---- the product -----------------------------------------------------------------------------------------------------


def test_two_equal_experts_halve_the_variance() -> None:
    experts, mask = stacked([[0.7, 0.7]], [[0.6, 0.6]]), torch.ones(1, 2, dtype=torch.bool)
    q = fusion(ProductOfExperts, 2, prior_expert=False).fuse(experts, mask, PRIOR)
    torch.testing.assert_close(q.variance, torch.tensor([[0.18]]), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(q.mean, torch.tensor([[0.7]]), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("prior_expert", [True, False])
def test_product_is_the_normalised_product_of_densities(prior_expert: bool) -> None:
    mask = all_subsets(3)
    experts = three(8)
    q = fusion(ProductOfExperts, prior_expert=prior_expert).fuse(experts, mask, PRIOR)
    for row, inside in enumerate(mask):
        with_prior = prior_expert or not inside.any()

        def density(z: Tensor, inside: Tensor = inside, with_prior: bool = with_prior) -> Tensor:
            each = experts.base_dist.expand((8, 3, 1)).log_prob(z.view(-1, 1, 1, 1))[:, 0, :, 0]
            log_density = torch.where(inside, each, 0.0).sum(-1)
            return (log_density + with_prior * PRIOR.log_prob(z.unsqueeze(-1))).exp()

        mean, variance = quadrature(density)
        torch.testing.assert_close(q.mean[row, 0], mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(q.variance[row, 0], variance, rtol=1e-9, atol=1e-9)


def test_experts_are_weighted_by_their_precision() -> None:
    """Weights of v_m in place of 1 / v_m, as one finds them in print, give another mean."""
    loc, scale = torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 2.0])
    mask = torch.ones(1, 2, dtype=torch.bool)
    q = fusion(ProductOfExperts, 2, prior_expert=False).fuse(stacked(loc[None], scale[None]), mask, PRIOR)
    # (-1 / 0.25 + 2 / 4) / (1 / 0.25 + 1 / 4) and 1 / 4.25
    torch.testing.assert_close(q.mean.squeeze(), torch.tensor(-3.5 / 4.25), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(q.variance.squeeze(), torch.tensor(1 / 4.25), rtol=1e-12, atol=0.0)
    variance = scale.square()
    wrong = (loc * variance).sum() / (1 / variance).sum()
    assert (q.mean.squeeze() - wrong).abs() > 1.0


# ---- the mixtures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [dist.Normal, dist.Laplace])
def test_mixture_of_experts_is_the_mean_of_densities(family: Any) -> None:
    mask, z = all_subsets(3), torch.linspace(-4.0, 5.0, 19)
    experts = three(8, family)
    prior = family(torch.tensor([0.3]), 1.7).to_event(1)
    q = fusion(MixtureOfExperts).fuse(experts, mask, prior)
    _, loc, scale = location_scale(experts)
    for row, inside in enumerate(mask):
        each = [family(loc[0, m, 0], scale[0, m, 0]).log_prob(z).exp() for m in range(3) if inside[m]]
        expected = torch.stack(each).mean(0) if each else prior.log_prob(z.unsqueeze(-1)).exp()
        found = q.log_prob(z.view(-1, 1, 1).expand(-1, 8, 1))[:, row].exp()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("prior_expert", ["none", "full", "all"])
def test_mixture_of_products_is_the_mean_over_subsets(prior_expert: Any) -> None:
    mask, z = all_subsets(3), torch.linspace(-4.0, 5.0, 19)
    q = fusion(MixtureOfProducts, prior_expert=prior_expert).fuse(three(8), mask, PRIOR)
    assert q.mask.shape == (8, 7)
    pairs = [row for row, inside in enumerate(mask.tolist()) if inside == [True, True, False]]
    assert q.mask[pairs].sum().item() == 3
    product = {with_prior: fusion(ProductOfExperts, prior_expert=with_prior) for with_prior in (True, False)}
    for row, inside in enumerate(mask):
        there = [m for m in range(3) if inside[m]]
        densities = []
        for size in range(1, len(there) + 1):
            for subset in itertools.combinations(there, size):
                with_prior = prior_expert == "all" or (prior_expert == "full" and size == 3)
                chosen = torch.tensor([[m in subset for m in range(3)]])
                densities.append(product[with_prior].fuse(three(1), chosen, PRIOR).log_prob(z.unsqueeze(-1)).exp())
        expected = torch.stack(densities).mean(0) if densities else PRIOR.log_prob(z.unsqueeze(-1)).exp()
        found = q.log_prob(z.view(-1, 1, 1).expand(-1, 8, 1))[:, row].exp()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


def test_average_has_the_mean_parameters() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    q = fusion(Average).fuse(three(2), mask, PRIOR)
    torch.testing.assert_close(q.mean.squeeze(), torch.tensor([0.5, 0.3]), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(q.variance.squeeze(), torch.tensor([(0.25 + 0.64) / 2, 1.7**2]), rtol=1e-12, atol=0.0)


def test_a_mixture_draws_what_the_mask_lets_through_alone() -> None:
    components = dist.Normal(torch.tensor([[0.0], [100.0], [200.0], [300.0]]), 1.0).to_event(1)
    q = ExpertMixture(components, torch.tensor([True, False, True, True]))
    counts = torch.bincount((q.sample((9000,)) / 100).round().long().flatten(), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]].numpy()).pvalue > 1e-3


def test_gradients_of_random_choices_are_those_of_the_expectation() -> None:
    points, step = grid(-12.0, 12.0, 20_001)
    parameters = [torch.tensor([[-1.0], [0.4], [2.0]]), torch.tensor([[0.5], [1.2], [0.8]])]
    for parameter in parameters:
        parameter.requires_grad_()
    mask = torch.tensor([True, False, True])

    def value(z: Tensor) -> Tensor:
        return torch.sin(1.3 * z).squeeze(-1) + 0.3 * z.squeeze(-1).square()

    q = ExpertMixture(dist.Normal(*parameters).to_event(1), mask)
    density = q.log_prob(points.unsqueeze(-1)).exp()
    exact = torch.autograd.grad((density * value(points.unsqueeze(-1))).sum() * step, parameters)
    count = 200_000
    rows = [parameter.detach().expand(count, -1, -1).clone().requires_grad_() for parameter in parameters]
    z = ExpertMixture(dist.Normal(*rows).to_event(1), mask).rsample()
    for row, expected in zip(torch.autograd.grad(value(z).sum(), rows), exact, strict=True):
        error = row.std(0) / math.sqrt(count)
        assert ((row.mean(0) - expected).abs() <= 4 * error).all()
        assert not row[:, 1].any(), "a component that is masked out gets a gradient"
        assert not expected[1].any()


def test_nothing_let_through_means_all_of_them() -> None:
    components = three(1)
    nothing, all_of_them = (ExpertMixture(components, torch.full((1, 3), whether)) for whether in (False, True))
    z = torch.tensor([[0.4]])
    torch.testing.assert_close(nothing.log_prob(z), all_of_them.log_prob(z), rtol=0.0, atol=0.0)
    assert nothing.component_probs.tolist() == all_of_them.component_probs.tolist()


def test_far_components_leave_density_and_gradient_finite() -> None:
    """A density far below that of every component is no reason to take a masked one."""
    loc = torch.tensor([[0.0], [1000.0]], requires_grad=True)
    q = ExpertMixture(dist.Normal(loc, 1.0).to_event(1), torch.tensor([True, False]))
    log_q = q.log_prob(torch.tensor([1000.0]))
    torch.testing.assert_close(log_q, torch.tensor(-500_000.0 - 0.5 * math.log(2 * math.pi)), rtol=1e-12, atol=0.0)
    (gradient,) = torch.autograd.grad(log_q, loc)
    assert gradient.flatten().tolist() == [1000.0, 0.0]


# ---- divergences -----------------------------------------------------------------------------------------------------


def test_mean_kl_of_the_components_is_an_upper_bound() -> None:
    mask = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    q = ExpertMixture(three(3), mask)
    _, loc, scale = location_scale(three(3))
    variance, prior_variance = scale.square().squeeze(-1), 1.7**2
    each = 0.5 * (variance / prior_variance - 1 - (variance / prior_variance).log())
    each = each + 0.5 * (loc.squeeze(-1) - 0.3).square() / prior_variance
    expected = (mask * each).sum(-1) / mask.sum(-1)
    bound = q.component_kl(PRIOR)
    torch.testing.assert_close(bound, expected, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(q.component_kl(PRIOR.expand((3,))), expected, rtol=1e-12, atol=0.0)
    points, step = grid()
    log_q = q.log_prob(points.view(-1, 1, 1).expand(-1, 3, 1))
    ratio = log_q - PRIOR.log_prob(points.unsqueeze(-1)).unsqueeze(-1)
    kl = torch.where(log_q > -700, log_q.exp() * ratio, 0.0).sum(0) * step
    assert (bound - kl >= -1e-9).all()
    assert (bound - kl <= mask.sum(-1).log() + 1e-9).all()
    torch.testing.assert_close(bound[2], kl[2], rtol=1e-8, atol=0.0)
    assert kl_method(q, PRIOR) == "sampled"
    for stratified in (False, True):
        sampled = kl_divergence(q, PRIOR, draw(ExpertMixture(three(3), mask, stratified), 20_000))
        torch.testing.assert_close(sampled, kl, rtol=0.0, atol=0.03)


def test_kl_of_a_product_to_a_mixture() -> None:
    """The law of all modalities to that of some, as the conditional term of masked objectives has it."""
    experts, points = three(1), grid()
    everything, some = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, True, False]])
    q = fusion(ProductOfExperts).fuse(experts, everything, PRIOR)
    p = fusion(MixtureOfExperts).fuse(experts, some, PRIOR)
    log_q, log_p = (d.log_prob(points[0].unsqueeze(-1)) for d in (q, p))
    kl = torch.where(log_q > -700, log_q.exp() * (log_q - log_p), 0.0).sum() * points[1]
    torch.testing.assert_close(kl_divergence(q, p, draw(q, 40_000)).squeeze(), kl, rtol=0.0, atol=0.02)


def test_held_parameters_leave_no_gradient_where_both_laws_are_one() -> None:
    """Sticking the landing: with every expert at the prior the gradient is zero for each draw, not on average."""
    loc, scale = torch.full((4, 3, 2), 0.3, requires_grad=True), torch.full((4, 3, 2), 1.7, requires_grad=True)
    q = ExpertMixture(dist.Normal(loc, scale).to_event(1), all_subsets(3)[4:])
    z = q.rsample((5,))
    p = dist.Normal(0.3 * torch.ones(2), 1.7).to_event(1)
    held = torch.autograd.grad((stopped(q).log_prob(z) - p.log_prob(z)).sum(), [loc, scale], retain_graph=True)
    assert all(gradient.abs().max() < 1e-12 for gradient in held)
    free = torch.autograd.grad((q.log_prob(z) - p.log_prob(z)).sum(), [loc, scale])
    assert all(gradient.abs().max() > 0.1 for gradient in free)


# ---- a real size, a Pyro program, refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ProductOfExperts, {}),
        (ProductOfExperts, {"prior_expert": False}),
        (MixtureOfExperts, {}),
        (MixtureOfExperts, {"stratified": True}),
        (MixtureOfProducts, {"prior_expert": "full"}),
        (Average, {}),
    ],
    ids=str,
)
def test_finite_in_float32_at_a_real_size(kind: Any, options: dict[str, Any]) -> None:
    """Five modalities whose experts disagree, with scales from e^-5 to e^2 and every subset in the batch."""
    loc = (30 * fixed(256, 5, 512)).requires_grad_()
    log_scale = (3.5 * fixed(256, 5, 512, seed=1).tanh() - 1.5).requires_grad_()
    experts = dist.Normal(loc, log_scale.exp(), validate_args=False).to_event(1)
    prior = dist.Normal(torch.zeros(512, dtype=torch.float32), 1.0, validate_args=False).to_event(1)
    q = fusion(kind, 5, **options).fuse(experts, all_subsets(5).repeat(8, 1), prior)
    drawn = draw(q)
    terms = [drawn.z.square().mean(), q.mean.square().mean(), q.variance.mean()]
    terms += [kl_divergence(q, prior, drawn).mean(), q.log_prob(prior.sample((256,))).mean()]
    if isinstance(q, ExpertMixture):
        terms.append(q.component_kl(prior).mean())
    for term in terms:
        assert term.dtype == torch.float32
        assert term.isfinite()
        for gradient in torch.autograd.grad(term, [loc, log_scale], retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


class TestLaplaceExperts(FusionContract):
    """A mixture of Laplace experts keeps the contract too."""

    name = "moe"
    posterior = prior = "laplace"

    @pytest.fixture(autouse=True)
    def _float32(self, float64: None) -> Any:
        torch.set_default_dtype(torch.float32)


def test_a_mixture_is_a_site_of_a_pyro_program() -> None:
    def program() -> Tensor:
        with pyro.plate("batch", 4):
            return pyro.sample("z", ExpertMixture(three(4), all_subsets(3)[4:]))

    trace = pyro.poutine.trace(program).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z"]["log_prob"].shape == (4,)


def test_misfits_are_refused() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    laplace = three(1, dist.Laplace)
    for kind in (ProductOfExperts, MixtureOfProducts, Average):
        with pytest.raises(VaekitError, match="needs Gaussian"):
            fusion(kind).fuse(laplace, mask, PRIOR)
    with pytest.raises(VaekitError, match="one family"):
        fusion(MixtureOfExperts).fuse(laplace, mask, PRIOR)
    with pytest.raises(VaekitError, match="10 modalities at most"):
        MixtureOfProducts([4] * 11, 1, lambda features: Laplace(features, 1))
    with pytest.raises(VaekitError, match="end both with the same number"):
        ExpertMixture(three(1), mask[:, :2])
    with pytest.raises(VaekitError, match="Gaussian or Laplace"):
        ExpertMixture(dist.Gamma(torch.ones(2, 3), 1.0).to_event(1), mask[:, :2])
    with pytest.raises(VaekitError, match="1 or more"):
        ExpertMixture(three(1), mask).draws(0)
