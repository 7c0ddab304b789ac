"""The Gaussian posterior with correlated dimensions."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.backbones.layers import Init, initialise
from vaekit.errors import VaekitError
from vaekit.posteriors.location_scale import LocationScale
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["FullGaussian"]


@posteriors.register(
    "full_gaussian",
    about="Gaussian with a full covariance, or a diagonal plus one of low rank",
    source="D. P. Kingma and M. Welling, An Introduction to Variational Autoencoders, 2019, arXiv 1906.02691 (section "
    "2.5.1); low rank: V. M.-H. Ong, D. J. Nott and M. S. Smith, Gaussian variational approximation with a factor "
    "covariance structure, 2018, arXiv 1701.03208",
    supports=("reparameterised", "density", "finite Fisher information", "moments"),
    support="real",
    closed_kl=("standard_normal", "gaussian"),
)
class FullGaussian(LocationScale):
    r"""$q(z|x)=N(\mu(x),\Sigma(x))$ with $\Sigma=S(I+A)(I+A)^\top S$, or $\Sigma=S(I+FF^\top)S$.

    $S=\mathrm{diag}(\sigma)$. A is strictly lower triangular, so that $S(I+A)$ is the Cholesky factor and $\sigma_d^2$
    the variance of a dimension given those before it; F has `rank` columns. Both are relative to σ, because absolute
    ones beside a small σ would leave nothing of float32. A is the head's output over the square root of D, and F over
    that of the rank: the first variances grow with neither. A takes D (D - 1) / 2 outputs, much where D is in the
    hundreds: give a rank then.

    Source: D. P. Kingma and M. Welling, An Introduction to Variational Autoencoders, 2019, arXiv 1906.02691 (section
    2.5.1); V. M.-H. Ong, D. J. Nott and M. S. Smith, Gaussian variational approximation with a factor covariance
    structure, 2018, arXiv 1701.03208.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        rank: The number of columns of F; None for a full covariance.
        log_variance_range: The logarithm of σ² is softly clamped to this range; None leaves it free.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Raises:
        VaekitError: The rank is below 1, or the range does not rise.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = FullGaussian(16, 3)(torch.randn(8, 16), StandardNormal(3)())
        >>> q.batch_shape, q.event_shape, q.scale_tril.shape
        (torch.Size([8]), torch.Size([3]), torch.Size([8, 3, 3]))
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        rank: int | None = None,
        log_variance_range: tuple[float, float] | None = (-10.0, 4.0),
        init: Init = "default",
    ) -> None:
        super().__init__(features, latent_dim, log_variance_range)
        if rank is not None and rank < 1:
            raise VaekitError(f"the rank must be 1 or more, not {rank}; leave it out for a full covariance")
        self.rank = rank
        # In one dimension nothing lies off the diagonal.
        size = latent_dim * rank if rank else latent_dim * (latent_dim - 1) // 2
        self.factor = nn.Linear(features, size) if size else None
        initialise(self, init)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        loc, scale = self.loc_and_scale(features)
        if self.factor is None:
            return dist.MultivariateNormal(loc, scale_tril=scale.diag_embed(), validate_args=False)
        factor = at_least_float32(self.factor(features.to(self.factor.weight.dtype)))
        if self.rank:
            columns = scale.unsqueeze(-1) * factor.unflatten(-1, (self.latent_dim, self.rank)) / math.sqrt(self.rank)
            return dist.LowRankMultivariateNormal(loc, columns, scale.square(), validate_args=False)
        row, column = torch.tril_indices(self.latent_dim, self.latent_dim, -1, device=factor.device)
        tril = scale.diag_embed()
        tril[..., row, column] = scale[..., row] * factor / math.sqrt(self.latent_dim)
        return dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)

    def extra_repr(self) -> str:
        """Show the rank."""
        return f"rank={self.rank}"
