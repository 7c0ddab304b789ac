"""The Poisson prior with learned rates."""

from __future__ import annotations

import torch
from torch import nn

from vaekit.distributions import RelaxedPoisson
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Poisson"]


@priors.register(
    "poisson",
    about="Poisson counts with learned rates",
    source="H. Vafaii, D. Galor and J. L. Yates, Poisson Variational Autoencoder, 2024, arXiv 2405.14473",
    supports=("factorised",),
    support="counts",
)
class Poisson(Prior):
    r"""$p(z) = \prod_d \mathrm{Pois}(z_d; r_d)$ with learned log-rates, which begin uniform between two numbers.

    Draws are exact counts. The authors begin with log-rates up to -4 for a linear decoder (rates of 0.0025 to 0.018)
    and up to -2 for others.

    Source: H. Vafaii, D. Galor and J. L. Yates, Poisson Variational Autoencoder, 2024, arXiv 2405.14473.

    Arguments:
        latent_dim: The number D of latent dimensions.
        low: The lowest first log-rate.
        high: The highest first log-rate.

    Raises:
        VaekitError: `high` is below `low`.

    Examples:
        >>> p = Poisson(3)()
        >>> p.batch_shape, p.event_shape
        (torch.Size([]), torch.Size([3]))
    """

    def __init__(self, latent_dim: int, *, low: float = -6.0, high: float = -2.0) -> None:
        super().__init__(latent_dim)
        if high < low:
            raise VaekitError(f"the first log-rates of the poisson prior must rise from low to high, not {low}, {high}")
        self.log_rate = nn.Parameter(torch.empty(latent_dim).uniform_(low, high))

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        return RelaxedPoisson(at_least_float32(self.log_rate), validate_args=False).to_event(1)
