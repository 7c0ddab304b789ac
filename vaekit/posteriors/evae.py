"""The posterior of EVAE: Epanechnikov noise plus a draw from the prior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import distributions
from vaekit.errors import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["EVAE"]

_LEAST = 1e-6


@posteriors.register(
    "evae",
    about="EVAE: b(mu + rK) plus a draw from the prior, K Epanechnikov noise",
    source="Qin and Huang, On Kernel-based Variational Autoencoder, 2024, arXiv 2405.12783",
    supports=("reparameterised", "density", "finite Fisher information", "moments", "factorised"),
    support="real",
    only_with={"priors": ("gaussian", "standard_normal", "uniform")},
)
class EVAE(Posterior):
    r"""$z=b\,(\mu(x)+r(x)K)+U$ with K standard Epanechnikov and U a draw from the prior, dimension by dimension.

    The published objective does not regularise $\mu$ at all and gives r a weak $1/r$ barrier (`evae_penalty`). With the
    prior `uniform` the posterior reaches over the edge of its box for every x, so that the KL is infinite and terms
    that need one are refused. With `gaussian` or `standard_normal` the KL is estimated from the exact density.

    References:
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783 (algorithms 1 and 2; how r is
        kept positive is not stated there, here by a softplus).

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        bandwidth: The factor b; the default is the paper's $100^{-2/9}$.
        radius: None for an r that the encoder decides, else its one value for all samples and dimensions.

    Raises:
        VaekitError: The bandwidth or the radius is not above 0.

    Examples:
        >>> from vaekit.priors import Uniform
        >>> q = EVAE(16, 3)(torch.randn(8, 16), Uniform(3, length=0.1)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    def __init__(
        self, features: int, latent_dim: int, *, bandwidth: float = 100 ** (-2 / 9), radius: float | None = None
    ) -> None:
        super().__init__(features, latent_dim)
        if not bandwidth > 0 or (radius is not None and not radius > 0):
            raise VaekitError(f"posterior.bandwidth and radius must be above 0, not {bandwidth:g} and {radius}")
        self.bandwidth = bandwidth
        self.radius = radius
        self.loc = nn.Linear(features, latent_dim)
        if radius is None:
            self.scale = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        features = features.to(self.loc.weight.dtype)
        loc = at_least_float32(self.loc(features))
        if self.radius is None:
            scale = F.softplus(at_least_float32(self.scale(features))) + _LEAST
        else:
            scale = torch.full_like(loc, self.radius)
        noise = getattr(prior, "base_dist", prior)
        q = distributions.EpanechnikovConvolution(loc, scale, noise, self.bandwidth, validate_args=False)
        return q.to_event(1)

    def monitor(
        self, q: torch.distributions.Distribution, prior: torch.distributions.Distribution
    ) -> dict[str, Tensor]:
        """Return the mean radius, where it is learned."""
        if self.radius is not None:
            return {}
        return {"radius": q.base_dist.scale.mean()}  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        """Show the options."""
        return f"bandwidth={self.bandwidth:.4g}, radius={self.radius}"
