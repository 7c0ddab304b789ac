"""Small models and data shared by tests."""

from __future__ import annotations

from typing import Any

import torch

import vaekit as vk
from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.data import Dataset, Split

TINY_GAMIX = {
    "latent_dim": 4,
    "backbone": {"width": 8, "latent_channels": 8},
    "adversary": {"discriminator": {"width": 8}},
    "posterior": {"components": 2},
}


def tiny(recipe: str = "gamix", **overrides: Any) -> RunConfig:
    """Return a recipe at a size that trains in a second."""
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
