"""GaussianMixture: densities, moments, the sampler, and the gradients of every estimator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

from vaekit.distributions import Draws, GaussianMixture, as_mixture, draw, exponentials
from vaekit.errors import VaekitError
from vaekit.registry import posteriors

ESTIMATORS = ("stratified", "pathwise", "score")


def one_dimensional() -> GaussianMixture:
    logits = torch.tensor([0.3, 0.7]).log()
    return GaussianMixture(logits, torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.5], [1.5]]))


def two_dimensional() -> GaussianMixture:
    loc = torch.tensor([[0.0, 0.0], [2.0, -1.0], [-3.0, 1.0]])
    scale = torch.tensor([[1.0, 1.0], [0.5, 2.0], [1.5, 0.3]])
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]).log(), loc, scale)


def random_parameters(*batch: int, components: int = 3, dimensions: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*batch, components, dimensions)
    return torch.randn(*batch, components), torch.randn(shape), (0.3 * torch.randn(shape)).exp()


# ---- densities and moments ------------------------------------------------------------------------------------------


def test_log_prob_agrees_with_the_oracles(float64: None) -> None:
    values = one_dimensional().log_prob(torch.tensor([[-1.0], [2.5], [30.0]]))
    expected = torch.tensor([-1.3296828536, -1.73663414078, -175.903300807])
    assert torch.allclose(values, expected, atol=5e-10, rtol=1e-11)
    values = two_dimensional().log_prob(torch.tensor([[0.0, 0.0], [2.0, -1.0], [10.0, 10.0]]))
    expected = torch.tensor([-3.44483396263, -2.49871776728, -103.447314979])
    assert torch.allclose(values, expected, atol=5e-10, rtol=1e-11)


def test_moments_agree_with_the_oracles(float64: None) -> None:
    q = one_dimensional()
    assert torch.allclose(torch.cat([q.mean, q.variance]), torch.tensor([1.1, 3.54]), atol=1e-12)
    q = two_dimensional()
    assert torch.allclose(q.mean, torch.tensor([0.1, -0.2]), atol=1e-12)
    assert torch.allclose(q.variance, torch.tensor([5.69, 2.987]), atol=1e-12)
    assert torch.allclose(q.stddev.square(), q.variance, atol=1e-12)


def test_log_prob_agrees_with_torch_for_batches(float64: None) -> None:
    logits, loc, scale = random_parameters(4, 2)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1)
    )
    q = GaussianMixture(logits, loc, scale)
    z = torch.randn(5, 4, 2, 3)
    assert torch.allclose(q.log_prob(z), reference.log_prob(z), atol=1e-12)
    assert torch.allclose(q.mean, reference.mean, atol=1e-12)
    assert torch.allclose(q.variance, reference.variance, atol=1e-12)
    assert torch.allclose(q.component_probs, q.log_probs.exp(), atol=1e-15)


def test_entropy_lies_between_its_bounds(float64: None) -> None:
    low, high = one_dimensional().entropy_bounds()
    assert low <= 1.94028921438 <= high
    q = GaussianMixture(torch.randn(3), 100.0 * torch.randn(3, 4), torch.ones(3, 4))
    z = q.sample((20000,))
    low, high = q.entropy_bounds()
    assert torch.allclose(high, -q.log_prob(z).mean(), atol=0.1), "separated components reach the upper bound"
    assert low < high


# ---- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_shape", [(), (5,), (5, 2)])
@pytest.mark.parametrize("batch_shape", [(), (4,), (4, 3)])
def test_shapes_and_gradients_of_rsample(sample_shape: tuple[int, ...], batch_shape: tuple[int, ...]) -> None:
    parameters = [t.requires_grad_() for t in random_parameters(*batch_shape, components=4, dimensions=6)]
    q = GaussianMixture(*parameters)
    assert q.batch_shape == batch_shape
    assert q.event_shape == (6,)
    assert not q.sample(sample_shape).requires_grad
    z = q.rsample(sample_shape)
    assert z.shape == sample_shape + batch_shape + (6,)
    assert q.log_prob(z.detach()).shape == sample_shape + batch_shape
    gradients = torch.autograd.grad(z.square().sum(), parameters)
    for name, parameter, gradient in zip(("logits", "loc", "scale"), parameters, gradients, strict=True):
        assert gradient.shape == parameter.shape, name
        assert gradient.abs().sum() > 0, name


def test_several_draws_have_the_sum_of_their_gradients(float64: None) -> None:
    parameters = [t.requires_grad_() for t in random_parameters(4)]
    expanded = [t.expand(5, *t.shape) for t in parameters]
    gradients = []
    for q, shape in ((GaussianMixture(*parameters), (5,)), (GaussianMixture(*expanded), ())):
        torch.manual_seed(3)
        gradients.append(torch.autograd.grad(q.rsample(shape).sin().sum(), parameters))
    for name, first, second in zip(("logits", "loc", "scale"), *gradients, strict=True):
        assert torch.allclose(first, second, atol=1e-12), name


def test_expand_keeps_parameters_and_estimator() -> None:
    q = GaussianMixture(*random_parameters(4), estimator="score", validate_args=False)
    wide = q.expand((7, 4))
    assert wide.batch_shape == (7, 4)
    assert wide.estimator == "score"
    assert wide.rsample((2,)).shape == (2, 7, 4, 3)
    z = wide.sample()
    assert torch.equal(wide.log_prob(z), q.log_prob(z))
    assert torch.equal(wide.mean[3], q.mean)


def test_parameters_broadcast_and_half_precision_becomes_float32() -> None:
    q = GaussianMixture(torch.zeros(3, dtype=torch.bfloat16), torch.randn(4, 3, 2).bfloat16(), torch.ones(3, 2))
    assert q.batch_shape == (4,)
    assert q.rsample().dtype == q.log_prob(q.sample()).dtype == torch.float32


@pytest.mark.parametrize("shapes", [((3,), (3,), (3,)), ((2,), (4, 3, 5), (4, 3, 5)), ((3,), (3, 5), (3, 4))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(VaekitError, match="needs logits"):
        GaussianMixture(*(torch.ones(shape) for shape in shapes))


def test_unknown_estimator_and_no_draws_are_refused() -> None:
    with pytest.raises(VaekitError, match="did you mean 'pathwise'"):
        GaussianMixture(*random_parameters(), estimator="pathwize")  # type: ignore[arg-type]
    with pytest.raises(VaekitError, match="1 or more"):
        GaussianMixture(*random_parameters()).draws(0)


def test_invalid_parameters_are_refused_when_validation_is_on() -> None:
    with pytest.raises(ValueError, match="scale"):
        GaussianMixture(torch.zeros(2), torch.zeros(2, 3), -torch.ones(2, 3), validate_args=True)


def test_as_mixture_views_gaussians_and_refuses_the_rest() -> None:
    for module in (dist, torch.distributions):
        q = torch.distributions.Independent(module.Normal(torch.randn(4, 3), torch.ones(4, 3)), 1)
        log_probs, loc, scale = as_mixture(q)
        assert log_probs.shape == (4, 1)
        assert log_probs.abs().sum() == 0
        assert loc.shape == scale.shape == (4, 1, 3)
    q = GaussianMixture(*random_parameters(4))
    assert [t.shape for t in as_mixture(q)] == [(4, 3), (4, 3, 3), (4, 3, 3)]
    assert torch.allclose(as_mixture(q)[0].exp().sum(-1), torch.ones(4))
    for other in (dist.Normal(0.0, 1.0), dist.Laplace(torch.zeros(3), 1.0).to_event(1)):
        with pytest.raises(VaekitError, match="Gaussian mixture is needed"):
            as_mixture(other)


# ---- the sampler ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_draws_have_the_moments_of_the_mixture(estimator: str, float64: None) -> None:
    q = GaussianMixture(*random_parameters(2), estimator=estimator)
    z, weights = q.draws(40000)
    assert torch.allclose(weights.sum(0), torch.ones(2), atol=1e-9)
    mean = (weights.unsqueeze(-1) * z).sum(0)
    variance = (weights.unsqueeze(-1) * (z - mean).square()).sum(0)
    assert torch.allclose(mean, q.mean, atol=0.05)
    assert torch.allclose(variance, q.variance, atol=0.08)


@pytest.mark.parametrize("estimator", ["pathwise", "score"])
def test_sampler_passes_the_kolmogorov_smirnov_test(estimator: str, float64: None) -> None:
    q = GaussianMixture(*vars_of(two_dimensional()), estimator=estimator)
    z = q.draws(20000).z

    def cdf(values: Tensor, dimension: int) -> Tensor:
        standard = (torch.as_tensor(values)[:, None] - q.loc[:, dimension]) / q.scale[:, dimension]
        return (q.component_probs * torch.special.ndtr(standard)).sum(-1)

    for dimension in range(2):
        result = stats.kstest(z[:, dimension].numpy(), lambda v, d=dimension: cdf(v, d).numpy())
        assert result.pvalue > 1e-3, f"dimension {dimension}: {result}"


def vars_of(q: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    return q.logits, q.loc, q.scale


# ---- one component is the Gaussian -----------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_component_equals_the_gaussian(estimator: str, float64: None) -> None:
    loc, log_scale = torch.randn(4, 3).requires_grad_(), torch.randn(4, 3).requires_grad_()
    gaussian = dist.Normal(loc, log_scale.exp()).to_event(1)
    one = torch.randn(4, 1, requires_grad=True)
    mixture = GaussianMixture(one, loc.unsqueeze(1), log_scale.exp().unsqueeze(1), estimator=estimator)
    results = []
    for q in (gaussian, mixture):
        torch.manual_seed(1)
        z, weights = draw(q, 5)
        value = (weights * (z.sin().sum(-1) + q.log_prob(z))).sum()
        results.append((z, weights, value, *torch.autograd.grad(value, (loc, log_scale))))
    for first, second in zip(*results, strict=True):
        assert torch.allclose(first, second, rtol=1e-12, atol=1e-12)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(mixture.mean, gaussian.mean)
    assert torch.allclose(mixture.variance, gaussian.variance)
    for bound in mixture.entropy_bounds():
        assert torch.allclose(bound, gaussian.entropy(), atol=1e-12)


# ---- unbiasedness ---------------------------------------------------------------------------------------------------


def gradient_by_quadrature(f: Callable[[Tensor], Tensor], parameters: list[Tensor]) -> tuple[Tensor, ...]:
    """Differentiate the integral of q f over a fine grid (the trapezoidal rule is exact to rounding here)."""
    z = torch.linspace(-25.0, 25.0, 20001).unsqueeze(-1)
    q = GaussianMixture(*parameters)
    return torch.autograd.grad((q.log_prob(z).exp() * f(z.squeeze(-1))).sum() * (z[1] - z[0]).item(), parameters)


def gradient_by_draws(
    f: Callable[[Tensor], Tensor], parameters: list[Tensor], estimator: str, count: int, repeats: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the mean and the standard error of the estimated gradients over independent estimates."""
    rows = [t.detach().expand(repeats, *t.shape).clone().requires_grad_() for t in parameters]
    z, weights = GaussianMixture(*rows, estimator=estimator).draws(count)
    gradients = torch.autograd.grad((weights * f(z)).sum(), rows)
    return [g.mean(0) for g in gradients], [g.std(0) / math.sqrt(repeats) for g in gradients]


