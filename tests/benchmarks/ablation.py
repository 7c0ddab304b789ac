"""The four-way ablation of GAMIX-VAE: {ordinary KL, population KL} x {no adversary, adversary}, for K = 1 and K = 4.

    python -m tests.benchmarks.ablation [--data digits] [--epochs 60] [--seeds 1]

Every row is the recipe `gamix` at equal steps; the rows differ in nothing but what their columns say. With the
ordinary KL, the variance-collapse term is left out: the KL holds the variances itself.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import vaekit as vk
from vaekit.data import Batches


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance of two sets of flattened images, as Gaussians over pixels."""
    a, b = (x.flatten(1).double() for x in (a, b))
    (m, s), (n, t) = ((x.mean(0), torch.cov(x.T)) for x in (a, b))
    root = torch.linalg.eigvals(s @ t).real.clamp_min(0).sqrt().sum()
    return ((m - n).square().sum() + s.trace() + t.trace() - 2 * root).item()


def measure(run: vk.Run) -> dict[str, float]:
    """Fit a run and look at it on its test split."""
    run.fit()
    model, data = run._ready(), run.data
    batches = Batches(data.test, len(data.test), data_range=model.data_range, shuffle=False, drop_last=False)
    x = next(iter(batches.epoch(0)))
    with torch.no_grad():
        error = (model.reconstruct(x) - x).abs().mean().item()
    samples = {source: run.sample(2000, source, seed=0).tensor for source in ("prior", "aggregate-gaussian")}
    return {
        "error": error,
        "variance": float(run.aggregate.mean_variance.mean()),
        "means": float(run.aggregate.variance_of_means.mean()),
        "active": run.aggregate.active_units,
        "prior": frechet(samples["prior"], x),
        "aggregate": frechet(samples["aggregate-gaussian"], x),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; recipe gamix on {options.data}, "
          f"{options.epochs} epochs, mean of {options.seeds} seed(s)")  # fmt: skip
    print("| K | KL | adversary | test MAE | mean posterior variance | variance of means | active units "
          "| pixel Fréchet, prior | pixel Fréchet, aggregate Gaussian |")  # fmt: skip
    print("|" + "---|" * 9)
    for components, kl, adversary in itertools.product((1, 4), ("ordinary", "population"), (False, True)):
        changes: dict = {"posterior": {"components": components}}
        if kl == "ordinary":
            changes["regularizers"] = {"population_kl": None, "variance_collapse": None, "kl": {}}
        if not adversary:
            changes["adversary"] = None
        rows = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                trainer = {"epochs": options.epochs, "seed": seed, "sample_every": 0}
                run = vk.recipe("gamix", data=options.data, out=Path(folder) / "run", trainer=trainer, **changes)
                rows.append(measure(run))
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        print(f"| {components} | {kl} | {'yes' if adversary else 'no'} | {mean['error']:.4f} | {mean['variance']:.2g} "
              f"| {mean['means']:.3f} | {mean['active']:.1f} of {run.config.latent_dim} | {mean['prior']:.2f} "
              f"| {mean['aggregate']:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
