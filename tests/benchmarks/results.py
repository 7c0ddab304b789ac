"""Rows of published tables, made again on the data that is at hand.

    python tests/benchmarks/results.py evae  --data-root DIR --extractor FILE.ts [--epochs 5] [--rows vae evae]
    python tests/benchmarks/results.py pvae  --data-root DIR [--epochs 20]
    python tests/benchmarks/results.py codes --data-root DIR [--epochs 20]
    python tests/benchmarks/results.py nll   --data-root DIR [--epochs 20]

`evae`: reconstructions of held-out Fashion-MNIST, as Fréchet distance under a TorchScript extractor and as sharpness.
`pvae`: active neurons of linear-decoder models on MNIST. `codes`: k-NN accuracy of their posteriors' parameters with a
decoder that is not linear. `nll`: importance-sampled likelihood of stochastically binarised MNIST. Runs are kept in
--out and not trained again; every printed row says what was run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vaekit as vk
from vaekit.config import merge
from vaekit.data import Batches
from vaekit.evaluation import (
    features_of,
    frechet_distance,
    importance_sampled_nll,
    load_extractor,
    sharpness,
)
from vaekit.evaluation.representation import active_neurons, knn_accuracy, representation
from vaekit.reporting.images import to_uint8

Row = tuple[str, dict[str, Any]]

# ---- what each row is ------------------------------------------------------------------------------------------------

CONV = {"backbone": {"name": "conv", "width": 16, "norm": "batch"}, "likelihood": "bernoulli", "latent_dim": 64}
EVAE: dict[str, Row] = {
    "vae": ("vae", {}),
    "beta-vae 0.1": ("vae", {"regularizers": {"kl": {"weight": 0.1}}}),
    "beta-vae 5": ("vae", {"regularizers": {"kl": {"weight": 5.0}}}),
    "iwae": ("iwae", {}),
    "wae-mmd": ("wae-mmd", {}),
    "evae": ("evae", {}),
    "evae B=10": ("evae", {"prior": {"length": 10.0}, "regularizers": {"evae_penalty": {"length": 10.0}}}),
    "evae-gaussian": ("evae-gaussian", {}),
    "evae-exact": ("evae-exact", {}),
    "noise-matched-ae": ("noise-matched-ae", {}),
    "rae": ("rae", {}),
}
LINEAR = {
    "backbone": {"name": "mlp", "hidden": [], "bias": False},
    "likelihood": "sum_squared_error",
    "latent_dim": 512,
    "data": {"batch_size": 200},
}
ADAMAX = {"optimizer": {"name": "adamax", "lr": {"name": "cosine", "start": 2e-3, "end": 1e-5, "portion": 1.0}}}
WARM = {"weight": {"name": "linear", "start": 1e-4, "end": 1.0, "portion": 0.5}}
PVAE: dict[str, Row] = {
    "poisson": ("pvae", {}),
    "gaussian": ("vae", {"regularizers": {"kl": WARM}, "trainer": ADAMAX}),
    "laplace": ("laplace-vae", {"regularizers": {"kl": WARM}, "trainer": ADAMAX}),
}
MLP = {
    "backbone": {"name": "mlp", "hidden": [512, 256], "bias": True},
    "likelihood": "sum_squared_error",
    "latent_dim": 50,
    "data": {"batch_size": 200},
}
NLL: dict[str, Row] = {
    "vae": ("vae", {"posterior": "gaussian"}),
    "iwae": ("iwae", {}),
    "gmm posterior": ("vae", {"posterior": {"name": "gmm", "components": 4}}),
    "vampprior": ("vampprior", {}),
}


# ---- running a row ---------------------------------------------------------------------------------------------------


def fitted(out: Path, data: str, root: Path, row: Row, common: Mapping[str, Any], epochs: int) -> vk.Run:
    """Return the run of a row, trained now or before."""
    recipe, changes = row
    if not (out / "model.safetensors").is_file():
        layered = merge(dict(common), changes)
        layered = merge(layered, {"trainer": {"epochs": epochs, "sample_every": 0}, "data": {"root": str(root)}})
        vk.recipe(recipe, data={"name": data, **layered.pop("data")}, out=out, **layered).fit()
    return vk.Run.load(out)


def held_out(run: vk.Run, count: int, binarize: bool = False) -> Iterator[Tensor]:
    """Yield the first test samples in the model's range."""
    rows = run.data.splits["test"].rows(torch.arange(count))
    size = 100
    return Batches(
        rows, size, data_range=run.model.data_range, shuffle=False, binarize=binarize, drop_last=False
    ).epoch(0)


def model_of(run: vk.Run) -> vk.VAE:
    """Return the trained model, ready to be asked."""
    return run._ready()


def seconds_of(out: Path) -> str:
    """Return how long a run trained."""
    import json

    training = json.loads((out / "environment.json").read_text())["training"]
    return f"{training['steps']:,} steps, {training['seconds']:.0f} s"


# ---- the tables ------------------------------------------------------------------------------------------------------


