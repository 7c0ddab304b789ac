"""Peak memory of an evaluation over the number of images: it is to be flat.

    python -m tests.benchmarks.evaluation_memory [--images 500 2000 8000 32000] [--figure memory.png]

The default VAE, untrained, and random images of 28 x 28, as many as the largest number in every case; reconstruction,
latent statistics, Fréchet and kernel distance, precision and recall, with 512 features of a random convolution. Each
number in a process of its own, whose memory is looked at every 5 ms: what it has taken, without the files that it has
mapped, features among them, which the system drops where memory is short. Linux alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import built  # noqa: E402

from vaekit.config import read_recipe, resolve  # noqa: E402
from vaekit.data import Dataset, Split  # noqa: E402
from vaekit.evaluation import Extractor  # noqa: E402
from vaekit.evaluation.metrics import evaluate  # noqa: E402
from vaekit.evaluation.protocol import Options  # noqa: E402

SHAPE = (1, 28, 28)
METRICS = ("reconstruction", "latent", "frechet", "kid", "precision_recall")


def extractor() -> Extractor:
    """Return what makes 512 features of an image."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 512, 8, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def features(images: Tensor) -> Tensor:
        return network(images[:, :1].float() / 255)

    return Extractor("random convolution", "0" * 64, features)


def own_memory() -> float:
    """Return the MiB of memory that this process has and that are no file's."""
    with open("/proc/self/statm") as file:
        _, resident, shared = map(int, file.read().split()[:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(images: int, most: int) -> tuple[float, float]:
    """Return the most memory of this process in MiB and the seconds taken in an evaluation of so many images."""
    torch.manual_seed(0)
    split = Split(torch.randint(0, 256, (most, *SHAPE), dtype=torch.uint8))
    data = Dataset("random images", split, split, split)
    model, _ = built(resolve(read_recipe("vae")), SHAPE)
    seen, done, began = [own_memory()], threading.Event(), time.perf_counter()

    def look() -> None:
        while not done.wait(0.005):
            seen.append(own_memory())

    watch = threading.Thread(target=look)
    watch.start()
    evaluate(model, data, METRICS, Options(samples=images, extractor=extractor()))
    done.set()
    watch.join()
    return max(seen), time.perf_counter() - began


def draw(found: dict[int, float], figure: Path) -> None:
    """Draw the peaks over the number of images, from zero."""
    import matplotlib.pyplot as plt

    _, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axis.semilogx(list(found), list(found.values()), "o-", base=2)
    axis.set(xlabel="images", ylabel="peak memory, MiB", ylim=(0, 1.25 * max(found.values())))
    axis.set_xticks(list(found), [f"{images:,}" for images in found])
    axis.grid(alpha=0.3)
    plt.savefig(figure, dpi=90)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000, 8000, 32000])
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    found: dict[int, tuple[float, float]] = {}
    for images in options.images:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found[images] = process.submit(measure, images, max(options.images)).result()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| images | most memory, MiB | seconds |\n|---|---|---|")
    for images, (peak, seconds) in found.items():
        print(f"| {images:,} | {peak:,.0f} | {seconds:,.0f} |")
    if options.figure is not None:
        draw({images: peak for images, (peak, _) in found.items()}, options.figure)


if __name__ == "__main__":
    main()
