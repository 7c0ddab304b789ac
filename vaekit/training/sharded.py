"""Fully sharded training: between steps every rank holds its part of the weights and of the optimisers' states only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning_fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vaekit.distributed import world_size
from vaekit.models import Model
from vaekit.training.activations import longest_chains

__all__ = ["Opened", "Shown", "any_rank", "local", "shared_out", "sharding", "whole"]


_LARGE = 2**20  # numbers: 4 MiB


def sharding(ranks: int) -> ModelParallelStrategy:
    """Return the engine's strategy that shares every module out among the ranks.

    A large layer of a network's chain is gathered when its turn comes, in the forward pass and in the backward pass,
    and given away after it, while the next one is on its way. All else is gathered for the forward pass and stays whole
    until its gradient is there: objectives may use weights outside of `forward` (the last layer of an adaptive
    adversary, the matrix of an exact expectation).

    Arguments:
        ranks: All processes of the run.
    """
    return ModelParallelStrategy(_share, data_parallel_size=ranks, tensor_parallel_size=1)


def _share(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    module.to(memory_format=torch.contiguous_format)  # The only layout that torch shares out.
    ranks = mesh["data_parallel"]
    for layer in _large_layers(module.module.networks() if isinstance(module, Shown) else (module,)):
        fully_shard(layer, mesh=ranks)
    fully_shard(module, mesh=ranks, reshard_after_forward=False)
    return module


def _large_layers(networks: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield the layers of the networks' chains that are worth a transfer of their own, but for the last one."""
    for chain in longest_chains(networks):
        layers = [layer for layer in chain if list(layer.parameters())]
        yield from (layer for layer in layers[:-1] if sum(p.numel() for p in layer.parameters()) >= _LARGE)


class Shown(nn.Module):
    """A model whose forward pass returns, beside its record, the tensors in it, on which the engine hangs its hooks.

    Arguments:
        module: The model; its parameters keep their names in it.
    """

    def __init__(self, module: Model) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **options: Any) -> tuple[Any, list[Tensor]]:
        """Return what the model returns, and its tensors."""
        output = self.module(*inputs, **options)
        return output, list(_tensors(output))


class Opened(nn.Module):
    """A `Shown` as the engine wrapped it, which returns the record alone.

    Arguments:
        engine: The wrapped `Shown`.
    """

    def __init__(self, engine: nn.Module) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return what the module returns."""
        return self.engine(*inputs, **options)[0]


def _tensors(record: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Yield the tensors with a gradient in an object, its attributes and what they hold, networks left out."""
    seen = set() if seen is None else seen
    if id(record) in seen or isinstance(record, nn.Module):
        return
    seen.add(id(record))
    if isinstance(record, Tensor):
        if record.requires_grad and record._base is None:  # The engine takes no views.
            yield record
        return
    parts = record if isinstance(record, list | tuple) else getattr(record, "__dict__", {}).values()
    for part in record.values() if isinstance(record, Mapping) else parts:
        yield from _tensors(part, seen)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor that is shared out; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(state: Any) -> Any:
    """Return nested dictionaries and lists with every tensor gathered; all ranks must call this together."""
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state.full_tensor() if isinstance(state, DTensor) else state


def shared_out(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dictionary of whole tensors with those shared out that are in `like`."""
    return {
        key: distribute_tensor(value.to(there.device), there.device_mesh, there.placements)
        if isinstance(there := like.get(key), DTensor) and isinstance(value, Tensor) and value.dim()
        else value
        for key, value in state.items()
    }


def any_rank(flags: Tensor) -> list[bool]:
    """Return which flags are set on any rank; all ranks must call this together."""
    counts = flags.float()
    if world_size() > 1:
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX)
    return [count > 0 for count in counts.tolist()]
