"""A hand-written plain PyTorch loop of the masked objective over two modalities, some missing, and the same by the
trainer; run as `parity_loop.py` is.
"""

from __future__ import annotations

import math

import torch
from helpers import built, tiny
from parity_loop import BATCH, STEPS, Batches64, average, main
from torch import Tensor

from vaekit.data import Dataset, PairedSplit, Split

SHAPE = {"left": (6,), "right": (5,)}


def parts() -> tuple:
    torch.set_default_dtype(torch.float64)
    posterior = {"name": "gaussian", "log_variance_range": None}
    config = tiny(
        "masked-multimodal",
        fusion="poe",
        posterior=posterior,
        likelihood={"name": "laplace", "scale": 0.5},
        objective={"beta": 1.0},
    )
    model, objective = (part.double() for part in built(config, SHAPE))
    generator = torch.Generator().manual_seed(0)
    values = {m: torch.randn(64, *s, generator=generator).float() for m, s in SHAPE.items()}
    available = torch.rand(64, 2, generator=generator) > 0.3
    available[:, 0] |= ~available.any(1)
    split = PairedSplit({m: Split(value) for m, value in values.items()}, available=available)
    return model, objective, Dataset("noise", split.rows(slice(16, None)), split.rows(slice(16)), is_image=False)


def product(locs: Tensor, precisions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the product of the chosen experts and N(0, 1)."""
    chosen = mask[..., None].double()
    variance = 1 / (1 + (chosen * precisions).sum(1))
    return variance * (chosen * precisions * locs).sum(1), variance


def kl(mean: Tensor, variance: Tensor, other_mean: Tensor | float, other_variance: Tensor) -> Tensor:
    """KL of two Gaussians, shape (B,)."""
    ratio = variance / other_variance
    return 0.5 * (ratio + (mean - other_mean) ** 2 / other_variance - 1 - ratio.log()).sum(1)


def plain(world: int, rank: int) -> torch.nn.Module:
    """Everything written out: experts, products, both KLs, both distortions, gradients averaged by hand."""
    model, _, data = parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    torch.manual_seed(0 + rank)
    options = {"data_range": None, "seed": 0, "rank": rank, "world": world}
    train = data.train
    sources = [*train.modalities.values(), Split(train.available.float())]
    batches = [Batches64(source, BATCH // world, **options) for source in sources]
    done = 0
    while done < STEPS:
        for *values, there in zip(*(b.epoch(done // len(batches[0])) for b in batches), strict=True):
            available = there > 0.5
            networks = list(model.parts.values())
            heads = model.fusion.experts.heads
            features = [
                network.encoder(torch.where(available[:, i, None], value, 0.0))
                for i, (network, value) in enumerate(zip(networks, values, strict=True))
            ]
            locs = torch.stack([head.loc(part) for head, part in zip(heads, features, strict=True)], 1)
            log_variances = torch.stack(
                [head.log_variance(part) for head, part in zip(heads, features, strict=True)], 1
            )
            subset = (torch.rand(available.shape) < 0.5) & available
            partial = product(locs, (-log_variances).exp(), subset)
            full = product(locs, (-log_variances).exp(), available)
            z_full = full[0] + full[1].sqrt() * torch.randn(1, *full[0].shape)[0]
            z_partial = partial[0] + partial[1].sqrt() * torch.randn(1, *partial[0].shape)[0]
            rate = kl(*partial, 0.0, torch.ones_like(partial[1])) + kl(*full, *partial)
            loss = rate.mean()
            for i, (network, value) in enumerate(zip(networks, values, strict=True)):
                z = torch.where(subset[:, i, None], z_partial, z_full)
                distortion = (network.decoder(z) - value).abs().sum(1) / 0.5 + value.shape[1] * math.log(2 * 0.5)
                loss = loss + torch.where(available[:, i], distortion, 0.0).mean()
            optimizer.zero_grad()
            loss.backward()
            for p in model.parameters():
                average(p.grad, world)
            optimizer.step()
            done += 1
            if done == STEPS:
                break
    return model


if __name__ == "__main__":
    main(plain, parts)
