"""Run directories written by hand, for the tests of comparisons."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from vaekit.evaluation.records import Record, keep_record

DATA = {"data": "digits", "split": "seeded 80/10/10", "samples": {"train": 1437, "valid": 180, "test": 180}}
LIKELIHOOD = {"data": DATA, "split": "test", "samples": 180, "particles": 50, "unit": "nats per sample"}
KID = {"data": DATA, "split": "test", "samples": 1000, "sampler": "prior", "extractor": {"name": "inception-v3-compat"}}


def write_run(
    out: Path,
    *,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    label: str = "negative ELBO",
    losses: tuple[float, ...] = (30.0, 28.0, 29.0),
    finished: bool = True,
    data: dict[str, Any] = DATA,
) -> Path:
    """Write what training leaves."""
    out.mkdir(parents=True)
    settings = {
        "recipe": "vae",
        "about": "A VAE",
        "latent_dim": 16,
        "posterior": {"name": "gaussian"},
        "likelihood": {"name": "bernoulli"},
        "objective": {"name": "elbo"},
        "regularizers": {"kl": {}},
        "data": {"name": data["data"], "batch_size": 64},
        "trainer": {"epochs": 3, "seed": seed},
        **(config or {}),
    }
    (out / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    environment: dict[str, Any] = {"label": label, "data": data}
    if finished:
        environment["training"] = {"steps": 66, "interrupted_by_signal": 0}
    (out / "environment.json").write_text(json.dumps(environment))
    lines = [{"split": "valid", "step": 22 * (i + 1), "epoch": i, "loss": loss} for i, loss in enumerate(losses)]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out / "model.safetensors").write_bytes(out.name.encode())
    return out


def evaluate(
    out: Path, metric: str = "likelihood", values: Any = -90.0, protocol: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Add figures to a run; a number stands for the estimate of the log-likelihood."""
    if isinstance(values, float):
        values = {"log_likelihood": {"mean": values, "standard_error": 0.5, "count": 180}}
    weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    made = {"weights_sha256": weights, "seed": 0}
    notes = changes.pop("notes", [])
    keep_record(out, Record(metric, values, {**(protocol or LIKELIHOOD), **changes}, made, notes))
    return out


def write_seeds(folder: Path, name: str, figures: list[float], **options: Any) -> list[Path]:
    """Write evaluated runs of one configuration, one for each figure."""
    return [
        evaluate(write_run(folder / f"{name}-{seed}", seed=seed, **options), values=value)
        for seed, value in enumerate(figures)
    ]
