"""Normalising flows: as distributions, as posteriors, as priors, and what importing zuko must not do."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, tiny
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.distributions import AffineTransform, ExpTransform, Independent, LogNormal, Normal, StickBreakingTransform

import vaekit as vk
from vaekit.backbones.flows import Autoregressive
from vaekit.distributions import Flow, draw, kl_divergence, stopped
from vaekit.registry import posteriors, priors
from vaekit.testing.contract import fixed, without_gradient

pytestmark = pytest.mark.usefixtures("float64")

POSTERIORS = ("iaf", "spline")
PRIORS = ("spline", "maf")


def base(dimensions: int) -> Independent:
    return Independent(Normal(torch.zeros(dimensions), torch.ones(dimensions)), 1)


def posterior(kind: str, dimensions: int, **options: Any) -> Any:
    return posteriors.build({"name": "flow", "kind": kind, "hidden": [16], **options}, 8, dimensions)


def prior(kind: str, dimensions: int, **options: Any) -> Any:
    return priors.build({"name": "flow", "kind": kind, "hidden": [16], **options}, dimensions)


def widened(module: torch.nn.Module, factor: float) -> Any:
    """A flow further from the identity than a new one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(factor)
    return module


def flows(dimensions: int, factor: float = 1.0) -> list[Flow]:
    """One flow of every kind, without a batch."""
    features = fixed(8, dtype=torch.float64)
    found = [widened(posterior(kind, dimensions), factor)(features, None) for kind in POSTERIORS]
    return found + [widened(prior(kind, dimensions), factor)() for kind in PRIORS]


# ---- what the import leaves behind -----------------------------------------------------------------------------------

CHECK = """
assert torch.distributions.Distribution._validate_args is {validated}
assert isinstance(vars(torch.distributions.Distribution)["arg_constraints"], property)
assert torch.distributions.transforms._InverseTransform.__name__ == "_InverseTransform"
try:
    torch.distributions.Normal(0.0, -1.0)
    torch_refuses = False
except ValueError:
    torch_refuses = True
import pyro
try:
    pyro.distributions.Normal(0.0, -1.0)
    pyro_refuses = False
except ValueError:
    pyro_refuses = True
assert torch_refuses is pyro_refuses is {validated}
assert pyro.poutine.runtime is not None and pyro.settings.get("validate_distributions_pyro") is {of_pyro}
assert "zuko" in __import__("sys").modules
"""
ORDERS = {
    "pyro first": ("import torch, pyro; import vaekit.backbones.flows", True),
    "zuko first": ("import torch, vaekit.backbones.flows; import pyro", True),
    "through a part": ("import torch, vaekit as vk; vk.posteriors.Flow(4, 2)", True),
    "switched off": ("import torch, pyro; pyro.enable_validation(False); import vaekit.backbones.flows", False),
}


@pytest.mark.parametrize("order", ORDERS)
def test_importing_zuko_changes_nobodys_validation(order: str) -> None:
    imports, validated = ORDERS[order]
    code = imports + CHECK.format(validated=validated, of_pyro=validated)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_module_imports_zuko() -> None:
    from test_floors import FILES

    found = [path.name for path in FILES if "import zuko" in (text := path.read_text()) or "from zuko" in text]
    assert found == ["flows.py"]


# ---- the distribution ------------------------------------------------------------------------------------------------


def test_a_known_flow_is_the_log_normal() -> None:
    q = Flow(Independent(Normal(torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.8])), 1), ExpTransform(), (4,))
    exact = LogNormal(torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.8]))
    z = torch.rand(3, 4, 2) + 0.1
    torch.testing.assert_close(q.log_prob(z), exact.log_prob(z).sum(-1))
    assert q.sample((3,)).shape == (3, 4, 2)
    assert q.support.check(z).all()
    assert not q.support.check(-z).any()
    # The points are stratified: the error is far below that of as many draws.
    assert ((q.mean - exact.mean).abs() < 0.25 * (exact.variance / q.moments_from).sqrt()).all()


def test_the_last_draw_is_remembered_and_nothing_else() -> None:
    calls: list[int] = []

    class Counting(AffineTransform):
        def _inverse(self, y: Tensor) -> Tensor:
            calls.append(1)
            return super()._inverse(y)

    q = Flow(base(3), Counting(1.0, 2.0), (5,))
    z = q.rsample((2,))
    remembered = q.log_prob(z)
    q.sample()
    assert q.log_prob(z) is remembered
    assert not calls
    torch.testing.assert_close(q.log_prob(z.clone()), remembered, rtol=0.0, atol=1e-12)
    q.rsample((2,))
    torch.testing.assert_close(q.log_prob(z), remembered, rtol=0.0, atol=1e-12)
    assert len(calls) == 2


@pytest.mark.parametrize("dimensions", [1, 2, 7, 20])
def test_the_remembered_log_density_is_that_of_the_inverse(dimensions: int) -> None:
    for q in flows(dimensions, 1.5):
        z = q.rsample((50,))
        torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()), rtol=0.0, atol=1e-6)
        x = q.base.sample((50,))
        torch.testing.assert_close(q.transform.inv(q.transform(x)), x, rtol=0.0, atol=1e-6)


