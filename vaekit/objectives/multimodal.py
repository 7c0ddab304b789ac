"""What objectives over several modalities share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.errors import VaekitError, suggest
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective, Phase
from vaekit.observed import Observed
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar, as_schedule

__all__ = ["MultimodalObjective", "Terms"]


class Terms:
    """What one evaluation of a multimodal objective gives, each a scalar in nats per sample.

    A plain class, as `Output` is.

    Arguments:
        reconstruction: The mean of the (weighted) negative log-likelihoods.
        regularization: What is added to it, beta included.
        named: Terms for the log, unweighted: rates and distortions by their names.
    """

    def __init__(self, reconstruction: Tensor, regularization: Tensor, named: Mapping[str, Tensor]) -> None:
        self.reconstruction = reconstruction
        self.regularization = regularization
        self.named = dict(named)


class MultimodalObjective(Objective):
    r"""The base of objectives over several modalities.

    Every one of them is minimised as distortion plus beta times rate, in nats per sample, and beta has one meaning in
    all of them: the factor of every KL, once for each latent. A modality that is not available has no distortion.

    A subclass writes `compute`, which runs within the model's `forward`.

    Arguments:
        regularizers: None: these objectives hold their KLs within themselves.
        adversary: None.
        beta: The factor of the KLs, a number or a schedule.
        draws: Draws per sample from each posterior.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1.
    """

    #: Whether distortion plus rate is, at beta 1 and without weights, a bound on -log p of the modalities there are.
    is_bound: bool = False
    #: Whether private latents are also drawn from the private fusion's auxiliary prior.
    draws_auxiliary: bool = False

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        beta: Scalar = 1.0,
        draws: int = 1,
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(draws=draws)
        if regularizers or adversary is not None:
            raise VaekitError(
                "multimodal objectives hold their KLs within themselves: set regularizers to {} and adversary to null"
            )
        self._given_beta = beta
        self.beta = as_schedule(beta)
        self.weights = dict(weights or {})

    # ---- what others ask of an objective -------------------------------------------------------------------------

    @property
    def bound(self) -> bool:
        """Whether the loss is a bound on -log p of the modalities that are there."""
        return self.is_bound and self._given_beta == 1 and set(self.weights.values()) <= {1.0}

    def prepare(self, model: nn.Module, samples: int) -> None:
        """Try the objective on two blank samples, one of them with a modality missing.

        Arguments:
            model: The model.
            samples: The number of training samples.

        Raises:
            VaekitError: The model has a single modality, lacks one that a weight names, learns a prior that the
                objective never draws from, or lacks what it needs.
        """
        if not isinstance(model, MultimodalVAE):
            raise VaekitError(
                f"the objective {type(self).__name__} is for several modalities: use 'elbo', or a multimodal recipe"
            )
        for name in self.weights:
            if name not in model.names:
                raise VaekitError(f"objective.weights names no modality '{name}': {suggest(name, model.names)}")
        if model.private is not None and model.private.learns_auxiliary and not self.draws_auxiliary:
            raise VaekitError(
                f"private.auxiliary learns a prior that the objective {type(self).__name__} never draws from: set it "
                "to false, or use the objective mmvae_plus"
            )
        modes, device = model.training, model.last_layer.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            x = model.blank(2)
            available = torch.ones_like(x.available)
            available[0, 0] = len(model.names) == 1
            x = Observed(x.values, available)
            model.eval()
            self.evaluate(self.run(model, x), x)
        model.train(modes)

    def run(self, model: nn.Module, x: Observed, step: int = 0) -> Terms:
        """Return the terms of one batch, computed within the model's forward."""
        terms: Terms = model(x, partial(self.compute, step=step), step)
        return terms

    def evaluate(self, output: Terms, x: Observed, step: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the reconstruction term, the regularization and all terms by name."""
        loss = output.reconstruction + output.regularization
        named = {"loss": loss, "reconstruction": output.reconstruction, **output.named}
        return output.reconstruction, output.regularization, {name: term.detach() for name, term in named.items()}

    def phases(self, model: Any, x: Observed, step: int, wrapped: Mapping[str, nn.Module]) -> Iterator[Phase]:
        """Yield the one update of a step."""
        reconstruction, regularization, terms = self.evaluate(self.run(wrapped["vae"], x, step), x, step)
        yield Phase("vae", reconstruction + regularization, terms)

    # ---- what a subclass writes, and what helps it -----------------------------------------------------------------

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return the terms of one batch.

        Arguments:
            model: The model.
            x: The batch.
            step: Optimiser steps taken so far.
        """
        raise NotImplementedError

    def distortions(self, model: MultimodalVAE, x: Observed, latents: Tensor) -> Tensor:
        """Return the weighted -log p(x_m|latents) of every modality, shape (S, B, M), zero where it is missing.

        Arguments:
            model: The model.
            x: The batch.
            latents: What each decoder takes, shape (S, B, M, D + P).
        """
        distortions = -model.log_likelihood(x, latents)
        if not self.weights:
            return distortions
        parts = zip(model.names, distortions.unbind(-1), strict=True)
        return torch.stack([self.weights.get(name, 1.0) * part for name, part in parts], -1)

    def sum_up(self, model: MultimodalVAE, distortion: Tensor, rate: Tensor, step: int, **named: Tensor) -> Terms:
        """Return the terms of a loss that is distortion plus beta times rate.

        Arguments:
            model: The model.
            distortion: Nats of every sample and modality, shape (B, M).
            rate: Nats of every sample, shape (B,).
            step: Optimiser steps taken so far.
            named: Further terms for the log, of shape (B,).
        """
        by_modality = distortion.mean(0)
        rate = rate.mean()
        terms = {"kl": rate, **{name: value.mean() for name, value in named.items()}}
        terms |= {f"reconstruction_{name}": by_modality[number] for number, name in enumerate(model.names)}
        return Terms(by_modality.sum(), self.beta(step) * rate, terms)
