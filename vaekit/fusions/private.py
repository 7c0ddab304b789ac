"""Private latents that depend on their own modality alone, and the head of all private fusions."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.distributions import log_variance_to_scale, stack
from vaekit.fusions.base import PrivateFusion
from vaekit.precision import at_least_float32
from vaekit.registry import private_fusions

__all__ = ["GaussianHead", "IndependentPrivate"]

Distribution = torch.distributions.Distribution

_LOG_VARIANCES = (-10.0, 4.0)


class GaussianHead(nn.Module):
    """A linear map to the locations and softly clamped log-variances of independent Gaussians.

    Arguments:
        features: The number F of features.
        dim: The number P of dimensions.

    Examples:
        >>> q = GaussianHead(8, 2)(torch.zeros(5, 3, 8))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5, 3]), torch.Size([2]))
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * dim)

    def forward(self, features: Tensor) -> Distribution:
        """Return the Gaussians in float32 at least, `batch_shape (...)` for features (..., F)."""
        loc, log_variance = at_least_float32(self.linear(features.to(self.linear.weight.dtype))).chunk(2, -1)
        scale = log_variance_to_scale(log_variance, _LOG_VARIANCES)
        return dist.Normal(loc, scale, validate_args=False).to_event(1)


@private_fusions.register(
    "independent",
    about="Private latent from its own modality alone",
    source="Palumbo, Daunhawer and Vogt, MMVAE+: Enhancing the Generative Quality of Multimodal VAEs without "
    "Compromises, ICLR 2023",
)
class IndependentPrivate(PrivateFusion):
    r"""$q(\tilde z_m\mid x_m)$, a Gaussian for each modality that sees neither the shared latent nor the others.

    References:
        MMVAE+: Enhancing the Generative Quality of Multimodal VAEs without Compromises, Palumbo, Daunhawer and Vogt,
        ICLR 2023.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of shared latent dimensions.
        private_dim: The number P of dimensions of each private latent.
        auxiliary: Whether the auxiliary prior has learned scales, which begin at one: see `auxiliary`. For objectives
            that draw from it, as `mmvae_plus` does.

    Examples:
        >>> fusion = IndependentPrivate([4, 6], 2, 3)
        >>> features, mask = [torch.ones(5, 4), torch.ones(5, 6)], torch.ones(5, 2, dtype=torch.bool)
        >>> fusion(features, torch.zeros(7, 5, 2), mask).batch_shape
        torch.Size([7, 5, 2])
    """

    sees_shared = False

    def __init__(self, features: Sequence[int], latent_dim: int, private_dim: int, *, auxiliary: bool = False) -> None:
        super().__init__(features, latent_dim, private_dim)
        self.heads = nn.ModuleList([GaussianHead(count, private_dim) for count in features])
        self.log_scale = nn.Parameter(torch.zeros(len(self.features), private_dim)) if auxiliary else None

    def embed(self, features: Sequence[Tensor]) -> Distribution:
        """Return the private posteriors: `batch_shape (B, M)`, `event_shape (P,)`."""
        return stack([head(part) for head, part in zip(self.heads, features, strict=True)])

    def fuse(self, embedded: Distribution, z: Tensor, mask: Tensor) -> Distribution:
        """Return the private posteriors, the same for every shared draw: `batch_shape (S, B, M)`."""
        return embedded.expand(torch.Size([*z.shape[:-1], len(self.features)]))

    @property
    def learns_auxiliary(self) -> bool:
        """Whether the auxiliary prior has learned scales."""
        return self.log_scale is not None

    def auxiliary(self) -> Distribution:
        r"""Return $r_m(\tilde z)=\mathcal N(0,\mathrm{diag}\,s_m^2)$ with learned scales, or the standard normal."""
        if self.log_scale is None:
            return super().auxiliary()
        log_scale = at_least_float32(self.log_scale)
        return dist.Normal(torch.zeros_like(log_scale), log_scale.exp(), validate_args=False).to_event(1)

    def extra_repr(self) -> str:
        """Show the option."""
        return f"auxiliary={self.learns_auxiliary}"