def test_densities_integrate_to_one_on_a_line() -> None:
    z = torch.linspace(-40.0, 40.0, 160_001).unsqueeze(-1)
    for q in flows(1, 1.5):
        with torch.no_grad():
            total = q.log_prob(z).exp().sum() * 80.0 / 160_000
        assert total.item() == pytest.approx(1.0, abs=1e-4)


def test_densities_integrate_to_one_in_the_plane() -> None:
    for q in flows(2):
        with torch.no_grad():
            z = q.sample((2000,))
            low, high = z.amin(0) - 4 * z.std(0), z.amax(0) + 4 * z.std(0)
            axes = [torch.linspace(low[i].item(), high[i].item(), 401) for i in (0, 1)]
            points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
            total = q.log_prob(points).exp().sum() * ((high - low) / 400).prod()
        assert total.item() == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("dimensions", [2, 20])
def test_a_transform_is_triangular_and_uses_every_dimension(dimensions: int) -> None:
    # 20 dimensions and 8 units: the dimensions go in 8 blocks, and none is lost.
    transform = Autoregressive(dimensions, transforms=1, hidden=(8, 8))()
    jacobian = torch.autograd.functional.jacobian(transform, torch.randn(dimensions))
    assert not jacobian.triu(1).any()
    below = jacobian.tril(-1)
    last_block = max(1, math.ceil(dimensions / 8))
    assert below[:, : -(dimensions % last_block or last_block)].any(0).all(), "a dimension that no other one sees"


