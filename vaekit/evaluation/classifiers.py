"""Classifiers of single modalities, trained on real data: what coherence is judged by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.data.dataset import Dataset, PairedSplit, Progress
from vaekit.documents import parse_json
from vaekit.errors import VaekitError
from vaekit.files import load_tensors, save_tensors, sha256

__all__ = ["Classifier", "Classifiers", "Kind", "train_classifiers"]

#: How a modality is classified: a convolutional network, a perceptron, or the argmax of a modality that is the class.
Kind: TypeAlias = Literal["conv", "mlp", "argmax"]

_FORMAT = "vaekit classifiers 1"
_ENOUGH = 0.9  # Accuracy on real data below which figures of coherence are about the classifier.


class Classifier(nn.Module):
    """A small classifier of one modality.

    Images: two convolutions of 10 and 20 channels (4 x 4, stride 2), a layer of 128 and dropout of one half, the usual
    judge of PolyMNIST; vectors and sequences: one layer of 256; one-hot classes: their argmax, without a network.

    References:
        Generalized Multimodal ELBO, Sutter, Daunhawer and Vogt, 2021, arXiv 2105.02470.

    Arguments:
        kind: How the modality is classified.
        shape: The shape of one sample; images from 0 to 1.
        classes: The number of classes.

    Raises:
        VaekitError: Images of fewer than 4 x 4 pixels.

    Examples:
        >>> Classifier("conv", (3, 28, 28), 10)(torch.rand(5, 3, 28, 28)).shape
        torch.Size([5, 10])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, kind: Kind, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.kind, self.shape, self.classes = kind, tuple(shape), classes
        # The moments of the training data, so that vectors may have any scale.
        self.register_buffer("loc", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))
        if kind == "argmax":
            self.net: nn.Module = nn.Flatten()
        elif kind == "mlp":
            size = math.prod(self.shape)
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(size, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)
            )
        else:
            channels, height, width = self.shape
            if min(height, width) < 4:
                raise VaekitError(f"images of {height} x {width} pixels are too small to classify: 4 x 4 are needed")
            size = 20 * (height // 4) * (width // 4)
            self.net = nn.Sequential(
                nn.Conv2d(channels, 10, 4, 2, 1), nn.Dropout2d(), nn.ReLU(),
                nn.Conv2d(10, 20, 4, 2, 1), nn.Dropout2d(), nn.ReLU(),
                nn.Flatten(), nn.Linear(size, 128), nn.Dropout(), nn.ReLU(), nn.Linear(128, classes),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) for samples (B, *shape)."""
        logits: Tensor = self.net((x - self.loc) / self.scale)
        return logits


class Classifiers:
    """A classifier for each modality, with its accuracy on real data.

    Arguments:
        networks: Modality to classifier.
        accuracy: Modality to the share of real samples that its classifier gets right.
        protocol: How they were trained and judged.
    """

    def __init__(
        self, networks: Mapping[str, Classifier], accuracy: Mapping[str, float], protocol: Mapping[str, Any]
    ) -> None:
        self.networks = nn.ModuleDict(networks).eval()
        self.accuracy = dict(accuracy)
        self.protocol = dict(protocol)

    @property
    def notes(self) -> list[str]:
        """What a reader of figures that these classifiers gave should know."""
        return [
            f"the classifier of {name} gets {accuracy:.1%} of real samples right, below {_ENOUGH:.0%}: coherence that "
            "is judged by it is as much about the classifier as about the model"
            for name, accuracy in self.accuracy.items()
            if accuracy < _ENOUGH
        ]

    def to(self, device: torch.device | str) -> Classifiers:
        """Move the networks."""
        self.networks.to(device)
        return self

    @torch.no_grad()
    def classify(self, name: str, x: Tensor, data_range: tuple[float, float] | None = None) -> Tensor:
        """Return the classes (B,) of values of one modality.

        Arguments:
            name: The modality.
            x: Values (B, *shape).
            data_range: What stands for black and white, for images that are not from 0 to 1.
        """
        if data_range is not None:
            x = (x - data_range[0]) / (data_range[1] - data_range[0])
        classes: Tensor = self.networks[name](x).argmax(1)
        return classes

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse modalities that these classifiers were not trained on.

        Raises:
            VaekitError: A modality is missing, or has another shape.
        """
        for name, shape in shapes.items():
            found = self.networks[name].shape if name in self.networks else None
            if found != tuple(shape):
                what = "no classifier" if found is None else f"a classifier for shape {found}"
                raise VaekitError(
                    f"there is {what} for the modality {name} of shape {tuple(shape)}: train classifiers on the run's "
                    "data, with `vaekit classifiers`"
                )

    def save(self, path: str | Path) -> None:
        """Write networks, accuracies and protocol as one safetensors file, atomically."""
        described = {
            name: {"kind": net.kind, "shape": net.shape, "classes": net.classes} for name, net in self.networks.items()
        }
        record = {"networks": described, "accuracy": self.accuracy, "protocol": self.protocol}
        save_tensors(path, self.networks.state_dict(), {"format": _FORMAT, "record": json.dumps(record)})

    @classmethod
    def load(cls, path: str | Path) -> Classifiers:
        """Read classifiers that `save` wrote.

        Raises:
            VaekitError: The file is missing, damaged, or holds something else.
        """
        from safetensors import safe_open

        if not Path(path).is_file():
            raise VaekitError(f"there is no file {path}: train classifiers with `vaekit classifiers DATA --out {path}`")
        tensors = load_tensors(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise VaekitError(f"{path} holds no classifiers: train some with `vaekit classifiers DATA --out FILE`")
        try:
            record = parse_json(metadata["record"])
            with torch.device("meta"):  # Sizes are compared before they take any memory.
                networks = {
                    name: Classifier(part["kind"], tuple(part["shape"]), part["classes"])
                    for name, part in record["networks"].items()
                }
            accuracy = {name: float(record["accuracy"][name]) for name in networks}
            # Who judges is part of every figure's protocol.
            judged = {**record["protocol"], "sha256": sha256(path)}
            found = cls(networks, accuracy, judged)
            found.networks.load_state_dict(tensors, assign=True)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise VaekitError(f"{path} is damaged: train classifiers again with `vaekit classifiers`") from error
        return found


def train_classifiers(
    data: Dataset,
    *,
    epochs: int = 10,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Classifiers:
    """Train a classifier of each modality on the training split, and judge it on the test split.

    Where there is no test split, the validation split takes its place. Only samples that have the modality count.

    Arguments:
        data: A data set of several modalities, with labels.
        epochs: Passes over the training data.
        batch_size: Samples per batch.
        learning_rate: That of Adam.
        seed: Seed of weights, dropout and order, the same for each modality.
        device: Where to train.
        progress: Called as `progress(done, total, what)` after every epoch.

    Raises:
        VaekitError: The data have no labels or a single modality, or an option is not right.
    """
    train, test = data.train, data.valid if data.test is None else data.test
    if not isinstance(train, PairedSplit) or not isinstance(test, PairedSplit):
        raise VaekitError(f"classifiers are for data sets of several modalities, and '{data.name}' has one")
    if train.labels is None or test.labels is None:
        raise VaekitError(f"classifiers need labels, and data set '{data.name}' has none")
    if epochs < 1 or batch_size < 1:
        raise VaekitError(f"epochs and batch_size must be 1 or more, not {epochs} and {batch_size}")
    networks, accuracy = {}, {}
    classes = int(train.labels.max()) + 1
    for number, name in enumerate(train.modalities):
        x, y = _real(train, number, name)
        kind = _kind_of(train.values[name], x, y, classes)
        with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
            torch.manual_seed(seed)
            net = Classifier(kind, tuple(x.shape[1:]), classes)
            if kind == "mlp":
                net.loc.copy_(x.mean(0))
                net.scale.copy_(x.std(0).clamp_min(1e-6) if len(x) > 1 else torch.ones_like(net.scale))
            if kind != "argmax":
                _train(net.to(device), x, y, epochs, batch_size, learning_rate, progress, f"training on {name}")
        networks[name] = net.eval().cpu()
        accuracy[name] = _accuracy(net, *_real(test, number, name))
    protocol = {
        "data": data.protocol or {"data": data.name},
        "judged_on": "valid" if data.test is None else "test",
        "samples": len(test),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    return Classifiers(networks, accuracy, protocol)


def _real(split: PairedSplit, number: int, name: str) -> tuple[Tensor, Tensor]:
    """Return samples and labels of a modality where it is there: bytes for images, otherwise float32."""
    assert split.labels is not None
    rows = slice(None) if split.available is None else split.available[:, number]
    return split.modalities[name].samples[rows], split.labels[rows]


def _as_float(x: Tensor) -> Tensor:
    return x.float() / 255.0 if x.dtype == torch.uint8 else x


def _kind_of(values: str, x: Tensor, y: Tensor, classes: int) -> Kind:
    if values == "image":
        return "conv"
    # A modality that is the class itself needs no classifier; other one-hot values do.
    if values == "classes" and x.shape[1:] == (classes,) and bool((x.argmax(1) == y).all()):
        return "argmax"
    return "mlp"


def _train(
    net: Classifier,
    x: Tensor,
    y: Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    progress: Progress | None,
    what: str,
) -> None:
    device = net.loc.device
    optimizer = torch.optim.Adam(net.parameters(), learning_rate)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(batch_size):
            loss = F.cross_entropy(net(_as_float(x[rows]).to(device)), y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if progress is not None:
            progress(epoch + 1, epochs, what)


@torch.no_grad()
def _accuracy(net: Classifier, x: Tensor, y: Tensor) -> float:
    right = [net(_as_float(part)).argmax(1) == labels for part, labels in zip(x.split(256), y.split(256), strict=True)]
    return float(torch.cat(right).double().mean())
