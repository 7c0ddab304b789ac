"""Laws of random subsets of the modalities."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["MaskLaw", "random_mask", "size_probabilities"]

#: How a random subset of the modalities is drawn.
MaskLaw: TypeAlias = Literal["bernoulli", "uniform_size"]


def random_mask(law: MaskLaw, available: Tensor) -> Tensor:
    r"""Return a random subset of the modalities for every sample, bool of shape (B, M).

    - `"bernoulli"`: every modality is kept with probability 1/2, so that all $2^M$ subsets are equally likely, the
      empty one and the full one included;
    - `"uniform_size"`: $\gamma\sim U(0,1)$ for each sample, and every modality is kept with probability $\gamma$, so
      that the number of those kept is uniform on $0,\dots,M$. Few and many modalities come up more often.

    Nothing is kept that is not available.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.

    Arguments:
        law: The law.
        available: Which modalities are there, bool of shape (B, M).

    Examples:
        >>> random_mask("uniform_size", torch.tensor([[True, False]] * 3))[:, 1].any()
        tensor(False)
    """
    shape, device = available.shape, available.device
    keep = torch.full((1, 1), 0.5, device=device) if law == "bernoulli" else torch.rand(shape[0], 1, device=device)
    return (torch.rand(shape, device=device) < keep) & available


def size_probabilities(law: MaskLaw, modalities: int) -> list[float]:
    """Return the probabilities of 0, 1, ..., M modalities in a random subset, where all are available.

    Arguments:
        law: The law.
        modalities: The number M of modalities.

    Examples:
        >>> size_probabilities("bernoulli", 2), size_probabilities("uniform_size", 3)
        ([0.25, 0.5, 0.25], [0.25, 0.25, 0.25, 0.25])
    """
    if law == "uniform_size":
        return [1.0 / (modalities + 1)] * (modalities + 1)
    return [math.comb(modalities, size) / 2**modalities for size in range(modalities + 1)]
