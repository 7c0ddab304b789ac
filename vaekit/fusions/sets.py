"""Networks over the set of a sample's modalities.

Shapes: B samples, M modalities; a mask is bool of shape (..., M), true for the members of the set S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.layers import require_layers
from vaekit.errors import VaekitError

__all__ = [
    "Adapters",
    "AttentionBlocks",
    "PreNormBlock",
    "ResidualBlock",
    "SetNorm",
    "affine",
    "mlp",
    "pool",
    "require_sizes",
]


def require_sizes(part: str, *, slope: float = 0.0, **sizes: int) -> None:
    """Raise VaekitError for the first size that is not positive, and for a slope outside [0, 1]."""
    for name, size in sizes.items():
        if size < 1:
            raise VaekitError(f"{name} = {size} of {part} is not valid: use 1 or more")
    require_layers(part, **{name: sizes[name] for name in ("layers", "depth") if name in sizes})
    if not 0.0 <= slope <= 1.0:
        raise VaekitError(f"slope = {slope} of {part} is not valid: use a number from 0 to 1")


def affine(inputs: int, outputs: int, *, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    r"""Return a linear layer with weights of variance $\mathrm{gain}^2/\mathrm{inputs}$ and a bias of zero.

    PyTorch's own first weights make numbers smaller at every layer, by a factor of three or more in variance, so that
    after the layers of a pooling little but the biases is left.

    Arguments:
        inputs: Numbers in.
        outputs: Numbers out.
        gain: How much larger than its input the output begins.
        bias: Whether to learn a bias.
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], slope: float) -> list[nn.Module]:
    """Return linear layers through the sizes, each followed by a leaky ReLU, that keep the size of their input.

    Source:
        Delving Deep into Rectifiers, He, Zhang, Ren and Sun, 2015, arXiv 1502.01852 (the first weights).

    Arguments:
        sizes: Numbers in, of each hidden layer, and out.
        slope: The slope of the leaky ReLU below zero.

    Examples:
        >>> nn.Sequential(*mlp([4, 8, 2], 0.01))(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """
    gain = math.sqrt(2.0 / (1.0 + slope**2))
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [affine(inputs, outputs, gain=gain), nn.LeakyReLU(slope)]
    return layers


