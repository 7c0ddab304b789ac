"""The objective: who gets which gradient, what the weights do, what a loss may be called."""

from __future__ import annotations

import pytest
import torch
from helpers import built, random_images, tiny

import vaekit as vk
from vaekit.training.trainer import Trainer


def step(model: vk.VAE, objective: vk.Objective, x: torch.Tensor, at: int = 0) -> list:
    torch.manual_seed(1)
    return list(objective.phases(model, x, at, {"vae": model, "discriminator": objective.adversary.discriminator}))


def images() -> torch.Tensor:
    return torch.rand(8, 1, 8, 8) * 2 - 1


def test_each_phase_reaches_its_own_network_only() -> None:
    model, objective = built(tiny("gamix"))
    discriminator = objective.adversary.discriminator
    vae_phase, d_phase = step(model, objective, images())
    vae_phase.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in discriminator.parameters())
    model.zero_grad()
    d_phase.loss.backward()
    assert all(p.grad is not None for p in discriminator.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_the_discriminator_sees_the_forward_pass_of_the_vae() -> None:
    """The author's simultaneous update: one forward, both gradients from it."""
    model, objective = built(tiny("gamix"))
    seen: list[torch.Tensor] = []
    objective.adversary.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    x = images()
    step(model, objective, x)
    in_vae_phase, real, in_discriminator_phase = seen
    assert torch.equal(in_vae_phase, in_discriminator_phase)
    assert torch.equal(real, x)


def test_start_step() -> None:
    model, objective = built(tiny("gamix", adversary={"start_step": 3}))
    assert [phase.name for phase in step(model, objective, images(), at=2)] == ["vae"]
    assert [phase.name for phase in step(model, objective, images(), at=3)] == ["vae", "discriminator"]


def test_adaptive_weight_balances_gradients_on_the_last_layer() -> None:
    unit = {"error_weight": 64.0}  # scale 1: the adaptive factor stays below its ceiling
    config = tiny("gamix", adversary={"adaptive": True, "weight": 1.0}, likelihood=unit)
    model, objective = built(config)
    x = images()
    vae_phase, _ = step(model, objective, x)
    _, plain = built(tiny("gamix", adversary=None, likelihood=unit))
    torch.manual_seed(1)
    (plain_phase,) = plain.phases(model, x, 0, {"vae": model})
    of_sum, of_plain = (
        torch.autograd.grad(phase.loss, model.last_layer, retain_graph=True)[0] for phase in (vae_phase, plain_phase)
    )
    # What the adversary adds on the last layer is as long as the reconstruction's gradient.
    assert (of_sum - of_plain).norm().item() == pytest.approx(of_plain.norm().item(), rel=0.05)


def test_weights_of_draws_reach_the_adversary() -> None:
    """A stratified draw of tiny probability moves nothing, the adversary included.

    Not with batch norm, whose statistics are taken over all draws alike.
    """
    norms = {"backbone": {"norm": "group"}, "adversary": {"discriminator": {"norm": "none"}}}
    model, objective = built(tiny("gamix", **norms))
    with torch.no_grad():
        model.posterior.logits.weight.zero_()
        model.posterior.logits.bias.copy_(torch.tensor([50.0, -50.0]))
    vae_phase, _ = step(model, objective, images())
    (loc,) = torch.autograd.grad(vae_phase.loss, model.posterior.loc.bias)
    first, second = loc.chunk(2)
    assert second.abs().max() < 1e-6 * first.abs().max()


def test_r1_is_the_squared_slope_on_real_samples() -> None:
    model, objective = built(tiny("gamix", adversary={"r1": 2.0, "discriminator": {"norm": "none"}}))
    x = images()
    _, phase = step(model, objective, x)
    real = x.clone().requires_grad_()
    slope = torch.autograd.grad(objective.adversary.discriminator(real).sum(), real)[0]
    assert phase.terms["r1"].item() == pytest.approx(slope.square().flatten(1).sum(1).mean().item(), rel=1e-5)
    weighted = 100.0 * phase.terms["discriminator"] + 0.5 * 2.0 * phase.terms["r1"]
    assert phase.loss.item() == pytest.approx(weighted.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ({}, "negative ELBO"),
        ({"regularizers": {"kl": {"weight": 4.0}}}, "surrogate loss"),
        ({"regularizers": {"kl": {"free_bits": 2.0}}}, "surrogate loss"),
        ({"regularizers": {"kl": {"weight": {"name": "linear", "steps": 5}}}}, "surrogate loss"),
        ({"regularizers": {"kl": None}}, "surrogate loss"),
        ({"regularizers": {"variance_collapse": {}}}, "surrogate loss"),
        ({"adversary": {"weight": 1.0}}, "surrogate loss"),
    ],
)
def test_only_a_bound_is_called_elbo(overrides: dict, label: str) -> None:
    assert built(tiny("vae", **overrides))[1].label == label


def test_gamix_is_never_called_an_elbo() -> None:
    for recipe in ("gamix", "gamix-small"):
        assert built(tiny(recipe))[1].label == "surrogate loss"


