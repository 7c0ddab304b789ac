"""Training throughput of MoPoE and MVTCAE against MultiVae, side by side in one run.

    pip install multivae
    python -m tests.benchmarks.peers [--backbone small|mlp|conv] [--modalities 3] [--rounds 5]

Both libraries train the same networks (vaekit's, wrapped for MultiVae) with Adam on the same samples in the same batch
size, through their own trainers: one epoch each in turn, so that whatever else the machine does meets both. Read the
median ratio of neighbouring rounds. `step` leaves the loaders out: forward, backward and update on one batch in memory.
`networks alone` is that step without any probability, which no library can better: how far vaekit and MultiVae are from
it is the share of either that is theirs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from functools import partial
from typing import Any

import torch
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models import MVTCAE, MoPoE, MoPoEConfig, MVTCAEConfig
from multivae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor

import vaekit as vk
from vaekit.data import Dataset, PairedSplit, Split
from vaekit.fusions import MixtureOfProducts, ProductOfExperts
from vaekit.fusions.base import ExpertFusion
from vaekit.models import Modality, MultimodalVAE
from vaekit.observed import Observed

SHAPE, BATCH, SAMPLES, LATENT = (3, 28, 28), 128, 2560, 64


class TheirEncoder(BaseEncoder):
    """vaekit's encoder with two linear heads, as MultiVae wants it."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.encoder = backbone.encoder(SHAPE)
        self.loc = torch.nn.Linear(self.encoder.features, LATENT)
        self.log_variance = torch.nn.Linear(self.encoder.features, LATENT)
        self.latent_dim = LATENT

    def forward(self, x: Tensor) -> ModelOutput:
        features = self.encoder(x)
        return ModelOutput(embedding=self.loc(features), log_covariance=self.log_variance(features))


class TheirDecoder(BaseDecoder):
    """vaekit's decoder, as MultiVae wants it."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.decoder = backbone.decoder(LATENT, SHAPE)
        self.latent_dim = LATENT

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.decoder(z))


def theirs(name: str, backbone: Any, names: list[str]) -> Any:
    """Return MultiVae's model."""
    config, model = {"mopoe": (MoPoEConfig, MoPoE), "mvtcae": (MVTCAEConfig, MVTCAE)}[name]
    options: dict[str, Any] = {"alpha": 5 / 6} if name == "mvtcae" else {}
    made = config(
        n_modalities=len(names),
        latent_dim=LATENT,
        input_dims=dict.fromkeys(names, SHAPE),
        decoders_dist=dict.fromkeys(names, "laplace"),
        decoder_dist_params={m: {"scale": 0.75} for m in names},
        beta=2.5,
        **options,
    )
    return model(made, {m: TheirEncoder(backbone) for m in names}, {m: TheirDecoder(backbone) for m in names})


def ours(name: str, backbone: Any, names: list[str]) -> tuple[MultimodalVAE, Any]:
    """Return vaekit's model and objective."""
    modalities = {
        m: Modality(backbone.encoder(SHAPE), backbone.decoder(LATENT, SHAPE), vk.likelihoods.Laplace(SHAPE, scale=0.75))
        for m in names
    }
    features = [modality.encoder.features for modality in modalities.values()]

    def posterior(features: int) -> torch.nn.Module:
        return vk.posteriors.Gaussian(features, LATENT)

    if name == "mopoe":
        return MultimodalVAE(
            modalities, MixtureOfProducts(features, LATENT, posterior), vk.priors.StandardNormal(LATENT)
        ), vk.objectives.MoPoE(beta=2.5)
    fusion = ProductOfExperts(features, LATENT, posterior, prior_expert=False)
    return MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(LATENT)), vk.objectives.MVTCAE(
        beta=2.5, alpha=5 / 6
    )


