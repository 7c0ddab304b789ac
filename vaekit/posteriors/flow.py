"""The normalising-flow posterior."""

from __future__ import annotations

from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit import distributions
from vaekit.backbones.flows import Autoregressive, shifted
from vaekit.posteriors.location_scale import LocationScale
from vaekit.registry import posteriors

__all__ = ["Flow"]


@posteriors.register(
    "flow",
    about="Normalising flow on a diagonal Gaussian: inverse autoregressive, or neural splines",
    source="D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, "
    "arXiv 1606.04934; C. Durkan et al., Neural Spline Flows, 2019, arXiv 1906.04032",
    supports=("reparameterised", "density"),
    support="real",
)
class Flow(LocationScale):
    r"""$z=f(\mu(x)+\sigma(x)\varepsilon;\,x)$ with $\varepsilon\sim N(0,I)$ and a bijection f that sees the features.

    Under `iaf` f is a chain of affine autoregressive transforms. A draw and its density take one pass; the density of
    any other value takes as many passes as there are dimensions (at most as many as the narrowest hidden layer has
    units). Under `spline` f is a chain of spline couplings, quick in both directions, and the
    identity outside [-5, 5].

    The mean and the variance are estimates (see `vaekit.distributions.Flow`). The density's parameters cannot be held
    fixed, so that `dreg` and `sticking_the_landing` refuse this posterior.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv 1606.04934.
        Neural Spline Flows, Durkan, Bekasov, Murray and Papamakarios, 2019, arXiv 1906.04032.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        kind: `"iaf"` or `"spline"`.
        transforms: The number of transforms in the chain.
        hidden: The widths of the hidden layers of each transform's network.
        bins: The number of bins of a spline; read by `spline` alone.
        log_variance_range: The log-variance of the Gaussian is softly clamped to this range; None leaves it free.

    Raises:
        VaekitError: An option is out of its range.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = Flow(16, 3)(torch.randn(8, 16), StandardNormal(3)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        kind: Literal["iaf", "spline"] = "iaf",
        transforms: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
        log_variance_range: tuple[float, float] | None = (-10.0, 4.0),
    ) -> None:
        super().__init__(features, latent_dim, log_variance_range)
        self.flow = Autoregressive(
            latent_dim,
            features,
            univariate="spline" if kind == "spline" else "affine",
            transforms=transforms,
            hidden=hidden,
            bins=bins,
            coupling=kind == "spline",
        )

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x), `batch_shape (B,)`, `event_shape (D,)`."""
        loc, scale = self.loc_and_scale(features)
        transform = shifted(loc, scale, self.flow(features.to(self.loc.weight.dtype)))
        origin = loc.new_zeros(self.latent_dim)
        base = dist.Normal(origin, torch.ones_like(origin), validate_args=False).to_event(1)
        return distributions.Flow(base, transform, loc.shape[:-1], validate_args=False)
