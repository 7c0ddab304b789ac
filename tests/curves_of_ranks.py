"""Train recipes on some ranks with the noise of one rank; rank zero writes its metrics to the file that is named.

The ranks of a run draw their own noise. Here every draw is made for the global batch, alike on all ranks, and each
takes its part: what is left to differ is what the engine, the loader and the batch-level terms do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers import random_images, tiny
from torch.overrides import TorchFunctionMode

import vaekit as vk
from vaekit import build

BATCH = 24
NORMAL = (torch.normal, torch.randn, torch.randn_like, torch.Tensor.normal_)
UNIFORM = (torch.rand, torch.rand_like, torch.Tensor.uniform_)
PLAIN = {"backbone": {"norm": "frozen_affine"}, "adversary": {"discriminator": {"norm": "frozen_affine"}}}


class SharedNoise(TorchFunctionMode):
    """Draws for the global batch wherever a draw has the size of a rank's batch."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks, self.draws = rank, ranks, 0
        super().__init__()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        drawn = func(*args, **(kwargs or {}))
        if func not in (*NORMAL, *UNIFORM) or (kwargs or {}).get("generator") is not None:
            return drawn
        sizes = [place for place, size in enumerate(drawn.shape) if size == BATCH // self.ranks]
        if not sizes:
            return drawn
        shape = list(drawn.shape)
        shape[sizes[0]] = BATCH
        self.draws += 1
        generator = torch.Generator().manual_seed(self.draws)
        whole = torch.empty(shape, dtype=drawn.dtype)
        whole = whole.normal_(generator=generator) if func in NORMAL else whole.uniform_(generator=generator)
        return drawn.copy_(whole.tensor_split(self.ranks, sizes[0])[self.rank])


def curves(rank: int, ranks: int) -> dict[str, list[dict[str, Any]]]:
    """Return the training metrics of eight steps of each recipe; of the one without noise the validation too."""
    found = {}
    for recipe in ("vae", "gamix", "mmvm", "rae"):
        config = tiny(recipe, latent_dim=5, **(PLAIN if recipe == "gamix" else {}))
        data = vk.Run(config).data if recipe == "mmvm" else random_images(120)
        values = data.values if recipe == "mmvm" else None
        model, objective = build.model(config, data.shape, values), build.objective(config, data.shape)
        trainer = vk.Trainer(max_steps=8, log_every=1, sample_every=0, accelerator="cpu", devices=ranks)
        with SharedNoise(rank, ranks):
            fit = trainer.fit(model, objective, data, batch_size=BATCH)
        found[recipe] = [line for line in fit.metrics if recipe == "rae" or line["split"] == "train"]
    return found


if __name__ == "__main__":
    mine = curves(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if os.environ["RANK"] == "0":
        Path(sys.argv[1]).write_text(json.dumps(mine))
