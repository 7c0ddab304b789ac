"""Every registered part under its family's contract: a new part is tested the moment it is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaekit import testing
from vaekit.registry import FAMILIES
from vaekit.testing import Contract

CONTRACTS: dict[str, type[Contract]] = {
    "posteriors": testing.PosteriorContract,
    "priors": testing.PriorContract,
    "likelihoods": testing.LikelihoodContract,
    "backbones": testing.BackboneContract,
    "regularizers": testing.RegularizerContract,
    "discriminators": testing.DiscriminatorContract,
    "adversarial_losses": testing.AdversarialLossContract,
    "objectives": testing.ObjectiveContract,
    "optimizers": testing.OptimizerContract,
    "schedules": testing.ScheduleContract,
    "datasets": testing.DatasetContract,
}

# Options that a part cannot do without, small sizes, and further choices worth the whole contract. A part that is not
# here is tested as it is.
VARIANTS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("posteriors", "gaussian"): [{}, {"log_variance_range": None}],
    ("posteriors", "gmm"): [{}, {"estimator": "pathwise"}, {"estimator": "score"}, {"components": 1}],
    ("likelihoods", "gaussian"): [{}, {"learned": True, "scale": 0.1}],
    ("likelihoods", "laplace"): [{}, {"learned": True}, {"error_weight": 5.0}],
    ("backbones", "mlp"): [{"hidden": [12, 7]}],
    ("backbones", "conv"): [{"width": 4}, {"width": 4, "norm": "batch"}],
    ("backbones", "resnetv2"): [
        {"width": 8, "latent_channels": 4},
        {"width": 8, "latent_channels": 4, "norm": "frozen_affine", "input_norm": "instance_hw", "init": "glorot"},
    ],
    ("discriminators", "patchgan"): [
        {"width": 8},
        {"width": 8, "norm": "spectral"},
        {"width": 8, "norm": "frozen_affine", "final_norm": True, "dropout": 0.3},
    ],
    ("regularizers", "population_kl"): [{}, {"variance": "total"}],
    ("objectives", "elbo"): [{}, {"draws": 3}],
    ("schedules", "constant"): [{"value": 0.5}],
    ("schedules", "linear"): [{"steps": 5, "delay": 2}],
    ("schedules", "cosine"): [{"steps": 5}],
    ("schedules", "cyclic"): [{"period": 4}],
    ("schedules", "step"): [{"milestones": [2, 10]}],
}


def write_arrays(_: Any, folder: Path) -> Path:
    """Put 20 small grey images into an array file."""
    images = np.random.RandomState(0).randint(0, 256, (20, 8, 8), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    return folder / "images.npy"


def write_celeba(_: Any, folder: Path) -> Path:
    """Put 12 photographs and their partition where CelebA lies."""
    from PIL import Image

    images = folder / "celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (12, 218, 178, 3), dtype=np.uint8)
    for number, photograph in enumerate(pixels):
        Image.fromarray(photograph).save(images / f"{number:06d}.jpg")
    lines = [f"{number:06d}.jpg {max(0, number - 9)}" for number in range(12)]
    (folder / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_cifar10(_: Any, folder: Path) -> Path:
    """Put a few images where CIFAR-10 lies."""
    random = np.random.RandomState(0)
    (folder / "cifar10").mkdir()
    for part in ("train", "test"):
        images = random.randint(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / "cifar10" / f"{part}.npz", images=images, labels=np.arange(20) % 10)
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


def write_folder(_: Any, folder: Path) -> Path:
    """Put 20 small colour images into a folder."""
    from PIL import Image

    place = folder / "pictures"
    place.mkdir()
    for number, pixels in enumerate(np.random.RandomState(0).randint(0, 256, (20, 9, 12, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return place


# What a contract needs to know about one part beyond its options.
EXTRA: dict[tuple[str, str], dict[str, Any]] = {
    ("backbones", "mlp"): {"shapes": ((1, 8, 8), (3, 33, 50), (10,))},
    ("datasets", "arrays"): {"place": write_arrays},
    ("datasets", "celeba"): {"place": write_celeba},
    ("datasets", "cifar10"): {"place": write_cifar10},
    ("datasets", "mnist"): {"place": write_idx},
    ("datasets", "fashion-mnist"): {"place": write_idx},
    ("datasets", "folder"): {"place": write_folder},
}


def _suites() -> dict[str, type[Contract]]:
    suites = {}
    for family, contract in CONTRACTS.items():
        for part in FAMILIES[family].names():
            for number, options in enumerate(VARIANTS.get((family, part), [{}])):
                label = "".join(word.capitalize() for word in f"{family}_{part}".replace("-", "_").split("_"))
                name = f"Test{label}{number or ''}"
                body = {"name": part, "options": options, **EXTRA.get((family, part), {})}
                suites[name] = type(name, (contract,), body)
    return suites


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


globals().update(_suites())


def test_every_family_has_a_contract() -> None:
    assert set(CONTRACTS) == set(FAMILIES), "a new registry needs a contract in vaekit.testing"


@pytest.mark.parametrize("key", [*VARIANTS, *EXTRA], ids="/".join)
def test_tables_name_registered_parts(key: tuple[str, str]) -> None:
    family, part = key
    assert part in FAMILIES[family].names()


def test_every_part_has_a_suite() -> None:
    covered = {(suite.registry.family, suite.name) for suite in _suites().values()}
    assert covered == {(family, part) for family, registry in FAMILIES.items() for part in registry.names()}
