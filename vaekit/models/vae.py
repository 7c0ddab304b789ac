"""The variational autoencoder: five parts, as a module and as a Pyro program.

Shapes: S draws, B samples, D latent dimensions, X the data shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from vaekit.backbones.base import Decoder, Encoder
from vaekit.distributions import draw
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.likelihoods.base import Likelihood
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32, without_autocast
from vaekit.priors.base import Prior

__all__ = ["VAE", "Output"]

Distribution = torch.distributions.Distribution
Regularization = Callable[[Latents], Tensor]


class Output:
    """One forward pass.

    A plain class: engines that wrap modules walk through dataclasses and copy them.

    Arguments:
        latents: Posterior, prior, draws and weights.
        likelihood: p(x|z) of every draw: `batch_shape (S, B)`, `event_shape X`.
        monitors: Scalars about the posterior for the log.
        expected_log_prob: x to E_q[log p(x|z)] in closed form, shape (B,), where that was asked for.
        relaxed: Whether the draws are relaxed ones, and not draws of the posterior itself.
    """

    def __init__(
        self,
        latents: Latents,
        likelihood: Distribution,
        monitors: Mapping[str, Tensor],
        expected_log_prob: Callable[[Tensor], Tensor] | None = None,
        relaxed: bool = False,
    ) -> None:
        self.latents = latents
        self.likelihood = likelihood
        self.monitors = monitors
        self.expected_log_prob = expected_log_prob
        self.relaxed = relaxed

    @property
    def images(self) -> Tensor:
        """The mean of p(x|z) for every draw, shape (S, B, *X)."""
        return self.likelihood.mean


class VAE(nn.Module):
    r"""A variational autoencoder from its parts.

    $$z\sim p(z),\quad x\sim p(x\mid z)\qquad\text{with the approximate posterior}\quad q(z\mid x).$$

    The networks (encoder, decoder) run in whatever precision `torch.autocast` sets; posterior, prior, likelihood and
    every density run in float32 at least.

    `model` and `guide` are the same thing as a Pyro program with the sites `z` and `x`. Both are scaled by one over the
    batch size, so that an ELBO of Pyro's is in nats per sample and equals the loss of the trainer:

    - `SVI(vae.model, vae.guide, optim, TraceMeanField_ELBO()).step(x)` is the ELBO with closed-form KL;
    - `SVI(vae.model, vae.guide, optim, Trace_ELBO()).step(x, objective.regularization)` is any objective without
      adversary: its regularizers enter as a factor of the guide, and the latent sites are masked.

    References:
        Auto-Encoding Variational Bayes, Kingma and Welling, 2013, arXiv 1312.6114.

    Arguments:
        encoder: Data (B, *X) to features (B, F).
        posterior: Features to q(z|x).
        prior: p(z).
        decoder: Latents (B, D) to the likelihood's parameters.
        likelihood: Decoder output to p(x|z).

    Raises:
        VaekitError: Two parts do not fit together (features or latent dimensions differ).

    Examples:
        >>> import torch, vaekit as vk
        >>> backbone, likelihood = vk.backbones.MLP(hidden=[32]), vk.likelihoods.Bernoulli((1, 8, 8))
        >>> encoder = backbone.encoder((1, 8, 8))
        >>> vae = vk.VAE(encoder, vk.posteriors.Gaussian(encoder.features, 4), vk.priors.StandardNormal(4),
        ...              backbone.decoder(4, likelihood.parameters_shape), likelihood)
        >>> vae(torch.rand(2, 1, 8, 8)).images.shape
        torch.Size([1, 2, 1, 8, 8])
    """

    def __init__(
        self, encoder: Encoder, posterior: Posterior, prior: Prior, decoder: Decoder, likelihood: Likelihood
    ) -> None:
        super().__init__()
        if posterior.features != encoder.features:
            raise VaekitError(
                f"the encoder gives {encoder.features} features and the posterior takes {posterior.features}: "
                "build the posterior with encoder.features"
            )
        if posterior.latent_dim != prior.latent_dim:
            raise VaekitError(
                f"posterior and prior have {posterior.latent_dim} and {prior.latent_dim} latent dimensions: "
                "build both with the same number"
            )
        self.encoder = encoder
        self.posterior = posterior
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        prior.attach(encoder, posterior, likelihood)

    @property
    def latent_dim(self) -> int:
        """The number D of latent dimensions."""
        return self.prior.latent_dim

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape X of one sample."""
        return self.likelihood.data_shape

    @property
    def data_range(self) -> tuple[float, float]:
        """The interval that images are scaled to before they come here."""
        return self.likelihood.data_range

    def networks(self) -> tuple[nn.Module, ...]:
        """The parts that are plain networks: what compilation may touch."""
        return self.encoder, self.decoder

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last layer."""
        return self.decoder.last_layer

    def notes(self) -> list[str]:
        """Return what a reader of this model's figures should know."""
        notes = []
        if self.posterior.relaxes:
            notes.append("training draws are relaxed, and its losses with them; validation and evaluation draw exactly")
        if not self.likelihood.normalised:
            notes.append(
                f"the {type(self.likelihood).__name__} likelihood leaves out its constant: losses compare only with "
                "others of the same likelihood on the same data"
            )
        return notes

    # ---- the parts, called in order ----------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Distribution:
        """Return q(z|x) for x (B, *X)."""
        return self._encode(x)[0]

    def _encode(self, x: Tensor) -> tuple[Distribution, Distribution]:
        """Return q(z|x) and p(z)."""
        features = self.encoder(x)
        with without_autocast(x.device):
            p = self.prior()
            return self.posterior(at_least_float32(features), p), p

    def decode(self, z: Tensor) -> Distribution:
        """Return p(x|z) for z (..., D): `batch_shape (...)`, `event_shape X`."""
        decoded = self.decoder(z.reshape(-1, z.shape[-1]))
        with without_autocast(z.device):
            return self.likelihood(at_least_float32(decoded).reshape(*z.shape[:-1], *decoded.shape[1:]))

    def decoded_moments(self, q: Distribution) -> tuple[Tensor, Tensor]:
        r"""Return mean and variances of the decoder's output under q, shape (B, *parameters_shape) each.

        For a linear decoder with matrix $\Phi$ and a q of independent dimensions these are $\Phi\,\mathbb E[z]$ (plus
        the bias) and $\sum_j\operatorname{Var}[z_j]\,\Phi_{\cdot j}^2$.

        Raises:
            VaekitError: The decoder is not linear, or the dimensions of q are not independent.
        """
        if not isinstance(q, torch.distributions.Independent) or q.base_dist.event_shape:
            raise VaekitError(
                f"the exact expectation needs a posterior of independent dimensions, not {type(q).__name__}: use "
                "another posterior, or leave the objective's option 'exact' out"
            )
        layer = self.decoder.linear
        if layer is None:
            raise VaekitError(
                "the exact expectation needs a linear decoder: use the backbone {name: mlp, hidden: []}, or leave the "
                "objective's option 'exact' out"
            )
        mean = at_least_float32(self.decoder(q.mean))
        with without_autocast(mean.device):
            variance = torch.nn.functional.linear(q.variance, at_least_float32(layer.weight).square())
        return mean, variance.reshape(mean.shape)

    def forward(self, x: Tensor, draws: int = 1, step: int = 0, exact: bool = False) -> Output:
        """Return latents and likelihood for x (B, *X); the posterior decides how many draws `draws` becomes.

        Arguments:
            x: The data (B, *X).
            draws: Draws per sample.
            step: Optimiser steps taken so far, for posteriors and terms that change as training goes on.
            exact: Whether to give E_q[log p(x|z)] in closed form too.

        Raises:
            VaekitError: `exact`, and the decoder is not linear.
        """
        self.posterior.step = step
        q, p = self._encode(x)
        with without_autocast(x.device):
            z, weights = draw(q, draws)
            latents = Latents(q, p, z, weights, step)
            monitors = self.posterior.monitor(q, p)
        expected = partial(self.likelihood.expected_log_prob, *self.decoded_moments(q)) if exact else None
        relaxed = self.posterior.relaxes and self.posterior.training
        return Output(latents, self.decode(z), monitors, expected, relaxed)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the mean of p(x|z) at the posterior's `point` (its mean, but for spheres), shape (B, *X)."""
        return self.decode(self.posterior.point(self.encode(x))).mean

    def sample(self, count: int) -> Tensor:
        """Return means of p(x|z) for `count` draws from the prior, shape (count, *X)."""
        return self.decode(self.prior().sample((count,))).mean

    # ---- as a Pyro program -------------------------------------------------------------------------------------

    def model(self, x: Tensor, regularization: Regularization | None = None, draws: int = 1) -> None:
        """Pyro model: `z ~ p(z)`, `x ~ p(x|z)`, in nats per sample.

        Arguments:
            x: The data (B, *X).
            regularization: Latents to nats, as for `guide`; the prior then enters through it alone.
            draws: As for `forward`; read by the guide when a regularization is given.
        """
        pyro.module("vae", self)
        if regularization is None:
            with pyro.plate("data", len(x)), poutine.scale(scale=1.0 / len(x)):
                z = pyro.sample("z", self.prior())
                pyro.sample("x", self.decode(z), obs=x)
            return
        shape = (draws * self.posterior.passes, len(x))
        uniform = x.new_full(shape, 1.0 / shape[0])
        # Both values are the guide's: replayed, not drawn.
        weights = pyro.sample("weights", dist.Delta(uniform, event_dim=2).mask(False))
        with pyro.plate("draws", shape[0], dim=-2), pyro.plate("data", shape[1], dim=-1):
            z = pyro.sample("z", self.prior().expand(shape).mask(False))
            with poutine.scale(scale=weights / len(x)):
                pyro.sample("x", self.decode(z), obs=x.expand(*shape, *x.shape[1:]))

    def guide(self, x: Tensor, regularization: Regularization | None = None, draws: int = 1) -> None:
        """Pyro guide: `z ~ q(z|x)`, or the weighted draws and the factor `regularization(latents)`.

        Arguments:
            x: The data (B, *X).
            regularization: Latents to nats, e.g. `objective.regularization`; `None` for the ELBO's own KL.
            draws: As for `forward`; with a regularization only.
        """
        pyro.module("vae", self)
        q, p = self._encode(x)
        if regularization is None:
            with pyro.plate("data", len(x)), poutine.scale(scale=1.0 / len(x)):
                pyro.sample("z", q)
            return
        drawn = draw(q, draws)
        pyro.sample("weights", dist.Delta(drawn.weights, event_dim=2).mask(False))
        with pyro.plate("draws", len(drawn.z), dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(drawn.z, event_dim=1).mask(False))
        latents = Latents(q, p, drawn.z, drawn.weights)
        pyro.factor("regularization", regularization(latents), has_rsample=True)
