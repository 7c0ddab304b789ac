"""What networks share: normalisation, initialisation, chains of layers, checks of their options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from vaekit.backbones.base import Decoder, Encoder
from vaekit.errors import VaekitError

__all__ = [
    "FrozenAffine",
    "Init",
    "Maps",
    "Norm",
    "SequentialDecoder",
    "SequentialEncoder",
    "channels_last",
    "initialise",
    "norm_layer",
    "require_choice",
    "require_layers",
    "require_positive",
]

Norm = Literal["batch", "frozen_affine", "group", "none"]
Init = Literal["default", "glorot"]
_MOST_LAYERS = 1000
Network = TypeVar("Network", bound=nn.Module)


class FrozenAffine(nn.Module):
    r"""A per-channel affine map: batch normalisation whose statistics stay at mean 0 and variance 1.

    $$y_c = \gamma_c \, x_c / \sqrt{1 + \epsilon} + \beta_c$$

    Arguments:
        channels: The number of channels of (B, channels, H, W).
        eps: The constant that batch normalisation adds to the variance.

    Examples:
        >>> FrozenAffine(3)(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped x, in the dtype of x: under autocast the activations stay in half precision."""
        scale = self.weight / math.sqrt(1.0 + self.eps)
        return torch.addcmul(self.bias.to(x.dtype)[:, None, None], x, scale.to(x.dtype)[:, None, None])

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


def _batch(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _group(channels: int) -> nn.Module:
    # At most 32 groups, of four channels or more: a group of one channel would lose the channel's mean on small maps.
    # Groups of sixteen are faster on CPUs, and worse: see the page on benchmarks.
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels)


def _none(channels: int) -> nn.Module:
    return nn.Identity()


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": _batch,
    "frozen_affine": FrozenAffine,
    "group": _group,
    "none": _none,
}


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return a normalisation layer for maps of `channels` channels.

    Arguments:
        norm: `"batch"` (epsilon 1e-3, momentum 0.01, the defaults of Keras), `"frozen_affine"` (`FrozenAffine`),
            `"group"` (groups of at least four channels) or `"none"`.
        channels: The number of channels.

    Raises:
        VaekitError: `norm` is none of these.

    Examples:
        >>> norm_layer("group", 64).num_groups
        16
    """
    require_choice("norm", norm, get_args(Norm))
    return _NORMS[norm](channels)


class Maps(nn.Unflatten):
    """Rows of H * W * C numbers as maps (B, C, H, W), in the order of memory: with their channels last.

    Arguments:
        shape: The shape (C, H, W) of the maps.

    Examples:
        >>> Maps((2, 3, 1))(torch.arange(6.0)[None])[0, 0]
        tensor([[0.],
                [2.],
                [4.]])
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        super().__init__(1, (height, width, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of x (B, H * W * C)."""
        return super().forward(x).movedim(-1, 1)


class SequentialEncoder(Encoder):
    """An encoder that is a chain of layers, and its last maps flattened in the order of memory: channels last.

    Arguments:
        layers: The layers, applied in order.
        features: The number of features after flattening.
    """

    def __init__(self, *layers: nn.Module, features: int) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of samples (B, *data_shape)."""
        return self.layers(x).movedim(1, -1).flatten(1)


class SequentialDecoder(Decoder):
    """A decoder that is a chain of layers.

    Arguments:
        layers: The layers, applied in order.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Return the decoded (B, *decoded_shape) of latents (B, latent_dim)."""
        return self.layers(z)


def channels_last(network: Network) -> Network:
    """Lay a network's kernels out with their channels last, which every map that they make takes over.

    Values and state dictionaries stay what they are. Convolutions are faster for it, on CPUs and on GPUs.

    Arguments:
        network: The network; changed in place and returned.

    Examples:
        >>> channels_last(nn.Conv2d(3, 8, 3)).weight.is_contiguous(memory_format=torch.channels_last)
        True
    """
    return network.to(memory_format=torch.channels_last)


def initialise(module: nn.Module, init: Init) -> None:
    """Set the first weights of all convolutions and linear layers.

    Arguments:
        module: The network; changed in place.
        init: `"default"` leaves PyTorch's; `"glorot"` takes Glorot-uniform kernels and zero biases, the default of
            Keras.

    Raises:
        VaekitError: `init` is neither.
    """
    require_choice("init", init, get_args(Init))
    if init == "default":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise VaekitError if the value of an option is none of its choices."""
    if value not in choices:
        raise VaekitError(f"{option} = {value!r} is not valid: use one of {', '.join(choices)}")


def require_layers(part: str, *, least: int = 1, **options: int) -> None:
    """Raise VaekitError for the first number of layers that is not from `least` to 1,000: they are made one by one."""
    for name, value in options.items():
        if not least <= value <= _MOST_LAYERS:
            raise VaekitError(f"{name} = {value} of {part} is not valid: use {least} to {_MOST_LAYERS:,}")


def require_positive(part: str, **options: int) -> None:
    """Raise VaekitError for the first option that is not a positive number."""
    for name, value in options.items():
        if value < 1:
            raise VaekitError(f"{name} = {value} of {part} is not valid: use 1 or more")
