"""Images per second of `Batches` against torchvision's ImageFolder + DataLoader over the same JPEG files.

Run it as `python -m tests.benchmarks.data [FOLDER]`. Without a folder it writes 3,000 JPEG files of CelebA's size
(178x218). Both sides crop the centre 140, resize to 64, flip at random, scale to (-1, 1) and end on the device; they
take turns, and the ratio of each turn is printed, so that a busy machine slows both.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from vaekit.data import Batches, load

BATCH, ROUNDS = 64, 3


def write_photos(place: Path, count: int = 3000) -> None:
    random = np.random.RandomState(0)
    (place / "all").mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(random.randint(0, 256, (12, 10, 3)).astype(np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(place / f"all/{number:06d}.jpg", quality=90)


def images_per_second(batches: Iterable, device: str) -> float:
    start, count = time.perf_counter(), 0
    for batch in batches:
        images = batch[0] if isinstance(batch, list) else batch
        count += len(images.to(device, non_blocking=True))
    if device == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def main(folder: Path) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = [
        transforms.CenterCrop(140),
        transforms.Resize(64),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    theirs = torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(folder, transforms.Compose(steps)),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )
    start = time.perf_counter()
    data = load(folder, image_size=64, crop=140)
    print(f"decoding {len(data.train) + len(data.valid):,} files, once: {time.perf_counter() - start:.1f} s")
    options = {"data_range": (-1.0, 1.0), "device": device, "flip": True}
    ours = {
        name: Batches(data.train, BATCH, resident=name == "resident", **options) for name in ("streamed", "resident")
    }
    images_per_second(theirs, device)  # starts the workers and fills the file cache
    for name, batches in ours.items():
        ratios = []
        for number in range(ROUNDS):
            one = images_per_second(theirs, device)
            epochs = range(20 * number, 20 * number + 20)
            other = images_per_second((batch for epoch in epochs for batch in batches.epoch(epoch)), device)
            ratios.append(other / one)
            print(f"{name}: Batches {other:,.0f}, ImageFolder + DataLoader {one:,.0f} images/s, ratio {ratios[-1]:.0f}")
        print(f"{name} on {device}: median ratio {statistics.median(ratios):.0f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VAEKIT_CACHE"] = f"{scratch}/cache"
        if len(sys.argv) > 1:
            main(Path(sys.argv[1]))
        else:
            write_photos(Path(scratch) / "photos")
            main(Path(scratch) / "photos")
