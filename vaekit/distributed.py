"""Batch statistics over all ranks, with exact gradients."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

__all__ = ["all_max", "all_mean", "world_size"]


def world_size() -> int:
    """Return the number of ranks of the running process group, 1 without one."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


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
