"""Training throughput of the trainer against a bare PyTorch loop over the same modules, side by side in one run.

    python tests/benchmarks/trainer.py

Both train the same networks on the same in-memory data in the same order. The rounds alternate, so that whatever else
the machine does meets both; the median ratio of neighbouring rounds is what to read.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import built, random_images  # noqa: E402

from vaekit.config import read_recipe, resolve  # noqa: E402
from vaekit.data import Dataset  # noqa: E402
from vaekit.training.trainer import Trainer  # noqa: E402

ROUNDS = 7


def bare(vae: nn.Module, data: Dataset, batch: int, steps: int) -> float:
    """Train the plain Gaussian VAE as one would by hand; return samples per second."""
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    low, high = vae.data_range
    images = data.train.samples
    done, epoch = 0, 0
    began = time.perf_counter()
    while done < steps:
        order = torch.randperm(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            x = images[order[start : start + batch]].float() / 255 * (high - low) + low
            features = vae.encoder(x)
            mu, log_variance = vae.posterior.loc(features), vae.posterior.log_variance(features)
            z = mu + (0.5 * log_variance).exp() * torch.randn_like(mu)
            logits = vae.decoder(z)
            rec = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
            kl = 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
            optimizer.zero_grad()
            (rec + kl).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
        epoch += 1
    return steps * batch / (time.perf_counter() - began)


def ours(vae: nn.Module, objective: nn.Module, data: Dataset, batch: int, steps: int) -> float:
    """Train the same with the trainer; return samples per second."""
    trainer = Trainer(epochs=10_000, max_steps=steps, sample_every=0, log_every=50, accelerator="cpu")
    return trainer.fit(vae, objective, data, batch_size=batch).samples_per_second


def compare(name: str, overlay: dict, shape: tuple[int, ...], batch: int, steps: int) -> None:
    """Print one row."""
    config = resolve(read_recipe("vae"), {"posterior": {"log_variance_range": None}}, overlay)
    data = random_images(64 * batch, shape)

    def measure(run: Callable[..., float], *more: object) -> float:
        vae, objective = built(config, shape)
        return run(vae, *((objective,) if run is ours else ()), data, batch, *more)

    for run in (bare, ours):
        measure(run, 10)
    speeds: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS):
        speeds["bare"].append(measure(bare, steps))
        speeds["ours"].append(measure(ours, steps))
    middle = {which: statistics.median(values) for which, values in speeds.items()}
    # The ratio of neighbours in time, so that a slow minute of the machine weighs on both.
    ratio = statistics.median(o / b for b, o in zip(speeds["bare"], speeds["ours"], strict=True))
    print(f"| {name} | {middle['bare']:,.0f} | {middle['ours']:,.0f} | {ratio:.3f} |", flush=True)


def main() -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; samples/s, median of {ROUNDS} rounds")
    print("| networks | bare loop | vaekit | ratio |\n|---|---|---|---|")
    compare("mlp 512-256, 1x28x28, batch 128", {}, (1, 28, 28), 128, 200)
    compare("conv width 32, 1x28x28, batch 64", {"backbone": {"name": "conv"}}, (1, 28, 28), 64, 30)
    compare(
        "resnetv2 width 32, 3x32x32, batch 32", {"backbone": {"name": "resnetv2", "width": 32}}, (3, 32, 32), 32, 12
    )


if __name__ == "__main__":
    main()
