"""MMVM: the two divergences against known values, missing modalities, annealing; the exponential schedule."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from pyro.distributions import Laplace, Normal
from torch import Tensor

import vaekit as vk
from vaekit.distributions import Draws, draw, kl_divergence, kl_to_each, kl_to_mean
from vaekit.errors import VaekitError
from vaekit.fusions.base import Experts
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives import MMVM, Independent
from vaekit.observed import Observed
from vaekit.testing import small_multimodal_data, small_multimodal_vae

pytestmark = pytest.mark.usefixtures("float64")

ALL = torch.ones(1, 3, dtype=torch.bool)


def gaussians(loc: Any, scale: Any) -> Any:
    """Several Gaussians of one sample, batch (1, M)."""
    return Normal(torch.as_tensor(loc)[None], torch.as_tensor(scale)[None]).to_event(1)


def three() -> Any:
    return gaussians([[0.0, 0.0], [1.0, 0.5], [-0.5, 1.5]], [[1.0, 1.0], [0.5, 2.0], [1.5, 0.8]])


def quadrature(q: Any, count: int = 60) -> Draws:
    """Gauss-Hermite nodes as weighted draws of Gaussians: what is estimated from them is exact."""
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(count))
    dim = q.event_shape[0]
    grid = torch.stack([g.flatten() for g in torch.meshgrid(*[nodes] * dim, indexing="ij")], -1)
    mass = torch.stack([g.flatten() for g in torch.meshgrid(*[weights] * dim, indexing="ij")], -1).prod(-1)
    z = q.base_dist.loc + q.base_dist.scale * grid[:, None, None, :]
    return Draws(z, (mass / (2 * math.pi) ** (dim / 2))[:, None, None].expand(z.shape[:3]))


# ---- the divergences -------------------------------------------------------------------------------------------------


def test_three_gaussians() -> None:
    q = three()
    assert kl_to_each(q, ALL).sum().item() == pytest.approx(6.694965, abs=1e-6)
    # By quadrature on a grid; 1.3584 with a standard error of 0.0005 by Monte Carlo elsewhere.
    assert kl_to_mean(q, ALL, quadrature(q, 120)).sum().item() == pytest.approx(1.357548, abs=1e-6)
    p = Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    assert kl_divergence(q, p).sum().item() == pytest.approx(3.262678, abs=1e-6)


def test_estimates_from_draws() -> None:
    q = three()
    drawn = draw(q.expand((20_000, 3)), 1)
    many = ALL.expand(20_000, 3)
    assert kl_to_mean(q.expand((20_000, 3)), many, drawn).sum(-1).mean().item() == pytest.approx(1.357548, abs=0.03)
    assert kl_to_each(q.expand((20_000, 3)), many, drawn).sum(-1).mean().item() == pytest.approx(6.694965, abs=0.15)


@pytest.mark.parametrize(
    ("distance", "value", "slope"),
    [(1.0, 0.2228, 0.398), (2.0, 0.6737, 0.450), (4.0, 1.2654, 0.137), (8.0, 1.3861, 0.0004)],
)
def test_two_gaussians_at_a_distance(distance: float, value: float, slope: float) -> None:
    """The Jensen-Shannon form saturates, and its gradient with it; the pairwise form is a parabola."""
    apart = torch.tensor(distance, requires_grad=True)
    q = gaussians(torch.stack([torch.zeros(()), apart]).unsqueeze(-1), torch.ones(2, 1))
    exact = kl_to_mean(q, ALL[:, :2], quadrature(q, 150)).sum()
    assert exact.item() == pytest.approx(value, abs=1e-4)
    assert torch.autograd.grad(exact, apart)[0].item() == pytest.approx(slope, abs=5e-4)
    pairwise = kl_to_each(q, ALL[:, :2]).sum()
    assert pairwise.item() == pytest.approx(distance**2 / 2, rel=1e-12)
    assert torch.autograd.grad(pairwise, apart)[0].item() == pytest.approx(distance, rel=1e-12)


def test_nothing_where_all_agree() -> None:
    q = gaussians(torch.full((3, 2), 0.7), torch.full((3, 2), 0.3))
    torch.testing.assert_close(kl_to_each(q, ALL), torch.zeros(1, 3))
    torch.testing.assert_close(kl_to_mean(q, ALL, draw(q)), torch.zeros(1, 3))


def test_bounds_and_order() -> None:
    """Between 0 and M ln M, below the pairwise form, and each distribution's share goes with it."""
    for spread in (0.1, 1.0, 3.0, 30.0):
        q = gaussians(spread * torch.randn(3, 2), (0.5 * torch.randn(3, 2)).exp())
        exact, pairwise = kl_to_mean(q, ALL, quadrature(q)), kl_to_each(q, ALL)
        assert (exact > 0).all()
        assert exact.sum() <= 3 * math.log(3) + 1e-6
        assert (exact <= pairwise).all()
        turned = gaussians(q.base_dist.loc[0, [2, 0, 1]], q.base_dist.scale[0, [2, 0, 1]])
        torch.testing.assert_close(kl_to_mean(turned, ALL, quadrature(turned)), exact[:, [2, 0, 1]])
        torch.testing.assert_close(kl_to_each(turned, ALL), pairwise[:, [2, 0, 1]])


