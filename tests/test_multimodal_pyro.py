"""A multimodal VAE is a Pyro program: SVI gives the objectives' losses and gradients."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

import vaekit as vk
from vaekit.distributions import Draws, unstack
from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.models.subset import LatentDraws, SubsetPosterior
from vaekit.objectives import joint, masked, mmvm, multimodal
from vaekit.observed import Observed
from vaekit.testing import small_multimodal_data, small_multimodal_vae

pytestmark = pytest.mark.usefixtures("float64")

SEED = 3
#: All there, each alone, some missing; and subsets of all sizes.
SOME = torch.tensor([[m & 1 > 0, m & 2 > 0, m & 4 > 0] for m in (7, 1, 2, 4, 3, 5, 6, 7)])
SUBSET = torch.tensor([[m & 1 > 0, m & 2 > 0, m & 4 > 0] for m in (5, 1, 3, 4, 2, 7, 0, 6)])
Result = tuple[float, dict[str, Tensor]]
by_availability = pytest.mark.parametrize("available", [None, SOME], ids=["complete", "incomplete"])


def _as_pyro_draws(self: SubsetPosterior, count: int = 1) -> LatentDraws:
    """Draw in the order of the sites, under the seed of SVI's step."""
    torch.manual_seed(SEED)
    z = self.shared.rsample().unsqueeze(0)
    private = None if self.private is None else torch.stack([q.rsample() for q in unstack(self.private(z))], 2)
    return LatentDraws(z, torch.ones(z.shape[:2]), private)


def _as_pyro_draws_each(q: Any, count: int = 1) -> Draws:
    torch.manual_seed(SEED)
    z = torch.stack([part.rsample() for part in unstack(q)], 1).unsqueeze(0)
    return Draws(z, torch.ones(z.shape[:3]))


@pytest.fixture(autouse=True)
def _as_pyro(monkeypatch: pytest.MonkeyPatch) -> None:
    pyro.clear_param_store()
    monkeypatch.setattr(SubsetPosterior, "draw", _as_pyro_draws)
    monkeypatch.setattr(joint, "draw", _as_pyro_draws_each)
    monkeypatch.setattr(mmvm, "draw", _as_pyro_draws_each)
    monkeypatch.setattr(masked, "random_mask", lambda law, available: SUBSET & available)


def model_and_data(available: Tensor | None = None, **parts: Any) -> tuple[MultimodalVAE, Observed]:
    return small_multimodal_vae(**parts).double(), small_multimodal_data(8, available, torch.float64)


def gradients(model: MultimodalVAE) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def of_objective(model: MultimodalVAE, x: Observed, objective: multimodal.MultimodalObjective) -> Result:
    model.zero_grad()
    (phase,) = objective.phases(model, x, 0, {"vae": model})
    phase.loss.backward()
    return phase.loss.item(), gradients(model)


class Recorder(pyro.optim.PyroOptim):
    """Keeps the gradients that SVI's step hands to its optimiser, and changes nothing."""

    def __init__(self, model: MultimodalVAE) -> None:
        super().__init__(torch.optim.SGD, {"lr": 0.0})
        self.model = model

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.gradients = gradients(self.model)


def of_svi(model: MultimodalVAE, x: Observed, elbo: Any = None, **sets: Any) -> Result:
    model.zero_grad()
    torch.manual_seed(SEED)
    recorder = Recorder(model)
    loss = SVI(model.model, model.guide, recorder, elbo or TraceMeanField_ELBO()).step(x, **sets)
    return loss, recorder.gradients


def same(left: Result, right: Result) -> None:
    assert left[0] == pytest.approx(right[0], rel=1e-9)
    used = {name for name, gradient in left[1].items() if gradient.any()}
    assert used == {name for name, gradient in right[1].items() if gradient.any()}
    for name in used:
        torch.testing.assert_close(left[1][name], right[1][name], rtol=1e-7, atol=1e-9, msg=name)


