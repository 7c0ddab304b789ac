"""The diagonal Gaussian posterior."""

from __future__ import annotations

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.layers import Init, initialise
from vaekit.errors import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["Gaussian", "check_range", "log_variance_to_scale"]


def check_range(log_variance_range: tuple[float, float] | None) -> None:
    """Raise VaekitError for a range whose ends are in the wrong order."""
    if log_variance_range is not None and log_variance_range[0] >= log_variance_range[1]:
        raise VaekitError(f"log_variance_range must rise from its first to its second number, not {log_variance_range}")


def log_variance_to_scale(log_variance: Tensor, log_variance_range: tuple[float, float] | None) -> Tensor:
    r"""Return the standard deviation $\exp(c(v) / 2)$ with c a soft clamp of the log-variance v to a range.

    $c(v) = a + \mathrm{softplus}(b - \mathrm{softplus}(b - v) - a)$: nearly the identity well inside (a, b), with a
    gradient everywhere.

    Examples:
        >>> log_variance_to_scale(torch.tensor([0.0, 100.0]), (-10.0, 4.0))
        tensor([0.9910, 7.3891])
    """
    if log_variance_range is not None:
        low, high = log_variance_range
        log_variance = low + F.softplus(high - F.softplus(high - log_variance) - low)
    return torch.exp(0.5 * log_variance)


@posteriors.register(
    "gaussian",
    about="Diagonal Gaussian",
    source="D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114",
    supports=(
        "reparameterised",
        "density",
        "finite Fisher information",
        "moments",
        "factorised",
        "gaussian components",
    ),
    support="real",
    closed_kl=("standard_normal", "gaussian", "laplace"),
)
class Gaussian(Posterior):
    r"""$q(z|x) = \prod_d N(z_d; \mu_d(x), \sigma_d^2(x))$.

    Source: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        log_variance_range: The log-variance is softly clamped to this range; None leaves it free.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Raises:
        VaekitError: The range does not rise.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = Gaussian(16, 3)(torch.randn(8, 16), StandardNormal(3)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        log_variance_range: tuple[float, float] | None = (-10.0, 4.0),
        init: Init = "default",
    ) -> None:
        super().__init__(features, latent_dim)
        check_range(log_variance_range)
        self.log_variance_range = log_variance_range
        self.loc = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)
        initialise(self, init)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        features = features.to(self.loc.weight.dtype)
        loc, log_variance = at_least_float32(self.loc(features)), at_least_float32(self.log_variance(features))
        scale = log_variance_to_scale(log_variance, self.log_variance_range)
        return dist.Normal(loc, scale, validate_args=False).to_event(1)
