"""The Laplace prior."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Laplace"]


@priors.register(
    "laplace",
    about="Independent Laplace around 0, which favours sparse latents",
    source="B. A. Olshausen and D. J. Field, Emergence of simple-cell receptive field properties by learning a sparse "
    "code for natural images, 1996, Nature 381",
    supports=("factorised",),
    support="real",
)
class Laplace(Prior):
    r"""$p(z) = \prod_d \frac1{2b} e^{-|z_d| / b}$.

    Source: B. A. Olshausen and D. J. Field, Emergence of simple-cell receptive field properties by learning a sparse
    code for natural images, 1996, Nature 381 (priors that favour sparse codes).

    Arguments:
        latent_dim: The number D of latent dimensions.
        scale: The scale b; the variance is 2 b².

    Raises:
        VaekitError: The scale is not above 0.

    Examples:
        >>> Laplace(3)().log_prob(torch.zeros(3))
        tensor(-2.0794)
    """

    origin: Tensor

    def __init__(self, latent_dim: int, *, scale: float = 1.0) -> None:
        super().__init__(latent_dim)
        if not scale > 0.0:
            raise VaekitError(f"laplace prior: scale must be above 0, not {scale:g}")
        self.scale = scale
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) on the device of the module, in float32 at least."""
        origin = at_least_float32(self.origin)
        return dist.Laplace(origin, torch.full_like(origin, self.scale), validate_args=False).to_event(1)

    def extra_repr(self) -> str:
        """Show the scale."""
        return f"scale={self.scale:g}"