@by_availability
@pytest.mark.parametrize("fusion", ["poe", "sum_pooling"])
def test_joint(fusion: str, available: Tensor | None) -> None:
    model, x = model_and_data(available, fusion=fusion)
    same(of_objective(model, x, vk.objectives.Joint()), of_svi(model, x))
    same(of_objective(model, x, vk.objectives.Joint(estimator="sampled")), of_svi(model, x, Trace_ELBO()))


@by_availability
def test_joint_with_private_latents(available: Tensor | None) -> None:
    model, x = model_and_data(available, private="independent")
    same(of_objective(model, x, vk.objectives.Joint()), of_svi(model, x))
    same(of_objective(model, x, vk.objectives.Joint(estimator="sampled")), of_svi(model, x, Trace_ELBO()))


@by_availability
@pytest.mark.parametrize("posterior", ["gaussian", "laplace"])
def test_independent(posterior: str, available: Tensor | None) -> None:
    prior = {"gaussian": "standard_normal", "laplace": "laplace"}[posterior]
    model, x = model_and_data(available, fusion=None, posterior=posterior, prior=prior)
    same(of_objective(model, x, vk.objectives.Independent()), of_svi(model, x))


@by_availability
@pytest.mark.parametrize("fusion", [None, "poe"])
def test_mmvm(fusion: str | None, available: Tensor | None) -> None:
    model, x = model_and_data(available, fusion=fusion)
    objective = vk.objectives.MMVM(divergence="jensen_shannon")
    same(of_objective(model, x, objective), of_svi(model, x, Trace_ELBO(), aggregate=True))


@by_availability
def test_mixture(available: Tensor | None) -> None:
    model, x = model_and_data(available)
    same(of_objective(model, x, masked.Mixture()), of_svi(model, x, seen=SUBSET))


@by_availability
def test_the_elbo_of_a_subset_is_the_joint_one_of_a_smaller_batch(available: Tensor | None) -> None:
    model, x = model_and_data(available)
    smaller = Observed(x.values, x.available & SUBSET)
    same(of_objective(model, smaller, vk.objectives.Joint()), of_svi(model, x, seen=SUBSET, observed=SUBSET))


@by_availability
@pytest.mark.parametrize("private", [None, "independent"])
def test_masked_is_the_sum_of_two_elbos(private: str | None, available: Tensor | None) -> None:
    model, x = model_and_data(available, private=private)
    marginal, by_marginal = of_svi(model, x, seen=SUBSET, observed=SUBSET)
    conditional, by_conditional = of_svi(model, x, given=SUBSET, observed=~SUBSET)
    assert conditional != pytest.approx(marginal, rel=1e-3)
    both = {name: gradient + by_conditional[name] for name, gradient in by_marginal.items()}
    same(of_objective(model, x, masked.Masked()), (marginal + conditional, both))


def test_sites() -> None:
    model, x = model_and_data(SOME, private="independent")
    names = {f"z_{name}" for name in x.names}
    for program, expected in (
        (model.model, {"z", *names, *(f"x_{name}" for name in x.names)}),
        (model.guide, {"z", *names}),
    ):
        trace = pyro.poutine.trace(program).get_trace(x)
        assert {n for n, site in trace.nodes.items() if site["type"] == "sample"} - {"data"} == expected
    separate, _ = model_and_data(fusion=None)
    for aggregate in (False, True):
        trace = pyro.poutine.trace(separate.model).get_trace(x, aggregate=aggregate)
        assert set(trace.stochastic_nodes) - {"data"} == names
        assert trace.nodes["z_sound"]["value"].shape == (8, 4)


def test_what_cannot_be_asked_for() -> None:
    model, x = model_and_data(fusion=None)
    for sets in ({"seen": SUBSET}, {"given": SUBSET}):
        with pytest.raises(VaekitError, match="latent of its own"):
            model.guide(x, **sets)
        with pytest.raises(VaekitError, match="latent of its own"):
            model.model(x, **sets)
    private, _ = model_and_data(private="independent")
    with pytest.raises(VaekitError, match="private"):
        private.guide(x, aggregate=True)
