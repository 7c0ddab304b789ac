"""The uniform prior on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit import distributions
from vaekit.distributions.sphere import check_dimensions
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["SphereUniform"]


@priors.register(
    "sphere_uniform",
    about="Uniform on the unit sphere, no parameters",
    source="T. R. Davidson, L. Falorsi, N. De Cao, T. Kipf and J. M. Tomczak, Hyperspherical Variational "
    "Auto-Encoders, 2018, arXiv 1804.00891",
    needs=("latent_dim of 2 or more",),
    support="sphere",
)
class SphereUniform(Prior):
    r"""$p(z)=1/|S^{D-1}|$ on the unit sphere of $\mathbb R^D$.

    Source: T. R. Davidson, L. Falorsi, N. De Cao, T. Kipf and J. M. Tomczak, Hyperspherical Variational Auto-Encoders,
    2018, arXiv 1804.00891.

    Arguments:
        latent_dim: The number D of coordinates, 2 or more; the sphere has one dimension less.

    Raises:
        VaekitError: Fewer than two coordinates.

    Examples:
        >>> SphereUniform(3)().log_prob(torch.tensor([0.6, 0.0, 0.8]))
        tensor(-2.5310)
    """

    origin: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        check_dimensions(latent_dim)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> torch.distributions.Distribution:
        """Return the uniform distribution on the device of the module, in float32 at least."""
        origin = at_least_float32(self.origin)
        return distributions.SphereUniform(self.latent_dim, origin.dtype, origin.device, validate_args=False)
