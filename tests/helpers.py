"""Small models and data shared by tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaekit as vk
from vaekit.cli.main import main
from vaekit.config import RunConfig, read_recipe, recipe_names, resolve
from vaekit.data import Dataset, Split

TINY_GAMIX = {
    "latent_dim": 4,
    "backbone": {"width": 8, "latent_channels": 8},
    "adversary": {"discriminator": {"width": 8}},
    "posterior": {"components": 2},
}

# The model that an objective for several modalities is tested with: its fusion (`poe` where there is none here), its
# private fusion, its posterior and its prior.
MULTIMODAL: dict[str, dict[str, Any]] = {
    "independent": {"fusion": None},
    "mmvae": {"fusion": "moe"},
    "mmvae_plus": {"fusion": "moe", "private": {"name": "independent", "auxiliary": True}},
    "mopoe": {"fusion": "mopoe"},
    "mvtcae": {"fusion": {"name": "poe", "prior_expert": False}},
    "mmvm": {"fusion": None},
}


#: The recipes of one modality, and those of several.
ONE_MODALITY = [name for name in recipe_names() if read_recipe(name).get("modalities") is None]
SEVERAL_MODALITIES = [name for name in recipe_names() if name not in ONE_MODALITY]

TINY_PAIRED = {"name": "polymnist", "digits": "digits", "modalities": 2, "limit": 60, "batch_size": 20}


def call(*arguments: str) -> int:
    """Return the exit code of a command."""
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def tiny(recipe: str = "gamix", **overrides: Any) -> RunConfig:
    """Return a recipe at a size that trains in a second."""
    if recipe in SEVERAL_MODALITIES:
        base = {"latent_dim": 4, "backbone": {"name": "mlp", "hidden": [16]}, "data": TINY_PAIRED}
        return resolve(read_recipe(recipe), base, overrides)
    base = TINY_GAMIX if recipe.startswith("gamix") else {"latent_dim": 4, "backbone": {"hidden": [16]}}
    return resolve(read_recipe(recipe), base, overrides, data="digits")


def built(config: RunConfig, shape: tuple[int, ...] = (1, 8, 8)) -> tuple[vk.VAE, vk.Objective]:
    """Return the model and objective of a configuration."""
    from vaekit import build

    return build.model(config, shape), build.objective(config, shape)


def random_images(count: int = 64, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Dataset:
    """Return a data set of noise images."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    held = max(count // 4, 2)
    return Dataset("noise", Split(samples[held:]), Split(samples[:held]))


def write_idx(suite: Any, folder: Path) -> Path:
    """Put a few images where MNIST, or Fashion-MNIST, lies."""
    raw = folder / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[suite.name] / "raw"
    raw.mkdir(parents=True)
    random = np.random.RandomState(0)
    for part in ("train", "t10k"):
        for kind, shape in (("images-idx3", (24, 28, 28)), ("labels-idx1", (24,))):
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
            body = random.randint(0, 10, shape, dtype=np.uint8).tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + body)
    return folder
