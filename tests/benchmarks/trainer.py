"""Training throughput of the trainer against bare PyTorch loops, side by side in one run.

    python -m tests.benchmarks.trainer

Two loops stand beside the trainer: one over the same modules (the VAE, its likelihood, the KL), and one that uses the
networks alone and writes the Gaussian VAE's formulas out by hand, with no distribution objects at all. All train the
same networks on in-memory data. The rounds alternate, so that whatever else
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
from vaekit.distributions import kl_divergence  # noqa: E402
from vaekit.training.cpu import ask_for_gpus_once  # noqa: E402
from vaekit.training.trainer import Trainer  # noqa: E402

ROUNDS = 7


def by_modules(vae: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The negative ELBO from the modules."""
    output = vae(x)
    return kl_divergence(output.latents.q, output.latents.p).mean() - output.likelihood.log_prob(x).mean()


def by_formulas(vae: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The negative ELBO written out."""
    features = vae.encoder(x)
    mu, log_variance = vae.posterior.loc(features), vae.posterior.log_variance(features)
    logits = vae.decoder(mu + (0.5 * log_variance).exp() * torch.randn_like(mu))
    rec = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
    return rec + 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


def bare(loss: Callable[..., torch.Tensor], vae: nn.Module, data: Dataset, batch: int, steps: int) -> float:
    """Train as one would by hand; return samples per second."""
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    low, high = vae.data_range
    images = data.train.samples
    done, epoch = 0, 0
    began = time.perf_counter()
    while done < steps:
        order = torch.randperm(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            x = images[order[start : start + batch]].float() / 255 * (high - low) + low
            optimizer.zero_grad()
            loss(vae, x).backward()
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

    def measure(which: str, steps: int) -> float:
        vae, objective = built(config, shape)
        if which == "vaekit":
            return ours(vae, objective, data, batch, steps)
        return bare({"modules": by_modules, "formulas": by_formulas}[which], vae, data, batch, steps)

    speeds: dict[str, list[float]] = {"modules": [], "formulas": [], "vaekit": []}
    for which in speeds:
        measure(which, 10)
    for _ in range(ROUNDS):
        for which, values in speeds.items():
            values.append(measure(which, steps))
    middle = {which: statistics.median(values) for which, values in speeds.items()}
    # Ratios of neighbours in time, so that a slow minute of the machine weighs on all.
    ratios = [
        statistics.median(o / b for b, o in zip(speeds[which], speeds["vaekit"], strict=True))
        for which in ("modules", "formulas")
    ]
    print(f"| {name} | {middle['modules']:,.0f} | {middle['formulas']:,.0f} | {middle['vaekit']:,.0f} "
          f"| {ratios[0]:.3f} | {ratios[1]:.3f} |", flush=True)  # fmt: skip


def main() -> None:
    """Print the table."""
    ask_for_gpus_once()  # Bare loops have no Fabric beside them, which would make torch look for GPUs at each step.
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; samples/s, median of {ROUNDS} rounds")
    print("| networks | loop over modules | loop of formulas | vaekit | to modules | to formulas |\n|" + "---|" * 6)
    compare("mlp 512-256, 1x28x28, batch 128", {}, (1, 28, 28), 128, 200)
    compare("conv width 32, 1x28x28, batch 64", {"backbone": {"name": "conv"}}, (1, 28, 28), 64, 30)
    compare(
        "resnetv2 width 32, 3x32x32, batch 32", {"backbone": {"name": "resnetv2", "width": 32}}, (3, 32, 32), 32, 12
    )


if __name__ == "__main__":
    main()
