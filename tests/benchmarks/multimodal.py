"""Every recipe of several modalities on PolyMNIST, on equal budgets, over values of beta: representation and coherence.

    vaekit classifiers polymnist --data-root DIR --set modalities=3 --epochs 10 --out classifiers.safetensors
    python -m tests.benchmarks.multimodal --data-root DIR --classifiers classifiers.safetensors --out DIR2

One row for each recipe and beta: the mean accuracy of linear probes on the posterior means of one modality and of all,
conditional coherence given one modality and given all but one, joint coherence, and the mean absolute error of test
images reconstructed from all modalities at the posterior mean, with images in [0, 1]. Runs are kept in --out and not
trained again. All recipes have the networks, the data, the steps, the optimiser, the warm-up of beta (from 0, over the
first 30 %) and the number of latent dimensions in common, half of them private where there are private ones; one draw
of each posterior.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import vaekit as vk
from vaekit.data import make_batches
from vaekit.evaluation.classifiers import Classifiers
from vaekit.evaluation.metrics import evaluate
from vaekit.evaluation.protocol import Options
from vaekit.files import save_json

RECIPES: dict[str, dict[str, Any]] = {
    "independent": {},
    "mmvm": {},
    "masked-multimodal": {},
    "masked-multimodal-attention": {},
    "masked-multimodal-attention-plain": {"recipe": "masked-multimodal-attention", "fusion": {"residual": False}},
    "masked-multimodal-poe": {"recipe": "masked-multimodal", "fusion": "poe"},
    "masked-multimodal-plain": {"recipe": "masked-multimodal", "fusion": {"residual": False}},
    "masked-multimodal-private": {
        "recipe": "masked-multimodal",
        "fusion": {"residual": False},
        "private": {"name": "sum_pooling"},
    },
    "joint": {},
    "mvae": {},
    "mmvae": {"objective": {"name": "mmvae", "draws": 1}},
    "mopoe": {},
    "mvtcae": {},
    "mmvae-plus": {"private": {}},
}
HEADER = [
    "recipe", "beta", "probe, 1", "probe, all", "coherence, given 1", "given all but 1", "joint", "error", "time"
]  # fmt: skip


def finished(out: Path) -> bool:
    """Whether a run trained to its end: one that was interrupted has weights too."""
    record = out / "environment.json"
    training = json.loads(record.read_text()).get("training") if record.is_file() else None
    return training is not None and not training["interrupted_by_signal"]


@torch.no_grad()
def reconstruction_error(run: Any, chosen: Options) -> float:
    """Return the mean absolute error of reconstructions from all modalities, over images in [0, 1]."""
    data = run.data
    total, count = 0.0, 0
    batches = make_batches(data, chosen.rows(data), 100, run.model.data_range, shuffle=False, drop_last=False)
    for x in batches.epoch(0):
        found = run.model.reconstruct(x)
        for name, (low, high) in run.model.data_range.items():
            total += ((found[name] - x.values[name]).abs().mean() / (high - low)).item() * len(x)
        count += len(x)
    return total / count / len(run.model.names)


def figures(recipe: str, beta: float, options: argparse.Namespace) -> list[str]:
    """Train one recipe at one beta, unless that was done, and return its row."""
    out = options.out / f"{recipe}-{beta:g}"
    kept = out / "figures.json"
    if not kept.is_file():
        latent = options.latent_dim
        overrides: dict[str, Any] = {
            "latent_dim": latent,
            "backbone": {"width": options.width},
            **RECIPES[recipe],
        }
        if "private" in overrides:
            half = latent // 2
            overrides |= {"latent_dim": half, "private": {**overrides["private"], "latent_dim": half}}
        name = overrides.pop("recipe", recipe)
        warm = {"name": "linear", "start": 0.0, "end": beta, "portion": 0.3}
        overrides["objective"] = {**overrides.get("objective", {}), "beta": warm}
        data = {"name": "polymnist", "root": str(options.data_root), "modalities": options.modalities}
        run = vk.recipe(
            name,
            data={**data, "limit": options.limit, "batch_size": options.batch_size},
            out=out,
            trainer={
                "epochs": 1000,
                "max_steps": options.steps,
                "optimizer": {"name": "adam", "lr": {"name": "cosine", "start": 1e-3, "end": 0.0, "portion": 1.0}},
                "sample_every": 0,
                "log_every": 50,
            },
            **overrides,
        )
        if not finished(out) and (signal := run.fit(resume=out.is_dir()).signal):
            raise SystemExit(128 + signal)
        run = vk.Run.load(out)
        chosen = Options(samples=options.samples, classifiers=Classifiers.load(options.classifiers))
        found = evaluate(run.model, run.data, ["probe", "coherence"], chosen)
        save_json(
            kept,
            {
                "probe": found["probe"].values["accuracy"],
                "coherence": found["coherence"].values,
                "error": reconstruction_error(run, chosen),
                "seconds": json.loads((out / "environment.json").read_text())["training"]["seconds"],
            },
        )
    read = json.loads(kept.read_text())
    probe, coherence, last = read["probe"], read["coherence"]["conditional"], str(options.modalities - 1)
    values = [probe["1"], probe[str(options.modalities)], coherence["1"], coherence[last], read["coherence"]["joint"]]
    return [
        recipe,
        f"{beta:g}",
        *(f"{value['mean'] if isinstance(value, dict) else value:.3f}" for value in values),
        f"{read['error']:.4f}",
        f"{read['seconds']:.0f} s",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--classifiers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--betas", nargs="+", type=float, default=[0.1, 1.0])
    parser.add_argument("--modalities", type=int, default=3)
    parser.add_argument("--limit", type=int, default=20000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--latent-dim", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for beta in options.betas:
        for recipe in options.recipes:
            print(f"| {' | '.join(figures(recipe, beta, options))} |", flush=True)


if __name__ == "__main__":
    main()