def finite_difference(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """The gradient of `loss` along one direction in all parameters, against a central difference."""
    directions = [torch.randn_like(parameter) for parameter in parameters]
    gradients = torch.autograd.grad(loss(), parameters)
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6, 1e-6):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            values.append(loss().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("dimensions", [1, 4])
def test_gradients_of_draws_and_their_kl(kind: str, dimensions: int) -> None:
    module, features, p = posterior(kind, dimensions), fixed(5, 8, dtype=torch.float64), base(dimensions)

    def loss() -> Tensor:
        torch.manual_seed(1)
        q = module(features, p)
        drawn = draw(q, 2)
        return (drawn.z.square().sum(-1) * drawn.weights).sum(0).mean() + kl_divergence(q, p, drawn).mean()

    finite_difference(loss, list(module.parameters()))


@pytest.mark.parametrize("kind", POSTERIORS)
def test_gradients_of_the_density_of_other_values(kind: str) -> None:
    module, features = posterior(kind, 4), fixed(5, 8, dtype=torch.float64)
    z = fixed(5, 4, dtype=torch.float64, seed=1).requires_grad_()
    finite_difference(lambda: module(features, None).log_prob(z).mean(), [*module.parameters(), z])


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("dimensions", [1, 4])
def test_gradients_of_a_prior(kind: str, dimensions: int) -> None:
    module, z = prior(kind, dimensions), fixed(9, dimensions, dtype=torch.float64).requires_grad_()
    finite_difference(lambda: module().log_prob(z).mean(), [*module.parameters(), z])


def test_moments_are_estimates_from_fixed_points() -> None:
    for q in flows(3):
        state = torch.get_rng_state()
        mean, variance = q.mean, q.variance
        assert torch.equal(state, torch.get_rng_state())
        assert not mean.requires_grad
        torch.manual_seed(5)
        assert torch.equal(q.expand((2,)).mean[1], mean)
        z = q.sample((40_000,))
        assert ((z.mean(0) - mean).abs() < 6 * (z.var(0) / q.moments_from).sqrt()).all()
        assert variance.shape == (3,)
        many = Flow(q.base, q.transform, moments_from=40_000)
        assert ((z.mean(0) - many.mean).abs() < 6 * (many.variance * 2 / 40_000).sqrt()).all()
        torch.testing.assert_close(z.var(0), many.variance, rtol=0.1, atol=0.0)


def test_moments_of_a_large_batch_go_in_pieces() -> None:
    loc = torch.randn(700, 64)
    q = Flow(base(64), AffineTransform(loc, 2.0, event_dim=1), (700,))
    assert 64 * loc.numel() > 2**20
    alone = Flow(base(64), AffineTransform(loc[3], 2.0, event_dim=1))
    torch.testing.assert_close(q.mean[3], alone.mean)
    torch.testing.assert_close(q.variance[3], alone.variance)


def test_expand_and_copies() -> None:
    module = posterior("iaf", 3)
    q = module(fixed(5, 8, dtype=torch.float64), None)
    z = q.rsample()
    expanded = q.expand((2, 5))
    assert expanded.sample().shape == (2, 5, 3)
    torch.testing.assert_close(expanded.log_prob(z), q.log_prob(z).expand(2, 5))
    assert expanded.mask(False).log_prob(expanded.sample()).shape == (2, 5)
    with torch.no_grad():
        q = module(fixed(5, 8, dtype=torch.float64), None)
    drawn = q.rsample()
    assert drawn.requires_grad
    twin = copy.deepcopy(q)  # what it draws carries a gradient and cannot be copied
    torch.testing.assert_close(twin.log_prob(drawn), q.log_prob(drawn), rtol=0.0, atol=1e-10)
    assert twin._drawn is None


def test_what_no_flow_can_be_made_of() -> None:
    with pytest.raises(vk.VaekitError, match="base of a flow needs independent dimensions"):
        Flow(Normal(torch.zeros(3), 1.0), ExpTransform())
    with pytest.raises(vk.VaekitError, match="base of a flow needs independent dimensions"):
        Flow(base(3).expand((2,)), ExpTransform())
    with pytest.raises(vk.VaekitError, match="StickBreakingTransform is none"):
        Flow(base(3), type("StickBreakingTransform", (StickBreakingTransform,), {"bijective": False})())
    with pytest.raises(vk.VaekitError, match="moments_from must be 2 or more"):
        Flow(base(3), ExpTransform(), moments_from=1)


def test_its_parameters_cannot_be_held_fixed() -> None:
    with pytest.raises(vk.VaekitError, match="the parameters of Flow cannot be held fixed: use the estimator 'auto'"):
        stopped(flows(2)[0])


# ---- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transforms": 0}, "transforms = 0 of a flow"),
        ({"hidden": []}, "hidden of a flow is empty"),
        ({"hidden": [8, 0]}, r"hidden\[1\] = 0 of a flow"),
        ({"bins": 1}, "bins = 1 of a flow"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    for build in (posterior, prior):
        with pytest.raises(vk.VaekitError, match=words):
            build("spline", 3, **options)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_every_parameter_gets_a_gradient_in_few_dimensions(dimensions: int) -> None:
    for kind in POSTERIORS:
        module, p = posterior(kind, dimensions), base(dimensions)
        q = module(fixed(64, 8, dtype=torch.float64), p)
        drawn = draw(q)
        assert not without_gradient(module, drawn.z.pow(3).mean() + kl_divergence(q, p, drawn).mean()), kind
    for kind in PRIORS:
        module = prior(kind, dimensions)
        assert not without_gradient(module, module().log_prob(fixed(64, dimensions, dtype=torch.float64)).mean()), kind


@pytest.mark.parametrize("kind", POSTERIORS)
def test_float32_at_a_real_size(kind: str) -> None:
    module = posteriors.build({"name": "flow", "kind": kind}, 64, 512).float()
    q = module(10 * fixed(256, 64), None)
    z = q.rsample()
    loss = q.log_prob(z).mean() + z.square().sum(-1).mean()
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():
        q = module(fixed(256, 64), None)
        z = q.rsample()
        torch.testing.assert_close(q.log_prob(z.clone()), q.log_prob(z), rtol=1e-4, atol=1e-2)


def test_printing_a_flow_draws_nothing() -> None:
    module, state = posterior("iaf", 3), torch.get_rng_state()
    assert "Autoregressive(3, context=8, univariate='affine', transforms=2)" in repr(module)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("recipe", ["iaf-vae", "flow-prior"])
def test_a_recipe_is_an_ordinary_pyro_program(recipe: str) -> None:
    pyro.clear_param_store()
    model, objective = (part.double() for part in built(tiny(recipe, regularizers={"kl": {"weight": 1.0}})))
    x = torch.rand(8, 1, 8, 8)
    torch.manual_seed(3)
    (phase,) = objective.phases(model, x, 0, {"vae": model})
    phase.loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    found: dict[str, Tensor] = {}

    class Recorder(pyro.optim.PyroOptim):
        def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
            found.update({name: parameter.grad.clone() for name, parameter in model.named_parameters()})

    torch.manual_seed(3)
    elbo = SVI(model.model, model.guide, Recorder(torch.optim.SGD, {"lr": 0.0}), Trace_ELBO()).step(x)
    assert elbo == pytest.approx(phase.loss.item(), rel=1e-9)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9, msg=name)


def test_doubly_reparameterised_gradients_are_refused() -> None:
    config = tiny("iaf-vae", objective={"name": "iwae", "estimator": "dreg"}, regularizers={"kl": None})
    model, objective = (part.double() for part in built(config))
    with pytest.raises(vk.VaekitError, match="cannot be held fixed"):
        objective.prepare(model, 10)


def test_a_learned_density_fits_two_clusters() -> None:
    torch.manual_seed(0)
    z = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([[-2.0, 1.0], [2.0, -1.0]]), 0.3).to_event(1)
    )
    data = z.sample((512,))
    for kind, least in (("spline", 0.25), ("maf", 0.6)):
        module = prior(kind, 2, transforms=2)
        optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)
        for _ in range(150):
            loss = -module().log_prob(data).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # The entropy of the data is the least that the loss can be; one Gaussian is at 1.6 nats above it.
        assert loss.item() < -z.log_prob(data).mean().item() + least, kind
