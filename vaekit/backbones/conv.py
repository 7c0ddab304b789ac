"""The strided convolutional backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from torch import nn

from vaekit.backbones.base import Backbone
from vaekit.backbones.layers import (
    Maps,
    Norm,
    SequentialDecoder,
    SequentialEncoder,
    channels_last,
    norm_layer,
    require_choice,
    require_positive,
)
from vaekit.backbones.resampling import Downsample, Upsample, image_sizes
from vaekit.registry import backbones

__all__ = ["Conv"]


@backbones.register(
    "conv",
    about="Strided convolutions that double their channels, for images of any size",
    source=(
        "Unsupervised representation learning with deep convolutional generative adversarial networks, "
        "A. Radford, L. Metz and S. Chintala, 2015, arXiv 1511.06434"
    ),
    needs=("images of at least 4 x 4 pixels",),
    supports=("images",),
)
@dataclass(frozen=True, kw_only=True)
class Conv(Backbone):
    """4 x 4 convolutions with stride 2, each followed by a normalisation and a ReLU, until the maps are about 4 x 4.

    The channels double at each stage, from `width` to at most `8 * width`. The decoder mirrors the encoder: a linear
    layer, transposed convolutions to exactly the sizes that the encoder went through, and a 3 x 3 convolution. The
    layout is that of DCGAN (Radford, Metz and Chintala, 2015, arXiv 1511.06434).

    Arguments:
        width: The channels of the first stage.
        norm: The normalisation after each convolution: `"group"`, `"batch"`, `"frozen_affine"` (batch normalisation
            with constant statistics) or `"none"`.

    Raises:
        VaekitError: The width is not positive, the norm is unknown, or (in `encoder` and `decoder`) the samples are not
            images of at least 4 x 4 pixels.

    Examples:
        >>> import torch
        >>> backbone = Conv(width=8)
        >>> encoder = backbone.encoder((1, 28, 28))
        >>> encoder(torch.zeros(5, 1, 28, 28)).shape, encoder.features
        (torch.Size([5, 512]), 512)
        >>> backbone.decoder(2, (1, 28, 28))(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 28, 28])
    """

    width: int = 32
    norm: Norm = "group"

    def __post_init__(self) -> None:
        require_positive("conv", width=self.width)
        require_choice("norm", self.norm, get_args(Norm))

    def _channels(self, stages: int) -> list[int]:
        return [self.width * min(2**stage, 8) for stage in range(stages)]

    @property
    def _bias(self) -> bool:
        return self.norm != "batch"  # batch normalisation takes a constant away again

    def encoder(self, data_shape: tuple[int, ...]) -> SequentialEncoder:
        """Return a new encoder for images of shape `data_shape`, (C, H, W)."""
        sizes = image_sizes(data_shape, "conv")
        channels = self._channels(len(sizes) - 1)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([data_shape[0], *channels]):
            layers += [
                Downsample(inputs, outputs, 4, bias=self._bias),
                norm_layer(self.norm, outputs),
                nn.ReLU(inplace=True),
            ]
        return channels_last(SequentialEncoder(*layers, features=channels[-1] * math.prod(sizes[-1])))

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> SequentialDecoder:
        """Return a new decoder from `latent_dim` to images of shape `decoded_shape`."""
        sizes = image_sizes(decoded_shape, "conv")[::-1]
        channels = self._channels(len(sizes) - 1)[::-1]
        start = (channels[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, math.prod(start)),
            Maps(start),
            norm_layer(self.norm, channels[0]),
            nn.ReLU(inplace=True),
        ]
        widths = pairwise([*channels, channels[-1]])
        for (inputs, outputs), (source, target) in zip(widths, pairwise(sizes), strict=True):
            layers += [
                Upsample(inputs, outputs, source, target, 4, bias=self._bias),
                norm_layer(self.norm, outputs),
                nn.ReLU(inplace=True),
            ]
        return channels_last(SequentialDecoder(*layers, nn.Conv2d(channels[-1], decoded_shape[0], 3, padding=1)))
