"""The posterior of an ordinary autoencoder: a point."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["Delta"]


@posteriors.register(
    "delta",
    about="A deterministic code: the posterior of an autoencoder, without a density",
    source="Ghosh et al., From Variational to Deterministic Autoencoders, 2019, arXiv 1903.12436",
    supports=("reparameterised", "moments"),
    support="point",
    only_with={"priors": ("standard_normal", "gaussian", "laplace", "uniform", "epanechnikov")},
)
class Delta(Posterior):
    r"""$z=\mu(x)$, without noise.

    A point has no density, so that its KL to every prior is infinite: terms that need a finite one are refused, and no
    objective with this posterior is a bound. `log_prob` is the logarithm of a probability, 0 at the point and -inf
    elsewhere. Nothing ties the codes to the prior, and a learned prior would learn nothing: draw latents from a
    density that is fitted to the codes, as the paper does (`vaekit sample RUN --from expost-mixture`).

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black and Schölkopf, 2019,
        arXiv 1903.12436.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = Delta(16, 3)(torch.randn(8, 16), StandardNormal(3)())
        >>> q.batch_shape, q.event_shape, q.variance.sum()
        (torch.Size([8]), torch.Size([3]), tensor(0.))
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim)
        self.loc = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return the point in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        loc = at_least_float32(self.loc(features.to(self.loc.weight.dtype)))
        return dist.Delta(loc, event_dim=1, validate_args=False)
