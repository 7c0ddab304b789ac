"""Objectives and fusions on the linear-Gaussian benchmark, where the likelihood and every posterior are known exactly.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.linear_gaussian --sparse --seeds 3 --markdown

Every row is the recipe `masked-multimodal` on the data set `linear-gaussian` with another objective or fusion, on
equal steps. All figures are in nats per sample, on the test split. `gap` is that of log p(x) to the truth, and `best`
the same for the model of greatest likelihood on the same training data: what no objective can do much better than.
`limit` is where the objective `mixture` ends with the best posteriors and endless data. The KL is that of q(z|x_S) to
the exact posterior of the learned model, by the number of modalities in S. The signal is the mean of the learned
model's five largest eigenvalues of WW' (the truth has 5) and, for sparse data, of the 25 others (the truth has 1; 0 is
a collapse of the private latents).

Sparse data come with one latent of 30 dimensions, or with `--private` a shared one of 5 and a private one of 5 for each
modality.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from statistics import mean
from typing import Any

import torch

from vaekit import build
from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.data import Dataset, load
from vaekit.distributions import LinearGaussian, kl_divergence
from vaekit.evaluation import LinearReport, learned_linear_gaussian, linear_report, mixture_optimum
from vaekit.models import MultimodalVAE
from vaekit.objectives.masks import size_probabilities
from vaekit.observed import Observed
from vaekit.schedules import with_steps
from vaekit.training import Listener

STEPS = (1, 10, 30, 100, 200, 300, 1000, 2000, 3000, 6000, 10000)


class Trace(Listener):
    """Prints, as training goes on, how much of the private latents decoders use and encoders say."""

    def __init__(self, model: MultimodalVAE, data: Dataset) -> None:
        self.model = model
        self.x = Observed({name: part.samples[:500] for name, part in data.test.modalities.items()})

    @torch.no_grad()
    def on_step(self, step: int) -> None:
        if step in STEPS:
            signal = learned_linear_gaussian(self.model).signal()
            q = self.model.encode(self.x).posterior().shared
            said = q.mean.var(0).mean().item()
            print(
                f"  step {step:>5}: signal shared {signal[:5].mean():.3f}, private {signal[5:].mean():.3f}; variance "
                f"of the posterior means {said:.4f}, mean posterior variance {q.variance.mean():.4f}",
                flush=True,
            )


def train(objective: dict[str, Any], fusion: str, seed: int, options: argparse.Namespace) -> LinearReport:
    """Train one model and judge it."""
    private = options.sparse and options.private
    config = resolve(
        read_recipe("masked-multimodal"),
        {
            "latent_dim": 30 if options.sparse and not private else 5,
            "modalities": {},
            "fusion": {
                "name": fusion,
                **({} if fusion == "poe" else {"width": options.width, "pooled": options.width}),
            },
            "private": {"name": options.private, "latent_dim": 5} if private else None,
            "backbone": {"name": "mlp", "hidden": [options.width, options.width], "decoder_hidden": []},
            "posterior": {"name": "gaussian"},
            "prior": {"name": "standard_normal"},
            "likelihood": {"name": "gaussian", "scale": 1.0},
            "objective": objective,
            "regularizers": {},
            "data": {"name": "linear-gaussian"},
            "trainer": {
                "epochs": options.epochs,
                "optimizer": {
                    "name": "adam",
                    "lr": {"name": "cosine", "start": options.lr, "end": 0.0, "portion": 1.0},
                },
                "seed": seed,
                "sample_every": 0,
            },
        },
        assignments=options.set,
    )
    config = RunConfig(**with_steps(config.model_dump(), options.epochs * (5000 // options.batch_size)))
    data = load("linear-gaussian", seed=seed, sparse=options.sparse)
    data = replace(data, valid=data.valid.rows(slice(500)))  # All figures are of the test split.
    model = build.model(config, data.shape, data.values)
    if options.torch_init:
        for layer in model.fusion.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    fit = build.trainer(config).fit(
        model,
        build.objective(config, data.shape),
        data,
        batch_size=options.batch_size,
        listeners=[Trace(model, data)] if options.trace else [],
    )
    if fit.signal:
        raise SystemExit(128 + fit.signal)
    return linear_report(fit.model, data, LinearGaussian.benchmark(seed, sparse=options.sparse))


def row(objective: str, fusion: str, options: argparse.Namespace) -> list[str]:
    """Train on every seed and return the figures of one row, averaged."""
    spec = {"name": objective, "beta": 1.0} | ({} if objective == "joint" else {"mask_law": options.mask_law})
    began = time.perf_counter()
    reports = [train(spec, fusion, seed, options) for seed in range(options.seeds)]
    limit = 0.0
    if objective == "mixture":
        truth = LinearGaussian.benchmark(0, sparse=options.sparse)
        optimum = mixture_optimum(truth, size_probabilities(options.mask_law, 5))
        limit = kl_divergence(truth.marginal(), optimum.marginal()).item()
    gaps = [report.gap.mean for report in reports]
    kls = [mean(report.posterior_kl[size].mean for report in reports) for size in range(6)]
    parts = [mean(value for report in reports for value in report.signal[:5])]
    if options.sparse:
        parts.append(mean(value for report in reports for value in report.signal[5:]))
    return [
        objective,
        fusion,
        f"{mean(gaps):.4f}" + (f" ({', '.join(f'{gap:.4f}' for gap in gaps)})" if len(gaps) > 1 else ""),
        f"{mean(report.best_gap.mean for report in reports):.4f}",
        f"{limit:.4f}",
        ", ".join(f"{kl:.3f}" for kl in kls),
        " / ".join(f"{part:.2f}" for part in parts),
        f"{(time.perf_counter() - began) / options.seeds:.0f}",
    ]


HEADER = ["objective", "fusion", "gap", "best", "limit", "KL for 0, 1, ..., 5 modalities", "signal", "s per run"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--sparse", action="store_true", help="private latents in the data")
    parser.add_argument("--dense", dest="sparse", action="store_false", help="none (the default)")
    parser.add_argument("--private", help="a private fusion, for sparse data")
    parser.add_argument("--objectives", nargs="+", default=["masked", "mixture", "joint"])
    parser.add_argument("--fusions", nargs="+", default=["poe", "sum_pooling", "self_attention"])
    parser.add_argument("--mask-law", default="bernoulli")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--width", type=int, default=256, help="of the encoders' and the fusion's hidden layers")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--trace", action="store_true", help="print the private signal as training goes on")
    parser.add_argument("--torch-init", action="store_true", help="PyTorch's own first weights in the fusion")
    parser.add_argument("--set", nargs="*", default=[], help="further KEY=VALUE of the recipe")
    parser.add_argument("--markdown", action="store_true", help="a table for a page")
    options = parser.parse_args()
    print(
        f"linear-gaussian, {'sparse' if options.sparse else 'dense'}, {options.seeds} seed(s), {options.epochs} epochs "
        f"in batches of {options.batch_size}, width {options.width}, Adam at {options.lr:g} with cosine decay, "
        f"masks {options.mask_law}{', PyTorch first weights' if options.torch_init else ''}"
        f"{', ' + ' '.join(options.set) if options.set else ''}; "
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s)\n"
    )
    between = "| {} |".format if options.markdown else "{}".format
    join = " | ".join if options.markdown else "; ".join
    print(between(join(HEADER)))
    if options.markdown:
        print("|" + "---|" * len(HEADER))
    for objective in options.objectives:
        for fusion in options.fusions:
            print(between(join(row(objective, fusion, options))), flush=True)


if __name__ == "__main__":
    main()
