"""A VAE is a Pyro program: SVI gives the trainer's loss and gradients."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from helpers import ONE_MODALITY, built, tiny
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

import vaekit as vk
from vaekit.config import RunConfig
from vaekit.distributions import kl_method

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def _clean_store() -> None:
    pyro.clear_param_store()


def trainer_side(model: vk.VAE, objective: vk.Objective, x: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(3)
    (phase,) = objective.phases(model, x, 0, {"vae": model})
    phase.loss.backward()
    return phase.loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


class Recorder(pyro.optim.PyroOptim):
    """Keeps the gradients that SVI's step hands to its optimiser, and changes nothing."""

    def __init__(self, model: vk.VAE) -> None:
        super().__init__(torch.optim.SGD, {"lr": 0.0})
        self.model = model

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}


def svi_side(model: vk.VAE, elbo: Any, x: torch.Tensor, *arguments: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(3)
    recorder = Recorder(model)
    loss = SVI(model.model, model.guide, recorder, elbo).step(x, *arguments)
    return loss, recorder.gradients


def same(left: tuple[float, dict], right: tuple[float, dict], tolerance: float = 1e-9) -> None:
    assert left[0] == pytest.approx(right[0], rel=tolerance)
    assert left[1].keys() == right[1].keys()
    for name, gradient in left[1].items():
        assert torch.allclose(gradient, right[1][name], rtol=1e-7, atol=1e-9), name


def test_vae_is_the_mean_field_elbo() -> None:
    model, objective = (part.double() for part in built(tiny("vae")))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))


@pytest.mark.parametrize("estimator", ["stratified", "pathwise", "score"])
@pytest.mark.parametrize("draws", [1, 3])
def test_gamix_without_adversary(estimator: str, draws: int) -> None:
    config = tiny("gamix", adversary=None, posterior={"estimator": estimator}, objective={"draws": draws})
    model, objective = (part.double() for part in built(config))
    x = torch.rand(8, 1, 8, 8) * 2 - 1
    svi = svi_side(model, Trace_ELBO(), x, objective.regularization, draws)
    same(trainer_side(model, objective, x), svi)


@pytest.mark.parametrize("recipe", ["vae", "beta-vae"])
def test_any_objective_through_its_regularization(recipe: str) -> None:
    model, objective = (part.double() for part in built(tiny(recipe)))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, Trace_ELBO(), x, objective.regularization))


def test_pathwise_mixture_is_an_ordinary_pyro_guide() -> None:
    config = tiny("vae", posterior={"name": "gmm", "components": 3, "estimator": "pathwise"})
    model, objective = (part.double() for part in built(config))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, Trace_ELBO(), x))


def test_sites() -> None:
    model, _ = built(tiny("vae"))
    x = torch.rand(4, 1, 8, 8, dtype=torch.float32)
    torch.set_default_dtype(torch.float32)
    trace = pyro.poutine.trace(model.model).get_trace(x)
    assert {name for name, site in trace.nodes.items() if site["type"] == "sample"} >= {"z", "x", "data"}


def test_learned_mixture_prior_gets_gradients() -> None:
    config = tiny("vae", prior={"name": "gaussian_mixture", "components": 3})
    model, objective = (part.double() for part in built(config))
    _, gradients = trainer_side(model, objective, torch.rand(8, 1, 8, 8))
    assert {name for name, _ in model.named_parameters()} == gradients.keys()


def elbo_recipes() -> list[str]:
    """The recipes whose loss is a negative ELBO."""
    return [name for name in ONE_MODALITY if built(small(name))[1].label == "negative ELBO"]


def small(name: str, **overrides: Any) -> RunConfig:
    sizes: dict[str, Any] = {
        "flow-prior": {"prior": {"hidden": [16], "transforms": 1}},
        "vampprior": {"prior": {"components": 5}},
        "categorical-vae": {"posterior": {"categories": 2}, "prior": {"categories": 2}},
    }
    return tiny(name, **{**sizes.get(name, {}), **overrides})


def test_the_recipes_with_a_true_elbo() -> None:
    expected = {
        "vae",
        "laplace-vae",
        "full-gaussian-vae",
        "hyperspherical-vae",
        "evae-exact",
        "flow-prior",
        "vampprior",
    }
    assert set(elbo_recipes()) == expected


@pytest.mark.parametrize("recipe", elbo_recipes())
def test_every_recipe_with_a_true_elbo_is_the_same_in_pyro(recipe: str) -> None:
    model, objective = (part.double() for part in built(small(recipe)))
    x = torch.rand(8, 1, 8, 8)
    with torch.no_grad():
        closed = kl_method(model.encode(x), model.prior()) == "closed"
    elbo = TraceMeanField_ELBO() if closed else Trace_ELBO()
    same(trainer_side(model, objective, x), svi_side(model, elbo, x))


@pytest.mark.parametrize("recipe", ["iaf-vae", "pvae", "pvae-straight-through", "categorical-vae"])
def test_recipes_whose_kl_is_warmed_up_are_the_same_at_full_weight(recipe: str) -> None:
    temperature = {"posterior": {"temperature": 0.5}} if recipe != "iaf-vae" else {}
    config = small(recipe, **temperature, regularizers={"kl": {"weight": 1.0}})
    if recipe == "categorical-vae":
        config = small(recipe, posterior={"categories": 2, "temperature": 0.5}, regularizers={"kl": {"weight": 1.0}})
    model, objective = (part.double() for part in built(config))
    x = torch.rand(8, 1, 8, 8)
    elbo = Trace_ELBO() if recipe == "iaf-vae" else TraceMeanField_ELBO()
    same(trainer_side(model, objective, x), svi_side(model, elbo, x))