def step_seconds(forward: Any, parameters: Any, count: int = 10) -> float:
    """Return the seconds of one update."""
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    began = 0.0
    for index in range(count + 2):
        if index == 2:
            began = time.perf_counter()
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="mlp", choices=["small", "mlp", "conv"])
    parser.add_argument("--modalities", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latent-dim", type=int, default=64)
    options = parser.parse_args()
    globals()["LATENT"] = options.latent_dim
    warnings.filterwarnings("ignore")
    backbone = {
        "small": vk.backbones.MLP(hidden=[64]),
        "mlp": vk.backbones.MLP(),
        "conv": vk.backbones.Conv(width=32),
    }[options.backbone]
    names = [f"m{number}" for number in range(options.modalities)]
    values = {m: torch.rand(SAMPLES, *SHAPE) * 2 - 1 for m in names}
    split = PairedSplit({m: Split(value) for m, value in values.items()})
    data = Dataset("random", split, split.rows(slice(0, BATCH)), is_image=False)
    print(f"{options.backbone}, {options.modalities} modalities of {SHAPE}, batch {BATCH}, latent {LATENT}, "
          f"{torch.get_num_threads()} thread(s), torch {torch.__version__}")  # fmt: skip
    print("| method | what | vaekit | MultiVae | ratio |\n|---|---|---|---|---|")
    for name in ("mopoe", "mvtcae"):
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1, learning_rate=1e-3, no_cuda=True
            )
            trainer = BaseTrainer(theirs(name, backbone, names), MultimodalBaseDataset(values), training_config=config)
            trainer.prepare_training()
            model, objective = ours(name, backbone, names)
            rates: dict[str, list[float]] = {"vaekit": [], "theirs": []}
            for number in range(options.rounds + 1):
                began = time.perf_counter()
                trainer.train_step(number + 1)
                mine = vk.Trainer(epochs=1, sample_every=0, accelerator="cpu", optimizer={"name": "adam", "lr": 1e-3})
                seconds = time.perf_counter() - began
                rate = mine.fit(model, objective, data, batch_size=BATCH).samples_per_second
                if number:  # The first round warms both up.
                    rates["theirs"].append(SAMPLES / seconds)
                    rates["vaekit"].append(rate)
        report(name, "trainer, samples/s", rates["vaekit"], rates["theirs"])
        x = {m: value[:BATCH] for m, value in values.items()}
        observed, batch = Observed(x), MultimodalBaseDataset(x)
        model, objective = ours(name, backbone, names)
        peer = theirs(name, backbone, names)
        mine_steps, their_steps, floor = [], [], []
        for _ in range(options.rounds):
            mine_steps.append(1 / step_seconds(partial(loss, model, objective, observed), model.parameters()))
            their_steps.append(1 / step_seconds(partial(peer_loss, peer, batch), peer.parameters()))
            floor.append(1 / step_seconds(partial(networks_alone, model, observed), model.parameters()))
        report(name, "step, steps/s", mine_steps, their_steps)
        alone = statistics.median(floor)
        mine, others = (statistics.median(alone / steps for steps in part) for part in (mine_steps, their_steps))
        print(f"| {name} | networks alone, {alone:.1f} steps/s: slower by | {mine:.2f} | {others:.2f} | |", flush=True)


def loss(model: MultimodalVAE, objective: Any, x: Observed) -> Tensor:
    """Return vaekit's loss of a batch."""
    reconstruction, regularization, _ = objective.evaluate(objective.run(model, x), x)
    total: Tensor = reconstruction + regularization
    return total


def networks_alone(model: MultimodalVAE, x: Observed) -> Tensor:
    """Return a sum over the outputs of encoders, heads and decoders: every matrix product, and nothing else."""
    assert isinstance(model.fusion, ExpertFusion)
    total = torch.zeros(())
    for head, (name, modality) in zip(model.fusion.experts.heads, model.parts.items(), strict=True):
        features = modality.encoder(x.values[name])
        z = head.loc(features) + head.log_variance(features)
        total = total + modality.decoder(z).square().mean()
    return total


def peer_loss(peer: Any, x: Any) -> Tensor:
    """Return MultiVae's loss of a batch."""
    total: Tensor = peer(x).loss
    return total


def report(name: str, what: str, mine: list[float], peers: list[float]) -> None:
    """Print a row: medians, and the median ratio of neighbouring rounds."""
    ratio = statistics.median(a / b for a, b in zip(mine, peers, strict=True))
    print(
        f"| {name} | {what} | {statistics.median(mine):.1f} | {statistics.median(peers):.1f} | {ratio:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
