"""The Poisson VAE: its posterior and prior, the sum of squared errors, the published sizes, training and resuming."""

from __future__ import annotations

import copy
import math
from itertools import product
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, random_images, tiny
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_pyro import same, svi_side, trainer_side
from torch import Tensor, nn

import vaekit as vk
from vaekit.distributions import RelaxedPoisson, events_for
from vaekit.errors import VaekitError
from vaekit.posteriors import poisson as poisson_module
from vaekit.registry import backbones, likelihoods, posteriors, priors

FIXED = {"posterior": {"temperature": 0.5}, "regularizers": {"kl": {"weight": 1.0}}}


def pvae(backbone: Any, shape: tuple[int, ...], latent_dim: int = 512, **posterior: Any) -> vk.VAE:
    networks = backbones.build(backbone)
    encoder = networks.encoder(shape)
    return vk.VAE(
        encoder,
        posteriors.build({"name": "poisson", **posterior}, encoder.features, latent_dim),
        priors.build("poisson", latent_dim),
        networks.decoder(latent_dim, shape),
        likelihoods.build("sum_squared_error", shape),
    )


# ---- the published sizes ---------------------------------------------------------------------------------------------

LINEAR = {"name": "mlp", "hidden": [], "bias": False}


@pytest.mark.parametrize(
    ("backbone", "side", "count"),
    [(LINEAR, 16, 262_656), (LINEAR, 28, 803_328), ("pvae", 16, 1_405_596), ("pvae", 28, 5_432_636)],
)
def test_parameter_counts(backbone: Any, side: int, count: int) -> None:
    model = pvae(backbone, (1, side, side), bias=backbone == "pvae")
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("shape", [(1, 8, 9), (1, 4, 4), (3, 33, 33), (1, 30, 30), (10,)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VaekitError, match="pvae needs square images"):
        backbones.build("pvae").encoder(shape)
    with pytest.raises(VaekitError, match="pvae needs square images"):
        backbones.build("pvae").decoder(3, shape)


@pytest.mark.parametrize("options", [{"width": 0}, {"width": 3}, {"dropout": 1.0}])
def test_wrong_options_of_the_backbone(options: dict[str, Any]) -> None:
    with pytest.raises(VaekitError):
        backbones.build({"name": "pvae", **options})


def test_weight_norm() -> None:
    torch.manual_seed(3)
    conv = backbones.build("pvae").encoder((1, 16, 16)).layers[0]
    x, before = torch.rand(2, 1, 16, 16), conv.direction.clone()
    y = conv(x)
    with torch.no_grad():
        conv.direction.mul_(7.0)
    assert torch.allclose(conv(x), y, atol=1e-5)
    with torch.no_grad():
        conv.direction.copy_(before)
        conv.log_norm.fill_(math.log(2.0))
    bias = conv.bias[:, None, None]
    assert torch.allclose(conv(x) - bias, 2 * (y - bias), atol=1e-5)


# ---- the posterior ---------------------------------------------------------------------------------------------------


def counts(posterior: nn.Module, features: Tensor, log_rate: Tensor) -> RelaxedPoisson:
    return posterior(features, RelaxedPoisson(log_rate, validate_args=False).to_event(1)).base_dist


def test_residual_rates(float64: None) -> None:
    posterior = posteriors.build({"name": "poisson", "max_log_rate": 5.3, "bias": False}, 2, 2)
    with torch.no_grad():
        posterior.log_ratio.weight.copy_(torch.eye(2))
    q = counts(posterior, torch.tensor([[2.0, 30.0]]), torch.tensor([-2.0, 0.5]))
    inner = [10 - math.log1p(math.exp(10 - x)) for x in (2.0, 30.0)]
    outer = [5.3 - math.log1p(math.exp(5.3 - x)) for x in (inner[0] - 2.0, inner[1] + 0.5)]
    assert q.log_rate[0].tolist() == pytest.approx(outer)
    assert q.log_rate.max() < 5.3


def test_evaluation_has_exact_counts_and_training_follows_its_schedule() -> None:
    schedule = {"name": "linear", "start": 1.0, "end": 0.05, "steps": 4}
    posterior = posteriors.build({"name": "poisson", "temperature": schedule, "events": 7}, 3, 2)
    found = []
    for step in range(6):
        posterior.step = step
        found.append(counts(posterior, torch.randn(4, 3), torch.zeros(2)).temperature)
    assert found == pytest.approx([1.0, 0.7625, 0.525, 0.2875, 0.05, 0.05])
    q = counts(posterior.eval(), torch.randn(4, 3), torch.zeros(2))
    z = q.sample((50,))
    assert q.temperature == 0.0
    assert torch.equal(z, z.round())


def test_events_follow_the_rates_every_hundred_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def counted(rate: float) -> int:
        looks.append(rate)
        return events_for(rate)

    monkeypatch.setattr(poisson_module, "events_for", counted)
    posterior = posteriors.build({"name": "poisson", "temperature": 0.5}, 3, 2)
    looks.clear()
    with torch.no_grad():
        posterior.log_ratio.weight.zero_()
    found = {}
    for step in (0, 1, 99, 100, 101, 250):
        posterior.step = step
        rate = 10.0 if step else 1.0
        found[step] = counts(posterior, torch.zeros(4, 3), torch.full((2,), rate).log()).events
    first, second = looks
    assert (first, second) == (pytest.approx(2 * 1.5 * 1.0 + 2, rel=0.4), pytest.approx(2 * 1.5 * 10.0 + 2, rel=0.6))
    assert found[0] == found[1] == found[99] == events_for(first) < found[100] == found[101] == found[250]
    twin = copy.deepcopy(posterior)
    other = posteriors.build({"name": "poisson", "temperature": 0.5}, 3, 2)
    other.load_state_dict(posterior.state_dict())
    for copied in (twin, other):
        copied.step = 1
        assert counts(copied, torch.zeros(4, 3), torch.zeros(2)).events == found[250]


def test_monitor() -> None:
    q = RelaxedPoisson(torch.tensor([[0.5, 2.0, 1.0], [0.7, 4.0, 1.0]]).log()).to_event(1)
    p = RelaxedPoisson(torch.tensor([0.5, 1.0, 1.0]).log()).to_event(1)
    seen = posteriors.build("poisson", 4, 3).monitor(q, p)
    assert seen["metabolic_cost"].item() == pytest.approx((0.5 + 2 + 1 + 0.7 + 4 + 1) / 2)
    assert seen["active_neurons"].item() == pytest.approx(2 / 3)


def test_other_priors_and_wrong_options_are_refused() -> None:
    with pytest.raises(VaekitError, match="poisson"):
        built(tiny("pvae", prior={"name": "standard_normal"}, **FIXED))
    for options in ({"events": 0}, {"init_std": 0.0}):
        with pytest.raises(VaekitError):
            posteriors.build({"name": "poisson", **options}, 3, 2)
    with pytest.raises(VaekitError, match="low to high"):
        priors.build({"name": "poisson", "low": 1.0}, 3)


# ---- the sum of squared errors ---------------------------------------------------------------------------------------


def test_worked_example(float64: None) -> None:
    model = pvae(LINEAR, (2,), 3, temperature=0.0, max_log_rate=500.0, bias=True)
    phi = torch.tensor([[1.0, -0.5, 0.25], [0.5, 2.0, -1.0]])
    rates, prior = torch.tensor([0.5, 2.0, 0.1]), torch.tensor([0.25, 1.0, 0.2])
    log_ratio = (rates / prior).log()
    with torch.no_grad():
        model.decoder.linear.weight.copy_(phi)
        model.posterior.log_ratio.weight.zero_()
        # What the ceiling at 10 makes the ratio of.
        model.posterior.log_ratio.bias.copy_(10 - torch.log(torch.expm1(10 - log_ratio)))
        model.prior.log_rate.copy_(prior.log())
    x = torch.tensor([[1.0, -2.0]])
    objective = vk.Objective({"kl": vk.regularizers.KL()}, exact=True)
    (phase,) = objective.phases(model, x, 0, {"vae": model})
    assert phase.terms["reconstruction"].item() == pytest.approx(49.229375, abs=1e-9)
    assert phase.terms["kl"].item() == pytest.approx(0.513553233344, abs=1e-9)
    assert phase.loss.item() == pytest.approx(49.7429282333, abs=1e-9)
    assert -model.decode(model.encode(x).mean).log_prob(x).item() == pytest.approx(39.998125, abs=1e-9)
    sampled = vk.Objective({"kl": vk.regularizers.KL()}, draws=200_000)
    with torch.no_grad():
        terms = sampled.evaluate(sampled.run(model.eval(), x), x)[2]
    assert terms["reconstruction"].item() == pytest.approx(49.229375, rel=0.01)
    phase.loss.backward()
    missing = [name for name, p in model.named_parameters() if name != "encoder" and p.grad is None]
    assert not missing, "the exact expectation leaves a parameter without gradient"


def test_squared_error_is_a_normal_without_its_constant(float64: None) -> None:
    likelihood, decoded, x = likelihoods.build("sum_squared_error", (3, 2)), torch.randn(4, 3, 2), torch.rand(4, 3, 2)
    p = likelihood(decoded)
    normal = dist.Normal(decoded, math.sqrt(0.5)).to_event(2)
    constant = 3 * math.log(math.pi)
    assert torch.allclose(p.log_prob(x), -(x - decoded).square().sum((1, 2)))
    assert torch.allclose(p.log_prob(x), normal.log_prob(x) + constant)
    assert torch.allclose(p.sample((20_000,)).var(0), torch.full((4, 3, 2), 0.5), atol=0.05)
    gaussian = likelihoods.build({"name": "gaussian", "scale": math.sqrt(0.5)}, (3, 2))
    mean, variance = torch.randn(4, 3, 2), torch.rand(4, 3, 2)
    expected = likelihood.expected_log_prob(mean, variance, x)
    assert torch.allclose(expected, gaussian.expected_log_prob(mean, variance, x) + constant, atol=1e-6)
    bits = (10.0 + constant) / 6 / math.log(2) + math.log2(255)
    assert likelihood.bits_per_dim(10.0) == pytest.approx(bits)


# ---- as a whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "indicator"), [*product(("relaxed", "straight_through"), ("sigmoid", "cubic"))])
def test_svi_is_the_trainer(estimator: str, indicator: str, float64: None) -> None:
    fixed = {**FIXED, "posterior": {"temperature": 0.5, "estimator": estimator, "indicator": indicator, "bias": True}}
    model, objective = (part.double() for part in built(tiny("pvae", **fixed)))
    x = torch.rand(8, 1, 8, 8)
    pyro.clear_param_store()
    same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))
    pyro.clear_param_store()
    same(trainer_side(model, objective, x), svi_side(model, Trace_ELBO(), x, objective.regularization))


