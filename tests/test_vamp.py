"""The VampPrior: a mixture of the model's own posteriors, which the model owns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, random_images, tiny
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

import vaekit as vk
from vaekit import distributions
from vaekit.registry import backbones, likelihoods, posteriors, priors
from vaekit.testing.contract import fixed
from vaekit.training.ema import Averaged


def model(posterior: Any = "gaussian", backbone: Any = None, likelihood: Any = "bernoulli", **prior: Any) -> vk.VAE:
    built_backbone = backbones.build(backbone or {"name": "mlp", "hidden": [16]})
    built_likelihood = likelihoods.build(likelihood, (1, 8, 8))
    encoder = built_backbone.encoder((1, 8, 8))
    return vk.VAE(
        encoder,
        posteriors.build(posterior, encoder.features, 3),
        priors.build({"name": "vamp", "components": 4, **prior}, 3),
        built_backbone.decoder(3, built_likelihood.parameters_shape),
        built_likelihood,
    )


def by_hand(vae: vk.VAE, z: Tensor, weights: Tensor | None = None) -> Tensor:
    """The log of the weighted sum of the posteriors of the pseudo-inputs."""
    q = vae.eval().encode(vae.prior.pseudo_inputs)
    weights = torch.full((4,), 0.25) if weights is None else weights
    return (weights * q.log_prob(z.unsqueeze(-2)).exp()).sum(-1).log()


@pytest.mark.parametrize(
    "posterior",
    ["gaussian", {"name": "gmm", "components": 3}, "laplace", {"name": "full_gaussian", "rank": 2}],
    ids=str,
)
def test_density_is_the_mixture_of_posteriors(posterior: Any, float64: None) -> None:
    vae = model(posterior, learned_weights=True).double()
    with torch.no_grad():
        vae.prior.logits.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    p, z = vae.prior(), torch.randn(7, 5, 3)
    torch.testing.assert_close(p.log_prob(z), by_hand(vae, z, vae.prior.logits.softmax(-1)))
    assert (p.batch_shape, p.event_shape) == ((), (3,))
    sample = p.sample((50_000,))
    error = 6 * (p.variance / 50_000).sqrt()
    assert ((sample.mean(0) - p.mean).abs() < error).all()
    expanded = p.expand((2, 5))
    assert expanded.mask(False).log_prob(z[:2]).shape == expanded.sample().shape[:-1] == (2, 5)


def test_gaussian_kinds_give_a_gaussian_mixture() -> None:
    assert model().prior().components == 4
    assert model({"name": "gmm", "components": 3}).prior().components == 12
    assert not isinstance(model("laplace").prior(), distributions.GaussianMixture)


def test_pseudo_inputs_lie_where_the_data_lie() -> None:
    inputs = model().prior.pseudo_inputs
    assert inputs.shape == (4, 1, 8, 8)
    assert 0.0 < inputs.min() < inputs.max() < 1.0
    vae = model(likelihood="laplace")
    low, high = vae.data_range
    assert low < vae.prior.pseudo_inputs.min() < 0.0 < vae.prior.pseudo_inputs.max() < high
    assert low < 0.0


def test_before_it_is_attached() -> None:
    with pytest.raises(vk.VaekitError, match="made of a model's posterior: build the VAE with it first"):
        priors.build("vamp", 3)()
    with pytest.raises(vk.VaekitError, match="1 or more components"):
        priors.build({"name": "vamp", "components": 0}, 3)


def test_a_second_model_keeps_the_pseudo_inputs_and_other_data_are_refused() -> None:
    vae = model()
    before = vae.prior.raw_inputs
    again = vk.VAE(vae.encoder, vae.posterior, vae.prior, vae.decoder, vae.likelihood)
    assert again.prior.raw_inputs is before
    with pytest.raises(vk.VaekitError, match="pseudo-inputs of shape"):
        vae.prior.attach(vae.encoder, vae.posterior, likelihoods.build("bernoulli", (1, 4, 4)))


def test_the_model_owns_encoder_and_posterior_alone() -> None:
    vae = model(learned_weights=True)
    assert {name for name in vae.state_dict() if name.startswith("prior.")} == {"prior.raw_inputs", "prior.logits"}
    assert list(vae.prior.children()) == []
    parameters = [parameter for _, parameter in vae.named_parameters(remove_duplicate=False)]
    assert len({id(parameter) for parameter in parameters}) == len(parameters)


def test_a_copy_has_its_own_encoder() -> None:
    vae, z = model(), fixed(5, 3)
    twin = copy.deepcopy(vae)
    before = vae.prior().log_prob(z)
    assert torch.equal(twin.prior().log_prob(z), before)
    with torch.no_grad():
        for parameter in (*twin.encoder.parameters(), *twin.posterior.parameters()):
            parameter.mul_(2.0)
    assert torch.equal(vae.prior().log_prob(z), before)
    torch.testing.assert_close(twin.prior().log_prob(z), by_hand(twin, z))
    assert not torch.allclose(twin.prior().log_prob(z), before)


def test_the_moving_average_has_its_own_encoder() -> None:
    vae, z = model(), fixed(5, 3)
    averaged = Averaged(vae, 0.9)
    averaged.update(vae, 0)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1)
    averaged.update(vae, 1)
    torch.testing.assert_close(averaged.module.prior().log_prob(z), by_hand(averaged.module, z))
    assert not torch.allclose(averaged.module.prior().log_prob(z), vae.prior().log_prob(z))


def test_batch_norms_are_left_as_they_are() -> None:
    vae = model(backbone={"name": "conv", "width": 4, "norm": "batch"}).train()
    norms = [part for part in vae.encoder.modules() if isinstance(part, nn.BatchNorm2d)]
    norms[0].eval()  # frozen by its owner
    before = [(norm.running_mean.clone(), norm.num_batches_tracked.item(), norm.training) for norm in norms]
    trained = vae.prior().log_prob(fixed(5, 3))
    for norm, (mean, count, training) in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert (norm.num_batches_tracked.item(), norm.training) == (count, training)
    assert torch.equal(vae.eval().prior().log_prob(fixed(5, 3)), trained)
    # The statistics change in the same step: the backward pass must still find what it saved.
    output = vae.train()(fixed(6, 1, 8, 8).sigmoid())
    output.latents.p.log_prob(output.latents.z).mean().backward()
    assert vae.prior.raw_inputs.grad is not None


def test_densities_are_float32_under_autocast() -> None:
    vae, x = model(), fixed(6, 1, 8, 8).sigmoid()
    plain = vae.prior().log_prob(fixed(5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vae.prior().log_prob(fixed(5, 3)), plain)
        latents = vae(x).latents
    assert latents.p.log_prob(latents.z).dtype == torch.float32


def test_gradients_against_finite_differences(float64: None) -> None:
    vae, z = model(learned_weights=True).double(), fixed(5, 3, dtype=torch.float64)
    parameters = [*vae.prior.parameters(), *vae.encoder.parameters(), *vae.posterior.parameters()]
    directions = [torch.randn_like(parameter) for parameter in parameters]
    gradients = torch.autograd.grad(vae.prior().log_prob(z).mean(), parameters)
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            values.append(vae.prior().log_prob(z).mean().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected.item(), rel=1e-5)
    assert all(gradient.any() for gradient in gradients)


def test_the_recipe_is_an_ordinary_pyro_program(float64: None) -> None:
    pyro.clear_param_store()
    vae, objective = (part.double() for part in built(tiny("vampprior", prior={"components": 5})))
    x = torch.rand(8, 1, 8, 8)
    torch.manual_seed(3)
    (phase,) = objective.phases(vae, x, 0, {"vae": vae})
    phase.loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in vae.named_parameters()}
    vae.zero_grad()
    found: dict[str, Tensor] = {}

    class Recorder(pyro.optim.PyroOptim):
        def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
            found.update({name: parameter.grad.clone() for name, parameter in vae.named_parameters()})

    torch.manual_seed(3)
    elbo = SVI(vae.model, vae.guide, Recorder(torch.optim.SGD, {"lr": 0.0}), Trace_ELBO()).step(x)
    assert elbo == pytest.approx(phase.loss.item(), rel=1e-9)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9, msg=name)


def test_a_run_is_resumed_exactly(tmp_path: Path) -> None:
    data, trainer = random_images(32), {"accelerator": "cpu", "ema": 0.5, "log_every": 1, "sample_every": 0}

    def train(name: str, epochs: int, resume: bool = False) -> Any:
        vae, objective = built(tiny("vampprior", prior={"components": 5}))
        torch.manual_seed(0)
        return vk.Trainer(epochs=epochs, **trainer).fit(
            vae, objective, data, out=tmp_path / name, resume=resume, batch_size=8
        )

    whole = train("whole", 2)
    train("halves", 1)
    halves = train("halves", 2, resume=True)
    for (name, mine), other in zip(whole.model.state_dict().items(), halves.model.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_a_run_is_sampled_after_loading(tmp_path: Path) -> None:
    run = vk.recipe("vampprior", out=tmp_path / "run", trainer={"max_steps": 3, "sample_every": 0})
    trained = run.fit().model.eval()
    loaded = vk.Run.load(tmp_path / "run").model
    assert torch.equal(loaded.prior().log_prob(fixed(5, 16)), trained.prior().log_prob(fixed(5, 16)))
    torch.manual_seed(0)
    assert loaded.sample(4).shape == (4, 1, 8, 8)


def test_a_mixture_of_any_distribution_has_its_support() -> None:
    p = model("laplace").prior()
    assert isinstance(p, dist.MixtureSameFamily)
    assert p.support.check(p.sample((3,))).all()