def evae(options: argparse.Namespace) -> None:
    """Reconstructions: Fréchet distance and sharpness."""
    extractor, name = load_extractor(options.extractor), Path(options.extractor).stem
    common = {**CONV, "data": {"batch_size": 100}, "trainer": {"optimizer": {"name": "adam", "lr": 3e-4}}}
    real: Tensor | None = None
    print(f"| row | Fréchet distance, {name}, N = {options.count:,} | sharpness | mean squared error | trained |")
    print("|---|---|---|---|---|")
    for label in options.rows or EVAE:
        out = options.out / "evae" / label.replace(" ", "-")
        run = fitted(out, "fashion-mnist", options.data_root, EVAE[label], common, options.epochs)
        model = model_of(run)
        if real is None:
            data = torch.cat([to_uint8(x, model.data_range) for x in held_out(run, options.count)])
            real = features_of(extractor, data.split(100))
            print(f"| data | 0 | {sharpness(data.double() / 255).mean():.4f} | 0 | |")
        found, errors = [], []
        with torch.no_grad():
            for x in held_out(run, options.count):
                found.append(model.reconstruct(x))
                errors.append((found[-1] - x).square().mean().item())
        images = to_uint8(torch.cat(found), model.data_range)
        distance = frechet_distance(real, features_of(extractor, images.split(100)))
        error = sum(errors) / len(errors)
        sharp = sharpness(images.double() / 255).mean()
        print(f"| {label} | {distance:.2f} | {sharp:.4f} | {error:.5f} | {seconds_of(out)} |", flush=True)


def pvae(options: argparse.Namespace) -> None:
    """Active neurons of linear models."""
    print("| posterior | active neurons, KL > 0.01 | > 0.1 | reconstruction | KL | trained |")
    print("|---|---|---|---|---|---|")
    for label in options.rows or PVAE:
        out = options.out / "pvae" / label
        run = fitted(out, "mnist", options.data_root, PVAE[label], LINEAR, options.epochs)
        model = model_of(run)
        shares = [active_neurons(model, held_out(run, options.count), threshold) for threshold in (0.01, 0.1)]
        terms = [line for line in _metrics(out) if line["split"] == "valid"][-1]
        print(
            f"| {label} | {shares[0]:.3f} | {shares[1]:.3f} | {terms['reconstruction']:.2f} | {terms['kl']:.2f} "
            f"| {seconds_of(out)} |",
            flush=True,
        )


def codes(options: argparse.Namespace) -> None:
    """k-NN accuracy of posterior parameters."""
    print("| posterior | N = 200 | N = 1,000 | N = 5,000 | trained |")
    print("|---|---|---|---|---|")
    for label in options.rows or PVAE:
        out = options.out / "codes" / label
        run = fitted(out, "mnist", options.data_root, PVAE[label], MLP, options.epochs)
        features = representation(model_of(run), held_out(run, 10_000))
        labels = run.data.splits["test"].labels
        assert labels is not None
        pool, held = (features[:5000], labels[:5000]), (features[5000:], labels[5000:10_000])
        found = []
        generator = torch.Generator().manual_seed(0)
        for count, repeats in ((200, 20), (1000, 20), (5000, 1)):
            scores = []
            for _ in range(repeats):
                chosen = torch.randperm(5000, generator=generator)[:count]
                scores.append(knn_accuracy(pool[0][chosen], pool[1][chosen], *held, neighbours=5))
            found.append(torch.tensor(scores).mean().item())
        print(f"| {label} | {' | '.join(f'{value:.3f}' for value in found)} | {seconds_of(out)} |", flush=True)


def nll(options: argparse.Namespace) -> None:
    """Importance-sampled likelihood of binarised MNIST."""
    print(f"| row | NLL, 200 draws, {options.count:,} test images | standard error | trained |")
    print("|---|---|---|---|")
    rate = {"name": "cosine", "start": 1e-3, "end": 1e-5, "portion": 1.0}
    common = {
        "latent_dim": 40,
        "backbone": {"name": "mlp", "hidden": [300, 300], "activation": "relu"},
        "likelihood": "bernoulli",
        "data": {"batch_size": 100, "binarize": True},
        "trainer": {"optimizer": {"name": "adam", "lr": rate}},
    }
    for label in options.rows or NLL:
        out = options.out / "nll" / label.replace(" ", "-")
        run = fitted(out, "mnist", options.data_root, NLL[label], common, options.epochs)
        found = importance_sampled_nll(model_of(run), held_out(run, options.count, binarize=True), draws=200)
        error = found.std() / len(found) ** 0.5
        print(f"| {label} | {found.mean():.2f} | {error:.2f} | {seconds_of(out)} |", flush=True)


def _metrics(out: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=["evae", "pvae", "codes", "nll"])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--extractor", default=None)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000, help="held-out samples")
    parser.add_argument("--rows", nargs="*", default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    options = parser.parse_args()
    if options.table == "evae" and options.extractor is None:
        parser.error("evae needs --extractor FILE.ts")
    began = time.perf_counter()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {options.epochs} epochs\n")
    {"evae": evae, "pvae": pvae, "codes": codes, "nll": nll}[options.table](options)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
