"""The networks of latent diffusion models' autoencoder."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.base import Decoder, Encoder
from vaekit.backbones.resampling import Downsample

if TYPE_CHECKING:
    from vaekit.backbones.autoencoder_kl import AutoencoderKL

__all__ = ["KLDecoder", "KLEncoder"]

# The names of the layers are those of the tensors in the weights file.


class _Resnet(nn.Module):
    """A residual block: twice norm, SiLU and a 3 x 3 convolution."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(groups, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = _norm(groups, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class _Attention(nn.Module):
    """Self-attention of one head among the places of a map, with a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = _norm(groups, channels)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        places = self.group_norm(x).flatten(2).mT
        attended = F.scaled_dot_product_attention(self.to_q(places), self.to_k(places), self.to_v(places))
        return x + self.to_out(attended).mT.reshape(x.shape)


class _Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them if wanted."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([_Attention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.resnets
        x = first(x)
        for attention in self.attentions:
            x = attention(x)
        return second(x)


class _Double(nn.Module):
    """Twice the size by the nearest neighbour, and a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _level(inputs: int, outputs: int, blocks: int, groups: int, **resampler: nn.Module) -> nn.Sequential:
    """Return the residual blocks of one resolution, and the way to the next one if there is one."""
    sizes = [inputs, *[outputs] * blocks]
    resnets = nn.Sequential(*(_Resnet(before, after, groups) for before, after in pairwise(sizes)))
    return _chain(resnets=resnets, **{name: nn.Sequential(module) for name, module in resampler.items()})


def _chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class KLEncoder(Encoder):
    """Images (B, C, H, W) to the moments of their latent maps, flattened: all locations, then all log-variances.

    Arguments:
        backbone: The options.
        data_shape: The shape of one image.

    Attributes:
        extras: What the folder that it was loaded from says beside the architecture; see
            `vaekit.models.load_autoencoder_kl`.
    """

    def __init__(self, backbone: AutoencoderKL, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone, self.data_shape = backbone, tuple(data_shape)
        self.extras: dict[str, Any] = {}
        channels, height, width = backbone.latent_shape(data_shape)
        self.features = 2 * channels * height * width
        widths, groups = tuple(backbone.widths), backbone.groups
        levels = [
            _level(inputs, outputs, backbone.blocks, groups, downsamplers=Downsample(outputs, outputs))
            for inputs, outputs in pairwise((widths[0], *widths[:-1]))
        ]
        levels.append(_level((widths[0], *widths)[-2], widths[-1], backbone.blocks, groups))
        self.layers = _chain(
            conv_in=nn.Conv2d(data_shape[0], widths[0], 3, padding=1),
            down_blocks=nn.Sequential(*levels),
            mid_block=_Middle(widths[-1], groups, backbone.attention),
            conv_norm_out=_norm(groups, widths[-1]),
            activation=nn.SiLU(),
            conv_out=nn.Conv2d(widths[-1], 2 * channels, 3, padding=1),
            quant_conv=nn.Conv2d(2 * channels, 2 * channels, 1) if backbone.quant_conv else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the moments (B, 2 D) of images (B, C, H, W)."""
        return self.layers(x).flatten(1)


class KLDecoder(Decoder):
    """Flattened latent maps (B, D) to images.

    Arguments:
        backbone: The options.
        decoded_shape: The shape to decode to.
    """

    def __init__(self, backbone: AutoencoderKL, decoded_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone, self.decoded_shape = backbone, tuple(decoded_shape)
        self.latent_shape = backbone.latent_shape(decoded_shape)
        channels, groups = self.latent_shape[0], backbone.groups
        widths = tuple(reversed(backbone.widths))
        levels = [
            _level(inputs, outputs, backbone.blocks + 1, groups, upsamplers=_Double(outputs))
            for inputs, outputs in pairwise((widths[0], *widths[:-1]))
        ]
        levels.append(_level((widths[0], *widths)[-2], widths[-1], backbone.blocks + 1, groups))
        self.layers = _chain(
            post_quant_conv=nn.Conv2d(channels, channels, 1) if backbone.post_quant_conv else nn.Identity(),
            conv_in=nn.Conv2d(channels, widths[0], 3, padding=1),
            mid_block=_Middle(widths[0], groups, backbone.attention),
            up_blocks=nn.Sequential(*levels),
            conv_norm_out=_norm(groups, widths[-1]),
            activation=nn.SiLU(),
            conv_out=nn.Conv2d(widths[-1], decoded_shape[0], 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return the decoded (B, *decoded_shape) of latents (B, D)."""
        return self.layers(z.unflatten(1, self.latent_shape))
