"""Self-attention among the modalities, then sum pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekit.fusions.base import Fusion, MakePosterior
from vaekit.fusions.sets import Adapters, AttentionBlocks, PreNormBlock, affine, mlp, pool, require_sizes
from vaekit.registry import fusions

__all__ = ["SelfAttention"]

Distribution = torch.distributions.Distribution


@fusions.register(
    "self_attention",
    about="Self-attention among the modalities, a sum, then a posterior (Set Transformer)",
    source="Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with permutation-invariant "
    "encoders and tighter variational objectives, 2023, arXiv 2309.00380; Lee et al., Set "
    "Transformer, 2018, arXiv 1810.00825",
)
class SelfAttention(Fusion):
    r"""$q(z\mid x_S)$ with the parameters $\rho\bigl(\sum_{m\in S}g(\chi(h_S))_m\bigr)$, g being attention within S.

    $h_m$ is a linear map of the features of modality m; $\chi$, $\rho$ and the `AttentionBlocks` g are shared by all
    modalities. For no modality it is $\rho(0)$, which is learned. Any posterior can stand at the end.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380; Set Transformer, Lee, Lee, Kim, Kosiorek, Choi and
        Teh, 2018, arXiv 1810.00825.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of latent dimensions.
        posterior: Builds the posterior from a number of features.
        width: The width of the hidden layers and of the attention, which is rounded down to a multiple of the heads.
        pooled: The number of features that attend to one another and are summed.
        depth: The number of blocks.
        heads: The number of heads.
        residual: Whether $\chi$ and $\rho$ are residual: a linear layer and a `PreNormBlock` each, instead of plain
            layers.
        slope: The slope of the leaky ReLU below zero.

    Raises:
        VaekitError: A size is not positive, there are more heads than `width`, or the slope does not lie in [0, 1].

    Examples:
        >>> from vaekit.posteriors import Gaussian
        >>> from vaekit.priors import StandardNormal
        >>> fusion = SelfAttention([4, 6], 2, lambda features: Gaussian(features, 2), width=16, pooled=16)
        >>> mask = torch.tensor([[True, True], [True, False], [False, False]])
        >>> fusion([torch.ones(3, 4), torch.ones(3, 6)], mask, StandardNormal(2)()).batch_shape
        torch.Size([3])
    """

    def __init__(
        self,
        features: Sequence[int],
        latent_dim: int,
        posterior: MakePosterior,
        *,
        width: int = 256,
        pooled: int = 256,
        depth: int = 1,
        heads: int = 4,
        residual: bool = False,
        slope: float = 0.01,
    ) -> None:
        super().__init__(features, latent_dim, posterior)
        require_sizes("self_attention", width=width, pooled=pooled, depth=depth, heads=heads, slope=slope)
        self.adapters = Adapters(features, width)
        before = [PreNormBlock(width, slope)] if residual else mlp([width, width], slope)
        self.chi = nn.Sequential(*before, affine(width, pooled))
        self.attention = AttentionBlocks(pooled, width, depth, heads)
        # The sum over all modalities begins as large as one of them.
        nn.init.constant_(self.attention.norm.weight, len(self.features) ** -0.5)
        if residual:
            self.rho = nn.Sequential(affine(pooled, width), PreNormBlock(width, slope), nn.LayerNorm(width))
        else:
            self.rho = nn.Sequential(*mlp([pooled, width, width], slope))
        self.posterior = posterior(width)

    def embed(self, features: Sequence[Tensor], prior: Distribution) -> Tensor:
        r"""Return $\chi(h_m)$ of every modality: (B, M, P)."""
        values: Tensor = self.chi(self.adapters(features))
        return values

    def fuse(self, embedded: Tensor, mask: Tensor, prior: Distribution) -> Distribution:
        """Return the posterior of the sum over the modalities that the mask lets through."""
        attended = self.attention(embedded.expand(*mask.shape, -1), mask)
        q: Distribution = self.posterior(self.rho(pool(attended, mask)), prior)
        return q
