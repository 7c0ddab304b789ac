"""The convolutional backbone of the Poisson VAE: weight-normalised residual cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.base import Backbone
from vaekit.backbones.layers import SequentialDecoder, SequentialEncoder, require_positive
from vaekit.errors import VaekitError
from vaekit.registry import backbones

__all__ = ["PVAE"]


class _Conv(nn.Module):
    r"""A convolution with weights $e^{\ell}v/\|v\|$ for each output channel."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, kernel)
        self.direction = plain.weight
        self.bias = plain.bias
        self.log_norm = nn.Parameter(torch.zeros(outputs))
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        norm = self.direction.flatten(1).norm(dim=1)
        weight = self.direction * (self.log_norm.exp() / norm)[:, None, None, None]
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class _Gate(nn.Module):
    """Squeeze and excitation: a factor for each channel from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        first = nn.Linear(channels, hidden)
        nn.init.ones_(first.bias)  # With few units and means near zero, all of them would often begin dead.
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


class _Halve(nn.Module):
    """Four 1 x 1 convolutions with stride 2, one for each place in a block of 2 x 2 pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_Conv(inputs, outputs // 4, 1, 2) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x[:, :, n // 2 :, n % 2 :]) for n, conv in enumerate(self.convs)], dim=1)


class _Cell(nn.Module):
    """A residual cell: the skip plus gated operations on the input."""

    def __init__(self, skip: nn.Module, *operations: nn.Module, channels: int) -> None:
        super().__init__()
        self.skip = skip
        self.branch = nn.Sequential(*operations, _Gate(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.branch(x)


class _Pool(nn.Module):
    """The mean of 4 x 4 maps plus a convolution over all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _Conv(channels, channels, 4, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3), keepdim=True) + self.conv(F.silu(x))).flatten(1)


class _Dense(nn.Module):
    """A residual fully connected block of eight times the width."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(size, 8 * size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8 * size, size)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.branch(x))


def _normal(channels: int, count: int = 2) -> _Cell:
    operations = [layer for _ in range(count) for layer in (nn.SiLU(), _Conv(channels, channels, 3))]
    return _Cell(nn.Identity(), *operations, channels=channels)


def _down(inputs: int, skip: nn.Module) -> _Cell:
    outputs = 2 * inputs
    operations = (nn.SiLU(), _Conv(inputs, outputs, 3, 2), nn.SiLU(), _Conv(outputs, outputs, 3))
    return _Cell(nn.Sequential(nn.SiLU(), skip), *operations, channels=outputs)


def _up(inputs: int, outputs: int) -> _Cell:
    operations = (
        nn.SiLU(),
        nn.Upsample(scale_factor=2),
        _Conv(inputs, outputs, 3),
        nn.SiLU(),
        _Conv(outputs, outputs, 3),
    )
    return _Cell(nn.Sequential(nn.Upsample(scale_factor=2), _Conv(inputs, outputs, 1)), *operations, channels=outputs)


def _maps(shape: tuple[int, ...]) -> list[int]:
    """Return the sides of the encoder's maps down to 4."""
    side = shape[-1]
    stages = max(round(math.log2(max(side, 1) / 4)), 0)
    if len(shape) == 3 and shape[1] == side and side >= 8 and (side == 28 or side == 4 << stages):
        return [26, 13, 7, 4] if side == 28 else [side >> n for n in range(stages + 1)]
    raise VaekitError(
        "pvae needs square images of 28 x 28 pixels or of a side of 8, 16, 32 or another power of two, and these "
        f"samples have the shape {tuple(shape)}: use `backbone: conv` or `backbone: mlp`"
    )


@backbones.register(
    "pvae",
    about="The Poisson VAE's residual convolutions, with a linear or a convolutional decoder",
    source="H. Vafaii, D. Galor and J. L. Yates, Poisson Variational Autoencoder, 2024, arXiv 2405.14473; "
    "github.com/hadivafaii/PoissonVAE",
    needs=("square images of 28 x 28 pixels or a side of 8, 16, 32, ...",),
    supports=("images",),
)
@dataclass(frozen=True, kw_only=True)
class PVAE(Backbone):
    """Residual cells of weight-normalised convolutions with squeeze and excitation, halving the maps down to 4 x 4.

    The channels double at each halving. The 4 x 4 maps are pooled by their mean plus a convolution, and pass a residual
    fully connected block. As in the authors' networks, 28 x 28 images lose their border in the first convolution (the
    maps are 26, 13, 7 and 4 wide) and take a single strided convolution as the skip of a halving cell; other images
    take four, one for each place of a 2 x 2 block.

    The linear decoder is one matrix without a bias: a dictionary, as in sparse coding, and what the objective's option
    `exact` needs. The convolutional one begins with `8 * width` maps of 2 x 2 and doubles their sides up to the image.

    References:
        Poisson Variational Autoencoder, Vafaii, Galor and Yates, 2024, arXiv 2405.14473.

    Arguments:
        width: The channels of the first cell.
        linear_decoder: Whether the decoder is linear.
        dropout: The share of the fully connected block's hidden units that is dropped in training.

    Raises:
        VaekitError: The width is not a positive even number, the dropout not within [0, 1), or (in `encoder` and
            `decoder`) the images are of another size.

    Examples:
        >>> backbone = PVAE(width=8)
        >>> encoder = backbone.encoder((1, 16, 16))
        >>> encoder(torch.zeros(5, 1, 16, 16)).shape, encoder.features
        (torch.Size([5, 32]), 32)
        >>> backbone.decoder(64, (1, 16, 16)).linear
        Linear(in_features=64, out_features=256, bias=False)
    """

    width: int = 32
    linear_decoder: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_positive("pvae", width=self.width)
        if not 0.0 <= self.dropout < 1.0:
            raise VaekitError(f"dropout of pvae must be 0 or more and below 1, not {self.dropout:g}")
        if self.width % 2:
            raise VaekitError(f"width of pvae must be even, not {self.width}: its cells are made of four parts")

    def encoder(self, data_shape: tuple[int, ...]) -> SequentialEncoder:
        """Return a new encoder for square images of shape `data_shape`, (C, H, H)."""
        maps = _maps(data_shape)
        border = maps[0] != data_shape[1]
        skip: Callable[[int], nn.Module] = lambda c: _Conv(c, 2 * c, 1, 2) if border else _Halve(c, 2 * c)  # noqa: E731
        channels = self.width
        layers: list[nn.Module] = [_Conv(data_shape[0], channels, 3, padding=int(not border)), _normal(channels)]
        for _ in maps[1:]:
            layers += [_down(channels, skip(channels)), _normal(2 * channels)]
            channels *= 2
        return SequentialEncoder(*layers, _Pool(channels), _Dense(channels, self.dropout), features=channels)

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> SequentialDecoder:
        """Return a new decoder from `latent_dim` to images of shape `decoded_shape`."""
        maps = _maps(decoded_shape)
        if self.linear_decoder:
            layer = nn.Linear(latent_dim, math.prod(decoded_shape), bias=False)
            return SequentialDecoder(layer, nn.Unflatten(1, tuple(decoded_shape)))
        channels = 8 * self.width
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, 4 * channels),
            nn.Unflatten(1, (channels, 2, 2)),
            _normal(channels, count=1),
        ]
        for _ in maps:
            if decoded_shape[1] == 28 and channels == self.width:
                layers.append(nn.Upsample(14))  # from 16
            inputs, channels = channels, max(channels // 2, 1)
            layers += [_up(inputs, channels), _normal(channels)]
        return SequentialDecoder(*layers, _Conv(channels, decoded_shape[0], 1))
