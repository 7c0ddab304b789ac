"""The fully connected backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from vaekit.backbones.base import Backbone
from vaekit.backbones.layers import SequentialDecoder, SequentialEncoder, require_choice, require_positive
from vaekit.registry import backbones

__all__ = ["MLP"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@backbones.register(
    "mlp",
    about="Fully connected layers, for samples of any shape",
    source="Auto-Encoding Variational Bayes, D. P. Kingma and M. Welling, 2013, arXiv 1312.6114",
    supports=("images", "vectors"),
)
@dataclass(frozen=True, kw_only=True)
class MLP(Backbone):
    """Fully connected layers, each followed by an activation; the decoder mirrors the encoder unless told otherwise.

    The encoder flattens the sample and gives the activations of the last hidden layer; the decoder ends in a linear
    layer. Without hidden layers the features are the flattened sample and the decoder is linear.

    Arguments:
        hidden: The sizes of the encoder's hidden layers, in order.
        decoder_hidden: The sizes of the decoder's hidden layers, in order: `[]` for a linear decoder; the encoder's in
            reverse where `None`.
        activation: The activation after each hidden layer.
        bias: Whether the layers have biases.

    Raises:
        VaekitError: A hidden size is not positive, or the activation is unknown.

    Examples:
        >>> import torch
        >>> backbone = MLP(hidden=[64, 32])
        >>> encoder = backbone.encoder((1, 8, 8))
        >>> encoder(torch.zeros(5, 1, 8, 8)).shape, encoder.features
        (torch.Size([5, 32]), 32)
        >>> backbone.decoder(2, (1, 8, 8))(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """

    hidden: Sequence[int] = (512, 256)
    decoder_hidden: Sequence[int] | None = None
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    bias: bool = True

    def __post_init__(self) -> None:
        for name, sizes in (("hidden", self.hidden), ("decoder_hidden", self.decoder_hidden or ())):
            for size in sizes:
                require_positive("mlp", **{name: size})
        require_choice("activation", self.activation, tuple(_ACTIVATIONS))

    def _stack(self, *sizes: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(inputs, outputs, bias=self.bias), _ACTIVATIONS[self.activation]()]
        return layers

    def encoder(self, data_shape: tuple[int, ...]) -> SequentialEncoder:
        """Return a new encoder for samples of shape `data_shape`, whatever it is."""
        sizes = (math.prod(data_shape), *self.hidden)
        return SequentialEncoder(nn.Flatten(), *self._stack(*sizes), features=sizes[-1])

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> SequentialDecoder:
        """Return a new decoder from `latent_dim` to `decoded_shape`."""
        hidden = tuple(reversed(self.hidden)) if self.decoder_hidden is None else tuple(self.decoder_hidden)
        sizes = (latent_dim, *hidden)
        return SequentialDecoder(
            *self._stack(*sizes),
            nn.Linear(sizes[-1], math.prod(decoded_shape), bias=self.bias),
            nn.Unflatten(1, tuple(decoded_shape)),
        )
