"""Sum pooling of the modalities' features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekit.fusions.base import Fusion, MakePosterior
from vaekit.fusions.sets import Adapters, PreNormBlock, ResidualBlock, affine, mlp, pool, require_sizes
from vaekit.registry import fusions

__all__ = ["SumPooling"]

Distribution = torch.distributions.Distribution


@fusions.register(
    "sum_pooling",
    about="Sum of learned features of the modalities, then a posterior (Deep Sets)",
    source="Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with permutation-invariant "
    "encoders and tighter variational objectives, 2023, arXiv 2309.00380; Zaheer et al., "
    "Deep Sets, 2017, arXiv 1703.06114",
)
class SumPooling(Fusion):
    r"""$q(z\mid x_S)$ with the parameters $\rho\bigl(\sum_{m\in S}\chi(h_m)\bigr)$, networks that all modalities share.

    $h_m$ is a linear map of the features of modality m. For no modality it is $\rho(0)$, which is learned. Any
    posterior can stand at the end, one for all subsets.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380; Deep Sets, Zaheer, Kottur, Ravanbakhsh, Poczos,
        Salakhutdinov and Smola, 2017, arXiv 1703.06114; Set Norm and Equivariant Skip Connections, Zhang et al., 2022,
        arXiv 2206.11925 (the residual networks).

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of latent dimensions.
        posterior: Builds the posterior from a number of features.
        width: The width of the hidden layers.
        pooled: The number of features that are summed.
        layers: The number of hidden layers of each network.
        residual: Whether the networks are residual, with `layers - 1` blocks each: $\chi$ then normalises over the set
            (`SetNorm`), and is computed anew for every subset.
        slope: The slope of the leaky ReLU below zero.

    Raises:
        VaekitError: A size is not positive, or the slope does not lie in [0, 1].

    Examples:
        >>> from vaekit.posteriors import Gaussian
        >>> from vaekit.priors import StandardNormal
        >>> fusion = SumPooling([4, 6], 2, lambda features: Gaussian(features, 2), width=16, pooled=16)
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
        layers: int = 2,
        residual: bool = False,
        slope: float = 0.01,
    ) -> None:
        super().__init__(features, latent_dim, posterior)
        require_sizes("sum_pooling", width=width, pooled=pooled, layers=layers, slope=slope)
        self.adapters = Adapters(features, width)
        # The sum over all modalities begins as large as one of them.
        last = affine(width, pooled, gain=len(self.features) ** -0.5)
        hidden = [width] * layers
        if residual:
            self.blocks = nn.ModuleList([ResidualBlock(width, slope) for _ in range(layers - 1)])
            self.chi: nn.Module = last
            after = [PreNormBlock(width, slope) for _ in range(layers - 1)]
            self.rho = nn.Sequential(affine(pooled, width), *after, nn.LayerNorm(width))
        else:
            self.blocks = nn.ModuleList()
            self.chi = nn.Sequential(*mlp([width, *hidden], slope), last)
            self.rho = nn.Sequential(*mlp([pooled, *hidden], slope))
        self.posterior = posterior(width)

    def embed(self, features: Sequence[Tensor], prior: Distribution) -> Tensor:
        r"""Return what is summed, $\chi(h_m)$, or $h_m$ itself for residual networks: (B, M, P)."""
        adapted: Tensor = self.adapters(features)
        return adapted if self.blocks else self.chi(adapted)

    def fuse(self, embedded: Tensor, mask: Tensor, prior: Distribution) -> Distribution:
        """Return the posterior of the sum over the modalities that the mask lets through."""
        if self.blocks:
            for block in self.blocks:
                embedded = block(embedded, mask)
            embedded = self.chi(embedded)
        q: Distribution = self.posterior(self.rho(pool(embedded, mask)), prior)
        return q