def test_exact_is_refused_without_a_linear_decoder() -> None:
    model, objective = built(tiny("pvae-exact", backbone={"hidden": [8]}, regularizers={"kl": {"weight": 1.0}}))
    with pytest.raises(VaekitError, match="linear decoder"):
        objective.prepare(model, 100)


@pytest.mark.parametrize("recipe", ["pvae", "pvae-exact", "pvae-straight-through"])
def test_training_lowers_the_loss(recipe: str, tmp_path: Path) -> None:
    run = vk.recipe(
        recipe,
        out=tmp_path / "run",
        latent_dim=64,
        trainer={"epochs": 12, "sample_every": 0, "accelerator": "cpu", "optimizer": {"lr": 0.02}},
        regularizers={"kl": {"weight": 0.01}},
    )
    fit = run.fit()
    valid = [line for line in fit.metrics if line["split"] == "valid"]
    # A model that says nothing of x can do no better than the variance of the pixels, 4.7.
    assert valid[-1]["reconstruction"] < 4.7
    assert valid[-1]["loss"] < valid[0]["loss"]
    assert valid[-1]["active_neurons"] > 0.3
    assert valid[-1]["metabolic_cost"] > 0
    again = vk.Run.load(tmp_path / "run")
    assert torch.equal(again.model.posterior.get_extra_state(), fit.model.posterior.get_extra_state())
    assert (again.sample(4).tensor.isfinite()).all()


def test_resumes_exactly_with_a_number_of_events_that_follows(tmp_path: Path) -> None:
    def train(out: Path, steps: int, resume: bool = False) -> vk.VAE:
        model, objective = built(tiny("pvae", **FIXED))
        with torch.no_grad():
            model.posterior.log_ratio.weight.mul_(20.0)
        trainer = vk.Trainer(max_steps=steps, epochs=50, accelerator="cpu", seed=3, sample_every=0)
        return trainer.fit(model, objective, random_images(32), batch_size=8, out=out, resume=resume).model

    whole = train(tmp_path / "whole", 9)
    train(tmp_path / "halves", 5)
    halves = train(tmp_path / "halves", 9, resume=True)
    assert whole.posterior.get_extra_state() != posteriors.build("poisson", 3, 2).get_extra_state()
    for (name, mine), other in zip(whole.state_dict().items(), halves.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
