"""DIP's covariance penalty, on one rank and on two, and the KL held at a capacity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
import torch.distributed
import torch.multiprocessing as mp
from helpers import built, free_port, tiny
from torch import Tensor

from vaekit.distributions import GaussianMixture, draw, kl_divergence
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.regularizers.capacity import Capacity
from vaekit.regularizers.dip import DIP
from vaekit.regularizers.kl import KL

pytestmark = pytest.mark.usefixtures("float64")

BATCH, DIM = 12, 3


def standard(dim: int) -> Any:
    return dist.Normal(torch.zeros(dim), torch.ones(dim)).to_event(1)


def gaussian(loc: Tensor, scale: Tensor) -> Any:
    return dist.Normal(loc, scale).to_event(1)


def latents(q: Any, step: int = 0, count: int = 1) -> Latents:
    return Latents(q, standard(q.event_shape[0]), *draw(q, count), step)


# ---- dip -------------------------------------------------------------------------------------------------------------


def test_covariance_of_the_means_and_of_the_draws() -> None:
    q = gaussian(torch.randn(BATCH, DIM), torch.rand(BATCH, DIM) + 0.1)
    of_means = torch.cov(q.mean.T, correction=0)
    torch.testing.assert_close(DIP(kind="i").covariance(latents(q)), of_means)
    z = q.sample((60_000,)).flatten(0, 1)
    # 720,000 draws: standard errors below 0.005.
    torch.testing.assert_close(DIP(kind="ii").covariance(latents(q)), torch.cov(z.T, correction=0), rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_value_is_the_sum_over_entries(kind: Any) -> None:
    record = latents(gaussian(torch.randn(BATCH, DIM), torch.rand(BATCH, DIM) + 0.1))
    term = DIP(kind=kind, off_diagonal=2.0, diagonal=5.0)
    c = term.covariance(record).tolist()
    pairs = [(d, e) for d in range(DIM) for e in range(DIM)]
    expected = sum(2.0 * c[d][e] ** 2 if d != e else 5.0 * (c[d][d] - 1) ** 2 for d, e in pairs)
    assert term(record).item() == pytest.approx(expected, rel=1e-12)


def test_zero_at_the_identity() -> None:
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert DIP(kind="i")(latents(gaussian(3 + corners, torch.full((4, 2), 0.3)))).abs() < 1e-12
    half = 0.5**0.5
    assert DIP(kind="ii")(latents(gaussian(3 + half * corners, torch.full((4, 2), half)))).abs() < 1e-12


@pytest.mark.parametrize(("off_diagonal", "diagonal"), [(-1.0, 1.0), (1.0, -1.0), (0.0, 0.0)])
def test_weights_of_dip_are_checked(off_diagonal: float, diagonal: float) -> None:
    with pytest.raises(VaekitError, match="must be 0 or more, and not both 0"):
        DIP(off_diagonal=off_diagonal, diagonal=diagonal)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    loc = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return loc, torch.rand(BATCH, DIM, generator=generator, dtype=torch.float64) + 0.2


def value_and_gradients(loc: Tensor, scale: Tensor, kind: Any) -> tuple[Tensor, Tensor, Tensor]:
    loc, scale = loc.clone().requires_grad_(), scale.clone().requires_grad_()
    value = DIP(kind=kind)(latents(gaussian(loc, scale)))
    gradients = torch.autograd.grad(value, (loc, scale), allow_unused=True, materialize_grads=True)
    return value.detach(), *gradients


def work(rank: int, world: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    loc, scale = (part.chunk(world)[rank] for part in inputs())
    torch.save([value_and_gradients(loc, scale, kind) for kind in ("i", "ii")], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_the_joint_batch(tmp_path: Path) -> None:
    mp.spawn(work, (2, free_port(), str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for index, kind in enumerate(("i", "ii")):
        value, *joint = value_and_gradients(*inputs(), kind)
        for rank in ranks:
            torch.testing.assert_close(rank[index][0], value, rtol=0, atol=1e-12)
        # Data-parallel training averages gradients over ranks: twice the average is the joint gradient, rank by rank.
        for place, expected in enumerate(joint, start=1):
            both = torch.cat([rank[index][place] for rank in ranks]) / 2
            torch.testing.assert_close(both, expected, rtol=0, atol=1e-12)


# ---- capacity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "target"), [(0, 0.0), (5, 10.0), (10, 20.0), (99, 20.0)])
def test_distance_from_the_capacity_of_the_step(step: int, target: float) -> None:
    q = gaussian(torch.randn(BATCH, DIM), torch.rand(BATCH, DIM) + 0.2)
    kl = kl_divergence(q, standard(DIM)).mean().item()
    term = Capacity(capacity={"name": "linear", "end": 20.0, "steps": 10})
    assert term(latents(q, step)).item() == pytest.approx(abs(kl - target), rel=1e-12)


def test_gradient_pushes_the_kl_towards_the_capacity() -> None:
    loc = torch.randn(BATCH, DIM, requires_grad=True)
    q = gaussian(loc, torch.full((BATCH, DIM), 0.5))
    of_kl, above, below = (
        torch.autograd.grad(term(latents(q)), loc)[0]
        for term in (KL(), Capacity(capacity=0.1), Capacity(capacity=50.0))
    )
    torch.testing.assert_close(above, of_kl)
    torch.testing.assert_close(below, -of_kl)


def test_a_mixture_has_its_kl_sampled() -> None:
    q = GaussianMixture(torch.zeros(BATCH, 2), torch.randn(BATCH, 2, DIM), torch.ones(BATCH, 2, DIM))
    record = latents(q, count=5)
    torch.testing.assert_close(Capacity(capacity=3.0)(record), (KL()(record) - 3.0).abs())


def test_a_negative_capacity_is_refused() -> None:
    with pytest.raises(VaekitError, match="must not be -1"):
        Capacity(capacity=-1.0)


def test_the_share_of_a_run_reaches_the_schedule() -> None:
    from vaekit.schedules import with_steps

    config = tiny("capacity-vae")
    options = with_steps(config.regularizers, 100)["capacity"]
    term = Capacity(**options)
    assert [term.capacity(step) for step in (0, 40, 80, 100)] == [0.0, 5.0, 10.0, 10.0]


@pytest.mark.parametrize("recipe", ["dip-vae", "capacity-vae", "beta-tcvae", "factor-vae"])
def test_no_recipe_is_called_a_bound(recipe: str) -> None:
    assert built(tiny(recipe))[1].label == "surrogate loss"


def test_capacity_is_never_a_bound() -> None:
    assert not Capacity(weight=1.0, capacity=0.0).bound