def test_pairwise_by_hand() -> None:
    for family in (Normal, Laplace):
        loc, scale = torch.randn(4, 3, 2), torch.rand(4, 3, 2) + 0.5
        available = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0]]).bool()
        found = kl_to_each(family(loc, scale).to_event(1), available)
        for row, m in itertools.product(range(4), range(3)):
            one = family(loc[row, m], scale[row, m]).to_event(1)
            others = [family(loc[row, n], scale[row, n]).to_event(1) for n in range(3) if available[row, n]]
            expected = torch.stack([torch.distributions.kl_divergence(one, other) for other in others]).mean()
            torch.testing.assert_close(found[row, m], expected)


def test_those_that_are_missing_do_not_count() -> None:
    q, some = three(), torch.tensor([[True, False, True]])
    two = gaussians(q.base_dist.loc[0, [0, 2]], q.base_dist.scale[0, [0, 2]])
    torch.testing.assert_close(kl_to_each(q, some)[:, [0, 2]], kl_to_each(two, ALL[:, :2]))
    exact = kl_to_mean(q, some, quadrature(q))[:, [0, 2]]
    torch.testing.assert_close(exact, kl_to_mean(two, ALL[:, :2], quadrature(two)))
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert kl_to_mean(q, nothing, draw(q)).isfinite().all()
    assert kl_to_each(q, nothing).isfinite().all()


def test_large_in_float32() -> None:
    """Values and gradients at 256 samples, 5 modalities and 512 dimensions, close together and far apart."""
    for spread in (0.01, 10.0):
        loc = (spread * torch.randn(256, 5, 512)).float().requires_grad_()
        raw = torch.randn(256, 5, 512).float().requires_grad_()
        q = Normal(loc, (0.1 * raw).exp()).to_event(1)
        available = torch.rand(256, 5) < 0.5
        for kl in (kl_to_mean(q, available, draw(q)), kl_to_each(q, available), kl_to_each(q, available, draw(q))):
            assert kl.dtype == torch.float32
            assert kl.isfinite().all()
            gradients = torch.autograd.grad(torch.where(available, kl, 0.0).sum(), [loc, raw], retain_graph=True)
            assert all(gradient.isfinite().all() for gradient in gradients)


# ---- the objective ---------------------------------------------------------------------------------------------------


def model_and_data(available: Tensor | None = None, **parts: Any) -> tuple[MultimodalVAE, Observed]:
    model = small_multimodal_vae(**{"fusion": None, **parts}).double()
    return model, small_multimodal_data(8, available, torch.float64)


def terms(model: MultimodalVAE, x: Observed, step: int = 0, **options: Any) -> dict[str, Tensor]:
    objective = MMVM(**options)
    torch.manual_seed(3)
    return objective.evaluate(objective.run(model, x, step), x, step)[2]


def of(model: MultimodalVAE, *names: str) -> MultimodalVAE:
    """The same model with some of its modalities, in that order."""
    heads = [model.fusion.heads[model.names.index(name)] for name in names]
    return MultimodalVAE({name: model.parts[name] for name in names}, Experts(heads), model.prior)


def test_identical_modalities_cost_nothing() -> None:
    model, _ = model_and_data()
    vector, head = model.parts["vector"], model.fusion.heads[1]
    names = ("a", "b", "c")
    twins = MultimodalVAE(
        {name: copy.deepcopy(vector) for name in names}, Experts([copy.deepcopy(head) for _ in names]), model.prior
    )
    x = Observed(dict.fromkeys(names, torch.rand(8, 5)))
    for divergence in ("pairwise", "jensen_shannon"):
        found = terms(twins, x, divergence=divergence)
        assert found[divergence].item() == pytest.approx(0.0, abs=1e-12)
        assert found["kl"].item() == pytest.approx(0.0, abs=1e-12)
        assert found["prior_kl"].item() > 0.01


@pytest.mark.parametrize("divergence", ["pairwise", "jensen_shannon"])
def test_order_of_the_modalities(divergence: str) -> None:
    model, x = model_and_data()
    names = ("sound", "image", "vector")
    turned = Observed({name: x.values[name] for name in names})
    # Enough draws that what differs is not noise; the posteriors are close together.
    options = {"divergence": divergence, "draws": 1 if divergence == "pairwise" else 2000}
    one, other = terms(model, x, **options), terms(of(model, *names), turned, **options)
    tolerance = 1e-9 if divergence == "pairwise" else 0.05
    assert one[divergence].item() == pytest.approx(other[divergence].item(), rel=tolerance)
    assert one["prior_kl"].item() == pytest.approx(other["prior_kl"].item(), rel=1e-9)


