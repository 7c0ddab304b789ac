"""The pre-activation residual backbone of GAMIX-VAE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from vaekit.backbones.base import Backbone
from vaekit.backbones.layers import (
    Init,
    Maps,
    Norm,
    SequentialDecoder,
    SequentialEncoder,
    channels_last,
    initialise,
    norm_layer,
    require_choice,
    require_layers,
    require_positive,
)
from vaekit.backbones.resampling import Padding, Pointwise, Upsample, image_sizes
from vaekit.registry import backbones

__all__ = ["ResNetV2", "Sum"]

InputNorm = Literal["none", "instance_hw"]
Output = Literal["linear", "tanh"]


class Sum(nn.Module):
    """The sum of two branches, `body(x) + shortcut(x)`.

    Arguments:
        body: The residual branch.
        shortcut: The other branch.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the branches at x."""
        return self.body(x) + self.shortcut(x)


@backbones.register(
    "resnetv2",
    about="Pre-activation residual blocks of constant width, the networks of GAMIX-VAE, for images of any size",
    source=(
        "How to train your VAE, M. Rivera, 2023, arXiv 2309.13160; "
        "Identity mappings in deep residual networks, K. He, X. Zhang, S. Ren and J. Sun, 2016, arXiv 1603.05027"
    ),
    needs=("images of at least 4 x 4 pixels",),
    supports=("images",),
)
@dataclass(frozen=True, kw_only=True)
class ResNetV2(Backbone):
    r"""Pre-activation residual blocks of constant width (Rivera, 2023, arXiv 2309.13160; He et al., 2016, 1603.05027).

    With A = norm and ReLU, and Tri = A, 3 x 3 convolution, A, 3 x 3 convolution, A, 1 x 1 convolution:

    - identity block: $x + \mathrm{Tri}(x)$;
    - down: $\mathrm{Tri}_{s=2}(x) + \mathrm{Conv1}_{s=2}(A(x))$, with the stride in the 1 x 1 convolutions;
    - up: $\mathrm{ConvT3}_{s=2}(A(\mathrm{Conv1}(A(x)))) + \mathrm{ConvT3}_{s=2}(A(x))$.

    Encoder: a 3 x 3 convolution, then per stage the identity blocks and a down block until the map is about 4 x 4, then
    a 1 x 1 convolution to `latent_channels`, flattened. Decoder: a linear layer to that map, a 3 x 3 convolution, per
    stage the identity blocks and an up block (the last one to the decoded channels), then a 1 x 1 convolution.

    `width=128, norm="frozen_affine", input_norm="instance_hw", init="glorot"` is the author's network at 256 x 256.

    Arguments:
        width: The channels of all blocks.
        norm: `"batch"` (epsilon 1e-3, momentum 0.01), `"frozen_affine"` (batch normalisation with constant statistics,
            what the author's code in effect computes), `"group"` or `"none"`.
        input_norm: `"instance_hw"` standardises each channel of each image and then scales and shifts each pixel, alike
            in all channels: the encoder then sees no overall colour or brightness. `"none"` keeps the image.
        padding: How transposed convolutions place their output: `"same"` as TensorFlow, `"symmetric"` as `padding=1`.
        output: `"linear"`, or `"tanh"` to keep the decoded values in (-1, 1).
        latent_channels: The channels of the bottleneck map.
        encoder_blocks: Identity blocks per encoder stage.
        decoder_blocks: Identity blocks per decoder stage.
        init: `"default"` for PyTorch's first weights, `"glorot"` for those of Keras.

    Raises:
        VaekitError: An option is out of range, or (in `encoder` and `decoder`) the samples are not images of at least
            4 x 4 pixels.

    Examples:
        >>> import torch
        >>> backbone = ResNetV2(width=8, latent_channels=4)
        >>> encoder = backbone.encoder((3, 32, 32))
        >>> encoder(torch.zeros(2, 3, 32, 32)).shape, encoder.features
        (torch.Size([2, 64]), 64)
        >>> backbone.decoder(16, (3, 32, 32))(torch.zeros(2, 16)).shape
        torch.Size([2, 3, 32, 32])
    """

    width: int = 64
    norm: Norm = "batch"
    input_norm: InputNorm = "none"
    padding: Padding = "same"
    output: Output = "linear"
    latent_channels: int = 64
    encoder_blocks: int = 2
    decoder_blocks: int = 1
    init: Init = "default"

    def __post_init__(self) -> None:
        require_positive("resnetv2", width=self.width, latent_channels=self.latent_channels)
        blocks = {"encoder_blocks": self.encoder_blocks, "decoder_blocks": self.decoder_blocks}
        require_layers("resnetv2", least=0, **blocks)
        require_choice("norm", self.norm, get_args(Norm))
        require_choice("input_norm", self.input_norm, get_args(InputNorm))
        require_choice("padding", self.padding, get_args(Padding))
        require_choice("output", self.output, get_args(Output))
        require_choice("init", self.init, get_args(Init))

    def encoder(self, data_shape: tuple[int, ...]) -> SequentialEncoder:
        """Return a new encoder for images of shape `data_shape`, (C, H, W)."""
        sizes = image_sizes(data_shape, "resnetv2")
        layers: list[nn.Module] = []
        if self.input_norm == "instance_hw":
            layers.append(nn.LayerNorm(sizes[0], eps=1e-3))
        layers.append(nn.Conv2d(data_shape[0], self.width, 3, padding=1))
        for _ in sizes[1:]:
            layers += [self._identity() for _ in range(self.encoder_blocks)]
            layers.append(self._down())
        layers.append(Pointwise(self.width, self.latent_channels))
        encoder = SequentialEncoder(*layers, features=self.latent_channels * math.prod(sizes[-1]))
        initialise(encoder, self.init)
        return channels_last(encoder)

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> SequentialDecoder:
        """Return a new decoder from `latent_dim` to images of shape `decoded_shape`."""
        sizes = image_sizes(decoded_shape, "resnetv2")[::-1]
        start = (self.latent_channels, *sizes[0])
        outputs = decoded_shape[0]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, math.prod(start)),
            Maps(start),
            nn.Conv2d(self.latent_channels, self.width, 3, padding=1),
        ]
        for source, target in pairwise(sizes):
            layers += [self._identity() for _ in range(self.decoder_blocks)]
            layers.append(self._up(outputs if target == sizes[-1] else self.width, source, target))
        layers.append(Pointwise(outputs, outputs))
        if self.output == "tanh":
            layers.append(nn.Tanh())
        decoder = SequentialDecoder(*layers)
        initialise(decoder, self.init)
        return channels_last(decoder)

    # ---- blocks --------------------------------------------------------------------------------------------------

    def _activation(self, channels: int) -> tuple[nn.Module, nn.Module]:
        return norm_layer(self.norm, channels), nn.ReLU()

    def _tri(self, stride: int = 1) -> nn.Module:
        width = self.width
        return nn.Sequential(
            *self._activation(width),
            nn.Conv2d(width, width, 3, padding=1),
            *self._activation(width),
            nn.Conv2d(width, width, 3, padding=1),
            *self._activation(width),
            Pointwise(width, width, stride),
        )

    def _identity(self) -> nn.Module:
        return Sum(self._tri(), nn.Identity())

    def _down(self) -> nn.Module:
        shortcut = nn.Sequential(*self._activation(self.width), Pointwise(self.width, self.width, stride=2))
        return Sum(self._tri(stride=2), shortcut)

    def _up(self, outputs: int, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        body = nn.Sequential(
            *self._activation(self.width),
            Pointwise(self.width, outputs),
            *self._activation(outputs),
            Upsample(outputs, outputs, source, target, padding=self.padding),
        )
        shortcut = nn.Sequential(
            *self._activation(self.width),
            Upsample(self.width, outputs, source, target, padding=self.padding),
        )
        return Sum(body, shortcut)
