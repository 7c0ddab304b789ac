"""Batch statistics over all ranks, with exact gradients, and ranks that are lost."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = ["all_max", "all_mean", "leave_at_exit", "rank_errors", "world_size"]


def world_size() -> int:
    """Return the number of ranks of the running process group, 1 without one."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def leave_at_exit() -> None:
    """Let this process leave its group before it ends: threads of gloo that still listen abort it now and then.

    Fabric does so for NCCL alone.
    """
    atexit.unregister(_leave)  # Once, however often it is asked for.
    if world_size() > 1 and torch.distributed.get_backend() == "gloo":
        atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _AllReduceMean(torch.autograd.Function):
    """Mean over ranks whose backward sums the upstream gradients over ranks.

    Data-parallel training averages gradients over ranks. With this backward, that average is the exact gradient of a
    loss that every rank computes from the same global mean.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        torch.distributed.all_reduce(total)
        # Each rank's output is (1/R) sum_r x_r, and all R ranks use it: sum of upstream gradients, divided by R.
        return total / world_size()


def all_mean(tensor: Tensor) -> Tensor:
    """Return the mean of `tensor` over all ranks, differentiable; the tensor itself where there is one rank.

    Ranks must hold batches of equal size, which the data loader sees to.
    """
    return tensor if world_size() == 1 else _AllReduceMean.apply(tensor)


def all_max(tensor: Tensor) -> Tensor:
    """Return the largest `tensor` of all ranks, without gradient."""
    largest = tensor.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest


@contextmanager
def rank_errors() -> Iterator[None]:
    """Turn the loss of another rank, or a gradient that the ranks wait for in vain, into one plain sentence.

    Examples:
        >>> with rank_errors():
        ...     raise RuntimeError("gloo: Connection closed by peer")
        Traceback (most recent call last):
        vaekit.errors.VaekitError: another process of this run ended or cannot be reached: the last checkpoint is...
    """
    try:
        yield
    except RuntimeError as error:
        if "Expected to have finished reduction" in str(error):
            raise VaekitError(
                "some weights have no part in the loss, and several devices wait for their gradient in vain: freeze or "
                "remove them"
            ) from error
        lost = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in _LOST)
        if not lost:
            raise
        raise VaekitError(
            "another process of this run ended or cannot be reached: the last checkpoint is kept; see what the other "
            "one said, and go on with --resume"
        ) from error


# What gloo says; NCCL's errors have a type.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe")
