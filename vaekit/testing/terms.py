"""Contracts of regularizers and objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vaekit.compatibility import missing
from vaekit.distributions import Draws, draw, kl_divergence
from vaekit.latents import Latents
from vaekit.models.vae import VAE
from vaekit.objectives.adversary import Adversary
from vaekit.registry import (
    Registry,
    adversarial_losses,
    backbones,
    discriminators,
    likelihoods,
    objectives,
    posteriors,
    priors,
    regularizers,
)
from vaekit.testing.contract import Contract, fixed, without_gradient

__all__ = ["ObjectiveContract", "RegularizerContract"]


class RegularizerContract(Contract):
    """What a regularizer promises: a finite scalar in nats per sample, with a gradient for the posterior.

    Attributes:
        kinds: The posteriors to try it with, by name: those of these that support what the metadata require. Where
            `only_with` names posteriors, these.
        prior: The prior, by name; the first that `only_with` names by default.
    """

    registry: ClassVar[Registry] = regularizers
    kinds: ClassVar[Sequence[str]] = ("gaussian", "gmm")
    prior: ClassVar[str] = ""

    @property
    def posteriors(self) -> list[str]:
        """The posteriors to try it with."""
        info = self.registry.info(self.name) if self.name in self.registry.names() else None
        kinds = info.only_with.get("posteriors", self.kinds) if info else self.kinds
        fit = [k for k in kinds if not (info and missing(info, k, self._prior))]
        assert fit, f"none of the posteriors {kinds} suits this regularizer: set `kinds` and `prior`"
        return fit

    @property
    def _prior(self) -> str:
        known = self.name in self.registry.names()
        names = self.registry.info(self.name).only_with.get("priors", ()) if known else ()
        return self.prior or (*names, "standard_normal")[0]

    def term(self, latent_dim: int) -> Any:
        """Build the regularizer and make it ready."""
        term = self.make()
        term.prepare(latent_dim, 1000)
        return term

    def posterior(self, kind: str, latent_dim: int) -> nn.Module:
        """Build a posterior that takes 16 features."""
        return posteriors.build(kind, 16, latent_dim)

    def latents(self, posterior: nn.Module, features: Tensor, latent_dim: int) -> Latents:
        """Return the latent side of one batch."""
        p = priors.build(self._prior, latent_dim)()
        q = posterior(features, p)
        return Latents(q, p, *draw(q))

    def test_finite_with_a_gradient_at_a_real_size(self) -> None:
        """At 256 samples and 512 dimensions: a finite float32 scalar that moves the posterior."""
        for kind in self.posteriors:
            posterior = self.posterior(kind, 512)
            value = self.term(512)(self.latents(posterior, fixed(256, 16), 512))
            assert (value.shape, value.dtype) == ((), torch.float32), kind
            assert value.isfinite(), kind
            gradients = torch.autograd.grad(value, list(posterior.parameters()), allow_unused=True)
            reached = [gradient for gradient in gradients if gradient is not None]
            assert any(gradient.any() for gradient in reached), f"no parameter of the posterior '{kind}' is moved"
            assert all(gradient.isfinite().all() for gradient in reached), f"'{kind}': the gradient is not finite"

    def test_order_and_size_of_the_batch(self) -> None:
        """The order of the samples does not matter, nor does a batch that holds each one twice: a mean, not a sum."""
        for kind in self.posteriors:
            posterior, term = self.posterior(kind, 4).double(), self.term(4).double()
            features = fixed(32, 16, dtype=torch.float64)
            latents = self.latents(posterior, features, 4)
            value = _seeded(term, latents)
            torch.testing.assert_close(_seeded(term, latents), value, msg=f"{kind}: two calls on one batch differ")
            for order, tolerance in ((torch.randperm(32), 1e-6), (torch.arange(32).repeat(2), 0.1)):
                again = Latents(
                    posterior(features[order], latents.p), latents.p, latents.z[:, order], latents.weights[:, order]
                )
                torch.testing.assert_close(_seeded(term, again), value, rtol=tolerance, atol=tolerance)

    def test_a_bound_is_not_below_the_kl(self) -> None:
        """Where the class says `bound`, the term is the KL or more."""
        for kind in self.posteriors:
            latents = self.latents(self.posterior(kind, 4).double(), fixed(32, 16, dtype=torch.float64), 4)
            kl = kl_divergence(latents.q, latents.p, Draws(latents.z, latents.weights)).mean()
            assert not self.make().bound or self.term(4)(latents) >= kl - 1e-6, kind

    def test_weight(self) -> None:
        """The weight is a number or a schedule of the step, shown in the repr."""
        assert self.make(weight=0.25).weight(7) == 0.25
        scheduled = self.make(weight={"name": "linear", "start": 0.0, "end": 2.0, "steps": 4})
        assert [scheduled.weight(step) for step in (0, 1, 4, 9)] == [0.0, 0.5, 2.0, 2.0]
        assert "linear" in repr(scheduled)

    def test_notes(self) -> None:
        """`notes` gives sentences."""
        notes = self.make().notes(64, 32)
        assert all(isinstance(note, str) and note for note in notes)


def _seeded(term: nn.Module, latents: Latents) -> Tensor:
    """Return the term under one random state, whatever it draws."""
    torch.manual_seed(9)
    value: Tensor = term(latents)
    return value


class ObjectiveContract(Contract):
    """What an objective promises the trainer: named phases whose losses train every parameter."""

    registry: ClassVar[Registry] = objectives

    def model(self) -> VAE:
        """Build a small VAE for samples of shape (1, 8, 8)."""
        backbone = backbones.build({"name": "mlp", "hidden": [16]})
        likelihood = likelihoods.build("bernoulli", (1, 8, 8))
        encoder = backbone.encoder((1, 8, 8))
        decoder = backbone.decoder(4, likelihood.parameters_shape)
        posterior = posteriors.build("gaussian", encoder.features, 4)
        return VAE(encoder, posterior, priors.build("standard_normal", 4), decoder, likelihood)

    def objective(self, adversarial: bool) -> Any:
        """Build the objective with a KL, and with a discriminator if asked for."""
        adversary = None
        if adversarial:
            discriminator = discriminators.build({"name": "patchgan", "width": 8, "norm": "none"}, (1, 8, 8))
            adversary = Adversary(discriminator, adversarial_losses.build("bce"))
        return self.make({"kl": regularizers.build("kl")}, adversary)

    @pytest.mark.parametrize("adversarial", [False, True])
    def test_phases(self, adversarial: bool) -> None:
        """Every phase is one of `modules_by_phase`, and its finite loss moves every parameter of that module."""
        model, objective, x = self.model(), self.objective(adversarial), fixed(8, 1, 8, 8).sigmoid()
        wrapped: Mapping[str, nn.Module] = objective.modules_by_phase(model)
        assert set(wrapped) == ({"vae", "discriminator"} if adversarial else {"vae"})
        seen = []
        for phase in objective.phases(model, x, 0, wrapped):
            seen.append(phase.name)
            assert (phase.loss.shape, phase.loss.dtype) == ((), torch.float32)
            assert phase.loss.isfinite()
            for name, term in phase.terms.items():
                assert term.shape == (), f"term '{name}' is not a scalar"
                assert not term.requires_grad, f"term '{name}' is not detached"
            missing = without_gradient(wrapped[phase.name], phase.loss)
            assert not missing, f"phase {phase.name}: no gradient for {missing}"
        assert seen == list(wrapped)

    def test_evaluation_is_the_loss_of_training(self) -> None:
        """Under one seed `evaluate` gives the loss of the phase `vae`, and reconstruction + regularization is that."""
        model, objective, x = self.model(), self.objective(False), fixed(8, 1, 8, 8).sigmoid()
        torch.manual_seed(1)
        (phase,) = objective.phases(model, x, 0, objective.modules_by_phase(model))
        torch.manual_seed(1)
        reconstruction, regularization, terms = objective.evaluate(objective.run(model, x), x, 0)
        torch.testing.assert_close(terms["loss"], phase.loss.detach())
        torch.testing.assert_close((reconstruction + regularization).detach(), phase.loss.detach())
        assert math.isfinite(terms["reconstruction"].item())

    def test_label_and_notes(self) -> None:
        """The label says whether the loss is a bound; notes are sentences."""
        objective = self.objective(False)
        assert objective.label
        assert self.objective(True).label == "surrogate loss"
        assert all(isinstance(note, str) and note for note in objective.notes(64, 4))
