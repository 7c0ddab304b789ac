"""The contract of objectives for several modalities, and a small model to try them on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vaekit.errors import VaekitError
from vaekit.fusions.base import Experts
from vaekit.models.modality import Modality
from vaekit.models.multimodal import MultimodalVAE
from vaekit.models.vae import VAE
from vaekit.objectives.adversary import Adversary
from vaekit.observed import Observed
from vaekit.registry import (
    Registry,
    adversarial_losses,
    backbones,
    discriminators,
    fusions,
    likelihoods,
    objectives,
    posteriors,
    priors,
    private_fusions,
    regularizers,
)
from vaekit.testing.contract import Contract, fixed, without_gradient

__all__ = ["MultimodalObjectiveContract", "small_multimodal_data", "small_multimodal_vae"]

Spec = str | Mapping[str, Any]

#: The modalities of the small model: name to shape and likelihood.
MODALITIES: dict[str, tuple[tuple[int, ...], Spec]] = {
    "image": ((1, 3, 3), "bernoulli"),
    "vector": ((5,), "gaussian"),
    "sound": ((2, 4), "laplace"),
}
LABELS = ("negative ELBO", "negative importance-weighted bound", "surrogate loss")


def small_multimodal_vae(
    fusion: Spec | None = "poe",
    private: Spec | None = None,
    posterior: Spec = "gaussian",
    prior: Spec = "standard_normal",
) -> MultimodalVAE:
    """Build a small model of three modalities, with 4 latent dimensions.

    Arguments:
        fusion: The fusion; `None` for a latent for each modality.
        private: The private fusion, with 2 dimensions for each modality; `None` for none.
        posterior: The posterior of every expert.
        prior: The prior.

    Examples:
        >>> small_multimodal_vae().names
        ('image', 'vector', 'sound')
    """
    backbone = backbones.build({"name": "mlp", "hidden": [8]})
    modalities, size = {}, 4 + (2 if private else 0)
    for name, (shape, likelihood) in MODALITIES.items():
        p = likelihoods.build(likelihood, shape)
        modalities[name] = Modality(backbone.encoder(shape), backbone.decoder(size, p.parameters_shape), p)
    features = [modality.encoder.features for modality in modalities.values()]

    def expert(count: int) -> nn.Module:
        built: nn.Module = posteriors.build(posterior, count, 4)
        return built

    joined = Experts([expert(n) for n in features]) if fusion is None else fusions.build(fusion, features, 4, expert)
    own = None if private is None else private_fusions.build(private, features, 4, 2)
    return MultimodalVAE(modalities, joined, priors.build(prior, 4), own)


def small_multimodal_data(
    count: int = 8, available: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Observed:
    """Return samples for the small model, always the same ones.

    Arguments:
        count: How many.
        available: Which modalities are there, bool of shape (count, 3); all of them where `None`.
        dtype: Their type.

    Examples:
        >>> small_multimodal_data(2)
        Observed(2 x image (1, 3, 3), vector (5,), sound (2, 4))
    """
    values = {
        name: fixed(count, *shape, dtype=dtype, seed=seed).sigmoid()
        for seed, (name, (shape, _)) in enumerate(MODALITIES.items())
    }
    return Observed(values, available)


#: Everything, each modality alone, each pair, and a sample of which nothing is there.
SOME = torch.tensor([[m & 1 > 0, m & 2 > 0, m & 4 > 0] for m in (7, 1, 2, 4, 3, 5, 6, 0)])


class MultimodalObjectiveContract(Contract):
    """What an objective over several modalities promises: nats per sample, of what is there and of nothing else.

    Attributes:
        fusion: The fusion of the model that the objective is for; `None` for a latent for each modality.
        private: The model's private fusion; `None` for none.
        posterior: The posterior of the model's experts.
        prior: The model's prior.
    """

    registry: ClassVar[Registry] = objectives
    fusion: ClassVar[Spec | None] = "poe"
    private: ClassVar[Spec | None] = None
    posterior: ClassVar[Spec] = "gaussian"
    prior: ClassVar[Spec] = "standard_normal"

    def model(self) -> MultimodalVAE:
        """Build a small model that suits the objective."""
        return small_multimodal_vae(self.fusion, self.private, self.posterior, self.prior)

    def terms(self, x: Observed, model: MultimodalVAE, step: int = 0, **options: Any) -> dict[str, Tensor]:
        """Return all terms of one batch under a fixed random state, and the regularization."""
        objective = self.make(**options)
        torch.manual_seed(3)
        reconstruction, regularization, terms = objective.evaluate(objective.run(model, x, step), x, step)
        torch.testing.assert_close(terms["loss"], (reconstruction + regularization).detach())
        return {**terms, "regularization": regularization.detach()}

    def loss(self, model: MultimodalVAE, x: Observed) -> Tensor:
        """Return the loss of one batch under a fixed random state."""
        objective = self.make()
        torch.manual_seed(3)
        (phase,) = objective.phases(model, x, 0, {"vae": model})
        loss: Tensor = phase.loss
        return loss

    @pytest.mark.parametrize("available", [None, SOME], ids=["complete", "incomplete"])
    def test_phase(self, available: Tensor | None) -> None:
        """One phase, whose finite loss moves every parameter, with modalities missing or not."""
        model, objective, x = self.model(), self.make(), small_multimodal_data(8, available)
        wrapped: Mapping[str, nn.Module] = objective.modules_by_phase(model)
        assert set(wrapped) == {"vae"}
        (phase,) = objective.phases(model, x, 0, wrapped)
        assert (phase.loss.shape, phase.loss.dtype) == ((), torch.float32)
        assert phase.loss.isfinite()
        for name, term in phase.terms.items():
            assert term.shape == (), f"term '{name}' is not a scalar"
            assert term.isfinite(), f"term '{name}' is not finite"
            assert not term.requires_grad, f"term '{name}' is not detached"
        assert not (idle := without_gradient(model, phase.loss)), f"no gradient, or not a finite one, for {idle}"

    def test_terms(self) -> None:
        """The reconstruction is the sum of the modalities'; `kl` and every modality's term are logged."""
        x, model = small_multimodal_data(8, SOME), self.model()
        terms = self.terms(x, model)
        assert {"loss", "kl"} <= set(terms)
        each = [terms[f"reconstruction_{name}"] for name in x.names]
        torch.testing.assert_close(torch.stack(each).sum(), terms["reconstruction"])

    def test_evaluation_is_the_loss_of_training(self) -> None:
        """`evaluate` gives the loss of the phase `vae` under one seed, in training and in evaluation."""
        model, x = self.model(), small_multimodal_data()
        loss = self.loss(model.train(), x).detach()
        torch.testing.assert_close(self.terms(x, model)["loss"], loss)
        with torch.no_grad():
            torch.testing.assert_close(self.loss(model.eval(), x), loss)

    def test_beta_is_the_factor_of_the_rate(self) -> None:
        """For one draw the regularization is beta times `kl`, and nothing else depends on beta, or on its step."""
        model, x = self.model(), small_multimodal_data(8, SOME)
        one = self.terms(x, model, draws=1)
        torch.testing.assert_close(one["regularization"], one["kl"])
        assert one["kl"].abs() > 1e-3
        for beta, factor in ((0.0, 0.0), (2.5, 2.5), ({"name": "linear", "start": 0.0, "end": 3.0, "steps": 3}, 2.0)):
            other = self.terms(x, model, 2, draws=1, beta=beta)
            torch.testing.assert_close(other["regularization"], factor * one["kl"])
            torch.testing.assert_close(other["reconstruction"], one["reconstruction"])

    def test_weights_are_factors_of_the_log_likelihoods(self) -> None:
        """A weight multiplies its modality's reconstruction and no other's."""
        model, x = self.model(), small_multimodal_data()
        one, other = self.terms(x, model, draws=1), self.terms(x, model, draws=1, weights={"vector": 3.0})
        for name in x.names:
            factor = 3.0 if name == "vector" else 1.0
            torch.testing.assert_close(other[f"reconstruction_{name}"], factor * one[f"reconstruction_{name}"])
        with pytest.raises(VaekitError, match="vector"):
            self.make(weights={"vectr": 1.0}).prepare(model, 10)

    def test_what_is_missing_does_not_matter(self) -> None:
        """Neither loss nor gradient depends on what stands in the place of a modality that is not there."""
        model, found = self.model().eval(), []
        for filling in (0.0, 3.0):
            x = small_multimodal_data(8, SOME)
            for number, (name, value) in enumerate(x.values.items()):
                there = SOME[:, number].view(-1, *[1] * (value.dim() - 1))
                x.values[name] = torch.where(there, value, filling)
            loss = self.loss(model, x)
            found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        for first, second in zip(*found, strict=True):
            torch.testing.assert_close(first, second)

    def test_what_is_missing_costs_nothing(self) -> None:
        """A sample of which nothing is there has no distortion and no rate."""
        x = small_multimodal_data(8, torch.zeros(8, 3, dtype=torch.bool))
        terms = self.terms(x, self.model())
        assert terms["reconstruction"] == 0.0
        torch.testing.assert_close(terms["kl"], torch.zeros(()), rtol=0.0, atol=1e-5)

    def test_a_mean_over_samples(self) -> None:
        """Twice the same samples give about the same loss: nats per sample."""
        model, x = self.model().eval(), small_multimodal_data()
        few, many = (self.loss(model, x[torch.arange(8).repeat(times)]) for times in (200, 400))
        torch.testing.assert_close(few, many, rtol=0.1, atol=0.1)

    def test_label_and_notes(self) -> None:
        """The label says whether the loss is a bound; no loss with a beta or with weights of its own is one."""
        objective = self.make()
        assert objective.label in LABELS
        assert (objective.label != "surrogate loss") == objective.bound
        for options in ({"beta": 2.0}, {"beta": {"name": "linear", "steps": 3}}, {"weights": {"image": 2.0}}):
            changed = self.make(**options)
            assert (changed.bound, changed.label) == (False, "surrogate loss"), options
        assert all(isinstance(note, str) and note for note in objective.notes(64, 4))

    def test_prepare(self) -> None:
        """The trial changes neither the model's modes nor the random state, and finds a model of one modality."""
        model, objective = self.model().train(), self.make()
        state = torch.get_rng_state()
        objective.prepare(model, 10)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(module.training for module in model.modules())
        with pytest.raises(VaekitError, match="several modalities"):
            objective.prepare(_single(), 10)

    def test_draws(self) -> None:
        """More draws are taken, and give a finite loss; fewer than one are refused."""
        terms = self.terms(small_multimodal_data(8, SOME), self.model(), draws=3)
        assert all(math.isfinite(term.item()) for term in terms.values())
        with pytest.raises(VaekitError, match="1 or more"):
            self.make(draws=0)

    def test_other_terms_are_refused(self) -> None:
        """Regularizers and adversaries have no place here."""
        with pytest.raises(VaekitError, match="regularizers"):
            self.make({"kl": regularizers.build("kl")})
        critic = discriminators.build({"name": "patchgan", "width": 4, "norm": "none"}, (1, 8, 8))
        with pytest.raises(VaekitError, match="adversary"):
            self.make({}, Adversary(critic, adversarial_losses.build("bce")))


def _single() -> VAE:
    """Return a model of one modality."""
    backbone, likelihood = backbones.build({"name": "mlp", "hidden": [8]}), likelihoods.build("gaussian", (5,))
    encoder = backbone.encoder((5,))
    posterior, decoder = posteriors.build("gaussian", encoder.features, 4), backbone.decoder(4, (5,))
    return VAE(encoder, posterior, priors.build("standard_normal", 4), decoder, likelihood)
