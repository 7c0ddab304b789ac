"""A Gaussian prior whose scale is chosen or learned."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Gaussian"]


@priors.register(
    "gaussian",
    about="N(0, s^2 I), fixed or learned s",
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114 (s = 1); Qin and Huang, On "
    "Kernel-based Variational Autoencoder, 2024, arXiv 2405.12783 (s = 0.1)",
    supports=("factorised",),
    support="real",
)
class Gaussian(Prior):
    """$p(z) = N(0, s^2 I)$.

    References:
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783 (the Gaussian variant of EVAE).

    Arguments:
        latent_dim: The number D of latent dimensions.
        scale: The standard deviation s (its start where it is learned).
        learned: Whether the scale is a parameter, one for all dimensions.

    Raises:
        VaekitError: The scale is not above 0.

    Examples:
        >>> Gaussian(3, scale=0.1)().stddev
        tensor([0.1000, 0.1000, 0.1000])
    """

    log_scale: Tensor

    def __init__(self, latent_dim: int, *, scale: float = 1.0, learned: bool = False) -> None:
        super().__init__(latent_dim)
        if not scale > 0:
            raise VaekitError(f"prior.scale must be above 0, not {scale:g}")
        log_scale = torch.tensor(math.log(scale))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        scale = at_least_float32(self.log_scale).exp().expand(self.latent_dim)
        return dist.Normal(torch.zeros_like(scale), scale, validate_args=False).to_event(1)

    def extra_repr(self) -> str:
        """Show the scale."""
        learned = isinstance(self.log_scale, nn.Parameter)
        return f"scale={math.exp(self.log_scale.item()):.4g}{', learned' if learned else ''}"
