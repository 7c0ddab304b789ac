"""The Laplace posterior."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.backbones.layers import Init, initialise
from vaekit.posteriors.base import Posterior
from vaekit.posteriors.gaussian import check_range, log_variance_to_scale
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["Laplace"]


@posteriors.register(
    "laplace",
    about="Independent Laplace per dimension",
    source="D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114 (location-scale "
    "families, section 2.4)",
    supports=("reparameterised", "density", "finite Fisher information", "moments", "factorised"),
    support="real",
    closed_kl=("laplace", "standard_normal", "gaussian"),
)
class Laplace(Posterior):
    r"""$q(z|x) = \prod_d \frac1{2b_d(x)} e^{-|z_d - \mu_d(x)| / b_d(x)}$, of variance $2b_d^2$.

    Source: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114 (section 2.4).

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        log_variance_range: The log-variance is softly clamped to this range; None leaves it free.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Raises:
        VaekitError: The range does not rise.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = Laplace(16, 3)(torch.randn(8, 16), StandardNormal(3)())
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
    ) -> None:
        super().__init__(features, latent_dim)
        check_range(log_variance_range)
        self.log_variance_range = log_variance_range
        self.loc = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)
        initialise(self, init)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        features = features.to(self.loc.weight.dtype)
        loc, log_variance = at_least_float32(self.loc(features)), at_least_float32(self.log_variance(features))
        scale = log_variance_to_scale(log_variance, self.log_variance_range) * math.sqrt(0.5)
        return dist.Laplace(loc, scale, validate_args=False).to_event(1)
