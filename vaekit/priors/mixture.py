"""The learned Gaussian-mixture prior."""

from __future__ import annotations

import math

import torch
from torch import nn

from vaekit import distributions
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["GaussianMixture"]


@priors.register(
    "gaussian_mixture",
    about="Learned mixture of diagonal Gaussians",
    source="N. Dilokthanakul et al., Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders, "
    "2016, arXiv 1611.02648",
    support="real",
)
class GaussianMixture(Prior):
    r"""$p(z) = \sum_k \rho_k \prod_d N(z_d; m_{kd}, s_{kd}^2)$ with learned weights, locations and scales.

    The locations begin as draws from $N(0, \mathrm{spread}^2)$, the weights equal.

    Source: N. Dilokthanakul et al., Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders, 2016,
    arXiv 1611.02648 (the mixture as a prior; here it is marginal, with no inference of the component).

    Arguments:
        latent_dim: The number D of latent dimensions.
        components: The number K of components.
        spread: The standard deviation of the initial locations.
        scale: The initial standard deviation of every component.

    Raises:
        VaekitError: There is no component, the spread is negative or the scale not positive.

    Examples:
        >>> p = GaussianMixture(3, components=5)()
        >>> p.components, p.batch_shape, p.event_shape
        (5, torch.Size([]), torch.Size([3]))
    """

    def __init__(self, latent_dim: int, *, components: int = 10, spread: float = 1.0, scale: float = 1.0) -> None:
        super().__init__(latent_dim)
        if components < 1:
            raise VaekitError(f"a mixture needs 1 or more components, not {components}")
        if spread < 0.0 or scale <= 0.0:
            raise VaekitError(f"spread must be 0 or more and scale above 0, not {spread:g} and {scale:g}")
        self.components = components
        if components > 1:
            self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(spread * torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.full((components, latent_dim), math.log(scale)))

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        log_scale = at_least_float32(self.log_scale)
        logits = self.logits if self.components > 1 else log_scale.new_zeros(1)
        return distributions.GaussianMixture(logits, self.loc, log_scale.exp(), validate_args=False)

    def extra_repr(self) -> str:
        """Show the number of components."""
        return f"components={self.components}"
