"""The contract of a backbone."""

from __future__ import annotations

from torch import nn

__all__ = ["Backbone", "Decoder", "Encoder"]


class Encoder(nn.Module):
    """A network (B, *data_shape) -> (B, features).

    Attributes:
        features: The number of features it gives.
    """

    features: int


class Decoder(nn.Module):
    """A network (B, latent_dim) -> (B, *decoded_shape).

    Attributes:
        last_layer: The weight of the last layer, where the adaptive adversarial weight compares gradients.
    """

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer with one."""
        return [p for p in self.parameters() if p.dim() > 1][-1]

    @property
    def linear(self) -> nn.Linear | None:
        """The decoder's only layer where the decoder is linear, else None."""
        layers = [m for m in self.modules() if not list(m.children()) and not isinstance(m, nn.Unflatten | nn.Flatten)]
        only = layers[0] if len(layers) == 1 else None
        return only if isinstance(only, nn.Linear) else None


class Backbone:
    """Builds an encoder and a decoder for any data shape; it holds options, not weights.

    A subclass takes its options as keywords only.
    """

    def encoder(self, data_shape: tuple[int, ...]) -> Encoder:
        """Return a new encoder for samples of shape `data_shape`.

        Raises:
            VaekitError: The samples do not suit this backbone (too small, not an image).
        """
        raise NotImplementedError

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> Decoder:
        """Return a new decoder from `latent_dim` to `decoded_shape` (a likelihood's `parameters_shape`)."""
        raise NotImplementedError
