"""Activation checkpointing: chains of layers that keep few activations and compute the others once more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vaekit.errors import VaekitError

__all__ = ["checkpoint_activations", "longest_chains"]


def checkpoint_activations(networks: Iterable[nn.Module]) -> None:
    r"""Let the longest chain of layers of each network keep the activations at about $\sqrt n$ of its $n$ layers only.

    The layers between are computed twice, once more in the backward pass: about a third more work a step for a
    memory that grows with $\sqrt n$ instead of $n$. Losses and gradients stay what they are, and so do the running
    statistics of normalisations.

    Arguments:
        networks: The networks; changed in place.

    Raises:
        VaekitError: None of them has a chain of four layers or more.

    References:
        Training Deep Nets with Sublinear Memory Cost, Chen, Xu, Zhang and Guestrin, 2016, arXiv 1604.06174.

    Examples:
        >>> import torch
        >>> network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(9)))
        >>> expected = network(torch.ones(2, 4))
        >>> checkpoint_activations([network])
        >>> bool((network(torch.ones(2, 4)) == expected).all())
        True
    """
    chains = longest_chains(networks)
    if not chains:
        raise VaekitError(
            "trainer.activation_checkpointing finds no chain of four layers or more in these networks: set it to false"
        )
    for chain in chains:
        chain.__class__ = _Checkpointed


def longest_chains(networks: Iterable[nn.Module]) -> list[nn.Sequential]:
    """Return the longest chain of layers of each network, if it has four layers or more."""
    found = [[part for part in network.modules() if _is_plain(part)] for network in networks]
    longest = [max(chains, key=len) for chains in found if chains]
    return [chain for chain in longest if len(chain) >= 4]


def _is_plain(part: nn.Module) -> TypeGuard[nn.Sequential]:
    return type(part) in (nn.Sequential, _Checkpointed)  # Another class may do something else with its layers.


class _Checkpointed(nn.Sequential):
    """A chain that keeps its activations at the borders of its parts only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        layers, parts = list(self), math.isqrt(len(self) - 1) + 1
        borders = [len(layers) * part // parts for part in range(parts + 1)]
        for first, last in pairwise(borders):
            part = nn.Sequential(*layers[first:last])
            x = checkpoint(part, x, use_reentrant=False, context_fn=partial(_contexts, part))
        return x


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first forward pass and of the second."""
    return nullcontext(), _Still(part)


class _Still:
    """A context in which running statistics stand still: they have seen the batch already.

    It is entered anew for every gradient that goes through the part.
    """

    def __init__(self, part: nn.Module) -> None:
        self.norms = [layer for layer in part.modules() if isinstance(layer, _BatchNorm)]
        self.momenta = [norm.momentum for norm in self.norms]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