@pytest.mark.parametrize("overrides", [{}, {"adversary": {"adaptive": True, "weight": 0.5, "r1": 1.0}}])
def test_bf16_trains_and_keeps_densities_in_float32(overrides: dict) -> None:
    model, objective = built(tiny("gamix", **overrides))
    dtypes: set[torch.dtype] = set()
    objective.regularizers["population_kl"].register_forward_pre_hook(
        lambda _, inputs: dtypes.update({inputs[0].z.dtype, inputs[0].q.mean.dtype})
    )
    networks: set[torch.dtype] = set()
    model.encoder.register_forward_hook(lambda *arguments: networks.add(arguments[2].dtype))
    trainer = Trainer(max_steps=3, precision="bf16", accelerator="cpu", log_every=1, clip=1.0)
    fit = trainer.fit(model, objective, random_images(32), batch_size=8)
    assert dtypes == {torch.float32}
    assert torch.bfloat16 in networks
    assert all(torch.isfinite(torch.tensor(v)) for line in fit.metrics for v in line.values() if isinstance(v, float))


def test_overfits_eight_images() -> None:
    data = random_images(12)
    model, objective = built(tiny("gamix", latent_dim=16, backbone={"width": 16}, adversary=None))
    optimizer = {"name": "adam", "lr": 3e-3}
    trainer = Trainer(epochs=300, optimizer=optimizer, accelerator="cpu", sample_every=0, log_every=50)
    lines = [line for line in trainer.fit(model, objective, data, batch_size=9).metrics if line["split"] == "train"]
    errors = [(line["reconstruction"] - 64 * torch.log(torch.tensor(2 * 0.0128)).item()) / 5000 for line in lines]
    assert errors[-1] < 0.4 * errors[0], errors


@pytest.mark.parametrize(
    ("likelihood", "binarize", "logged"),
    [
        ("bernoulli", False, False),
        ("bernoulli", True, True),
        ("gaussian", False, True),
        ("gaussian", True, False),
        ("discretized_logistic", False, True),
    ],
)
def test_bits_per_dimension_are_logged_where_they_mean_something(likelihood: str, binarize: bool, logged: bool) -> None:
    model, objective = built(tiny("vae", likelihood=likelihood))
    trainer = Trainer(max_steps=2, log_every=2, accelerator="cpu")
    lines = trainer.fit(model, objective, random_images(24), batch_size=8, binarize=binarize).metrics
    assert {line["split"] for line in lines} == {"train", "valid"}
    assert all(("bits_per_dim" in line) == logged for line in lines)


def test_ema_is_what_is_evaluated_and_kept() -> None:
    model, objective = built(tiny("vae"))
    fit = Trainer(max_steps=6, ema=0.9, accelerator="cpu").fit(model, objective, random_images(32), batch_size=8)
    assert fit.model is not model
    own, averaged = (torch.cat([p.flatten() for p in m.parameters()]) for m in (model, fit.model))
    assert not torch.equal(own, averaged)
    assert torch.allclose(own, averaged, atol=0.05)


def test_the_negative_elbo_is_logged_beside_a_loss_that_weights_the_kl() -> None:
    model, objective = built(tiny("beta-vae"))
    (phase,) = objective.phases(model, images().sigmoid(), 0, {"vae": model})
    terms = phase.terms
    torch.testing.assert_close(terms["negative_elbo"], terms["reconstruction"] + terms["kl"])
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 4.0 * terms["kl"])
    model, objective = built(tiny("vae"))
    (phase,) = objective.phases(model, images().sigmoid(), 0, {"vae": model})
    assert "negative_elbo" not in phase.terms, "the loss says it already"


def test_relaxed_draws_give_no_negative_elbo() -> None:
    model, objective = built(tiny("pvae", posterior={"temperature": 0.5}, regularizers={"kl": {"weight": 0.5}}))
    (phase,) = objective.phases(model, images().sigmoid(), 0, {"vae": model})
    assert "negative_elbo" not in phase.terms
    _, _, terms = objective.evaluate(objective.run(model.eval(), images().sigmoid()), images().sigmoid())
    assert "negative_elbo" in terms
    notes = model.notes()
    assert any("relaxed" in note for note in notes)
    assert any("constant" in note for note in notes)


def test_walks_on_a_sphere_stay_on_it() -> None:
    model, _ = built(tiny("hyperspherical-vae"))
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vk.evaluation.interpolate(model, images().sigmoid(), images().sigmoid(), steps=5)
    torch.testing.assert_close(seen[0].norm(dim=-1), torch.ones(40))


@pytest.mark.parametrize("recipe", ["pvae", "categorical-vae", "hyperspherical-vae"])
def test_no_gaussian_stands_for_counts_categories_or_directions(recipe: str) -> None:
    run = vk.recipe(recipe)
    with pytest.raises(vk.VaekitError, match="no Gaussian draws"):
        run.sample(4, "aggregate-gaussian")


def test_a_sampled_kl_is_said_to_be_one() -> None:
    for posterior, sampled in (("gaussian", False), ("gmm", True)):
        model, objective = built(tiny("vae", posterior={"name": posterior}))
        objective.prepare(model, 10)
        assert any("no closed form" in note for note in objective.notes(64, 4)) is sampled
    assert any("as was asked" in note for note in vk.regularizers.KL(estimator="sampled").notes(64, 4))
