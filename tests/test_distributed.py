"""Two ranks: batch moments equal those of the joint batch, large layers are shared out, and one process leads."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
import torch.distributed
import torch.multiprocessing as mp
from helpers import free_port
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from vaekit.backbones.layers import SequentialDecoder
from vaekit.latents import Latents
from vaekit.regularizers.population import PopulationKL, population_moments
from vaekit.rundir import is_leader
from vaekit.training.activations import checkpoint_activations
from vaekit.training.sharded import sharding, whole

BATCH, DIM = 12, 5


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    loc = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return loc, torch.rand(BATCH, DIM, generator=generator, dtype=torch.float64) + 0.2


def value_and_gradients(loc: torch.Tensor, scale: torch.Tensor, variance: str) -> tuple[torch.Tensor, ...]:
    loc, scale = loc.clone().requires_grad_(), scale.clone().requires_grad_()
    q = dist.Normal(loc, scale).to_event(1)
    p = dist.Normal(torch.zeros(DIM, dtype=torch.float64), torch.ones(DIM, dtype=torch.float64)).to_event(1)
    record = Latents(q, p, q.mean[None], loc.new_ones(1, len(loc)))
    value = PopulationKL(variance=variance)(record)
    value.backward()
    mean, spread = population_moments(q, variance)
    return (
        value.detach(),
        mean.detach(),
        spread.detach(),
        loc.grad,
        scale.grad if scale.grad is not None else loc.grad * 0,
    )


def work(rank: int, world: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    loc, scale = (part.chunk(world)[rank] for part in inputs())
    torch.save([value_and_gradients(loc, scale, v) for v in ("means", "total")], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_the_joint_batch(tmp_path: Path) -> None:
    mp.spawn(work, (2, free_port(), str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for index, variance in enumerate(("means", "total")):
        value, mean, spread, of_loc, of_scale = value_and_gradients(*inputs(), variance)
        for rank in ranks:
            for ours, joint in zip(rank[index][:3], (value, mean, spread), strict=True):
                assert torch.allclose(ours, joint, rtol=0, atol=1e-12)
        # Data-parallel training averages gradients over ranks: twice the average is the joint gradient, rank by rank.
        for place, joint in ((3, of_loc), (4, of_scale)):
            assert torch.allclose(torch.cat([rank[index][place] for rank in ranks]) / 2, joint, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("environment", "several", "leads"),
    [({}, False, True), ({"LOCAL_RANK": "1"}, False, False), ({"RANK": "8", "LOCAL_RANK": "0"}, True, False),
     ({"RANK": "0", "NODE_RANK": "1"}, True, True), ({"SLURM_PROCID": "3"}, False, False),
     ({"NODE_RANK": "1"}, True, False), ({"NODE_RANK": "1"}, False, True)],
)  # fmt: skip
def test_one_process_leads(
    environment: dict[str, str], several: bool, leads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a machine counts where a run has several."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_leader(several) == leads


def network() -> SequentialDecoder:
    torch.manual_seed(0)
    sizes = (3, 1024, 1024, 1024, 4)
    return SequentialDecoder(*(layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())))


def share_out(rank: int, world: int, port: int, folder: str) -> None:
    """Keep which layers are whole after the forward pass, and the gradients."""
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    strategy, found = sharding(world), {}
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("data_parallel",))
    for checkpointed in (False, True):
        shared = network()
        if checkpointed:
            checkpoint_activations([shared])
        strategy._parallelize_fn(shared, mesh)
        value = shared(torch.eye(world, 3)[rank : rank + 1]).square().sum()
        shown = [not isinstance(layer.weight, DTensor) for layer in shared.layers if isinstance(layer, nn.Linear)]
        value.backward()
        found[str(checkpointed)] = shown, [whole(p.grad) for p in shared.parameters()]
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    torch.distributed.destroy_process_group()


def test_large_layers_are_whole_for_their_turn_only(tmp_path: Path) -> None:
    mp.spawn(share_out, (2, free_port(), str(tmp_path)), nprocs=2)
    alone = network()
    (alone(torch.eye(2, 3)).square().sum() / 2).backward()  # Gradients are means over ranks.
    for shown, gradients in torch.load(tmp_path / "found.pt", weights_only=True).values():
        assert shown == [True, False, False, True]
        for gradient, parameter in zip(gradients, alone.parameters(), strict=True):
            assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-7)
