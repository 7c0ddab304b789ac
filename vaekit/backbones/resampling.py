"""Layers that take an image to another size, and to exactly that size."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.layers import require_choice
from vaekit.errors import VaekitError

__all__ = ["Downsample", "Padding", "Pointwise", "Upsample", "image_sizes"]

Padding = Literal["same", "symmetric"]


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution that takes its pixels before it mixes their channels.

    With a stride it is the same map as `torch.nn.Conv2d`, whose gradient on a CPU with several threads writes beyond
    its memory where channels lie last (seen with torch 2.15).

    Arguments:
        inputs: Channels in.
        outputs: Channels out.
        stride: The step between the pixels that are taken.

    Examples:
        >>> import torch
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
        >>> import torch
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
        odd = [total % 2 for total in totals]
        if any(odd):  # The convolution adds as many zeros on both sides, without a copy of the map.
            x = F.pad(x, (0, odd[1], 0, odd[0]))
        return F.conv2d(x, self.conv.weight, self.conv.bias, self.conv.stride, [total // 2 for total in totals])


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
        >>> import torch
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
        self.padding = starts[0], starts[1]
        self.conv = nn.ConvTranspose2d(
            inputs,
            outputs,
            kernel,
            stride=2,
            padding=self.padding,
            output_padding=(max(2 * starts[0] - totals[0], 0), max(2 * starts[1] - totals[1], 0)),
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the target size from x (B, inputs, *source)."""
        conv = self.conv
        y = F.conv_transpose2d(x, conv.weight, None, conv.stride, self.padding, conv.output_padding)
        if conv.bias is not None:
            # oneDNN's own gradient of the bias takes nearly as long as that of the kernel, where channels lie last.
            y += conv.bias[:, None, None]
        return y[..., : self.target[0], : self.target[1]]


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
