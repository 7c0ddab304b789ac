"""The discriminator that judges patches."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vaekit.backbones.layers import Init, Norm, channels_last, initialise, norm_layer, require_choice, require_positive
from vaekit.backbones.resampling import Downsample, Padding, image_sizes
from vaekit.discriminators.base import Discriminator
from vaekit.errors import VaekitError
from vaekit.registry import discriminators

__all__ = ["PatchGAN"]

PatchNorm = Literal["batch", "frozen_affine", "spectral", "none"]


@discriminators.register(
    "patchgan",
    about="Convolutions that judge each patch of an image, for images of any size",
    source=(
        "Image-to-image translation with conditional adversarial networks, P. Isola, J.-Y. Zhu, T. Zhou and "
        "A. A. Efros, 2016, arXiv 1611.07004; How to train your VAE, M. Rivera, 2023, arXiv 2309.13160"
    ),
    needs=("images of at least 4 x 4 pixels",),
)
class PatchGAN(Discriminator):
    r"""3 x 3 convolutions to a map of logits, one for each patch (Isola et al., 2016, arXiv 1611.07004).

    Three layers with stride 2 and `width` channels, two with stride 1 and `width / 2` channels, one to the logits
    (Rivera, 2023, arXiv 2309.13160): each logit sees a patch of 63 x 63. Each layer but the last is convolution, norm,
    leaky ReLU, dropout. Small images have $\max(1, \operatorname{round}(\log_2(\min(H, W) / 4)))$ strided layers where
    that is fewer, so that the logits stay a map: 8 x 8 gives 4 x 4, 64 x 64 gives 8 x 8, 256 x 256 gives 32 x 32.

    `norm="frozen_affine", final_norm=True, init="glorot"` is the author's network in effect: neither its batch
    statistics nor its dropout are ever active.

    Arguments:
        data_shape: The shape of one sample, (C, H, W).
        width: The channels of the strided layers.
        norm: `"batch"`, `"frozen_affine"` (batch normalisation with constant statistics), `"spectral"` (the spectral
            norm of every kernel is held at 1; Miyato et al., 2018, arXiv 1802.05957) or `"none"`.
        dropout: The probability that an activation is zeroed in training.
        final_norm: Whether the norm, and the dropout, also apply to the logits, as in the author's code.
        slope: The slope of the leaky ReLU for negative values.
        padding: How strided convolutions pad: `"same"` as TensorFlow, `"symmetric"` as `padding=1`.
        init: `"default"` for PyTorch's first weights, `"glorot"` for those of Keras.

    Raises:
        VaekitError: The samples are not images of at least 4 x 4 pixels, or an option is out of range.

    Examples:
        >>> import torch
        >>> PatchGAN((3, 64, 64), width=16)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        *,
        width: int = 128,
        norm: PatchNorm = "batch",
        dropout: float = 0.0,
        final_norm: bool = False,
        slope: float = 0.3,
        padding: Padding = "same",
        init: Init = "default",
    ) -> None:
        super().__init__(data_shape)
        require_positive("patchgan", width=width)
        require_choice("norm", norm, get_args(PatchNorm))
        if not 0 <= dropout < 1:
            raise VaekitError(f"dropout = {dropout} of patchgan is not valid: use a number from 0 to below 1")
        if final_norm and norm in ("spectral", "none"):
            raise VaekitError(
                f"final_norm of patchgan has nothing to apply with norm '{norm}': use batch or frozen_affine"
            )
        strided = min(3, len(image_sizes(data_shape, "patchgan", "train without an adversary")) - 1)
        half = max(1, width // 2)
        map_norm: Norm = "none" if norm == "spectral" else norm

        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise([data_shape[0], *[width] * strided, half, half])):
            if index < strided:
                layers.append(Downsample(inputs, outputs, padding=padding))
            else:
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            layers += [norm_layer(map_norm, outputs), nn.LeakyReLU(slope), nn.Dropout(dropout)]
        layers.append(nn.Conv2d(half, 1, 3, padding=1))
        if final_norm:
            layers += [norm_layer(map_norm, 1), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        channels_last(self)
        initialise(self, init)
        if norm == "spectral":
            for layer in list(self.modules()):
                if isinstance(layer, nn.Conv2d):
                    parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) for images x (B, C, H, W)."""
        return self.layers(x)
