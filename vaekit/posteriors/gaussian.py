"""The diagonal Gaussian posterior."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.backbones.layers import Init, initialise
from vaekit.errors import VaekitError
from vaekit.posteriors.location_scale import Head, LocationScale
from vaekit.registry import posteriors

__all__ = ["Gaussian"]


@posteriors.register(
    "gaussian",
    about="Diagonal Gaussian",
    source="D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114",
    supports=(
        "reparameterised",
        "density",
        "finite Fisher information",
        "moments",
        "factorised",
        "gaussian components",
    ),
    support="real",
    closed_kl=("standard_normal", "gaussian", "laplace"),
)
class Gaussian(LocationScale):
    r"""$q(z|x) = \prod_d N(z_d; \mu_d(x), \sigma_d^2(x))$.

    Source: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        log_variance_range: The log-variance is softly clamped to this range; None leaves it free.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.
        head: `"linear"` for a linear layer each of location and log-variance; `"split"` where the encoder gives both
            already, locations first, as `autoencoder_kl` does: the posterior then has no weights of its own.

    Raises:
        VaekitError: The range does not rise, the features to split are not 2 D, or `init` is given where there is no
            layer to initialise.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = Gaussian(16, 3)(torch.randn(8, 16), StandardNormal(3)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        log_variance_range: tuple[float, float] | None = (-10.0, 4.0),
        init: Init = "default",
        head: Head = "linear",
    ) -> None:
        if head == "split" and init != "default":
            raise VaekitError(f"init = {init!r} of gaussian is for its linear layers, and the head 'split' has none")
        super().__init__(features, latent_dim, log_variance_range, head=head)
        initialise(self, init)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        loc, scale = self.loc_and_scale(features)
        return dist.Normal(loc, scale, validate_args=False).to_event(1)
