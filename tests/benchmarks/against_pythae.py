"""Training throughput of the Gaussian VAE against pythae, side by side in one run.

    pip install pythae
    python -m tests.benchmarks.against_pythae [--data-root FOLDER] [--samples 5120] [--batch-size 128] [--rounds 11]

Both train the same networks (vaekit's, wrapped for pythae) with Adam on the same Fashion-MNIST images, binary
cross-entropy and closed-form KL, through their own trainers: one epoch each in turn, so that whatever else the machine
does meets both, and each in a process of its own, so that what one settles for its process is not the other's.
Validation, checkpoints and pictures are not counted, loading of batches is. Read the median ratio of neighbouring
rounds. vaekit's image networks have their channels last. pythae's have PyTorch's default layout, which is what its
users have; a row each says what it does with the same networks and channels last.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import in_default_layout  # noqa: E402

import vaekit as vk  # noqa: E402
from vaekit import build  # noqa: E402
from vaekit.config import read_recipe, resolve  # noqa: E402
from vaekit.data import Dataset, Split  # noqa: E402
from vaekit.registry import backbones  # noqa: E402

SHAPE, LATENT = (1, 28, 28), 16


class TheirEncoder(BaseEncoder):
    """vaekit's encoder with two linear heads, as pythae wants it."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.encoder = backbone.encoder(SHAPE)
        self.loc = torch.nn.Linear(self.encoder.features, LATENT)
        self.log_variance = torch.nn.Linear(self.encoder.features, LATENT)
        self.latent_dim = LATENT

    def forward(self, x: Tensor) -> ModelOutput:
        """Return the parameters of q(z|x)."""
        features = self.encoder(x)
        return ModelOutput(embedding=self.loc(features), log_covariance=self.log_variance(features))


class TheirDecoder(BaseDecoder):
    """vaekit's decoder, as pythae wants it: probabilities, of which it takes the cross-entropy."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.decoder = backbone.decoder(LATENT, SHAPE)

    def forward(self, z: Tensor) -> ModelOutput:
        """Return the means of p(x|z)."""
        return ModelOutput(reconstruction=self.decoder(z).sigmoid())


class Timed(BaseTrainer):
    """pythae's trainer, with a watch on its epochs of training."""

    seconds = 0.0

    def train_step(self, epoch: int) -> float:
        """Train one epoch."""
        began = time.perf_counter()
        loss = super().train_step(epoch)
        self.seconds += time.perf_counter() - began
        return loss


def theirs(spec: dict[str, Any], last: bool, images: Tensor, batch: int) -> float:
    """Train one epoch with pythae; return samples per second."""
    backbone = backbones.build(spec, where="backbone")
    config = VAEConfig(input_dim=SHAPE, latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=TheirEncoder(backbone), decoder=TheirDecoder(backbone))
    if not last:
        in_default_layout(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = BaseTrainerConfig(
            output_dir=folder, num_epochs=1, per_device_train_batch_size=batch, learning_rate=1e-3, no_cuda=True,
            train_dataloader_num_workers=0,
        )  # fmt: skip
        data = BaseDataset(images.float() / 255, torch.zeros(len(images)))
        trainer = Timed(model=model, train_dataset=data, training_config=settings)
        trainer.train(log_output_dir=None)
    return len(images) / trainer.seconds


def ours(spec: dict[str, Any], images: Tensor, batch: int) -> float:
    """Train one epoch with vaekit; return samples per second."""
    plain = {"latent_dim": LATENT, "posterior": {"log_variance_range": None}}  # pythae has no limits.
    config = resolve({**read_recipe("vae"), "backbone": spec}, plain)
    data = Dataset("fashion", Split(images), Split(images[:batch]))
    model, objective = build.model(config, SHAPE), build.objective(config, SHAPE)
    trainer = vk.Trainer(epochs=1, sample_every=0, log_every=50, accelerator="cpu")
    return trainer.fit(model, objective, data, batch_size=batch).samples_per_second


def quiet() -> None:
    """Keep pythae's bars and messages from the terminal, for which it has no switch."""
    logging.disable(logging.INFO)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--samples", type=int, default=5_120)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    train = vk.data.load("fashion-mnist", options.data_root).train
    assert isinstance(train, Split)
    images = train.samples[: options.samples]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {len(images):,} images of Fashion-MNIST, "
        f"batch {options.batch_size}; samples/s, median of {options.rounds} rounds"
    )
    print("| networks (resnetv2 on a quarter of the images) | pythae | vaekit | ratio |\n|---|---|---|---|")
    conv, resnet = {"name": "conv"}, {"name": "resnetv2", "width": 32}
    rows: tuple[tuple[str, dict[str, Any], bool, int], ...] = (
        ("mlp 512-256", {"name": "mlp", "hidden": [512, 256]}, False, 1),
        ("conv width 32, group normalisation", conv, False, 1),
        ("conv width 32, batch normalisation", {**conv, "norm": "batch"}, False, 1),
        ("conv width 32, no normalisation", {**conv, "norm": "none"}, False, 1),
        ("conv width 32, group normalisation, pythae with channels last", conv, True, 1),
        ("resnetv2 width 32", resnet, False, 4),
        ("resnetv2 width 32, pythae with channels last", resnet, True, 4),
    )
    processes = {"mp_context": multiprocessing.get_context("spawn"), "initializer": quiet}
    for label, spec, last, part in rows:
        speeds: list[tuple[float, float]] = []
        with ProcessPoolExecutor(1, **processes) as peer, ProcessPoolExecutor(1, **processes) as own:
            for number in range(options.rounds + 1):
                few = images[: 4 * options.batch_size if number == 0 else len(images) // part]  # The first warms up.
                other = peer.submit(theirs, spec, last, few, options.batch_size).result()
                speeds.append((other, own.submit(ours, spec, few, options.batch_size).result()))
        pairs = speeds[1:]
        middle = [statistics.median(values) for values in zip(*pairs, strict=True)]
        ratio = statistics.median(one / other for other, one in pairs)
        print(f"| {label} | {middle[0]:,.0f} | {middle[1]:,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
