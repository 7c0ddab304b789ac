"""EVAE: the density of its posterior, the penalty, what is refused, its recipes, and the same as Pyro programs."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, random_images, tiny
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from scipy import stats
from test_pyro import same, svi_side, trainer_side

import vaekit as vk
from vaekit.compatibility import missing, pair
from vaekit.distributions import Epanechnikov, EpanechnikovConvolution, draw, kl_divergence, stopped
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import posteriors, priors, regularizers
from vaekit.regularizers import CodeNorm, EVAEPenalty
from vaekit.testing.contract import fixed

pytestmark = pytest.mark.usefixtures("float64")

T = torch.tensor
BANDWIDTH = 100 ** (-2 / 9)


@pytest.fixture(autouse=True)
def _clean_store() -> None:
    pyro.clear_param_store()


def uniform(loc: float, scale: float, length: float, dtype: torch.dtype = torch.float64) -> EpanechnikovConvolution:
    half = T(length / 2, dtype=dtype)
    noise = dist.Uniform(-half, half, validate_args=False)
    return EpanechnikovConvolution(T(loc, dtype=dtype), T(scale, dtype=dtype), noise, BANDWIDTH, validate_args=False)


def gaussian(loc: float, scale: float, sigma: float, dtype: torch.dtype = torch.float64) -> EpanechnikovConvolution:
    noise = dist.Normal(T(0.0, dtype=dtype), T(sigma, dtype=dtype), validate_args=False)
    return EpanechnikovConvolution(T(loc, dtype=dtype), T(scale, dtype=dtype), noise, BANDWIDTH, validate_args=False)


# ---- the density -----------------------------------------------------------------------------------------------------

UNIFORM = [
    (0.0, 0.0, 1.0, 0.1, 0.729215977237),
    (0.2, 0.0, 1.0, 0.1, 0.355661179737),
    (0.4, 0.0, 1.0, 0.1, -5.28515386994),
    (0.5, 1.0, 2.0, 1.0, -0.180076645994),
    (0.0, 0.0, 1.0, 10.0, -2.30258509299),
    (4.9, 0.0, 1.0, 10.0, -2.65454848455),
    (5.2, 0.0, 1.0, 10.0, -4.37640420245),
]
GAUSSIAN = [
    (0.3, 1.0, 2.0, 1.0, -0.970701386619),
    (0.0, 0.0, 1.0, 1.0, -0.93175925573),
    (-1.5, 0.5, 3.0, 1.0, -2.16030065653),
]


@pytest.mark.parametrize(
    ("make", "case"), [*((uniform, case) for case in UNIFORM), *((gaussian, case) for case in GAUSSIAN)]
)
def test_density(make: Any, case: tuple[float, ...]) -> None:
    z, *parameters, expected = case
    assert make(*parameters).log_prob(T(z)).item() == pytest.approx(expected, abs=1e-10)
    narrow = make(*parameters, dtype=torch.float32).log_prob(T(z, dtype=torch.float32))
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(expected, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("make", [uniform, gaussian])
@pytest.mark.parametrize(
    ("loc", "scale", "width"), [(0.3, 1.0, 0.1), (-1.0, 0.2, 1.0), (2.0, 3.0, 2.0), (0.0, 1e-4, 0.5)]
)
def test_density_is_that_of_the_sum(make: Any, loc: float, scale: float, width: float) -> None:
    q = make(loc, scale, width)
    # E p(z - kernel) over quantiles of the kernel's law, as p is the density of the noise.
    u = (torch.arange(20_000) + 0.5) / 20_000
    kernel = q.kernel.icdf(u)
    noise = dist.Uniform(-width / 2, width / 2, validate_args=False) if make is uniform else dist.Normal(0.0, width)
    z = q.mean + (torch.linspace(-1.2, 1.2, 9) * (BANDWIDTH * scale + width / 2))
    expected = noise.log_prob(z.unsqueeze(-1) - kernel).exp().mean(-1)
    assert torch.allclose(q.log_prob(z).exp(), expected, atol=2e-3 * expected.max().item())
    grid = torch.linspace(-1.0, 1.0, 100_001) * (BANDWIDTH * scale + 10 * width) + q.mean
    density = q.log_prob(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-3)


# log q and its slope in z, from the closed form with 60 digits: centre, tails, a kernel much narrower than the noise.
FAR = [
    (0.99, 1.0, 0.01, -4.12860174344996, -77.35099639834509),
    (1.05, 1.0, 0.01, -20.94581696011104, -536.1515658503928),
    (3.9, 3.0, 0.1, -49.946869394990095, -92.1425483827421),
    (3.0, 1e-6, 1.0, -5.418938533203873, -2.9999999999994),
    (30.0, 1e-3, 1.0, -450.91884863437207, -29.999994000154967),
    (40.0, 1.0, 1.0, -768.3684884049126, -39.05051059892534),
]


@pytest.mark.parametrize(("z", "scale", "sigma", "log_prob", "slope"), FAR)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_density_with_gaussian_noise_does_not_cancel(
    z: float, scale: float, sigma: float, log_prob: float, slope: float, dtype: torch.dtype, tolerance: float
) -> None:
    at = T(z, dtype=dtype).requires_grad_()
    noise = dist.Normal(T(0.0, dtype=dtype), T(sigma, dtype=dtype))
    value = EpanechnikovConvolution(T(0.0, dtype=dtype), T(scale, dtype=dtype), noise).log_prob(at)
    assert value.item() == pytest.approx(log_prob, rel=tolerance)
    assert torch.autograd.grad(value, at)[0].item() == pytest.approx(slope, rel=tolerance)


@pytest.mark.parametrize("make", [uniform, gaussian])
def test_gradients_of_the_density(make: Any) -> None:
    def log_prob(z: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        noise = dist.Uniform(-width / 2, width / 2) if make is uniform else dist.Normal(0.0 * width, width)
        return EpanechnikovConvolution(loc, scale, noise, BANDWIDTH, validate_args=False).log_prob(z)

    for z in (0.1, 0.35, 0.45, -0.2):  # both sides of the kernel, and where one end of the noise lies outside it
        parameters = [T(value).requires_grad_() for value in (z, 0.2, 1.0, 0.3)]
        assert torch.autograd.gradcheck(log_prob, parameters, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [uniform, gaussian])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_densities_of_draws_stay_finite(make: Any, dtype: torch.dtype) -> None:
    for loc, scale, width in ((0.0, 1.0, 0.1), (30.0, 1e-6, 0.1), (-5.0, 20.0, 1e-3), (1.0, 1e-6, 10.0)):
        q = make(loc, scale, width, dtype=dtype)
        q.loc.requires_grad_()
        q.scale.requires_grad_()
        log_prob = q.log_prob(q.rsample((20_000,)))
        assert log_prob.isfinite().all(), (loc, scale, width)
        for gradient in torch.autograd.grad(log_prob.mean(), (q.loc, q.scale)):
            assert gradient.isfinite(), (loc, scale, width)
    assert uniform(0.0, 1.0, 0.1, dtype=dtype).log_prob(T(0.42, dtype=dtype)) == -math.inf


@pytest.mark.parametrize("make", [uniform, gaussian])
def test_fisher_information_is_finite(make: Any) -> None:
    information = []
    for points in (20_001, 200_001):
        q = make(0.0, 1.0, 0.1)
        z = (
            torch.linspace(-1.0, 1.0, points)[1:-1] * (BANDWIDTH + (0.05 if make is uniform else 0.8))
        ).requires_grad_()
        log_prob = q.log_prob(z)
        (score,) = torch.autograd.grad(log_prob.sum(), z)
        information.append(torch.trapezoid(log_prob.exp() * score.square(), z).item())
    assert information[0] == pytest.approx(information[1], rel=1e-3)
    assert not stopped(q.expand((2,)).to_event(1)).log_prob(torch.zeros(2)).requires_grad


def test_moments_sampler_and_cdf() -> None:
    assert uniform(0.0, 1.0, 0.1).variance.item() == pytest.approx(0.0266643266336, abs=1e-12)
    assert uniform(0.0, 2.0, 10.0).variance.item() == pytest.approx(8.43665730653, abs=1e-10)
    for q in (uniform(2.0, 1.0, 0.3), uniform(-1.0, 0.1, 2.0), gaussian(2.0, 1.0, 0.2)):
        z = q.sample((100_000,))
        assert z.mean().item() == pytest.approx(q.mean.item(), abs=0.01)
        assert z.var().item() == pytest.approx(q.variance.item(), rel=0.02)
        if isinstance(q.noise, dist.Uniform):
            assert stats.kstest(z[:20_000].numpy(), lambda v, q=q: q.cdf(torch.as_tensor(v)).numpy()).pvalue > 1e-3
            at = q.mean + 0.05
            slope = (q.cdf(at + 1e-6) - q.cdf(at - 1e-6)) / 2e-6
            assert slope.item() == pytest.approx(q.log_prob(at).exp().item(), rel=1e-6)
    with pytest.raises(NotImplementedError):
        gaussian(0.0, 1.0, 1.0).cdf(T(0.0))


@pytest.mark.parametrize(
    ("loc", "scale", "length", "mass"),
    [(0.0, 1.0, 0.1, 0.794001088197), (0.0, 0.1, 0.1, 0.134768012393), (5.0, 1.0, 10.0, 0.17969068319)],
)
def test_mass_outside_the_box(loc: float, scale: float, length: float, mass: float) -> None:
    q = uniform(loc, scale, length)
    outside = q.cdf(T(-length / 2)) + 1.0 - q.cdf(T(length / 2))
    assert outside.item() == pytest.approx(mass, abs=1e-11)


def test_expand_support_and_wrong_noise() -> None:
    q = uniform(0.5, 1.0, 0.1).expand((5, 3))
    assert q.rsample((2,)).shape == q.log_prob(q.sample((2,))).shape == (2, 5, 3)
    assert q.support.upper_bound[0, 0].item() == pytest.approx(BANDWIDTH * 1.5 + 0.05)
    assert gaussian(0.0, 1.0, 1.0).support is dist.constraints.real
    half = EpanechnikovConvolution(T([0.0]).bfloat16(), T([1.0]).bfloat16(), dist.Normal(T([0.0]).float(), 1.0))
    assert half.log_prob(half.sample()).dtype == torch.float32
    with pytest.raises(VaekitError, match="Uniform or Normal, not Laplace"):
        EpanechnikovConvolution(T(0.0), T(1.0), dist.Laplace(0.0, 1.0))


# ---- the KL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "loc", "scale", "expected"),
    [
        (1.0, 0.0, 0.5, 1.03809865157e-5),
        (1.0, 0.0, 1.0, 1.63998158761e-4),
        (1.0, 0.0, 2.0, 0.00249946898821),
        (1.0, 1.0, 1.0, 0.0647414814095),
        (0.1, 0.0, 1.0, 0.659927901417),
        (0.1, 1.0, 1.0, 7.11767622649),
    ],
)
def test_kl_to_a_gaussian_prior_by_quadrature(sigma: float, loc: float, scale: float, expected: float) -> None:
    q, p = gaussian(loc, scale, sigma), dist.Normal(T(0.0), T(sigma))
    z = torch.linspace(-12 * sigma - 2, 12 * sigma + 2, 30_001)
    log_q = q.log_prob(z)
    assert torch.trapezoid(log_q.exp() * (log_q - p.log_prob(z)), z).item() == pytest.approx(expected, abs=1e-10)
    # The penalty is no bound of it.
    penalty = 0.6 * sigma / 100 / scale
    assert (penalty > expected) == (loc == 0.0 and scale < 3.0 and sigma == 1.0)


def latents(posterior: str, prior: Any, size: int = 4, latent_dim: int = 3) -> Latents:
    p = priors.build(prior, latent_dim).double()()
    q = posteriors.build(posterior, 8, latent_dim).double()(fixed(size, 8, dtype=torch.float64), p)
    return Latents(q, p, *draw(q))


def test_kl_to_a_uniform_prior_is_refused_before_training() -> None:
    found = latents("evae", "uniform")
    with pytest.raises(VaekitError, match="infinite"):
        kl_divergence(found.q, found.p)
    with pytest.raises(VaekitError, match="'kl' cannot be used .* needs a finite KL"):
        built(tiny("evae", regularizers={"kl": {}}))
    model, _ = built(tiny("evae"))
    with pytest.raises(VaekitError, match="infinite"):
        vk.Objective({"kl": vk.regularizers.KL()}).prepare(model.double(), 10)
    assert kl_divergence(*(getattr(latents("epanechnikov", "uniform"), name) for name in "qp")).isfinite().all()


def test_a_point_has_no_kl() -> None:
    found = latents("delta", "standard_normal")
    with pytest.raises(VaekitError, match="infinite, because a point has no density"):
        kl_divergence(found.q, found.p)
    assert pair("delta", "standard_normal").kind == "infinite"
    assert "a point, which has no density" in missing(regularizers.info("kl"), "delta", "standard_normal")
    assert missing(regularizers.info("code_norm"), "delta", "standard_normal") == ""
    assert found.q.log_prob(found.q.sample()).abs().sum() == 0


def test_metadata_of_the_family() -> None:
    assert [pair("evae", prior).kind for prior in ("uniform", "gaussian", "epanechnikov")] == [
        "infinite", "sampled", "impossible",
    ]  # fmt: skip
    kinds = {pair("epanechnikov", prior).kind for prior in ("standard_normal", "gaussian", "uniform", "epanechnikov")}
    assert kinds == {"closed"}
    for name, finite in (("evae", True), ("epanechnikov", False)):
        assert ("finite Fisher information" in posteriors.info(name).supports) is finite


# ---- the penalty -----------------------------------------------------------------------------------------------------


def test_penalty() -> None:
    def term(scale: torch.Tensor, **options: Any) -> float:
        q = Epanechnikov(torch.zeros_like(scale), scale).to_event(1)
        p = priors.build({"name": "uniform", "length": 0.1}, scale.shape[-1]).double()()
        return EVAEPenalty(**options)(Latents(q, p, q.sample((1,)), torch.ones(1, len(scale)))).item()

    assert term(torch.ones(1, 64), samples=100) == pytest.approx(0.0384, abs=1e-8)
    assert term(T([[0.5, 2.0]]), samples=100, length=10.0) == pytest.approx(0.15, abs=1e-12)
    assert term(torch.ones(20, 64)) == pytest.approx(0.192, abs=1e-7)
    assert len(EVAEPenalty().notes(100, 64)) == 2
    assert "surrogate" in EVAEPenalty().notes(100, 64)[0]
    with pytest.raises(VaekitError, match="above 0"):
        EVAEPenalty(length=-1.0)
    with pytest.raises(VaekitError, match="above 0"):
        EVAEPenalty(samples=0)


@pytest.mark.parametrize(
    ("prior", "length"),
    [
        ({"name": "uniform", "length": 2.0}, 2.0),
        ({"name": "gaussian", "scale": 0.3}, 0.3),
        ({"name": "gaussian", "scale": 0.3, "learned": True}, 0.3),
        ("standard_normal", 1.0),
    ],
)
def test_penalty_takes_the_length_from_the_prior(prior: Any, length: float) -> None:
    found = latents("evae", prior)
    value, given = EVAEPenalty()(found), EVAEPenalty(length=length)(found)
    assert value.item() == pytest.approx(given.item(), rel=1e-6)
    assert value.item() == pytest.approx((0.6 * length / 4 / found.q.base_dist.scale).sum(-1).mean().item(), rel=1e-6)


def test_code_norm() -> None:
    found = latents("delta", "standard_normal")
    assert CodeNorm()(found).item() == pytest.approx(0.5 * found.q.mean.square().sum(-1).mean().item())


# ---- recipes and Pyro ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["evae", "evae-gaussian", "evae-exact", "noise-matched-ae", "rae"])
def test_recipes_train(recipe: str) -> None:
    torch.set_default_dtype(torch.float32)
    model, objective = built(tiny(recipe))
    assert objective.label == ("negative ELBO" if recipe == "evae-exact" else "surrogate loss")
    fit = vk.Trainer(max_steps=3, accelerator="cpu").fit(model, objective, random_images(32), batch_size=8)
    assert math.isfinite(fit.metrics[-1]["loss"])
    assert model.sample(2).isfinite().all()
    torch.set_default_dtype(torch.float64)


def test_exact_recipe_is_the_mean_field_elbo() -> None:
    for prior in ("standard_normal", {"name": "epanechnikov", "scale": 3.0}, {"name": "uniform", "length": 4.0}):
        model, objective = (part.double() for part in built(tiny("evae-exact", prior=prior)))
        x = torch.rand(8, 1, 8, 8)
        same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))


@pytest.mark.parametrize("recipe", ["evae", "evae-gaussian", "evae-exact", "rae"])
def test_objectives_through_their_regularization(recipe: str) -> None:
    model, objective = (part.double() for part in built(tiny(recipe)))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, Trace_ELBO(), x, objective.regularization))


def test_gaussian_prior_gives_an_elbo() -> None:
    model, objective = (
        part.double() for part in built(tiny("evae-gaussian", regularizers={"kl": {}, "evae_penalty": None}))
    )
    assert objective.label == "negative ELBO"
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, Trace_ELBO(), x))


def test_product_of_kernels_in_pyro() -> None:
    loc, scale = T([0.5, -1.2, 0.0]), T([0.8, 0.3, 2.5])

    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    def guide() -> None:
        pyro.sample("z", Epanechnikov(loc, scale).to_event(1))

    assert TraceMeanField_ELBO().loss(model, guide) == pytest.approx(3.1064780893843, abs=1e-12)


class Identity(torch.nn.Module):
    """Gives one mean and one log-radius for every sample, as a posterior's heads would."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(T([0.5, -1.2]))
        self.log_scale = torch.nn.Parameter(T([0.0, 0.3]))


