"""The autoencoder of latent diffusion models: weights go to and fro between vaekit and diffusers' `AutoencoderKL`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from vaekit.backbones import diffusers_folder
from vaekit.backbones.base import Backbone
from vaekit.backbones.kl_networks import KLDecoder, KLEncoder
from vaekit.backbones.layers import Network, channels_last, require_positive
from vaekit.backbones.pretrained import weights_from
from vaekit.errors import VaekitError
from vaekit.registry import backbones

__all__ = ["AutoencoderKL"]


@backbones.register(
    "autoencoder_kl",
    about="The autoencoder of latent diffusion models, with maps as latents; reads and writes diffusers' AutoencoderKL",
    source=(
        "High-resolution image synthesis with latent diffusion models, R. Rombach, A. Blattmann, D. Lorenz, P. Esser "
        "and B. Ommer, 2021, arXiv 2112.10752"
    ),
    needs=("images whose sides are multiples of 2 ** (levels - 1)", "latent_dim = latent_channels * height * width"),
    supports=("images",),
)
@dataclass(frozen=True, kw_only=True)
class AutoencoderKL(Backbone):
    r"""Residual blocks with group normalisation and SiLU, attention at the lowest resolution, and maps as latents.

    Of L widths, an image of H x W becomes a latent map of $C \times H/2^{L-1} \times W/2^{L-1}$, and D is the number of
    its values. The encoder gives 2 D features, the locations and then the log-variances, which the posterior
    `{name: gaussian, head: split}` takes as they are. Any other posterior takes them as features.

    A folder with `config.json` and `diffusion_pytorch_model.safetensors`, as diffusers writes it, gives the first
    weights. The options must be those of its `config.json`; a sentence says them where they are not.
    `vaekit.models.load_autoencoder_kl` takes them from there. Such weights are of images in [-1, 1], as `gaussian` and
    `laplace` likelihoods have them. The `scaling_factor` of a latent diffusion model is not applied.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models, Rombach, Blattmann, Lorenz, Esser and Ommer, 2021,
        arXiv 2112.10752.

    Arguments:
        widths: The channels of each level, from the image down; every level but the last ends in a halving.
        blocks: Residual blocks in each level of the encoder; the decoder's have one more.
        latent_channels: The channels C of the latent map.
        groups: The groups of each normalisation; they divide every width.
        attention: Whether there is self-attention between the blocks of the lowest resolution.
        quant_conv: Whether a 1 x 1 convolution of the moments ends the encoder.
        post_quant_conv: Whether a 1 x 1 convolution of the latent map begins the decoder.
        weights: The folder that the first weights are read from; `None` for random ones.

    Raises:
        VaekitError: An option is out of range, or (in `encoder` and `decoder`) the samples are no images of suitable
            sides, `latent_dim` is not D, or the weights are of other options, missing or damaged.

    Examples:
        >>> import torch
        >>> backbone = AutoencoderKL(widths=(8, 16), latent_channels=2, groups=4)
        >>> backbone.latent_shape((3, 32, 32))
        (2, 16, 16)
        >>> encoder = backbone.encoder((3, 32, 32))
        >>> encoder(torch.zeros(5, 3, 32, 32)).shape, encoder.features
        (torch.Size([5, 1024]), 1024)
        >>> backbone.decoder(512, (3, 32, 32))(torch.zeros(5, 512)).shape
        torch.Size([5, 3, 32, 32])
    """

    widths: Sequence[int] = (32, 64)
    blocks: int = 1
    latent_channels: int = 4
    groups: int = 8
    attention: bool = True
    quant_conv: bool = True
    post_quant_conv: bool = True
    weights: str | None = None

    def __post_init__(self) -> None:
        if not self.widths:
            raise VaekitError("widths of autoencoder_kl is empty: give one width or more, such as [32, 64]")
        require_positive("autoencoder_kl", blocks=self.blocks, latent_channels=self.latent_channels, groups=self.groups)
        for width in self.widths:
            require_positive("autoencoder_kl", widths=width)
            if width % self.groups:
                raise VaekitError(
                    f"widths = {list(self.widths)} of autoencoder_kl cannot be split into {self.groups} groups: use "
                    "multiples of it, or other groups"
                )

    def latent_shape(self, data_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the latent map of an image of shape `data_shape`.

        Raises:
            VaekitError: It is no image, or its sides cannot be halved as often as there are levels.
        """
        step = 2 ** (len(self.widths) - 1)
        if len(data_shape) != 3 or data_shape[1] % step or data_shape[2] % step:
            raise VaekitError(
                f"autoencoder_kl with {len(self.widths)} widths needs images with sides that are multiples of {step}, "
                f"and these samples have the shape {tuple(data_shape)}: set data.image_size, or use other widths"
            )
        return self.latent_channels, data_shape[1] // step, data_shape[2] // step

    def encoder(self, data_shape: tuple[int, ...]) -> KLEncoder:
        """Return a new encoder for images of shape `data_shape`, (C, H, W)."""
        return self._begin(KLEncoder(self, data_shape), "encoder", data_shape[0])

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> KLDecoder:
        """Return a new decoder from `latent_dim` to images of shape `decoded_shape`."""
        channels, height, width = self.latent_shape(decoded_shape)
        if latent_dim != channels * height * width:
            raise VaekitError(
                f"the latent map of autoencoder_kl is {channels} x {height} x {width}, and latent_dim is {latent_dim}: "
                f"set latent_dim to {channels * height * width}"
            )
        return self._begin(KLDecoder(self, decoded_shape), "decoder", decoded_shape[0])

    @property
    def options(self) -> dict[str, Any]:
        """What describes the networks: the options but for `weights`."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "weights"}
        return {**named, "widths": tuple(self.widths)}

    def _begin(self, network: Network, part: Literal["encoder", "decoder"], channels: int) -> Network:
        """Return a network with its first weights."""
        if self.weights is not None and weights_from() != "nowhere":
            diffusers_folder.load_part(network.get_submodule("layers"), part, self.weights, self.options, channels)
        return channels_last(network)
