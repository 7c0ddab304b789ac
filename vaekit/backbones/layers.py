"""Layers that the image networks share: resampling to exact sizes, normalisation, initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.base import Decoder, Encoder
from vaekit.errors import VaekitError

__all__ = [
    "Downsample",
    "FrozenAffine",
    "Init",
    "Norm",
    "Padding",
    "Pointwise",
    "SequentialDecoder",
    "SequentialEncoder",
    "Upsample",
    "channels_last",
    "image_sizes",
    "initialise",
    "norm_layer",
    "require_choice",
    "require_layers",
    "require_positive",
]

Norm = Literal["batch", "frozen_affine", "group", "none"]
Padding = Literal["same", "symmetric"]
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


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution that takes its pixels before it mixes their channels.

    With a stride it is the same map as `torch.nn.Conv2d`, whose gradient on a CPU with several threads writes beyond
    its memory where channels lie last (seen with torch 2.15).

    Arguments:
        inputs: Channels in.
        outputs: Channels out.
        stride: The step between the pixels that are taken.

    Examples:
        >>> Pointwise(3, 8, stride=2)(torch.zeros(1, 3, 9, 6)).shape
        torch.Size([1, 8, 5, 3])
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, outputs, ceil(H / stride), ceil(W / stride)) of x (B, inputs, H, W)."""
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


class Downsample(nn.Module):
    r"""A convolution with stride 2 that halves any size, rounding up.

    Arguments:
        inputs: Channels in.
        outputs: Channels out.
        kernel: The side of the kernel; `"symmetric"` needs an odd one.
        padding: `"same"` is TensorFlow's rule: as few zeros as give $\lceil n / 2 \rceil$, the odd one at the bottom
            and the right (for an even size and a kernel of 3: none at the top and left, one at the bottom and right).
            `"symmetric"` is the habit in PyTorch: as many on all sides.
        bias: Whether to learn a bias.

    Examples:
        >>> Downsample(3, 8)(torch.zeros(1, 3, 9, 6)).shape
        torch.Size([1, 8, 5, 3])
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, padding: Padding = "same", bias: bool = True
    ) -> None:
        super().__init__()
        require_choice("padding", padding, get_args(Padding))
        self.same = padding == "same"
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=2, padding=0 if self.same else (kernel - 1) // 2, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of half the size of x (B, inputs, H, W)."""
        if not self.same:
            return self.conv(x)
        kernel = self.conv.kernel_size[0]
        totals = [max((-(-size // 2) - 1) * 2 + kernel - size, 0) for size in x.shape[2:]]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return F.conv2d(x, self.conv.weight, self.conv.bias, self.conv.stride, (top, left))  # No copy with the zeros.


class Upsample(nn.Module):
    r"""A transposed convolution with stride 2 from one known size to another: the mirror of `Downsample`.

    Arguments:
        inputs: Channels in.
        outputs: Channels out.
        source: The size (H, W) of the input.
        target: The size of the output, 2n or 2n - 1 for an input of n on each axis.
        kernel: The side of the kernel.
        padding: Which rows and columns of the full output of size 2n - 2 + kernel go: under `"same"` those that
            TensorFlow drops (the last one, for a kernel of 3 and a target of 2n), under `"symmetric"` the first one and
            what is too much at the end.
        bias: Whether to learn a bias.

    Examples:
        >>> Upsample(8, 3, (5, 3), (9, 6))(torch.zeros(1, 8, 5, 3)).shape
        torch.Size([1, 3, 9, 6])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        source: tuple[int, int],
        target: tuple[int, int],
        kernel: int = 3,
        *,
        padding: Padding = "same",
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_choice("padding", padding, get_args(Padding))
        self.target = target
        totals = [2 * (n - 1) + kernel - t for n, t in zip(source, target, strict=True)]
        starts = [total // 2 if padding == "same" else (kernel - 1) // 2 for total in totals]
        # `padding` of a transposed convolution drops as much at the end as at the start, and `output_padding` gives
        # some of the end back; what is still too much at the end is sliced off in `forward`.
        self.conv = nn.ConvTranspose2d(
            inputs,
            outputs,
            kernel,
            stride=2,
            padding=(starts[0], starts[1]),
            output_padding=(max(2 * starts[0] - totals[0], 0), max(2 * starts[1] - totals[1], 0)),
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the target size from x (B, inputs, *source)."""
        return self.conv(x)[..., : self.target[0], : self.target[1]]


class SequentialEncoder(Encoder):
    """An encoder that is a chain of layers, flattened at the end.

    Arguments:
        layers: The layers, applied in order.
        features: The number of features after flattening.
    """

    def __init__(self, *layers: nn.Module, features: int) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of samples (B, *data_shape)."""
        return self.layers(x)


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


def image_sizes(shape: tuple[int, ...], part: str, remedy: str = "use `backbone: mlp`") -> list[tuple[int, int]]:
    r"""Return the sizes (H, W) of an image's maps: the full one, then halves, rounded up, down to about 4 x 4.

    There are $\max(1, \operatorname{round}(\log_2(\min(H, W) / 4)))$ halvings.

    Arguments:
        shape: The shape of one sample, (C, H, W).
        part: What asks, for the message.
        remedy: What to use instead, for the message.

    Raises:
        VaekitError: The sample is not an image, or smaller than 4 x 4.

    Examples:
        >>> image_sizes((1, 28, 28), "conv")
        [(28, 28), (14, 14), (7, 7), (4, 4)]
    """
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise VaekitError(
            f"{part} needs images (channels, height, width) of at least 4 x 4 pixels, "
            f"and these samples have the shape {tuple(shape)}: {remedy}"
        )
    _, height, width = shape
    sizes = [(height, width)]
    for _ in range(max(1, round(math.log2(min(height, width) / 4)))):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


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
