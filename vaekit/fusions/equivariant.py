"""Private latents from all modalities of the subset and the shared latent, equivariant to the order of modalities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekit.fusions.base import PrivateFusion
from vaekit.fusions.private import GaussianHead
from vaekit.fusions.sets import Adapters, AttentionBlocks, affine, mlp, pool, require_sizes
from vaekit.registry import private_fusions

__all__ = ["SelfAttentionEquivariant", "SumPoolingEquivariant"]

Distribution = torch.distributions.Distribution


@private_fusions.register(
    "sum_pooling",
    about="Private latent from its modality, the sum over the subset and the shared latent",
    source="Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with permutation-invariant "
    "encoders and tighter variational objectives, 2023, arXiv 2309.00380",
)
class SumPoolingEquivariant(PrivateFusion):
    r"""$q(\tilde z_m\mid z,x_S)$, a Gaussian with the parameters
    $\rho\bigl(\sum_{t\in S}\chi_0(h_t)+\chi_1(z)+\chi_2(h_m)\bigr)$.

    $h_m$ is a linear map of the features of modality m; the other networks are shared by all modalities, so that
    another order of the modalities gives the same posteriors in that order.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of shared latent dimensions.
        private_dim: The number P of dimensions of each private latent.
        width: The width of the hidden layers.
        pooled: The number of features that are summed.
        layers: The number of hidden layers of each network.
        slope: The slope of the leaky ReLU below zero.

    Raises:
        VaekitError: A size is not positive, or the slope does not lie in [0, 1].

    Examples:
        >>> fusion = SumPoolingEquivariant([4, 6], 2, 3, width=16, pooled=16)
        >>> features, mask = [torch.ones(5, 4), torch.ones(5, 6)], torch.ones(5, 2, dtype=torch.bool)
        >>> fusion(features, torch.zeros(7, 5, 2), mask).batch_shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        features: Sequence[int],
        latent_dim: int,
        private_dim: int,
        *,
        width: int = 256,
        pooled: int = 256,
        layers: int = 2,
        slope: float = 0.01,
    ) -> None:
        super().__init__(features, latent_dim, private_dim)
        require_sizes("sum_pooling", width=width, pooled=pooled, layers=layers, slope=slope)
        hidden = [width] * layers
        self.adapters = Adapters(features, width)
        # What rho takes begins as large as a part of it alone: three parts, the first a sum over M.
        gains = ((3 * len(self.features)) ** -0.5, 3**-0.5, 3**-0.5)
        self.of_set, self.of_shared, self.of_own = (
            nn.Sequential(*mlp([size, *hidden], slope), affine(width, pooled, gain=gain))
            for size, gain in zip((width, latent_dim, width), gains, strict=True)
        )
        self.rho = nn.Sequential(*mlp([pooled, *hidden], slope), GaussianHead(width, private_dim))

    def embed(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r"""Return $\chi_0(h_m)$ and $\chi_2(h_m)$ of every modality, each (B, M, `pooled`)."""
        adapted = self.adapters(features)
        return self.of_set(adapted), self.of_own(adapted)

    def fuse(self, embedded: tuple[Tensor, Tensor], z: Tensor, mask: Tensor) -> Distribution:
        """Return the private posteriors: `batch_shape (S, B, M)`."""
        of_set, of_own = embedded
        of_all = pool(of_set, mask) + self.of_shared(z.to(of_set.dtype))
        q: Distribution = self.rho(of_all.unsqueeze(-2) + of_own)
        return q


@private_fusions.register(
    "self_attention",
    about="Private latent by self-attention among the modalities of the subset, given the shared latent",
    source="Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with permutation-invariant "
    "encoders and tighter variational objectives, 2023, arXiv 2309.00380; Lee et al., Set "
    "Transformer, 2018, arXiv 1810.00825",
)
class SelfAttentionEquivariant(PrivateFusion):
    r"""$q(\tilde z_m\mid z,x_S)$, a Gaussian whose parameters are a linear map of $g(\chi_1(h_S)+\chi_2(z))_m$.

    $h_m$ is a linear map of the features of modality m and g `AttentionBlocks` among the modalities of S. All but the
    first is shared by all modalities, so that another order of them gives the same posteriors in that order.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380; Set Transformer, Lee, Lee, Kim, Kosiorek, Choi and
        Teh, 2018, arXiv 1810.00825.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of shared latent dimensions.
        private_dim: The number P of dimensions of each private latent.
        width: The width of the hidden layers and of the attention, which is rounded down to a multiple of the heads.
        pooled: The number of features that attend to one another.
        depth: The number of blocks.
        heads: The number of heads.
        slope: The slope of the leaky ReLU below zero.

    Raises:
        VaekitError: A size is not positive, there are more heads than `width`, or the slope does not lie in [0, 1].

    Examples:
        >>> fusion = SelfAttentionEquivariant([4, 6], 2, 3, width=16, pooled=16)
        >>> features, mask = [torch.ones(5, 4), torch.ones(5, 6)], torch.ones(5, 2, dtype=torch.bool)
        >>> fusion(features, torch.zeros(7, 5, 2), mask).batch_shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        features: Sequence[int],
        latent_dim: int,
        private_dim: int,
        *,
        width: int = 256,
        pooled: int = 256,
        depth: int = 1,
        heads: int = 4,
        slope: float = 0.01,
    ) -> None:
        super().__init__(features, latent_dim, private_dim)
        require_sizes("self_attention", width=width, pooled=pooled, depth=depth, heads=heads, slope=slope)
        self.adapters = Adapters(features, width)
        self.of_own, self.of_shared = (
            nn.Sequential(*mlp([size, width], slope), affine(width, pooled)) for size in (width, latent_dim)
        )
        self.attention = AttentionBlocks(pooled, width, depth, heads)
        self.head = GaussianHead(pooled, private_dim)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        r"""Return $\chi_1(h_m)$ of every modality: (B, M, `pooled`)."""
        values: Tensor = self.of_own(self.adapters(features))
        return values

    def fuse(self, embedded: Tensor, z: Tensor, mask: Tensor) -> Distribution:
        """Return the private posteriors: `batch_shape (S, B, M)`."""
        values = embedded + self.of_shared(z.to(embedded.dtype)).unsqueeze(-2)
        q: Distribution = self.head(self.attention(values, mask.expand(values.shape[:-1])))
        return q
