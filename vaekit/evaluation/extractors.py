"""Feature extractors: the networks by which images are compared, loaded without anybody's pickled code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.weights import INCEPTION, find_weights, source_of, without_code
from vaekit.files import sha256

__all__ = ["FID_WEIGHTS", "Extractor", "Network", "load_extractor"]

#: Images (B, C, H, W) to features (B, F), followed by logits in the same rows where an extractor has them.
Network: TypeAlias = Callable[[Tensor], Tensor]

#: The SHA-256 of the weights that define the FID: TensorFlow's of 2015-12-05, as torch-fidelity and pytorch-fid publish
#: them.
FID_WEIGHTS = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that turns images into features, and what figures made with it must say.

    Arguments:
        name: What figures go by: a name of torch-fidelity's, or that of a file.
        sha256: The SHA-256 of the file that its weights came from.
        network: uint8 images (B, C, H, W) on the device to features (B, F) and logits (B, L) in one tensor (B, F + L).
        classes: The number L of logits; 0 for a network that is no classifier.
        device: Where the network lies.

    Examples:
        >>> means = Extractor("channel means", "0" * 64, lambda images: images.float().mean((2, 3)))
        >>> means.features(torch.full((2, 1, 8, 8), 7, dtype=torch.uint8))
        tensor([[7.],
                [7.]])
        >>> means.defines_fid
        False
    """

    name: str
    sha256: str
    network: Network
    classes: int = 0
    device: torch.device | str = "cpu"

    @property
    def defines_fid(self) -> bool:
        """Whether this is the network, with the very weights, that the FID is defined by."""
        return self.name == INCEPTION and self.sha256 == FID_WEIGHTS

    def features(self, images: Tensor) -> Tensor:
        """Return the features of images (B, C, H, W), shape (B, F).

        Arguments and errors are those of `rows`.
        """
        return self.split(self.rows(images))[0]

    @torch.no_grad()
    def rows(self, images: Tensor) -> Tensor:
        """Return features and logits of images (B, C, H, W) from one pass, shape (B, F + L), float32 on the CPU.

        Arguments:
            images: uint8 images with 1 or 3 channels.

        Raises:
            VaekitError: The images are none, or the network does not give one row of finite numbers for each.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise VaekitError(
                "a feature extractor takes uint8 images (N, C, H, W) with 1 or 3 channels, not "
                f"{images.dtype} of shape {tuple(images.shape)}"
            )
        found = self.network(images.to(self.device))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise VaekitError(
                f"the feature extractor gives {shape} for {len(images)} images: one that gives (images, features) is "
                "needed"
            )
        rows = found.float().cpu()
        if not rows.isfinite().all():
            raise VaekitError(f"the feature extractor '{self.name}' gives features that are not finite: take another")
        return rows

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, F) and logits (N, L) of what `rows` gave."""
        features, logits = rows.split([rows.shape[1] - self.classes, self.classes], 1)
        return features, logits

    def protocol(self) -> dict[str, Any]:
        """Return what a figure says of the extractor."""
        return {"name": self.name, "sha256": self.sha256, "defines_fid": self.defines_fid}

    def notes(self) -> list[str]:
        """Return what a reader of figures made with the extractor should know."""
        if self.name != INCEPTION or self.defines_fid:
            return []
        return [
            f"the weights of '{INCEPTION}' are not the file that the FID is defined by: nothing here is called FID, "
            "KID or ISC"
        ]


def load_extractor(
    spec: str | Path,
    *,
    weights: str | Path | None = None,
    offline: bool = False,
    device: torch.device | str = "cpu",
) -> Extractor:
    """Load a feature extractor by name, or from a TorchScript file.

    Weights are read as tensors alone, so that no file can run code; a TorchScript file is a network by itself and runs
    in torch's own interpreter. Nothing ever stands in for what was asked for.

    Arguments:
        spec: `"inception"` (torch-fidelity's `inception-v3-compat`, by which the FID is defined), `"vgg16"`, one of
            `"clip-..."`, or the path of a TorchScript file: uint8 images (N, C, H, W) to features (N, F). Grey images
            are given to a named network in three channels, and to a file in one, or in three if it does not take one.
        weights: The file with the weights of a named network, as torch-fidelity takes it, or as safetensors; where
            torch.hub keeps such files if not given.
        offline: Forbid the download of weights that are not there.
        device: Where the network is to run.

    Raises:
        VaekitError: There is no such extractor or file, the weights are not there or not those of the network.
    """
    if Path(spec).suffix:
        return _scripted(Path(spec), weights, device)
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    name = INCEPTION if spec == "inception" else str(spec)
    if name in FEATURE_EXTRACTORS_REGISTRY:
        return _named(name, FEATURE_EXTRACTORS_REGISTRY[name], find_weights(name, weights, offline=offline), device)
    if Path(spec).is_file():
        return _scripted(Path(spec), weights, device)
    known = ["inception", *FEATURE_EXTRACTORS_REGISTRY]
    raise VaekitError(f"there is no feature extractor '{spec}' and no file of that name: {suggest(name, known)}")


def _named(name: str, kind: Any, path: Path, device: torch.device | str) -> Extractor:
    """Return a network of torch-fidelity's with the weights of a file."""
    layers = [kind.get_default_feature_layer_for_metric("fid")]
    if name == INCEPTION:
        layers.append(kind.get_default_feature_layer_for_metric("isc"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # CLIP's weights are TorchScript
            network = kind(name, layers, feature_extractor_weights_path=without_code(name, path), verbose=False)
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise VaekitError(
            f"{path} is damaged or does not hold the weights of '{name}' (only tensors are read from it): get "
            f"{source_of(name)[0]} again, or give another file with --weights"
        ) from error
    classes = network.fc.out_features if name == INCEPTION else 0
    return Extractor(name, sha256(path), _Named(network.to(device)), classes, device)


class _Named:
    """A network of torch-fidelity's, which takes three channels and gives a tuple."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat(self.network(_coloured(images)), 1)


class _Scripted:
    """A TorchScript network: whether it takes grey images is known once it was given one."""

    def __init__(self, path: Path, network: Any) -> None:
        self.path = path
        self.network = network
        self.colours = False

    def __call__(self, images: Tensor) -> Tensor:
        grey = images.shape[1] == 1
        try:
            found: Tensor = self.network(_coloured(images) if self.colours else images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if grey and not self.colours:
                self.colours = True
                return self(images)
            channels = "1 or 3 channels" if grey else "3 channels"
            last = str(error).strip().splitlines()[-1]
            raise VaekitError(
                f"the feature extractor {self.path} does not take uint8 images (N, C, H, W) with {channels}, here of "
                f"shape {tuple(images.shape)} ({last}): give another one"
            ) from error
        return found


def _coloured(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)


def _scripted(path: Path, weights: str | Path | None, device: torch.device | str) -> Extractor:
    if weights is not None:
        raise VaekitError(f"{path} holds its own weights: leave --weights out, or name the network that they are for")
    if not path.is_file():
        raise VaekitError(f"there is no file {path}: give a TorchScript file, or an extractor by name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript files are what people have.
            network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise VaekitError(
            f"{path} is not a TorchScript file that can be loaded: give another feature extractor"
        ) from error
    return Extractor(path.stem, sha256(path), _Scripted(path, network), device=device)
