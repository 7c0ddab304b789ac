"""The Gaussian and mixture posteriors, the standard normal and mixture priors."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from vaekit import distributions
from vaekit.distributions import draw, kl_divergence, log_variance_to_scale
from vaekit.errors import VaekitError
from vaekit.posteriors import Gaussian
from vaekit.posteriors import GaussianMixture as MixturePosterior
from vaekit.priors import GaussianMixture as MixturePrior
from vaekit.priors import StandardNormal
from vaekit.registry import posteriors, priors

POSTERIORS = [{"name": "gaussian"}] + [
    {"name": "gmm", "components": components, "estimator": estimator}
    for components in (1, 3)
    for estimator in ("stratified", "pathwise", "score")
]


@pytest.mark.parametrize("spec", POSTERIORS, ids=str)
def test_posterior_gives_a_distribution_and_every_parameter_a_gradient(spec: dict[str, object]) -> None:
    posterior = posteriors.build(spec, 16, 5)
    prior = StandardNormal(5)()
    q = posterior(torch.randn(8, 16), prior)
    assert q.batch_shape == (8,)
    assert q.event_shape == (5,)
    z, weights = draw(q, 2)
    assert z.shape[0] == 2 * posterior.passes
    ((weights * z.square().sum(-1)).sum(0) + kl_divergence(q, prior, (z, weights))).sum().backward()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("spec", POSTERIORS, ids=str)
def test_posterior_is_float32_for_bfloat16_features_and_weights(spec: dict[str, object]) -> None:
    posterior = posteriors.build(spec, 16, 5)
    prior = StandardNormal(5).bfloat16()()
    assert prior.sample().dtype == torch.float32
    for module in (posterior, posterior.bfloat16()):
        q = module(torch.randn(8, 16).bfloat16(), prior)
        assert q.rsample().dtype == q.log_prob(q.sample()).dtype == torch.float32


def test_posterior_keeps_float64() -> None:
    q = MixturePosterior(16, 5).double()(torch.randn(8, 16).double(), StandardNormal(5).double()())
    assert q.rsample().dtype == torch.float64


def test_one_component_is_the_gaussian_posterior() -> None:
    gaussian, mixture = Gaussian(16, 5), MixturePosterior(16, 5, components=1)
    shapes = [{name: p.shape for name, p in module.named_parameters()} for module in (gaussian, mixture)]
    assert shapes[0] == shapes[1]
    mixture.load_state_dict(gaussian.state_dict())
    features, prior = torch.randn(8, 16), StandardNormal(5)()
    results = []
    for posterior in (gaussian, mixture):
        torch.manual_seed(2)
        q = posterior(features, prior)
        results.append((q.rsample(), kl_divergence(q, prior)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("reinitialise", [False, True])
def test_components_start_apart(reinitialise: bool) -> None:
    posterior = MixturePosterior(64, 32, components=4)
    if reinitialise:
        for module in posterior.children():
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    q = posterior(torch.randn(8, 64), StandardNormal(32)())
    distances = (q.loc.unsqueeze(1) - q.loc.unsqueeze(2)).norm(dim=-1) + 10.0 * torch.eye(4)
    assert distances.min() > 0.5


def test_state_dict_round_trip_without_pickled_code(tmp_path: object) -> None:
    from safetensors.torch import load_file, save_file

    for module in (MixturePosterior(16, 5), Gaussian(16, 5), MixturePrior(5), StandardNormal(5)):
        state = module.state_dict()
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        path = f"{tmp_path}/state.safetensors"
        save_file(state, path)
        module.load_state_dict(load_file(path))
    assert StandardNormal(5).state_dict() == {}, "the buffer only follows the device"


@pytest.mark.parametrize("values", [torch.tensor([-1e4, -20.0, -3.0, 0.0, 2.0, 50.0, 1e4])])
def test_soft_clamp_is_near_the_identity_inside_and_bounded_outside(values: torch.Tensor) -> None:
    values = values.requires_grad_()
    clamped = 2.0 * log_variance_to_scale(values, (-10.0, 4.0)).log()
    assert (clamped >= -10.001).all()
    assert (clamped <= 4.001).all()
    assert clamped[2].item() == pytest.approx(-3.0, abs=2e-3)
    assert clamped[3].item() == pytest.approx(0.0, abs=2e-2)
    (gradient,) = torch.autograd.grad(clamped.sum(), values)
    assert gradient.isfinite().all()
    assert torch.equal(log_variance_to_scale(values, None), (0.5 * values).exp())


def test_wrong_options_are_refused() -> None:
    with pytest.raises(VaekitError, match="1 or more components"):
        MixturePosterior(16, 5, components=0)
    with pytest.raises(VaekitError, match="must rise"):
        Gaussian(16, 5, log_variance_range=(4.0, -10.0))
    with pytest.raises(VaekitError, match="1 or more components"):
        MixturePrior(5, components=0)
    with pytest.raises(VaekitError, match="scale above 0"):
        MixturePrior(5, scale=0.0)
    with pytest.raises(VaekitError, match="estimator"):
        posteriors.build({"name": "gmm", "estimator": "pathwize"}, 16, 5)


@pytest.mark.parametrize("name", ["standard_normal", "gaussian_mixture"])
def test_prior_has_the_contract_shapes(name: str) -> None:
    prior = priors.build(name, 5)
    p = prior()
    assert p.batch_shape == ()
    assert p.event_shape == (5,)
    assert p.log_prob(p.sample((7, 3))).shape == (7, 3)


def test_standard_normal_follows_its_module() -> None:
    prior = StandardNormal(3).double()
    assert prior().sample().dtype == torch.float64
    assert StandardNormal(3).to("meta").origin.device.type == "meta"
    assert list(prior.parameters()) == []


def test_mixture_prior_is_learned_and_starts_as_asked() -> None:
    torch.manual_seed(0)
    prior = MixturePrior(200, components=6, spread=3.0, scale=0.5)
    p = prior()
    assert isinstance(p, distributions.GaussianMixture)
    assert torch.allclose(p.component_probs, torch.full((6,), 1 / 6))
    assert torch.allclose(p.scale, torch.full((6, 200), 0.5))
    assert p.loc.std().item() == pytest.approx(3.0, rel=0.1)
    q = dist.Normal(torch.randn(8, 200), torch.ones(8, 200)).to_event(1)
    kl_divergence(q, p, draw(q, 2)).mean().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_no_validation_in_the_forward_pass() -> None:
    q = MixturePosterior(16, 5)(torch.full((2, 16), float("nan")), StandardNormal(5)())
    assert q.log_prob(torch.zeros(2, 5)).isnan().all(), "a check of the values would wait for the device"
    q = Gaussian(16, 5)(torch.full((2, 16), float("nan")), StandardNormal(5)())
    assert q.log_prob(torch.zeros(2, 5)).isnan().all()
