"""The contract of a discriminator."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Discriminator"]


class Discriminator(nn.Module):
    """A network from samples (B, *data_shape) to logits of any shape (B, ...), high for real ones.

    A subclass takes `(data_shape,)` by position and its options as keywords.

    Arguments:
        data_shape: The shape of one sample.
    """

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        raise NotImplementedError
