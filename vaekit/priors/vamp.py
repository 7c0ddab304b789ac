"""The VampPrior: a mixture of the posteriors of learned inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit import distributions
from vaekit.backbones.base import Encoder
from vaekit.distributions import as_mixture
from vaekit.errors import VaekitError
from vaekit.likelihoods.base import Likelihood
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32, without_autocast
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Vamp"]


@priors.register(
    "vamp",
    about="VampPrior: mixture of the posteriors of learned pseudo-inputs",
    source="J. M. Tomczak and M. Welling, VAE with a VampPrior, 2017, arXiv 1705.07120",
    needs=("the encoder and the posterior of its model",),
    support="real",
    only_with={"posteriors": ("gaussian", "gmm", "laplace", "full_gaussian")},
)
class Vamp(Prior):
    r"""$p(z)=\sum_k\rho_k\,q(z\mid u_k)$ with K learned pseudo-inputs $u_k$, which lie where the data lie.

    $q(z\mid u)$ is the model's own posterior, so that this prior works only within a model: `VAE` attaches it. The
    encoder and the posterior stay parts of the model alone. For a Gaussian posterior or a mixture of Gaussians p is a
    `vaekit.distributions.GaussianMixture`.

    The pseudo-inputs pass through the encoder as in evaluation: batch norms take their running statistics and leave
    them as they are, and nothing is dropped out.

    References:
        VAE with a VampPrior, Tomczak and Welling, 2017, arXiv 1705.07120.

    Arguments:
        latent_dim: The number D of latent dimensions.
        components: The number K of pseudo-inputs.
        learned_weights: Whether the weights $\rho_k$ are learned; they are equal otherwise.

    Raises:
        VaekitError: There is no component; in `forward`, the prior does not belong to a model yet.

    Examples:
        >>> import vaekit as vk
        >>> encoder, likelihood = vk.backbones.MLP(hidden=[16]).encoder((1, 8, 8)), vk.likelihoods.Bernoulli((1, 8, 8))
        >>> prior = Vamp(3, components=5)
        >>> prior.attach(encoder, vk.posteriors.Gaussian(encoder.features, 3), likelihood)
        >>> prior().components, prior.pseudo_inputs.shape
        (5, torch.Size([5, 1, 8, 8]))
    """

    logits: Tensor | None
    raw_inputs: nn.Parameter | None

    def __init__(self, latent_dim: int, *, components: int = 50, learned_weights: bool = False) -> None:
        super().__init__(latent_dim)
        if components < 1:
            raise VaekitError(f"a mixture needs 1 or more components, not {components}")
        self.components = components
        self.register_parameter("logits", nn.Parameter(torch.zeros(components)) if learned_weights else None)
        self.register_parameter("raw_inputs", None)
        self.data_range = (0.0, 1.0)
        # In a tuple, which is not searched for modules: the state would hold them twice.
        self._model: tuple[Encoder, Posterior] | None = None

    def attach(self, encoder: Encoder, posterior: Posterior, likelihood: Likelihood) -> None:
        """Take the model's encoder and posterior; the first time, make the pseudo-inputs.

        Raises:
            VaekitError: The pseudo-inputs are those of data of another shape.
        """
        if self.raw_inputs is None:
            like = next(posterior.parameters())  # an encoder may have none
            shape = (self.components, *likelihood.data_shape)
            self.raw_inputs = nn.Parameter(torch.randn(shape, dtype=like.dtype, device=like.device))
        elif self.raw_inputs.shape[1:] != likelihood.data_shape:
            raise VaekitError(
                f"this prior has pseudo-inputs of shape {tuple(self.raw_inputs.shape[1:])}, and the data have "
                f"{tuple(likelihood.data_shape)}: build a new prior"
            )
        self.data_range = likelihood.data_range
        self._model = (encoder, posterior)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs in the range of the data, shape (K, *X).

        Raises:
            VaekitError: The prior does not belong to a model yet.
        """
        if self.raw_inputs is None:
            raise VaekitError("the prior 'vamp' is made of a model's posterior: build the VAE with it first")
        low, high = self.data_range
        return low + (high - low) * self.raw_inputs.sigmoid()

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        inputs = self.pseudo_inputs
        assert self._model is not None
        encoder, posterior = self._model
        with without_autocast(inputs.device), _evaluating(encoder):
            features = at_least_float32(encoder(inputs))
            # The posteriors that this prior works with do not look at it.
            zeros = features.new_zeros(self.latent_dim)
            q = posterior(features, dist.Normal(zeros, torch.ones_like(zeros), validate_args=False).to_event(1))
        logits = features.new_zeros(self.components) if self.logits is None else at_least_float32(self.logits)
        try:
            log_probs, loc, scale = as_mixture(q)
        except VaekitError:
            return dist.MixtureSameFamily(dist.Categorical(logits=logits, validate_args=False), q, validate_args=False)
        joint = (logits.unsqueeze(-1) + log_probs).flatten()
        return distributions.GaussianMixture(joint, loc.flatten(0, 1), scale.flatten(0, 1), validate_args=False)

    def extra_repr(self) -> str:
        """Show the number of pseudo-inputs."""
        return f"components={self.components}"


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and every part of it back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
