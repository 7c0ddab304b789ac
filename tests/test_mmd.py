"""The MMD: its value by hand, its expectation in closed form, its gradients, on real space and on a sphere."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from helpers import built, tiny
from torch import Tensor

from vaekit.distributions import GaussianMixture, draw
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.priors.mixture import GaussianMixture as MixturePrior
from vaekit.regularizers.mmd import MMD, kernel_matrix

pytestmark = pytest.mark.usefixtures("float64")


def gaussian(loc: Tensor, scale: float) -> Any:
    return dist.Normal(loc, torch.full_like(loc, scale)).to_event(1)


def latents(q: Any, p: Any, count: int = 1) -> Latents:
    return Latents(q, p, *draw(q, count))


def by_hand(x: list[float], y: list[float], kernel: str, widths: list[float]) -> float:
    square = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    return sum(c / (c + square) if kernel == "imq" else math.exp(-square / c) for c in widths)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_value_is_that_of_the_double_loop(kernel: Any, kind: str) -> None:
    batch, dim = 5, 3
    q = gaussian(torch.randn(batch, dim), 0.7)
    if kind == "mixture":
        q = GaussianMixture(torch.randn(batch, 2), torch.randn(batch, 2, dim), torch.rand(batch, 2, dim) + 0.1)
    record = latents(q, gaussian(torch.zeros(dim), 1.0), 2)
    count = record.weights.numel()
    torch.manual_seed(5)
    value = MMD(kernel=kernel, scales=[0.5, 2.0])(record)
    torch.manual_seed(5)
    prior = record.p.rsample((count,)).tolist()
    widths = [2 * dim * 0.5, 2 * dim * 2.0]
    points = [
        (b, record.weights[s, b].item(), record.z[s, b].tolist())
        for s in range(len(record.weights))
        for b in range(batch)
    ]
    of_q = sum(
        u * v * by_hand(x, y, kernel, widths) for i, u, x in points for j, v, y in points if i != j
    ) / (batch * (batch - 1))  # fmt: skip
    of_p = sum(by_hand(x, y, kernel, widths) for i, x in enumerate(prior) for j, y in enumerate(prior) if i != j)
    across = sum(u * by_hand(x, y, kernel, widths) for _, u, x in points for y in prior)
    expected = of_q + of_p / (count * (count - 1)) - 2 * across / (batch * count)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def expected_rbf(square: float, variance: float, c: float, dim: int) -> float:
    """E exp(-|u|^2 / c) for u ~ N(m, v I) with |m|^2 = square."""
    return (1 + 2 * variance / c) ** (-dim / 2) * math.exp(-square / (c + 2 * variance))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.8, 0.6), (0.0, 2.0)])
def test_mean_is_the_closed_form_between_gaussians(shift: float, scale: float) -> None:
    """Unbiased: the mean over many small batches is the exact discrepancy, 0 where both are the same."""
    dim, rounds, c = 3, 1000, 2.0 * 3
    q, p = gaussian(torch.full((8, dim), shift), scale), gaussian(torch.zeros(dim), 1.0)
    term = MMD(kernel="rbf", scales=[1.0])
    values = torch.stack([term(latents(q, p)) for _ in range(rounds)])
    square = dim * shift**2
    expected = (
        expected_rbf(0, 2 * scale**2, c, dim)
        + expected_rbf(0, 2, c, dim)
        - 2 * expected_rbf(square, 1 + scale**2, c, dim)
    )
    assert values.mean().item() == pytest.approx(expected, abs=4 * values.std().item() / rounds**0.5)
    assert expected == pytest.approx(0, abs=1e-12) if (shift, scale) == (0.0, 1.0) else expected > 0.01


def test_mean_over_weighted_draws_is_that_of_the_mixture() -> None:
    """Stratified draws carry their weights: the same expectation as plain draws of the mixture."""
    logits, loc = torch.tensor([0.0, 1.5]).expand(6, 2), torch.tensor([[-1.0], [2.0]]).expand(6, 2, 1)
    p, term = gaussian(torch.zeros(1), 1.0), MMD(kernel="rbf", scales=[1.0])
    of = {
        estimator: torch.stack(
            [term(latents(GaussianMixture(logits, loc, torch.ones(6, 2, 1), estimator), p)) for _ in range(600)]
        )
        for estimator in ("stratified", "pathwise")
    }
    error = sum(values.var().item() / 600 for values in of.values()) ** 0.5
    assert of["stratified"].mean().item() == pytest.approx(of["pathwise"].mean().item(), abs=4 * error)


def test_gradient_is_that_of_finite_differences() -> None:
    noise, p, term = torch.randn(1, 6, 2), gaussian(torch.zeros(2), 1.0), MMD()

    def value(loc: Tensor) -> Tensor:
        torch.manual_seed(3)
        return term(Latents(gaussian(loc, 0.5), p, loc + 0.5 * noise, torch.ones(1, 6)))

    assert torch.autograd.gradcheck(value, torch.randn(6, 2, requires_grad=True))


def test_a_learned_prior_is_trained() -> None:
    prior = MixturePrior(3, components=2)
    value = MMD()(latents(gaussian(torch.randn(16, 3), 1.0), prior()))
    gradients = torch.autograd.grad(value, list(prior.parameters()))
    assert all(gradient.any() and gradient.isfinite().all() for gradient in gradients)


class Circle(dist.Normal):
    """Uniform on the circle: something that can be sampled and is not reparameterised."""

    has_rsample = False

    def sample(self, sample_shape: Any = ()) -> Tensor:
        angle = 2 * math.pi * torch.rand(sample_shape)
        return torch.stack([angle.cos(), angle.sin()], -1)


def test_a_prior_that_is_only_sampled() -> None:
    angle = 2 * math.pi * torch.rand(1, 500)
    around = torch.stack([angle.cos(), angle.sin()], -1)
    one_side = torch.nn.functional.normalize(around + torch.tensor([2.0, 0.0]), dim=-1)
    p, q = Circle(torch.zeros(2), torch.ones(2)), gaussian(torch.zeros(500, 2), 1.0)
    matched, shifted = (MMD()(Latents(q, p, z, torch.ones(1, 500))).item() for z in (around, one_side))
    assert abs(matched) < 0.05
    assert shifted > 0.5


def test_kernel_of_equal_points_far_from_the_origin_is_one_for_each_width() -> None:
    x = torch.full((2, 512), 100.0, dtype=torch.float32) + 0.1 * torch.randn(1, 512, dtype=torch.float32)
    torch.testing.assert_close(kernel_matrix(x, x, "rbf", [1.0, 2.0]), torch.full((2, 2), 2.0, dtype=torch.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": []}, "scales must be one or more numbers above 0"),
        ({"scales": [1.0, -1.0]}, "scales must be one or more numbers above 0"),
        ({"bandwidth": 0.0}, "bandwidth must be above 0"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(VaekitError, match=message):
        MMD(**options)


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(VaekitError, match="batch of two or more"):
        MMD()(latents(gaussian(torch.zeros(1, 2), 1.0), gaussian(torch.zeros(2), 1.0)))


@pytest.mark.parametrize("recipe", ["wae-mmd", "info-vae"])
def test_recipes_are_no_bounds(recipe: str) -> None:
    assert built(tiny(recipe))[1].label == "surrogate loss"


def test_loss_of_the_recipe_is_the_squared_error_of_pixels_from_0_to_1() -> None:
    model, _ = built(tiny("wae-mmd"))
    model = model.double()
    z, x = torch.randn(4, 4), torch.rand(4, 1, 8, 8) * 2 - 1
    p = model.decode(z)
    excess = p.log_prob(p.mean) - p.log_prob(x)
    torch.testing.assert_close(excess, ((x - p.mean) / 2).square().flatten(1).sum(1))