def assert_within_errors(means: list[Tensor], errors: list[Tensor], exact: tuple[Tensor, ...], case: str) -> None:
    for name, mean, error, truth in zip(("logits", "loc", "scale"), means, errors, exact, strict=True):
        deviation = ((mean - truth).abs() / (error + 1e-9)).max()
        assert deviation < 5.0, f"{case}, {name}: {mean.tolist()} against {truth.tolist()}"


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sine": lambda z: torch.sin(1.3 * z),
    "square": lambda z: z.square(),
    "bump": lambda z: torch.exp(-(z - 0.5).square()),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_unbiased_in_one_dimension(estimator: str, function: str, float64: None) -> None:
    f = FUNCTIONS[function]
    cases = {
        "overlapping": ([0.2, -0.4, 0.1], [-0.8, 0.3, 1.1], [0.7, 1.2, 0.5]),
        "identical": ([0.5, -0.5, 0.0], [0.4, 0.4, 0.4], [0.9, 0.9, 0.9]),
        "nested": ([0.0, 1.0, -1.0], [0.0, 0.1, 0.0], [0.3, 1.0, 2.5]),
    }
    for case, (logits, loc, scale) in cases.items():
        parameters = [torch.tensor(logits), torch.tensor(loc)[:, None], torch.tensor(scale)[:, None]]
        parameters = [t.requires_grad_() for t in parameters]
        exact = gradient_by_quadrature(f, parameters)
        means, errors = gradient_by_draws(lambda z: f(z.squeeze(-1)), parameters, estimator, count=3, repeats=40000)
        assert_within_errors(means, errors, exact, f"{case}, {estimator}")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_unbiased_in_three_dimensions(estimator: str, float64: None) -> None:
    parameters = list(random_parameters())

    def f(z: Tensor) -> Tensor:
        return torch.sin(z[..., 0] + 0.5 * z[..., 1] * z[..., 2]) + torch.cos(z[..., 1] - z[..., 2])

    # Central differences of one large stratified estimate, with the same noise on both sides.
    noise = torch.randn(200000, *parameters[1].shape)

    def expectation(logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        return (logits.softmax(-1) * f(loc + scale * noise)).sum(-1).mean()

    exact = []
    for position, parameter in enumerate(parameters):
        gradient = torch.zeros_like(parameter)
        for index in itertools.product(*(range(size) for size in parameter.shape)):
            values = []
            for step in (1e-3, -1e-3):
                moved = [t.clone() for t in parameters]
                moved[position][index] += step
                values.append(expectation(*moved))
            gradient[index] = (values[0] - values[1]) / 2e-3
        exact.append(gradient)
    means, errors = gradient_by_draws(f, parameters, estimator, count=2, repeats=100000)
    # The reference has an error of its own, about that of 200000 draws.
    errors = [e + 1.0 / math.sqrt(200000) for e in errors]
    assert_within_errors(means, errors, tuple(exact), estimator)


def test_linear_functions_have_the_gradient_of_the_mean(float64: None) -> None:
    parameters = [t.requires_grad_() for t in random_parameters(dimensions=4)]
    q = GaussianMixture(*parameters)
    exact = torch.autograd.grad(q.mean.sum(), parameters[:2])
    means, errors = gradient_by_draws(lambda z: z.sum(-1), parameters, "pathwise", count=1, repeats=100000)
    assert_within_errors(means, errors, (exact[0], exact[1], torch.zeros_like(parameters[2])), "mean")


# ---- the weights of the score estimator ------------------------------------------------------------------------------


def test_score_weights_have_the_value_and_the_leave_one_out_gradient(float64: None) -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    _, loc, scale = random_parameters(4)
    q = GaussianMixture(logits, 50.0 * loc, scale, estimator="score")
    z, weights = q.draws(5)
    assert torch.equal(weights, torch.full((5, 4), 0.2))
    f = torch.randn(5, 4)
    (gradient,) = torch.autograd.grad((weights * f).sum(), logits)
    chosen = (z.unsqueeze(-2) - q.loc).div(q.scale).square().sum(-1).argmin(-1)
    log_probs = logits.log_softmax(-1).expand(5, 4, 3).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    baseline = (f.sum(0) - f) / 4
    (expected,) = torch.autograd.grad((log_probs * (f - baseline)).sum() / 5, logits)
    assert torch.allclose(gradient, expected, atol=1e-12)


def test_single_score_draw_has_no_baseline(float64: None) -> None:
    logits = torch.zeros(2, requires_grad=True)
    q = GaussianMixture(logits, torch.tensor([[-50.0], [50.0]]), torch.ones(2, 1), estimator="score")
    z, weights = q.draws(1)
    assert weights.item() == 1.0
    (gradient,) = torch.autograd.grad(weights.sum(), logits)
    sign = 1.0 if z.item() > 0 else -1.0
    assert torch.allclose(gradient, torch.tensor([-0.5, 0.5]) * sign)


# ---- the relaxed choice ----------------------------------------------------------------------------------------------


def relaxed(temperature: float, parameters: list[Tensor]) -> GaussianMixture:
    return GaussianMixture(*parameters, estimator="gumbel", temperature=temperature)


def test_blends_are_those_of_the_documentation(float64: None) -> None:
    q = relaxed(0.7, list(random_parameters(4)))
    torch.manual_seed(3)
    z, weights = q.draws(2)
    torch.manual_seed(3)
    gumbel = -exponentials((2, 4, 3), z).log()
    y = ((q.logits + gumbel) / 0.7).softmax(-1)
    expected = torch.einsum("sbk,sbkd->sbd", y, q.loc + q.scale * torch.randn(2, 4, 3, 3))
    assert torch.allclose(z, expected, atol=1e-12)
    assert torch.equal(weights, torch.full((2, 4), 0.5))
    assert q.expand((7, 4)).temperature == 0.7


def test_bias_goes_with_the_temperature(float64: None) -> None:
    parameters = [torch.tensor([0.2, -0.4, 0.1]), torch.tensor([[-2.0], [0.3], [2.5]]), torch.full((3, 1), 0.5)]
    parameters = [t.requires_grad_() for t in parameters]
    f = FUNCTIONS["square"]
    exact = torch.cat([g.flatten() for g in gradient_by_quadrature(f, parameters)])
    q = GaussianMixture(*parameters)
    off = []
    for temperature in (2.0, 0.5, 0.05):
        z, _ = relaxed(temperature, parameters).draws(100000)
        off.append((z.var() - q.variance).abs().item())
        rows = [t.detach().expand(100000, *t.shape).clone().requires_grad_() for t in parameters]
        z, weights = relaxed(temperature, rows).draws(1)
        found = torch.autograd.grad((weights * f(z.squeeze(-1))).sum(), rows)
        gradient = torch.cat([g.mean(0).flatten() for g in found])
        off.append((gradient - exact).norm().item())
    variances, gradients = off[::2], off[1::2]
    assert variances[0] > 1.0, "a warm choice blends the components"
    assert variances[2] < 0.1 * variances[0]
    assert gradients[0] > 1.0
    assert gradients[2] < 0.1 * gradients[0]
    assert gradients[2] < gradients[1] < gradients[0]


def test_draws_of_pyro_stay_exact(float64: None) -> None:
    q = relaxed(5.0, list(random_parameters(2)))
    torch.testing.assert_close(q.rsample((40000,)).var(0), q.variance, rtol=0.05, atol=0.0)


def test_cold_choices_are_refused() -> None:
    with pytest.raises(VaekitError, match="temperature"):
        relaxed(0.0, list(random_parameters()))


def test_posterior_relaxes_in_training_alone() -> None:
    features = torch.randn(5, 8)
    module = posteriors.build({"name": "gmm", "estimator": "gumbel", "temperature": LINEAR}, 8, 3)
    assert (module.relaxes, module.passes) == (True, 1)
    assert [module(features, None).temperature for module.step in (0, 2, 4)] == [1.0, 0.75, 0.5]
    assert module(features, None).estimator == "gumbel"
    assert module.eval()(features, None).estimator == "pathwise"
    for options in ({}, {"estimator": "gumbel", "components": 1}):
        assert not posteriors.build({"name": "gmm", **options}, 8, 3).relaxes


LINEAR = {"name": "linear", "start": 1.0, "end": 0.5, "steps": 4}


def test_draws_unify_the_estimators() -> None:
    q = GaussianMixture(*random_parameters(4))
    assert isinstance(q.draws(2), Draws)
    assert draw(q, 2).z.shape == (6, 4, 3), "stratified: every component in every round"
    assert torch.allclose(q.draws(2).weights[3:], q.component_probs.T / 2)
    for estimator in ("pathwise", "score"):
        assert draw(GaussianMixture(*vars_of(q), estimator=estimator), 2).z.shape == (2, 4, 3)


# ---- finite in float32 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [*ESTIMATORS, "gumbel"])
@pytest.mark.parametrize("layout", ["separated", "overlapping", "identical"])
@pytest.mark.parametrize("log_scale", ["-10", "0", "10", "mixed"])
def test_values_and_gradients_are_finite_in_float32(layout: str, log_scale: str, estimator: str) -> None:
    spread = {"separated": 100.0, "overlapping": 0.5, "identical": 0.0}[layout]
    for dimensions, components in ((1, 2), (64, 5), (256, 10), (1024, 10)):
        shape = (8, components, dimensions)
        logits = (3.0 * torch.randn(shape[:-1])).requires_grad_()
        loc = (spread * torch.randn(shape) + 1.0).requires_grad_() if spread else torch.ones(shape).requires_grad_()
        start = (
            torch.empty(shape).uniform_(-10.0, 10.0) if log_scale == "mixed" else torch.full(shape, float(log_scale))
        )
        log_scales = start.requires_grad_()
        q = GaussianMixture(logits, loc, log_scales.exp(), estimator=estimator, validate_args=False)
        z, weights = q.draws(2)
        value = (weights * (z.square().mean(-1) + q.log_prob(z))).sum()
        bounds = sum(bound.sum() for bound in q.entropy_bounds())
        total = value + q.mean.sum() + q.variance.mean() + bounds
        case = f"D={dimensions}, K={components}"
        assert total.isfinite(), case
        for name, gradient in zip(
            ("logits", "loc", "log scale"), torch.autograd.grad(total, (logits, loc, log_scales)), strict=True
        ):
            assert gradient.isfinite().all(), f"{case}: {name}"


def test_identical_components_exchange_no_mass_in_float32() -> None:
    logits = torch.randn(16, 5, requires_grad=True)
    loc, scale = torch.randn(16, 1, 512).expand(16, 5, 512), torch.rand(16, 1, 512).expand(16, 5, 512) + 0.1
    z = GaussianMixture(logits, loc, scale).rsample()
    (gradient,) = torch.autograd.grad(z.sum(), logits)
    assert gradient.abs().max() < 1e-3


def transport(z: Tensor, parameters: list[Tensor], weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The velocity fields of the documentation, pair by pair: gradients of sum(weight * z) at fixed draws z."""
    logits, loc, scale = parameters
    normal = torch.distributions.Normal(loc, scale)
    log_density, z_k = normal.log_prob(z.unsqueeze(-2)), z.unsqueeze(-2)
    prefix = log_density.cumsum(-1) - log_density
    suffix = log_density.sum(-1, keepdim=True) - log_density.cumsum(-1)
    log_probs = logits.log_softmax(-1)
    log_joint = log_probs + log_density.sum(-1)
    log_q = log_joint.logsumexp(-1)[..., None, None]
    flow = (log_joint.unsqueeze(-1) - log_q).exp() * weight.unsqueeze(-2)
    moved = torch.zeros_like(logits)
    for j, k in itertools.product(range(logits.shape[-1]), repeat=2):
        difference = (normal.cdf(z_k)[..., j, :] - normal.cdf(z_k)[..., k, :]) * weight
        rate = (log_probs[..., j] + log_probs[..., k]).unsqueeze(-1)
        moved[..., k] += ((rate + prefix[..., k, :] + suffix[..., j, :] - log_q.squeeze(-1)).exp() * difference).sum(-1)
    return moved, flow, flow * (z_k - loc) / scale


@pytest.mark.parametrize(
    ("dtype", "dimensions", "tolerance"),
    [(torch.float64, 5, 1e-12), (torch.float64, 48, 1e-9), (torch.float32, 48, 1e-3)],
)
def test_pathwise_gradients_are_the_documented_velocity_fields(
    dtype: torch.dtype, dimensions: int, tolerance: float
) -> None:
    parameters = [t.to(dtype).requires_grad_() for t in random_parameters(32, components=4, dimensions=dimensions)]
    z = GaussianMixture(*parameters).rsample()
    weight = torch.randn_like(z)
    gradients = torch.autograd.grad(z, parameters, weight)
    expected = transport(z.detach().double(), [t.detach().double() for t in parameters], weight.double())
    for name, gradient, truth in zip(("logits", "loc", "scale"), gradients, expected, strict=True):
        assert torch.allclose(gradient.double(), truth, rtol=tolerance, atol=tolerance), name
