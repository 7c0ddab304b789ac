"""The Epanechnikov posterior, with an exact KL to Gaussian, uniform and Epanechnikov priors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import distributions
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["Epanechnikov"]

# The smallest half-width: absolute, and as a share of the prior's box.
_LEAST, _LEAST_SHARE = 1e-6, 1e-4


@posteriors.register(
    "epanechnikov",
    about="Epanechnikov noise around a location; inside the prior's box where it has one",
    source="Qin and Huang, On Kernel-based Variational Autoencoder, 2024, arXiv 2405.12783 (the kernel; the exact KL "
    "makes it an ELBO)",
    supports=("reparameterised", "density", "moments", "factorised"),
    support="interval",
    closed_kl=("standard_normal", "gaussian", "uniform", "epanechnikov"),
)
class Epanechnikov(Posterior):
    r"""$z_d=\mu_d(x)+r_d(x)K_d$ with K standard Epanechnikov: a density on a box that depends on x.

    For a prior on all of space $r=\mathrm{softplus}(\rho)+10^{-6}$. For a prior on a box of centre c and half-width R

    $$r=r_0+(R-2r_0)\,\mathrm{sigmoid}(\rho),\qquad\mu=c+(R-r)\tanh(m),\qquad r_0=10^{-4}R,$$

    so that the posterior never leaves the box and its KL is finite.

    The KL to N(0, 1) is never below 0.0462 nats per dimension, its value at $\mu=0$, $r=\sqrt5$: that is what a
    collapsed dimension costs. The Fisher information is infinite (see `vaekit.distributions.Epanechnikov`), so that
    sticking-the-landing and doubly reparameterised gradients are out.

    References:
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> p = StandardNormal(3)()
        >>> distributions.kl_divergence(Epanechnikov(16, 3)(torch.randn(8, 16), p), p).shape
        torch.Size([8])
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim)
        self.loc = nn.Linear(features, latent_dim)
        self.scale = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        features = features.to(self.loc.weight.dtype)
        loc, scale = at_least_float32(self.loc(features)), at_least_float32(self.scale(features))
        ends = distributions.bounds(prior)
        if ends is None:
            scale = F.softplus(scale) + _LEAST
        else:
            half_width, least = 0.5 * (ends[1] - ends[0]), 0.5 * _LEAST_SHARE * (ends[1] - ends[0])
            scale = least + (half_width - 2.0 * least) * scale.sigmoid()
            loc = 0.5 * (ends[0] + ends[1]) + (half_width - scale) * loc.tanh()
        return distributions.Epanechnikov(loc, scale, validate_args=False).to_event(1)
