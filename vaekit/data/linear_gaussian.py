"""The linear-Gaussian benchmark as a data set: several modalities of which the truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaekit.data.dataset import Dataset, PairedSplit, Progress, Split, at_least_one, finish
from vaekit.distributions import LinearGaussian
from vaekit.registry import datasets

__all__ = ["linear_gaussian"]


@datasets.register(
    "linear-gaussian",
    about="Five vectors m0 to m4, linear in shared (and private) Gaussian latents; the truth is known",
    source="Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with permutation-invariant "
    "encoders and tighter variational objectives, 2023, arXiv 2309.00380",
)
def linear_gaussian(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    seed: int = 0,
    sparse: bool = False,
    samples: int = 5000,
    limit: int | None = None,
) -> Dataset:
    """Return draws of `LinearGaussian.benchmark(seed, sparse=sparse)`: `samples` in each split, training ones first."""
    at_least_one(samples=samples)
    random = np.random.default_rng(seed)
    truth = LinearGaussian.benchmark(random, sparse=sparse)
    splits = {
        name: PairedSplit(
            {f"m{number}": Split(part.float()) for number, part in enumerate(truth.sample(samples, random))}
        )
        for name in ("train", "valid", "test")
    }
    return finish("linear-gaussian", splits, is_image=False, limit=limit, seed=seed, sparse=sparse)
