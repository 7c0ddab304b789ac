"""The multimodal variational autoencoder: modalities, a fusion and a prior.

Shapes: S draws, B samples, M modalities, D latent dimensions (P private ones), X_m the shape of modality m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.errors import VaekitError
from vaekit.fusions.base import Experts, Fusion, PrivateFusion
from vaekit.models.encoded import Encoded
from vaekit.models.modality import Modality
from vaekit.models.programs import Programs
from vaekit.observed import Observed
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32, without_autocast
from vaekit.priors.base import Prior

__all__ = ["MultimodalVAE"]

Distribution = torch.distributions.Distribution
T = TypeVar("T")


class MultimodalVAE(Programs):
    r"""A variational autoencoder of M modalities:

    $$z\sim p(z),\quad[\tilde z_m\sim\mathcal N(0,I)],\quad x_m\sim p(x_m\mid z[,\tilde z_m])\qquad
    \text{with }q(z\mid x_S)\text{ for every subset }S.$$

    With a `Fusion` all modalities share the latent z; with `Experts` in its place each has a latent $z_m$ of its own
    and $q(z_m\mid x_m)$, all with the same prior. With a `PrivateFusion` each modality has a private latent besides
    the shared one.

    What is trained is up to an objective: `forward` runs it inside the module, so that engines which wrap modules see
    one call. `model` and `guide` are the same thing as a Pyro program: see `Programs`.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning, Wu and Goodman, 2018, arXiv 1802.05335.
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.
        Unity by Diversity: Improved Representation Learning in Multimodal VAEs, Sutter et al., 2024, arXiv 2403.05300.

    Arguments:
        modalities: Name to networks, in order.
        fusion: How modalities are joined, or the experts of a model without a shared latent.
        prior: p(z).
        private: The posteriors of private latents; `None` for none.

    Raises:
        VaekitError: Parts do not fit together.

    Examples:
        >>> import torch, vaekit as vk
        >>> from vaekit.observed import Observed
        >>> backbone, shapes = vk.backbones.MLP(hidden=[16]), {"left": (6,), "right": (4,)}
        >>> modalities = {
        ...     name: vk.models.Modality(backbone.encoder(s), backbone.decoder(2, s), vk.likelihoods.Gaussian(s))
        ...     for name, s in shapes.items()
        ... }
        >>> fusion = vk.fusions.ProductOfExperts([16, 16], 2, lambda features: vk.posteriors.Gaussian(features, 2))
        >>> vae = MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(2))
        >>> x = Observed({"left": torch.randn(5, 6), "right": torch.randn(5, 4)})
        >>> vae.generate(x.only("left"))["right"].shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        fusion: Fusion | Experts,
        prior: Prior,
        private: PrivateFusion | None = None,
    ) -> None:
        super().__init__()
        if private is not None and not isinstance(fusion, Fusion):
            raise VaekitError("private latents stand beside a shared one: give the model a fusion, or leave them out")
        features = tuple(modality.encoder.features for modality in modalities.values())
        if isinstance(fusion, Fusion) and fusion.features != features:
            raise VaekitError(
                f"the encoders give {features} features and the fusion takes {fusion.features}: build the fusion with "
                "the encoders' numbers of features"
            )
        if isinstance(fusion, Fusion) and fusion.latent_dim != prior.latent_dim:
            raise VaekitError(
                f"fusion and prior have {fusion.latent_dim} and {prior.latent_dim} latent dimensions: build both with "
                "the same number"
            )
        # A list, not a ModuleDict: a modality may be called what a module keeps for itself ("type", "train").
        self.modalities = nn.ModuleList(modalities.values())
        self.fusion = fusion
        self.prior = prior
        self.private = private
        self.names = tuple(modalities)
        self._posteriors = tuple(m for m in self.modules() if isinstance(m, Posterior))

    # ---- what others ask of a model ------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether all modalities share a latent."""
        return isinstance(self.fusion, Fusion)

    @property
    def latent_dim(self) -> int:
        """The number D of dimensions of the shared latent, or of each modality's."""
        return self.prior.latent_dim

    @property
    def parts(self) -> dict[str, Modality]:
        """The modalities by name."""
        return dict(zip(self.names, self.modalities, strict=True))  # type: ignore[arg-type]

    @property
    def data_shape(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of each modality."""
        return {name: modality.likelihood.data_shape for name, modality in self.parts.items()}

    @property
    def data_range(self) -> dict[str, tuple[float, float]]:
        """The interval that images of each modality are scaled to before they come here."""
        return {name: modality.likelihood.data_range for name, modality in self.parts.items()}

    def networks(self) -> tuple[nn.Module, ...]:
        """The parts that are plain networks: what compilation may touch."""
        return tuple(net for modality in self.parts.values() for net in (modality.encoder, modality.decoder))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last decoder's last layer."""
        return list(self.parts.values())[-1].decoder.last_layer

    def blank(self, count: int) -> Observed:
        """Return `count` samples of zeros, for trial runs."""
        weight = self.last_layer
        return Observed(
            {
                name: torch.zeros(count, *shape, dtype=weight.dtype, device=weight.device)
                for name, shape in self.data_shape.items()
            }
        )

    def notes(self) -> list[str]:
        """Return what a reader of this model's figures should know."""
        loose = [name for name, modality in self.parts.items() if not modality.likelihood.normalised]
        return [
            f"the likelihood of {name} leaves out its constant: losses compare only with others of the same likelihood "
            "on the same data"
            for name in loose
        ]

    # ---- the parts, called in order ------------------------------------------------------------------------------

    def forward(self, x: Observed, program: Callable[[MultimodalVAE, Observed], T], step: int = 0) -> T:
        """Return `program(self, x)`: an objective's computation, run inside the module.

        Arguments:
            x: The batch.
            program: What to compute.
            step: Optimiser steps taken so far, for posteriors that change as training goes on.
        """
        for posterior in self._posteriors:
            posterior.step = step
        return program(self, x)

    def encode(self, x: Observed) -> Encoded:
        """Run every encoder once; the posteriors of all subsets come from what is returned.

        Raises:
            VaekitError: The batch has other modalities than the model.
        """
        if x.names != self.names:
            raise VaekitError(f"the model's modalities are {', '.join(self.names)}, not {', '.join(x.names)}")
        features = [modality.encoder(x.values[name]) for name, modality in self.parts.items()]
        with without_autocast(x.device):
            p = self.prior()
            features = [at_least_float32(part) for part in features]
            embedded = self.fusion.embed(features, p) if isinstance(self.fusion, Fusion) else self.fusion(features, p)
            private = None if self.private is None else self.private.embed(features)
        return Encoded(self, embedded, private, p, x.available)

    def private_prior(self, z: Tensor) -> Distribution:
        """Return the standard normal prior of the private latents for shared draws (S, B, D): batch (S, B, M)."""
        assert self.private is not None
        shape = (*z.shape[:-1], len(self.names), self.private.private_dim)
        return dist.Normal(z.new_zeros(shape), z.new_ones(shape), validate_args=False).to_event(1)

    def log_likelihood(self, x: Observed, latents: Tensor) -> Tensor:
        """Return log p(x_m|latents[:, :, m]) of every modality, shape (S, B, M), zero where it is not available.

        Arguments:
            x: The data.
            latents: What each decoder takes, shape (S, B, M, D + P): see `LatentDraws.for_modalities`.
        """
        each = []
        for number, (name, modality) in enumerate(self.parts.items()):
            p = modality.decode(latents[:, :, number])
            with without_autocast(x.device):
                each.append(p.log_prob(x.values[name]))
        log_likelihood = torch.stack(each, -1)
        return log_likelihood if x.complete else torch.where(x.available, log_likelihood, 0.0)

    def decode(self, latents: Tensor) -> dict[str, Distribution]:
        """Return p(x_m|latents[..., m, :]) by modality for latents (..., M, D + P)."""
        return {
            name: modality.decode(latents[..., number, :]) for number, (name, modality) in enumerate(self.parts.items())
        }

    # ---- using ---------------------------------------------------------------------------------------------------

    def latents(self, x: Observed, *, sample: bool = True) -> Tensor:
        """Return a latent for every decoder given the available modalities, shape (B, M, D + P).

        Without a shared latent, the decoder of a modality that is missing takes the latent of one that is there,
        chosen at random (their mean where nothing is drawn).

        Arguments:
            x: The data; what is not available is what is to be generated.
            sample: Whether to draw from the posterior, instead of taking its mean.
        """
        encoded = self.encode(x)
        if self.shared:
            q = encoded.posterior()
            z = q.shared.sample() if sample else q.shared.mean
            z = z.unsqueeze(0)
            each = z.unsqueeze(-2).expand(*z.shape[:-1], len(self.names), -1)
            if q.private is not None:
                private = q.private(z)
                each = torch.cat([each, private.sample() if sample else private.mean], -1)
            return each.squeeze(0)
        own = encoded.experts.sample() if sample else encoded.experts.mean
        there = x.available.to(own.dtype)
        # Where no modality is there, the prior stands in.
        nothing = ~x.available.any(-1)
        if sample:
            lent = own[torch.arange(len(own)), torch.multinomial(there + nothing[:, None], 1).squeeze(-1)]
        else:
            lent = (there.unsqueeze(-1) * own).sum(1) / there.sum(1, keepdim=True).clamp_min(1.0)
        prior = encoded.prior_of_shared.sample((len(own),)) if sample else torch.zeros_like(lent)
        lent = torch.where(nothing.unsqueeze(-1), prior, lent)
        return torch.where(x.available.unsqueeze(-1), own, lent.unsqueeze(1))

    def marginal(self, x: Observed) -> Distribution:
        """Return what stands for the data in the latent space, `batch_shape (N,)`.

        With a shared latent it is the posterior given all that is there; without one, a Gaussian with the moments of
        each available modality's posterior.
        """
        encoded = self.encode(x)
        if self.shared:
            return encoded.posterior().shared
        mean, variance = encoded.experts.mean[x.available], encoded.experts.variance[x.available]
        return dist.Normal(mean, variance.sqrt(), validate_args=False).to_event(1)

    def reconstruct(self, x: Observed) -> dict[str, Tensor]:
        """Return the mean of p(x_m|z) of every modality at the posterior's mean given those available, (B, *X_m)."""
        return {name: p.mean for name, p in self.decode(self.latents(x, sample=False)).items()}

    def generate(self, x: Observed) -> dict[str, Tensor]:
        """Return the mean of p(x_m|z) of every modality for a draw of the posterior given those available."""
        return {name: p.mean for name, p in self.decode(self.latents(x)).items()}

    def sample(self, count: int) -> dict[str, Tensor]:
        """Return means of p(x_m|z) for `count` draws from the prior, the same z for all modalities, (count, *X_m)."""
        return self.decode_shared(self.prior().sample((count,)))

    def decode_shared(self, z: Tensor) -> dict[str, Tensor]:
        """Return means of p(x_m|z) of every modality for latents (N, D), private ones drawn from their prior."""
        each = z.unsqueeze(-2).expand(-1, len(self.names), -1)
        if self.private is not None:
            each = torch.cat([each, self.private_prior(z).sample()], -1)
        return {name: p.mean for name, p in self.decode(each).items()}