def test_a_missing_modality_is_as_if_it_were_not_in_the_model() -> None:
    model, x = model_and_data()
    names = ("image", "sound")
    found = terms(model, x.only(*names))
    expected = terms(of(model, *names), Observed({name: x.values[name] for name in names}))
    for name in ("kl", "pairwise", "prior_kl"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-9)
    assert found["reconstruction_vector"] == 0.0
    # One modality alone has nobody to agree with.
    for divergence in ("pairwise", "jensen_shannon"):
        assert terms(model, x.only("sound"), divergence=divergence)["kl"].item() == pytest.approx(0.0, abs=1e-12)


def test_alpha_leads_from_independent_modalities_to_tied_ones() -> None:
    model, x = model_and_data()
    torch.manual_seed(3)
    objective = Independent()
    alone = objective.evaluate(objective.run(model, x), x)[2]
    fading = {"name": "linear", "start": 1.0, "end": 0.0, "steps": 4}
    at = [terms(model, x, step, alpha=fading, beta=2.0) for step in (0, 1, 4)]
    assert at[0]["kl"].item() == pytest.approx(alone["kl"].item(), rel=1e-12)
    assert at[2]["kl"].item() == pytest.approx(at[2]["pairwise"].item(), rel=1e-12)
    mixed = 0.75 * at[1]["prior_kl"] + 0.25 * at[1]["pairwise"]
    assert at[1]["kl"].item() == pytest.approx(mixed.item(), rel=1e-12)
    assert at[1]["loss"].item() == pytest.approx((at[1]["reconstruction"] + 2.0 * mixed).item(), rel=1e-12)


def test_sampled_terms_have_the_same_mean() -> None:
    model, x = model_and_data(torch.rand(8, 3) < 0.7)
    closed, sampled = terms(model, x), terms(model, x, draws=4000, estimator="sampled")
    for name in ("pairwise", "prior_kl"):
        assert sampled[name].item() == pytest.approx(closed[name].item(), rel=0.03)
        assert sampled[name] != closed[name]


def test_the_experts_of_a_fusion_can_be_tied() -> None:
    model, x = model_and_data(fusion="poe")
    alone = MultimodalVAE(model.parts, model.fusion.experts, model.prior)
    for divergence in ("pairwise", "jensen_shannon"):
        assert terms(model, x, divergence=divergence) == terms(alone, x, divergence=divergence)


def test_laplace_posteriors() -> None:
    model, x = model_and_data(posterior="laplace", prior="laplace")
    found = [terms(model, x, divergence=d, draws=500) for d in ("jensen_shannon", "pairwise")]
    assert 0.0 < found[0]["kl"].item() < found[1]["kl"].item()


def test_what_is_said_of_it() -> None:
    assert (MMVM().label, MMVM().bound) == ("surrogate loss", False)
    tied, free = MMVM().notes(64, 4), MMVM(alpha=0.5, divergence="jensen_shannon").notes(64, 4)
    assert "upper bound" in tied[0]
    assert "estimated from the draws" in free[0]
    assert len(free) == 1
    assert "samples from the prior" in tied[1]
    annealed = MMVM(alpha={"name": "exponential", "start": 1.0, "end": 0.0, "steps": 100})
    assert len(annealed.notes(64, 4)) == 2


def test_what_cannot_work() -> None:
    with pytest.raises(VaekitError, match="from 0 to 1"):
        MMVM(alpha=1.5)
    private, _ = model_and_data(fusion="poe", private="independent")
    with pytest.raises(VaekitError, match="private"):
        MMVM().prepare(private, 10)
    mixtures, _ = model_and_data(posterior={"name": "gmm", "components": 2})
    with pytest.raises(VaekitError, match="Gaussian or Laplace"):
        MMVM().prepare(mixtures, 10)


# ---- the schedule ----------------------------------------------------------------------------------------------------


def test_exponential_schedule() -> None:
    """The published annealing: alpha0 exp(r t), at least alpha1, with the logarithms of both shifted by 1e-10."""
    fall = vk.schedules.exponential(start=1.0, end=0.0, steps=150_000)
    rate = (math.log(1e-10) - math.log(1.0 + 1e-10)) / 150_000
    for step in (0, 1, 4_515, 75_000, 149_999, 150_000, 400_000):
        assert fall(step) == pytest.approx(max(math.exp(rate * step), 0.0), abs=2e-10)
    assert fall(4_515) == pytest.approx(0.5, abs=1e-4)
    assert (fall(150_000), fall(10**12)) == (0.0, 0.0)
    rise = vk.schedules.exponential(start=0.01, end=1.0, steps=10, delay=5)
    assert [rise(step) for step in (0, 5, 10, 15)] == pytest.approx([0.01, 0.01, 0.1, 1.0], rel=1e-6)
    with pytest.raises(VaekitError, match="0 or more"):
        vk.schedules.exponential(start=-1.0, steps=3)
