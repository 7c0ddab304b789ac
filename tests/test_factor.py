"""FactorVAE's term: a critic that learns the density ratio, whose gradients stay where they belong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
import torch.distributed
import torch.multiprocessing as mp
from helpers import built, free_port, random_images, tiny
from torch.nn.parallel import DistributedDataParallel

import vaekit as vk
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.regularizers.factor import Factor, permute_dimensions

SMALL = {"regularizers": {"factor": {"hidden": 16, "depth": 2}}}
LOG_2 = math.log(2)


def ready(latent_dim: int = 2, **options: Any) -> Factor:
    term = Factor(**{"hidden": 16, "depth": 2, **options})
    term.prepare(latent_dim, 100)
    return term


def latents(z: torch.Tensor, weights: torch.Tensor | None = None) -> Latents:
    q = dist.Normal(z[0], torch.ones_like(z[0])).to_event(1)
    return Latents(q, q, z, torch.full(z.shape[:2], 1 / len(z)) if weights is None else weights)


def correlated(count: int, rho: float) -> torch.Tensor:
    x = torch.randn(1, count, 2)
    return torch.stack([x[..., 0], rho * x[..., 0] + (1 - rho**2) ** 0.5 * x[..., 1]], -1)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_a_trained_critic_gives_the_total_correlation(rho: float) -> None:
    """For a bivariate normal it is -log(1 - rho^2) / 2."""
    term = ready(hidden=32)
    optimizer = torch.optim.Adam(term.critic.parameters(), lr=5e-3)
    for _ in range(400):
        optimizer.zero_grad()
        term.critic_loss(term.critic, latents(correlated(256, rho))).backward()
        optimizer.step()
    with torch.no_grad():
        test = latents(correlated(20_000, rho))
        value, loss = term(test).item(), term.critic_loss(term.critic, test).item()
    assert value == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.07)
    assert loss == pytest.approx(LOG_2, abs=0.01) if rho == 0 else loss < LOG_2 - 0.1


def test_permuted_draws_keep_every_marginal_and_lose_the_dependence() -> None:
    z = correlated(4000, 0.9)[0]
    permuted = permute_dimensions(z)
    torch.testing.assert_close(permuted.sort(0).values, z.sort(0).values, rtol=0, atol=0)
    assert torch.corrcoef(z.T)[0, 1] > 0.85
    assert torch.corrcoef(permuted.T)[0, 1].abs() < 0.06


def test_draws_without_weight_take_no_part() -> None:
    term, good = ready(), torch.randn(1, 64, 2)
    z = torch.cat([good, torch.full_like(good, 1e4)])
    weights = torch.tensor([[1.0], [0.0]]).expand(2, 64)
    torch.testing.assert_close(term(latents(z, weights)), term(latents(good)))
    seen: list[torch.Tensor] = []
    term.critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss = term.critic_loss(term.critic, latents(z, weights))
    assert (seen[0][-64:] < 1e3).all(), "a draw of weight 0 was permuted"
    assert loss.item() == pytest.approx(LOG_2, abs=0.05)


def phases(model: vk.VAE, objective: vk.Objective) -> list[Any]:
    objective.prepare(model, 100)
    return list(objective.phases(model, torch.rand(8, 1, 8, 8), 0, objective.modules_by_phase(model)))


def test_each_phase_reaches_its_own_network_only() -> None:
    model, objective = built(tiny("factor-vae", **SMALL))
    vae_phase, critic_phase = phases(model, objective)
    critic = objective.terms["factor"].critic
    assert critic_phase.name == "factor_critic"
    vae_phase.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in critic.parameters())
    model.zero_grad()
    critic_phase.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in critic.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_the_term_moves_the_encoder() -> None:
    term, z = ready(), torch.randn(1, 8, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(term(latents(z)), z)
    assert gradient.any(-1).all()
    assert all(p.requires_grad for p in term.critic.parameters())


def test_the_critic_depends_on_the_seed_alone() -> None:
    def weights(seed: int, noise: int) -> torch.Tensor:
        model, objective = built(tiny("factor-vae", trainer={"seed": seed}, **SMALL))
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        objective.prepare(model, 100)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.detach().flatten() for p in objective.terms["factor"].critic.parameters()])

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


def test_made_ready_once() -> None:
    term = ready()
    critic = term.critic
    term.prepare(2, 100)
    assert term.critic is critic
    with pytest.raises(VaekitError, match="for 2 latent dimensions, not 3"):
        term.prepare(3, 100)
    with pytest.raises(VaekitError, match="no critic yet"):
        Factor()(latents(torch.randn(1, 8, 2)))
    with pytest.raises(VaekitError, match="hidden"):
        Factor(hidden=0)


def test_resumes_exactly(tmp_path: Path) -> None:
    def train(out: Path, **options: Any) -> tuple[list[Any], torch.Tensor]:
        model, objective = built(tiny("factor-vae", **SMALL))
        trainer = vk.Trainer(accelerator="cpu", log_every=1, sample_every=0, max_steps=options.pop("steps"))
        fit = trainer.fit(model, objective, random_images(32), batch_size=8, out=out, **options)
        state = [*model.parameters(), *objective.terms["factor"].critic.parameters()]
        return fit.metrics, torch.cat([p.detach().flatten() for p in state])

    lines, weights = train(tmp_path / "whole", steps=6)
    train(tmp_path / "halves", steps=3)
    again, resumed = train(tmp_path / "halves", steps=6, resume=True)
    assert torch.equal(weights, resumed)
    assert [line for line in again if line["split"] == "train"][-1] == [x for x in lines if x["split"] == "train"][-1]
    assert {"factor", "factor_critic"} <= lines[0].keys()


def test_the_critic_has_the_optimiser_of_discriminators() -> None:
    def trained(**options: Any) -> torch.Tensor:
        model, objective = built(tiny("factor-vae", **SMALL))
        trainer = vk.Trainer(accelerator="cpu", max_steps=2, **options)
        trainer.fit(model, objective, random_images(32), batch_size=8)
        return objective.terms["factor"].critic.logit.weight.detach()

    assert not torch.equal(trained(), trained(discriminator_optimizer={"name": "sgd", "lr": 0.0}))


def work(rank: int, world: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    torch.manual_seed(3)
    term = ready()
    wrapped = DistributedDataParallel(term.critic)
    torch.manual_seed(rank)
    record = latents(torch.randn(1, 8, 2))
    term(record)  # the phase of the VAE goes before
    torch.manual_seed(rank)
    own = torch.autograd.grad(term.critic_loss(term.critic, record), list(term.critic.parameters()))
    torch.manual_seed(rank)  # the same permutations
    term.critic_loss(wrapped, record).backward()
    torch.save([own, [p.grad for p in term.critic.parameters()]], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_average_the_gradients_of_the_critic(tmp_path: Path) -> None:
    mp.spawn(work, (2, free_port(), str(tmp_path)), nprocs=2)
    (first, shared), (second, same) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for mine, other, a, b in zip(first, second, shared, same, strict=True):
        torch.testing.assert_close(a, (mine + other) / 2)
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert not torch.equal(mine, other)
