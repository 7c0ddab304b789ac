"""The gradients of MMVAE and MMVAE+, standard and doubly reparameterised, against quadrature and one another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_multimodal import SOME, data, importance_bound, linear_model
from torch import Tensor

import vaekit as vk
from vaekit.models import MultimodalVAE
from vaekit.observed import Observed
from vaekit.registry import objectives

pytestmark = pytest.mark.usefixtures("float64")


def gradient(model: MultimodalVAE, loss: Tensor, *parts: str) -> Tensor:
    chosen = [parameter for name, parameter in model.named_parameters() if any(part in name for part in parts)]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, chosen)])


def gradients(objective: Any, model: MultimodalVAE, x: Observed, rounds: int, *parts: str) -> tuple[Tensor, Tensor]:
    """The mean of the gradient over some rounds, and the variance of a round's."""
    rows = []
    for _ in range(rounds):
        output = objective.run(model, x)
        rows.append(gradient(model, output.reconstruction + output.regularization, *parts))
    return torch.stack(rows).mean(0), torch.stack(rows).var(0)


@pytest.mark.parametrize("estimator", ["standard", "dreg"])
@pytest.mark.parametrize(("draws", "beta"), [(1, 1.0), (2, 1.0), (2, 2.5)])
def test_gradients_of_mmvae_are_those_of_the_bound(estimator: str, draws: int, beta: float) -> None:
    model, objective = linear_model("moe"), vk.objectives.MMVAE(draws=draws, beta=beta, estimator=estimator)
    expected = gradient(model, importance_bound(model, data(SOME), draws, beta), "fusion")
    found, variance = gradients(objective, model, data(SOME, repeat=1_500), 15, "fusion")
    error = (variance / 15).sqrt()
    assert ((found - expected).abs() < 5 * error + 1e-9).all()
    assert expected.norm() > 20 * error.norm(), "the test sees no gradient"


@pytest.mark.parametrize("name", ["mmvae", "mmvae_plus"])
def test_dreg_has_the_same_expected_gradient(name: str) -> None:
    private = {"name": "independent", "auxiliary": True} if name == "mmvae_plus" else None
    model, x, found = linear_model("moe", private=private), data(SOME, repeat=150), []
    for estimator in ("standard", "dreg"):
        objective = objectives.build({"name": name, "draws": 6, "estimator": estimator})
        found.append(gradients(objective, model, x, 20, "heads"))
    (mean, variance), (other, other_variance) = found
    error = ((variance + other_variance) / 20).sqrt()
    assert ((mean - other).abs() < 5 * error + 1e-9).all()
    assert mean.norm() > 10 * error.norm(), "the test sees no gradient"


def test_dreg_has_no_noise_where_the_experts_agree_with_the_true_posterior() -> None:
    model, x = linear_model("moe", posterior={"name": "gaussian", "log_variance_range": None}), data()
    with torch.no_grad():
        # Nothing depends on z: the posterior of every modality is the prior.
        for modality in model.parts.values():
            modality.decoder.linear.weight.zero_()
        for name, parameter in model.fusion.named_parameters():
            parameter.zero_()
            assert "heads" in name
    for estimator, quiet in (("standard", False), ("dreg", True)):
        objective = vk.objectives.MMVAE(draws=3, estimator=estimator)
        noise = gradients(objective, model, x, 2, "heads")[1].max().item()
        assert (noise < 1e-20) is quiet


@pytest.mark.parametrize("name", ["mmvae", "mmvae_plus"])
def test_dreg_leaves_the_decoders_and_the_auxiliary_priors_gradient_as_it_is(name: str) -> None:
    private = {"name": "independent", "auxiliary": True} if name == "mmvae_plus" else None
    model, x, found = linear_model("moe", private=private), data(SOME), []
    for estimator in ("standard", "dreg"):
        torch.manual_seed(3)
        output = objectives.build({"name": name, "draws": 4, "estimator": estimator}).run(model, x)
        loss = output.reconstruction + output.regularization
        found.append(gradient(model, loss, "decoder", "log_scale"))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
