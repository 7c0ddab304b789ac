"""A hand-written plain PyTorch VAE-GAN loop, and the same run by the trainer; run as a script, on one or more ranks.

    python parity_loop.py plain|trainer FOLDER [WORLD RANK PORT]

Writes the final weights of rank zero to FOLDER/<which>.safetensors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed
import torch.nn.functional as F
from helpers import built, random_images, tiny
from safetensors.torch import save_file

import vaekit.data.paired
from vaekit.data import Batches, Dataset
from vaekit.training.trainer import Trainer

STEPS, BATCH = 6, 16
# Not Adam: a bias before a batch norm has a gradient of pure rounding noise, which Adam would scale to full steps.
OPTIMIZER = {"name": "sgd", "lr": 1e-5, "momentum": 0.9}


class Batches64(Batches):
    """Batches in float64: batch norms of tiny networks amplify float32 rounding to visible differences."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[torch.Tensor]:
        return (x.double() for x in super().epoch(epoch, start))


def parts() -> tuple:
    config = tiny("gamix", prior="standard_normal", posterior={"name": "gaussian", "log_variance_range": None})
    torch.set_default_dtype(torch.float64)
    model, objective = (part.double() for part in built(config))
    return model, objective, random_images(64)


def average(tensor: torch.Tensor, world: int) -> torch.Tensor:
    if world > 1:
        torch.distributed.all_reduce(tensor)
        tensor /= world
    return tensor


def plain(world: int, rank: int) -> torch.nn.Module:
    """Everything written out: the losses by formula, gradients averaged by hand."""
    model, objective, data = parts()
    vae, discriminator = model.train(), objective.adversary.discriminator.train()
    g = torch.optim.SGD(vae.parameters(), lr=1e-5, momentum=0.9)
    d = torch.optim.SGD(discriminator.parameters(), lr=1e-5, momentum=0.9)
    torch.manual_seed(0 + rank)
    batches = Batches64(
        data.train, BATCH // world, data_range=(-1.0, 1.0), device="cpu", shuffle=True, flip=False, seed=0,
        rank=rank, world=world, drop_last=True, resident=False,
    )  # fmt: skip
    done = 0
    while done < STEPS:
        for x in batches.epoch(done // len(batches)):
            for module in (vae, discriminator):
                for buffer in module.buffers():
                    if world > 1:
                        torch.distributed.broadcast(buffer, 0)
            features = vae.encoder(x)
            mu, log_variance = vae.posterior.loc(features), vae.posterior.log_variance(features)
            sigma = (0.5 * log_variance).exp()
            z = mu + sigma * torch.randn(1, *mu.shape)[0]
            fake = vae.decoder(z)
            scale = 64 / 5000
            rec = ((x - fake).abs() / scale + torch.log(torch.tensor(2 * scale))).flatten(1).sum(1).mean()
            if world > 1:
                # Moments of the global batch, with gradients, from gathered statistics.
                gathered = torch.distributed.nn.functional.all_gather(mu)
                mus = torch.cat(list(gathered))
                sigmas = torch.cat(list(torch.distributed.nn.functional.all_gather(sigma)))
            else:
                mus, sigmas = mu, sigma
            m = mus.mean(0)
            v = mus.var(0, unbiased=False) + sigmas.square().mean(0)
            population = 0.5 * (m.square() + v - 1 - (v + 1e-6).log()).sum()
            collapse = (sigma.square() - 1 - log_variance).sum(1).mean()
            for p in discriminator.parameters():
                p.requires_grad_(False)
            logits = discriminator(fake)
            loss = (
                rec
                + population
                + 0.1 * collapse
                + 100 * F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            )
            g.zero_grad()
            loss.backward()
            for p in vae.parameters():
                average(p.grad, world)
            g.step()
            for p in discriminator.parameters():
                p.requires_grad_(True)
            d.zero_grad()
            for module in (discriminator,):
                for buffer in module.buffers():
                    if world > 1:
                        torch.distributed.broadcast(buffer, 0)
            real_logits = discriminator(x)
            for buffer in discriminator.buffers():
                if world > 1:
                    torch.distributed.broadcast(buffer, 0)
            fake_logits = discriminator(fake.detach())
            d_loss = 100 * (
                F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
                + F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
            )
            d_loss.backward()
            for p in discriminator.parameters():
                average(p.grad, world)
            d.step()
            done += 1
            if done == STEPS:
                break
    return vae


def trained(world: int, model: torch.nn.Module, objective: torch.nn.Module, data: Dataset) -> torch.nn.Module:
    """The same by the trainer."""
    vaekit.data.paired.Batches = Batches64
    trainer = Trainer(
        max_steps=STEPS, epochs=100, optimizer=OPTIMIZER, accelerator="cpu", devices=world, strategy="auto"
    )
    trainer.fit(model, objective, data, batch_size=BATCH)
    return model


def main(plain: Callable[[int, int], torch.nn.Module], parts: Callable[[], tuple]) -> None:
    """Train one way or the other, and keep the weights."""
    which, folder = sys.argv[1], Path(sys.argv[2])
    world, rank = int(sys.argv[3]), int(os.environ.get("LOCAL_RANK", sys.argv[4]))
    torch.set_num_threads(1)
    if which == "plain" and world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{sys.argv[5]}", world_size=world, rank=rank
        )
    model = plain(world, rank) if which == "plain" else trained(world, *parts())
    if rank == 0:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / f"{which}.safetensors")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(plain, parts)
