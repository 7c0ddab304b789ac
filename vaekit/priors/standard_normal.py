"""The standard normal prior."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["StandardNormal"]


@priors.register(
    "standard_normal",
    about="N(0, I), no parameters",
    source="D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114",
    supports=("factorised",),
    support="real",
)
class StandardNormal(Prior):
    """$p(z) = N(0, I)$.

    Source: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114.

    Arguments:
        latent_dim: The number D of latent dimensions.

    Examples:
        >>> StandardNormal(3)().log_prob(torch.zeros(3))
        tensor(-2.7568)
    """

    origin: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> torch.distributions.Distribution:
        """Return N(0, I) on the device of the module, in float32 at least."""
        origin = at_least_float32(self.origin)
        return dist.Normal(origin, torch.ones_like(origin), validate_args=False).to_event(1)
