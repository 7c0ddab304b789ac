"""The contract of a regularizer."""

from __future__ import annotations

from torch import Tensor, nn

from vaekit.latents import Latents
from vaekit.schedules import Scalar, as_schedule

__all__ = ["Regularizer"]


class Regularizer(nn.Module):
    """A term of the objective in nats per sample, computed from the latent side of a batch.

    A subclass takes its options, `weight` among them, as keywords only. `forward` returns the *unweighted* term; the
    objective multiplies it by `weight(step)`.

    Arguments:
        weight: A number or a schedule.
    """

    #: Whether this term, as it is weighted, makes reconstruction plus term a bound on log p(x).
    bound: bool = False
    #: The smallest batch, over all ranks, on which the term is defined.
    least_batch: int = 1
    #: A network of the term's own, trained in a phase of its own to tell two kinds of latents apart; None for none.
    critic: nn.Module | None

    def __init__(self, *, weight: Scalar = 1.0) -> None:
        super().__init__()
        self.weight = as_schedule(weight)
        # Not an attribute of the class: that one would hide the module that a subclass registers.
        self.critic = None

    def extra_repr(self) -> str:
        """Show the weight."""
        return f"weight={self.weight!r}"

    def forward(self, latents: Latents) -> Tensor:
        """Return the unweighted term, a scalar: a mean over the batch, in nats per sample."""
        raise NotImplementedError

    def prepare(self, latent_dim: int, samples: int) -> None:
        """Take in, once before training, what a term cannot know by itself.

        Arguments:
            latent_dim: The number D of latent dimensions.
            samples: The number of training samples.
        """

    def critic_loss(self, critic: nn.Module, latents: Latents) -> Tensor:
        """Return the loss of the term's critic, for detached latents.

        Arguments:
            critic: The critic as the engine wraps it.
            latents: The latent side of the batch; its draws carry no gradient.
        """
        raise NotImplementedError

    def notes(self, batch_size: int, latent_dim: int) -> list[str]:
        """Return sentences that a reader of the figures should know; none by default."""
        return []
