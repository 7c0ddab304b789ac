"""A posterior with heavier tails than a Gaussian."""

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["StudentT"]


@posteriors.register(
    "student_t",
    about="Independent Student-t per dimension, with a fixed number of degrees of freedom",
    source="Student, The probable error of a mean, Biometrika 6, 1908",
    supports=("reparameterised", "density", "finite Fisher information", "moments", "factorised"),
    support="real",
)
class StudentT(Posterior):
    r"""$q(z|x) = \prod_d t_\nu(z_d; \mu_d(x), s_d(x))$.

    No closed form of its KL to a Gaussian is known to torch, so the regularizer `kl` estimates it from the draws.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        degrees: The degrees of freedom, above 2 so that the variance is finite.

    Raises:
        VaekitError: There are too few degrees of freedom.
    """

    def __init__(self, features: int, latent_dim: int, *, degrees: float = 5.0) -> None:
        super().__init__(features, latent_dim)
        if degrees <= 2:
            raise VaekitError(f"student_t: degrees must be above 2, not {degrees:g}")
        self.degrees = degrees
        self.loc = nn.Linear(features, latent_dim)
        self.raw_scale = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x), `batch_shape (B,)`, `event_shape (D,)`."""
        loc, raw = at_least_float32(self.loc(features)), at_least_float32(self.raw_scale(features))
        return dist.StudentT(self.degrees, loc, F.softplus(raw) + 1e-4, validate_args=False).to_event(1)