def pool(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of `values` (B, M, P), or (..., B, M, P), over the members of the sets `mask` (..., B, M).

    As a product of matrices: many sets of one batch cost no copies of the values.

    Examples:
        >>> pool(torch.ones(1, 3, 1), torch.tensor([[[True, True, False]], [[False, False, False]]])).flatten()
        tensor([2., 0.])
    """
    return torch.einsum("...m,...mp->...p", mask.to(values.dtype), values)


class Adapters(nn.Module):
    """A linear map of each modality's features to one width; what tells the modalities apart is here alone.

    Arguments:
        features: The numbers of features.
        width: The common width.
    """

    def __init__(self, features: Sequence[int], width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList([affine(count, width) for count in features])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (B, M, width) for features (B, F_m) of each modality."""
        dtype = next(self.parameters()).dtype
        return torch.stack([adapter(part.to(dtype)) for adapter, part in zip(self.maps, features, strict=True)], -2)


class SetNorm(nn.Module):
    r"""Normalisation by the mean and variance of all numbers of a set, then a map of each feature:

    $$y_{sf}=\gamma_f\,\frac{x_{sf}-\mu_S}{\sqrt{v_S+\epsilon}}+\beta_f,\qquad
    \mu_S,v_S\text{ over }\{x_{sf}:s\in S,\,f\le P\}.$$

    References:
        Set Norm and Equivariant Skip Connections: Putting the Deep in Deep Sets, Zhang, Tozzo, Higgins and
        Ranganath, 2022, arXiv 2206.11925.

    Arguments:
        width: The number P of features.
        eps: What is added to the variance.

    Examples:
        >>> x, mask = torch.tensor([[[1.0, 3.0], [5.0, 7.0], [100.0, 100.0]]]), torch.tensor([[True, True, False]])
        >>> SetNorm(2)(x, mask)[0, :2].detach()
        tensor([[-1.3416, -0.4472],
                [ 0.4472,  1.3416]])
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the members of the set normalised for x (..., M, P); of what is no member, something finite."""
        member = mask.to(x.dtype).unsqueeze(-1)
        count = member.sum((-2, -1), keepdim=True).clamp_min(1.0) * x.shape[-1]
        mean = (member * x).sum((-2, -1), keepdim=True) / count
        centred = member * (x - mean)
        variance = centred.square().sum((-2, -1), keepdim=True) / count
        return torch.addcmul(self.bias, self.weight, centred * torch.rsqrt(variance + self.eps))


class PreNormBlock(nn.Module):
    r"""$x+W_2\,\mathrm{act}(\mathrm{LN}(W_1\,\mathrm{act}(\mathrm{LN}x)))$, LN being layer normalisation.

    References:
        Identity Mappings in Deep Residual Networks, He, Zhang, Ren and Sun, 2016, arXiv 1603.05027.

    Arguments:
        width: The number of features.
        slope: The slope of the leaky ReLU below zero.
    """

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for _ in range(2):
            self.layers.extend([nn.LayerNorm(width), nn.LeakyReLU(slope), affine(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Return x with what the block adds."""
        added: Tensor = self.layers(x)
        return x + added


class ResidualBlock(nn.Module):
    r"""$x+\mathrm{SN}(W_2\,\mathrm{act}(\mathrm{SN}(W_1x)))$ for the members of a set, SN being `SetNorm`.

    Arguments:
        width: The number of features.
        slope: The slope of the leaky ReLU below zero.
    """

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.first, self.second = (affine(width, width, bias=False) for _ in range(2))
        self.norms = nn.ModuleList([SetNorm(width), SetNorm(width)])
        self.act = nn.LeakyReLU(slope)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (..., M, width) for x of that shape and a mask (..., M)."""
        inner, outer = self.norms
        return x + outer(self.second(self.act(inner(self.first(x), mask))), mask)


class _AttentionBlock(nn.Module):
    """One block; the query, key and value of `heads` heads have `width // heads` numbers each."""

    def __init__(self, pooled: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        inner = width // heads * heads
        self.norms = nn.ModuleList([nn.LayerNorm(pooled), nn.LayerNorm(pooled)])
        self.query_key_value = affine(pooled, 3 * inner, bias=False)
        self.out = affine(inner, pooled, bias=False)
        self.feed_forward = nn.Sequential(*mlp([pooled, width], 0.0), affine(width, pooled))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        first, second = self.norms
        split = self.query_key_value(first(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (N, heads, M, numbers)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        return x + self.feed_forward(second(x))


class AttentionBlocks(nn.Module):
    r"""Self-attention among the members of a set, in blocks that normalise first, and a last layer normalisation:

    $$h=x+\mathrm{MHA}(\mathrm{LN}x),\qquad y=h+\mathrm{FF}(\mathrm{LN}h),$$

    with FF a linear layer, a ReLU and a linear layer, and without biases in the attention MHA.

    References:
        Set Transformer, Lee, Lee, Kim, Kosiorek, Choi and Teh, 2018, arXiv 1810.00825; On Layer Normalization in the
        Transformer Architecture, Xiong et al., 2020, arXiv 2002.04745 (the order).

    Arguments:
        pooled: The number P of features.
        width: The width of the feed-forward layer and of the attention, rounded down to a multiple of the heads.
        depth: The number of blocks.
        heads: The number of heads.

    Raises:
        VaekitError: There are more heads than `width`.

    Examples:
        >>> mask = torch.tensor([[True, True, False]])
        >>> AttentionBlocks(pooled=8, width=8, depth=1, heads=2)(torch.randn(1, 3, 8), mask).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, pooled: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if heads > width:
            raise VaekitError(f"{heads} heads do not fit in a width of {width}: use fewer heads or a larger width")
        self.blocks = nn.ModuleList([_AttentionBlock(pooled, width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(pooled)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (..., M, P) for x of that shape and a mask (..., M); of what is no member, something finite."""
        # What is no member looks at itself: a row without a key would be a softmax over nothing.
        visible = mask.unsqueeze(-2) | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
        y, visible = x.reshape(-1, *x.shape[-2:]), visible.reshape(-1, 1, *visible.shape[-2:])
        for block in self.blocks:
            y = block(y, visible)
        normed: Tensor = self.norm(y)
        return normed.reshape(x.shape)
