"""Small models and data shared by tests."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import vaekit as vk
from vaekit.backbones.layers import Maps
from vaekit.cli.main import main
from vaekit.config import RunConfig, read_recipe, recipe_names, resolve
from vaekit.data import Dataset, Split, StreamedBatches, load

TINY_GAMIX = {
    "latent_dim": 4,
    "backbone": {"width": 8, "latent_channels": 8},
    "adversary": {"discriminator": {"width": 8}},
    "posterior": {"components": 2},
}

TINY_AUTOENCODER_KL = {
    "latent_dim": 16,
    "backbone": {"widths": [4, 8], "groups": 2, "latent_channels": 1},
    "adversary": {"discriminator": {"width": 8}, "start_step": 0},
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
    base = TINY_AUTOENCODER_KL if recipe == "autoencoder-kl" else base
    return resolve(read_recipe(recipe), base, overrides, data="digits")


def built(config: RunConfig, shape: tuple[int, ...] = (1, 8, 8)) -> tuple[vk.VAE, vk.Objective]:
    """Return the model and objective of a configuration."""
    from vaekit import build

    return build.model(config, shape), build.objective(config, shape)


def in_default_layout(network: nn.Module) -> nn.Module:
    """Lay a network out as PyTorch does where nothing is said: its kernels, and the maps that it makes of rows."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, Maps):
                height, width, channels = layer.unflattened_size
                setattr(parent, name, nn.Unflatten(1, (channels, height, width)))
    return network.to(memory_format=torch.contiguous_format)


def random_images(count: int = 64, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> Dataset:
    """Return a data set of noise images."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    held = max(count // 4, 2)
    return Dataset("noise", Split(samples[held:]), Split(samples[:held]))


def numbered_image(number: int, size: int = 8, format: str = "PNG") -> bytes:
    """Return an image file whose colour says its number."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 7)).save(file, format)
    return file.getvalue()


def free_port() -> int:
    """Return a port that no one listens on, for processes to meet at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def write_tar(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar file of members by name."""
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return file


def write_shards(folder: Path, *counts: int, stem: str = "train", first: int = 0) -> str:
    """Write shards of numbered images with their last digit as label, and return the pattern of their names."""
    for shard, count in enumerate(counts):
        numbers = range(first, first := first + count)
        members = [(f"{n:06d}.{end}", made(n)) for n in numbers for end, made in _MEMBERS.items()]
        write_tar(folder / f"{stem}-{shard:03d}.tar", members)
    return str(folder / f"{stem}-{{000..{len(counts) - 1:03d}}}.tar")


_MEMBERS: dict[str, Callable[[int], bytes]] = {"png": numbered_image, "cls": lambda number: str(number % 10).encode()}


def streamed(folder: Path, *counts: int, **options: Any) -> Dataset:
    """Return a streamed data set of numbered images, in shards of so many."""
    options.setdefault("valid_samples", 10)
    return load("webdataset", urls=write_shards(folder, *(counts or (150, 90, 77))), image_size=8, **options)


def numbers_of(x: Tensor) -> list[int]:
    """Return which numbered images these are."""
    return (x[:, 0, 0, 0] + 256 * x[:, 1, 0, 0]).int().tolist()


def streamed_numbers(data: Dataset, size: int, epoch: int = 0, start: int = 0, **options: Any) -> list[list[int]]:
    """Return which numbered images are in each batch of a stream."""
    assert data.stream is not None
    batches = StreamedBatches(data.stream, size, data_range=None, **options)
    return [numbers_of(x) for x in batches.epoch(epoch, start)]


def hub_rows(numbers: range) -> Any:
    """Return numbered images with their last digit as label, as a data set of the package `datasets`."""
    hub = pytest.importorskip("datasets")
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(num_classes=10)})
    images = [{"bytes": numbered_image(number), "path": None} for number in numbers]
    return hub.Dataset.from_dict({"image": images, "label": [number % 10 for number in numbers]}, features=features)


def save_hub(folder: Path, **splits: range) -> Path:
    """Save splits of numbered images as the package `datasets` does."""
    hub = pytest.importorskip("datasets")
    hub.disable_progress_bars()
    hub.DatasetDict({name: hub_rows(numbers) for name, numbers in splits.items()}).save_to_disk(str(folder))
    return folder


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
