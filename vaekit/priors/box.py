"""Priors on a box around the origin: uniform and Epanechnikov."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit import distributions
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Epanechnikov", "Uniform"]


class _Box(Prior):
    """A prior on a box that reaches from -`half_width` to `half_width` in every dimension."""

    half_width: Tensor

    def __init__(self, latent_dim: int, half_width: float, option: str) -> None:
        super().__init__(latent_dim)
        if not half_width > 0:
            raise VaekitError(f"prior.{option} must be above 0")
        self.register_buffer("half_width", torch.full((latent_dim,), half_width), persistent=False)


@priors.register(
    "uniform",
    about="Uniform on a box around the origin",
    source="Qin and Huang, On Kernel-based Variational Autoencoder, 2024, arXiv 2405.12783",
    supports=("factorised",),
    support="interval",
)
class Uniform(_Box):
    """Uniform on [-B/2, B/2] in every dimension.

    Only a posterior that stays inside the box has a finite KL to it: `epanechnikov` does.

    References:
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783.

    Arguments:
        latent_dim: The number D of latent dimensions.
        length: The length B of the interval.

    Raises:
        VaekitError: The length is not above 0.

    Examples:
        >>> Uniform(3, length=4.0)().log_prob(torch.zeros(3)).exp()
        tensor(0.0156)
    """

    def __init__(self, latent_dim: int, *, length: float = 1.0) -> None:
        super().__init__(latent_dim, 0.5 * length, "length")

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        half_width = at_least_float32(self.half_width)
        return dist.Uniform(-half_width, half_width, validate_args=False).to_event(1)


@priors.register(
    "epanechnikov",
    about="Epanechnikov on a box around the origin",
    source="Epanechnikov, Non-Parametric Estimation of a Multivariate Probability Density, 1969",
    supports=("factorised",),
    support="interval",
)
class Epanechnikov(_Box):
    """The product of Epanechnikov densities of half-width r around the origin.

    Only a posterior that stays inside the box has a finite KL to it: `epanechnikov` does.

    References:
        Non-Parametric Estimation of a Multivariate Probability Density, Epanechnikov, 1969.

    Arguments:
        latent_dim: The number D of latent dimensions.
        scale: The half-width r; the standard deviation is r / sqrt(5).

    Raises:
        VaekitError: The scale is not above 0.

    Examples:
        >>> Epanechnikov(3, scale=2.0)().variance
        tensor([0.8000, 0.8000, 0.8000])
    """

    def __init__(self, latent_dim: int, *, scale: float = 1.0) -> None:
        super().__init__(latent_dim, scale, "scale")

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        half_width = at_least_float32(self.half_width)
        return distributions.Epanechnikov(torch.zeros_like(half_width), half_width, validate_args=False).to_event(1)
