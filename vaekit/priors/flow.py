"""The learned normalising-flow prior."""

from __future__ import annotations

from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit import distributions
from vaekit.backbones.flows import Autoregressive
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Flow"]


@priors.register(
    "flow",
    about="Learned normalising flow: neural splines, or masked autoregressive",
    source="X. Chen et al., Variational Lossy Autoencoder, 2016, arXiv 1611.02731; C. Durkan et al., Neural Spline "
    "Flows, 2019, arXiv 1906.04032; G. Papamakarios et al., Masked Autoregressive Flow for Density Estimation, 2017, "
    "arXiv 1705.07057",
    support="real",
)
class Flow(Prior):
    r"""$p(z)=N(g(z);\,0,I)\,\bigl|\det\frac{\partial g}{\partial z}\bigr|$ with a learned bijection g.

    A density takes one pass. Under `maf` g is a chain of affine autoregressive transforms, and a draw takes as many
    passes as there are dimensions (at most as many as the narrowest hidden layer has units). Under `spline` g is a
    chain of spline couplings, whose draws are quick; outside [-5, 5] it is the identity.

    References:
        Variational Lossy Autoencoder, Chen et al., 2016, arXiv 1611.02731 (a learned autoregressive prior).
        Neural Spline Flows, Durkan, Bekasov, Murray and Papamakarios, 2019, arXiv 1906.04032.
        Masked Autoregressive Flow for Density Estimation, Papamakarios, Pavlakou and Murray, 2017, arXiv 1705.07057.

    Arguments:
        latent_dim: The number D of latent dimensions.
        kind: `"spline"` or `"maf"`.
        transforms: The number of transforms in the chain.
        hidden: The widths of the hidden layers of each transform's network.
        bins: The number of bins of a spline; read by `spline` alone.

    Raises:
        VaekitError: An option is out of its range.

    Examples:
        >>> p = Flow(3)()
        >>> p.batch_shape, p.event_shape
        (torch.Size([]), torch.Size([3]))
    """

    origin: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        kind: Literal["spline", "maf"] = "spline",
        transforms: int = 3,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
    ) -> None:
        super().__init__(latent_dim)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)
        self.flow = Autoregressive(
            latent_dim,
            univariate="spline" if kind == "spline" else "affine",
            transforms=transforms,
            hidden=hidden,
            bins=bins,
            coupling=kind == "spline",
        )

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z), `batch_shape ()`, `event_shape (D,)`."""
        origin = at_least_float32(self.origin)
        base = dist.Normal(origin, torch.ones_like(origin), validate_args=False).to_event(1)
        # The network maps latents to the base: that is the direction of the density.
        return distributions.Flow(base, self.flow().inv, validate_args=False)
