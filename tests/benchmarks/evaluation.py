"""FID, KID, precision, recall and inception score of two folders: vaekit against torch-fidelity's own loop.

    python -m tests.benchmarks.evaluation [--images 512] [--side 64] [--batch-size 64] [--rounds 3]

Both use the Inception network with the same weights (random ones: the time does not depend on them), the same PNG files
and batches, without a cache; they take turns. Figures of the two are compared as well.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch_fidelity

sys.path.insert(0, str(Path(__file__).parents[1]))
from fidelity_helpers import inception_state, write_images  # noqa: E402

from vaekit.evaluation import compare_images, load_extractor  # noqa: E402
from vaekit.training.cpu import keep_freed_memory  # noqa: E402

CUDA = torch.cuda.is_available()


def timed(take: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    """Return the seconds that something takes, and what it returns."""
    began = time.perf_counter()
    found = take()
    return time.perf_counter() - began, found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 512), ("side", 64), ("batch-size", 64), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not CUDA:
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        one, two = (
            write_images(place / name, options.images, seed, 3 * (options.side // 3))
            for seed, name in enumerate(("one", "two"))
        )
        weights = place / "weights.pth"
        torch.save(inception_state(), weights)
        extractor = load_extractor("inception", weights=weights, device="cuda" if CUDA else "cpu")

        def ours() -> dict[str, float]:
            return compare_images(one, two, extractor, batch_size=options.batch_size).values

        def theirs() -> dict[str, float]:
            return torch_fidelity.calculate_metrics(
                input1=str(one), input2=str(two), fid=True, kid=True, prc=True, isc=True, cuda=CUDA, cache=False,
                batch_size=options.batch_size, kid_subset_size=min(1000, options.images), verbose=False,
                feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
            )  # fmt: skip

        rounds = [(timed(theirs), timed(ours)) for _ in range(options.rounds + 1)][1:]  # The first warms up.
    their_seconds, our_seconds = ([turn[side][0] for turn in rounds] for side in (0, 1))
    ratio = statistics.median(other / own for other, own in zip(their_seconds, our_seconds, strict=True))
    total = 2 * options.images
    name = torch.cuda.get_device_name() if CUDA else f"{torch.get_num_threads()} threads of a CPU"
    print(f"{name}, torch {torch.__version__}, torch-fidelity {torch_fidelity.__version__}")
    print("| images | torch-fidelity, images/s | vaekit, images/s | times as fast |\n|---|---|---|---|")
    print(
        f"| 2 x {options.images:,} of side {options.side} | {total / statistics.median(their_seconds):,.1f} "
        f"| {total / statistics.median(our_seconds):,.1f} | {ratio:.2f} |"
    )
    (_, other), (_, own) = rounds[-1]
    distances = other["frechet_inception_distance"], own["frechet_distance"]
    print("Fréchet distance: torch-fidelity {:.6f}, vaekit {:.6f}".format(*distances))


if __name__ == "__main__":
    main()
