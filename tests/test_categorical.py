"""One-hot groups, exact and relaxed, and the posterior, prior and recipe made of them."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, tiny
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_pyro import same, svi_side, trainer_side

import vaekit as vk
from vaekit.distributions import RelaxedOneHot, kl_divergence, kl_method
from vaekit.errors import VaekitError
from vaekit.registry import posteriors, priors

pytestmark = pytest.mark.usefixtures("float64")

LOGITS = torch.tensor([[[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]]], dtype=torch.float64)


def uniform(variables: int = 2, categories: int = 3) -> RelaxedOneHot:
    return RelaxedOneHot(torch.zeros(variables, categories))


# ---- the distribution ------------------------------------------------------------------------------------------------


def test_exact_draws_are_one_hot_with_the_probabilities() -> None:
    q, count = RelaxedOneHot(LOGITS), 60_000
    z = q.rsample((count,)).unflatten(-1, (2, 3))
    assert torch.equal(z.sum(-1), torch.ones(count, 1, 2))
    assert torch.equal(z.amax(-1), torch.ones(count, 1, 2))
    error = (q.variance / count).sqrt()
    assert ((z.mean(0).flatten(-2) - q.mean).abs() < 5 * error).all()
    assert torch.allclose(q.mean, LOGITS.softmax(-1).flatten(-2))


def test_probabilities_kl_and_entropy_are_those_of_torch() -> None:
    q, p = RelaxedOneHot(LOGITS, temperature=0.3), RelaxedOneHot(torch.randn(2, 3))
    reference, other = (dist.OneHotCategorical(logits=d.logits).to_event(1) for d in (q, p))
    z = RelaxedOneHot(LOGITS).sample((5,))
    assert torch.allclose(q.log_prob(z), reference.log_prob(z.unflatten(-1, (2, 3))))
    assert kl_method(q, p) == "closed"
    assert torch.allclose(kl_divergence(q, p), torch.distributions.kl_divergence(reference, other))
    assert torch.allclose(q.entropy(), reference.entropy())
    assert torch.allclose(kl_divergence(q, uniform()), 2 * math.log(3.0) - q.entropy())


def test_soft_draws_follow_the_concrete_distribution() -> None:
    q, count = RelaxedOneHot(LOGITS[:, :1], temperature=0.7), 40_000
    z = q.rsample((count,))
    assert torch.allclose(z.sum(-1), torch.ones(count, 1))
    assert ((z > 0) & (z < 1)).all()
    # The largest coordinate of a concrete draw is that of the exact one.
    chosen = torch.nn.functional.one_hot(z.argmax(-1), 3).double()
    assert ((chosen.mean(0) - q.mean).abs() < 5 * (q.variance / count).sqrt()).all()
    reference = dist.RelaxedOneHotCategorical(torch.tensor(0.7), logits=LOGITS[:, 0]).sample((count,))
    assert torch.allclose(z.mean(0), reference.mean(0), atol=0.01)
    assert torch.allclose(z.var(0), reference.var(0), atol=0.01)


def test_gradients_of_soft_draws() -> None:
    logits = LOGITS.clone().requires_grad_()
    values, gradients = [], []
    for straight_through in (False, True):
        torch.manual_seed(1)
        z = RelaxedOneHot(logits, 0.5, straight_through).rsample((4,))
        gradients.append(torch.autograd.grad((z * torch.arange(6.0)).sum(), logits)[0])
        values.append(z.detach())
    assert torch.allclose(*gradients)
    assert gradients[0].any()
    assert torch.equal(
        values[1],
        values[0].unflatten(-1, (2, 3)).eq(values[0].unflatten(-1, (2, 3)).amax(-1, True)).flatten(-2).double(),
    )

    def expected(at: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)
        return RelaxedOneHot(at, 0.5).rsample((4,)).square().sum()

    assert torch.autograd.gradcheck(expected, (logits,))


def test_finite_in_float32() -> None:
    logits = (50.0 * torch.randn(16, 64, 8, dtype=torch.float32)).requires_grad_()
    for temperature in (0.05, 1.0):
        q = RelaxedOneHot(logits, temperature)
        z = q.rsample((3,))
        total = z.square().sum() + q.log_prob(z).sum() + kl_divergence(q, uniform(64, 8)).sum() + q.entropy().sum()
        assert total.isfinite()
        assert torch.autograd.grad(total, logits)[0].isfinite().all()


def test_expanded_and_refused() -> None:
    q = RelaxedOneHot(LOGITS[0], 0.5, True).expand((4,))
    assert (q.batch_shape, q.event_shape, q.rsample((3,)).shape) == ((4,), (6,), (3, 4, 6))
    assert (q.temperature, q.straight_through, q.categories) == (0.5, True, 3)
    with pytest.raises(VaekitError, match="temperature of 0 or more"):
        RelaxedOneHot(LOGITS, -1.0)
    with pytest.raises(VaekitError, match="infinite"):
        kl_divergence(q, dist.Normal(torch.zeros(6), 1.0).to_event(1))


@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
def test_mean_field_elbo(temperature: float) -> None:
    def model() -> None:
        pyro.sample("z", uniform())

    def guide() -> None:
        pyro.sample("z", RelaxedOneHot(LOGITS[0], temperature))

    expected = (2 * math.log(3.0) - RelaxedOneHot(LOGITS[0]).entropy()).item()
    assert TraceMeanField_ELBO().loss(model, guide) == pytest.approx(expected, abs=1e-12)


# ---- the parts -------------------------------------------------------------------------------------------------------


def test_groups_must_fit() -> None:
    for registry, context in ((posteriors, (5, 12)), (priors, (12,))):
        with pytest.raises(VaekitError, match="cannot be split into variables of 5 categories"):
            registry.build({"name": "categorical", "categories": 5}, *context)
    posterior = posteriors.build({"name": "categorical", "categories": 4}, 5, 12)
    with pytest.raises(VaekitError, match="4 and 3 categories"):
        posterior(torch.randn(2, 5), priors.build({"name": "categorical", "categories": 3}, 12)())


def test_evaluation_is_exact_and_training_soft() -> None:
    spec = {
        "name": "categorical",
        "categories": 4,
        "temperature": {"name": "linear", "start": 1.0, "end": 0.5, "steps": 2},
    }
    posterior, p = posteriors.build(spec, 5, 12), priors.build({"name": "categorical", "categories": 4}, 12)()
    found = []
    for step in range(3):
        posterior.step = step
        found.append(posterior(torch.randn(2, 5), p).temperature)
    assert found == [1.0, 0.75, 0.5]
    assert posterior.eval()(torch.randn(2, 5), p).temperature == 0.0


OVERRIDES = {
    "latent_dim": 20,
    "backbone": {"hidden": [16]},
    "posterior": {"temperature": 0.5},
    "regularizers": {"kl": {"weight": 1.0}},
}


def test_svi_is_the_trainer() -> None:
    model, objective = (part.double() for part in built(tiny("categorical-vae", **OVERRIDES)))
    x = torch.rand(8, 1, 8, 8)
    pyro.clear_param_store()
    same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))
    pyro.clear_param_store()
    same(trainer_side(model, objective, x), svi_side(model, Trace_ELBO(), x, objective.regularization))


def test_the_exact_expectation_of_correlated_numbers_is_refused() -> None:
    linear = {**OVERRIDES, "backbone": {"hidden": []}, "likelihood": "sum_squared_error", "objective": {"exact": True}}
    model, objective = built(tiny("categorical-vae", **linear))
    with pytest.raises(VaekitError, match="independent dimensions"):
        objective.prepare(model.double(), 100)


def test_training_lowers_the_bound() -> None:
    torch.set_default_dtype(torch.float32)
    model, objective = built(tiny("categorical-vae", **OVERRIDES))
    trainer = vk.Trainer(epochs=5, accelerator="cpu", optimizer={"name": "adam", "lr": 3e-3})
    fit = trainer.fit(model, objective, vk.data.load("digits"), batch_size=64)
    losses = [line["loss"] for line in fit.metrics if line["split"] == "valid"]
    assert losses[-1] < losses[0] - 3
    z = fit.model.eval().encode(torch.zeros(1, 1, 8, 8)).sample()
    assert z.sum().item() == 2
