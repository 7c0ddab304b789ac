"""The objective: reconstruction, weighted regularizers and an optional adversary, as named update phases."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.distributions import kl_method
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.models.vae import VAE, Output
from vaekit.objectives.adversary import Adversary
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.regularizers.kl import KL

__all__ = ["Objective", "Phase"]


@dataclass(frozen=True)
class Phase:
    """One update: the loss to minimise and the terms it is made of.

    Arguments:
        name: Whose parameters are updated: a key of `Objective.modules_by_phase`.
        loss: The scalar to minimise.
        terms: Detached scalars to log, unweighted.
    """

    name: str
    loss: Tensor
    terms: dict[str, Tensor]


@objectives.register(
    "elbo",
    about="Reconstruction + weighted regularizers + optional adversary",
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114",
)
class Objective(nn.Module):
    r"""What training minimises:

    $$\mathcal L=-\tfrac1B\sum_i\mathbb E_{q_i}[\log p(x_i\mid z)]+\sum_r w_r(t)\,R_r+\text{adversary}
    \quad\text{[nats per sample].}$$

    With the regularizer `kl` alone, at weight 1, this is the negative ELBO; anything else is a surrogate, and `label`
    says which.

    References:
        Auto-Encoding Variational Bayes, Kingma and Welling, 2013, arXiv 1312.6114.

    Arguments:
        regularizers: Name to regularizer; the name is the term's name in the log.
        draws: Draws per sample from the posterior.
        adversary: A discriminator with its loss and weight; `None` for none.
        exact: Whether the reconstruction term is the closed-form expectation, which a linear decoder with a Gaussian
            likelihood has, instead of a mean over draws.

    Raises:
        VaekitError: `draws` is below 1.

    Examples:
        >>> import vaekit as vk
        >>> Objective({"kl": vk.regularizers.KL()}).label
        'negative ELBO'
        >>> Objective({"kl": vk.regularizers.KL(weight=4.0)}).label
        'surrogate loss'
    """

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        draws: int = 1,
        exact: bool = False,
    ) -> None:
        super().__init__()
        if draws < 1:
            raise VaekitError(f"objective.draws must be 1 or more, not {draws}")
        self.regularizers = nn.ModuleDict(dict(regularizers or {}))
        self.adversary = adversary
        self.draws = draws
        self.exact = exact

    @property
    def terms(self) -> dict[str, Regularizer]:
        """The regularizers by name."""
        return dict(self.regularizers.items())  # type: ignore[arg-type]

    @property
    def bound(self) -> bool:
        """Whether the loss is a bound on -log p(x)."""
        terms = list(self.terms.values())
        return len(terms) == 1 and terms[0].bound and self.adversary is None

    @property
    def label(self) -> str:
        """`"negative ELBO"` where the loss is exactly that, else `"surrogate loss"`."""
        return "negative ELBO" if self.bound else "surrogate loss"

    def notes(self, batch_size: int, latent_dim: int) -> list[str]:
        """Return what a reader of this objective's figures should know."""
        return [note for term in self.terms.values() for note in term.notes(batch_size, latent_dim)]

    def modules_by_phase(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return whose parameters each phase updates."""
        phases: dict[str, nn.Module] = {"vae": model}
        if self.adversary is not None:
            phases["discriminator"] = self.adversary.discriminator
        phases |= {f"{name}_critic": term.critic for name, term in self.terms.items() if term.critic is not None}
        return phases

    def prepare(self, model: nn.Module, samples: int) -> None:
        """Make ready for training: tell the terms what they cannot know, and try everything once.

        The trial is one evaluation of two blank samples. It finds what cannot work (an infinite KL,
        an exact expectation of a decoder that is not linear) before anything is trained or written.

        Arguments:
            model: The model.
            samples: The number of training samples.

        Raises:
            VaekitError: Parts do not go together, or the model has several modalities.
        """
        if not isinstance(model, VAE):
            raise VaekitError(
                f"the objective {type(self).__name__} is for one modality: use 'joint', 'masked' or another objective "
                "of several modalities"
            )
        for term in self.terms.values():
            term.prepare(model.latent_dim, samples)
        modes, weight = model.training, model.last_layer
        with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
            torch.manual_seed(0)
            self.to(weight.device)  # A critic made just now is where the model is.
            x = torch.zeros(2, *model.data_shape, dtype=weight.dtype, device=weight.device)
            model.eval().posterior.train(modes)  # Batch statistics are spared, relaxed draws are tried.
            output = self.run(model, x)
            self.evaluate(output, x)
        for term in self.terms.values():
            if isinstance(term, KL):
                term.method = kl_method(output.latents.q, output.latents.p)
        model.train(modes)

    def run(self, model: nn.Module, x: Any, step: int = 0) -> Any:
        """Return the forward pass that this objective needs."""
        output: Output = model(x, self.draws, step, self.exact)
        return output

    def regularization(self, latents: Latents, step: int = 0) -> Tensor:
        """Return the weighted sum of the regularizers, in nats per sample: what a Pyro guide needs as its factor."""
        return self._regularize(latents, step)[0]

    def _regularize(self, latents: Latents, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if latents.step != step:
            latents = dataclasses.replace(latents, step=step)
        weighted: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        with without_autocast(latents.z.device):
            for name, regularizer in self.terms.items():
                value, weight = regularizer(latents), regularizer.weight(step)
                weighted.append(value if weight == 1 else weight * value)
                terms[name] = value.detach()
            total = functools.reduce(torch.add, weighted) if weighted else latents.z.new_zeros(())
        return total, terms

    def evaluate(self, output: Any, x: Any, step: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the reconstruction term, the regularization and all terms by name, without the adversary."""
        with without_autocast(x.device):
            reconstruction = self._reconstruct(output, x)
        regularization, terms = self._regularize(output.latents, step)
        return reconstruction, regularization, self._named(reconstruction, regularization, terms, output)

    def _reconstruct(self, output: Output, x: Tensor) -> Tensor:
        """Return the mean of -E_q[log p(x|z)] over the batch."""
        if output.expected_log_prob is not None:
            return -output.expected_log_prob(x).mean()
        return -output.latents.expect(output.likelihood.log_prob(x)).mean()

    def _named(
        self, reconstruction: Tensor, regularization: Tensor, terms: Mapping[str, Tensor], output: Output
    ) -> dict[str, Tensor]:
        """Return all terms by name, detached; where the loss is no bound, the negative ELBO too if there is a KL."""
        named = {"loss": reconstruction + regularization, "reconstruction": reconstruction, **terms, **output.monitors}
        kl = [terms[name] for name, term in self.terms.items() if isinstance(term, KL) and not term.free_bits]
        if kl and not self.bound and not output.relaxed:
            named["negative_elbo"] = reconstruction + kl[0]
        return {name: term.detach() for name, term in named.items()}

    def phases(self, model: Any, x: Any, step: int, wrapped: Mapping[str, nn.Module]) -> Iterator[Phase]:
        """Yield the updates of one step, in order; each loss is computed after the update before it.

        Arguments:
            model: The model itself.
            x: One batch.
            step: Optimiser steps taken so far.
            wrapped: Phase name to the module as the engine wraps it (for data-parallel training, compilation).
        """
        output = self.run(wrapped["vae"], x, step)
        reconstruction, regularization, terms = self.evaluate(output, x, step)
        loss = reconstruction + regularization
        if self.adversary is None or not self.adversary.active(step):
            yield Phase("vae", loss, terms)
            yield from self._critics(output, step, wrapped)
            return
        fakes, weights = output.images, output.latents.weights
        adversarial, adversarial_terms = self.adversary.generator_loss(
            fakes, weights, reconstruction, model.last_layer, step
        )
        yield Phase("vae", loss + adversarial, terms | adversarial_terms)
        yield Phase(
            "discriminator",
            *self.adversary.discriminator_loss(wrapped["discriminator"], x, fakes.detach(), weights.detach(), step),
        )
        yield from self._critics(output, step, wrapped)

    def _critics(self, output: Output, step: int, wrapped: Mapping[str, nn.Module]) -> Iterator[Phase]:
        """Yield the update of every critic, on the draws of the same forward pass."""
        critics = {name: term for name, term in self.terms.items() if term.critic is not None}
        if not critics:
            return
        latents = output.latents
        latents = dataclasses.replace(latents, z=latents.z.detach(), weights=latents.weights.detach(), step=step)
        for name, term in critics.items():
            with without_autocast(latents.z.device):
                loss = term.critic_loss(wrapped[f"{name}_critic"], latents)
            yield Phase(f"{name}_critic", loss, {f"{name}_critic": loss.detach()})