def test_published_surrogate_as_noise_sites() -> None:
    """The surrogate equals a Pyro program whose latent sites are the two noises: their densities cancel."""
    heads, x, particles = Identity(), T([0.1, 0.2]), 3000
    half = torch.full((2,), 0.05)

    def noises() -> tuple[torch.Tensor, torch.Tensor]:
        k = pyro.sample("k", Epanechnikov(torch.zeros(2), torch.ones(2), validate_args=False).to_event(1))
        u = pyro.sample("u", dist.Uniform(-half, half, validate_args=False).to_event(1))
        return k, u

    def model() -> None:
        pyro.module("heads", heads)
        with pyro.plate("draws", particles), pyro.poutine.scale(scale=1.0 / particles):
            k, u = noises()
            z = BANDWIDTH * (heads.loc + heads.log_scale.exp() * k) + u
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.expand(particles, 2))
        pyro.factor("reg", -(3 * 0.1 / (5 * 100)) * (-heads.log_scale).exp().sum())

    def guide() -> None:
        pyro.module("heads", heads)
        with pyro.plate("draws", particles), pyro.poutine.scale(scale=1.0 / particles):
            noises()

    gradients: dict[str, torch.Tensor] = {}

    class Keep(pyro.optim.PyroOptim):
        def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
            gradients.update({name: p.grad.clone() for name, p in heads.named_parameters()})

    torch.manual_seed(5)
    loss = SVI(model, guide, Keep(torch.optim.SGD, {"lr": 0.0}), Trace_ELBO()).step()

    heads.zero_grad()
    p = dist.Uniform(-half, half, validate_args=False).to_event(1)
    q = EpanechnikovConvolution(heads.loc[None], heads.log_scale.exp()[None], p.base_dist, BANDWIDTH).to_event(1)
    torch.manual_seed(5)
    z, weights = draw(q, particles)
    ours = -(weights * dist.Normal(z, 1.0).to_event(1).log_prob(x)).sum(0).mean()
    ours = ours + EVAEPenalty(samples=100)(Latents(q, p, z, weights))
    ours.backward(retain_graph=True)
    assert loss == pytest.approx(ours.item(), abs=1e-10)
    assert torch.allclose(gradients["loc"], heads.loc.grad, atol=1e-10)
    assert torch.allclose(gradients["log_scale"], heads.log_scale.grad, atol=1e-10)

    # And both estimate the loss that can be computed by hand.
    exact = 0.5 * ((x - q.mean).square() + q.variance).sum() + math.log(2 * math.pi)
    exact = exact + EVAEPenalty(samples=100)(Latents(q, p, z, weights))
    assert exact.item() == pytest.approx(2.078622341, abs=2e-7)
    assert loss == pytest.approx(exact.item(), abs=0.03)
    by_hand = torch.autograd.grad(exact, list(heads.parameters()))
    assert torch.allclose(by_hand[0], T([0.0286, -0.2269]), atol=5e-5)
    assert torch.allclose(by_hand[1], T([0.0252, 0.0466]), atol=5e-5)
    assert torch.allclose(gradients["loc"], by_hand[0], atol=0.01)
    assert torch.allclose(gradients["log_scale"], by_hand[1], atol=0.01)
