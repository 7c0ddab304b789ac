"""Weights of published networks: where they come from, where they lie, and how they are read without running code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = ["INCEPTION", "find_weights", "source_of", "without_code"]

#: The name under which torch-fidelity knows the network of the FID.
INCEPTION = "inception-v3-compat"


def source_of(name: str) -> tuple[str, str]:
    """Return where the weights of a network of torch-fidelity's are published, and what torch.hub calls the file.

    The name of the file ends in the beginning of its SHA-256.

    Raises:
        VaekitError: They are fetched by code that is downloaded, and there is no file of weights alone.

    Examples:
        >>> source_of("inception-v3-compat")[1]
        'weights-inception-2015-12-05-6726825d.pth'
    """
    if name.startswith("clip-"):
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS

        return MODEL_URLS[name], f"{name}-{MODEL_METADATA[name]['hash']}.pt"
    if name == INCEPTION:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        url = URL_INCEPTION_V3
    elif name == "vgg16":
        from torchvision.models import VGG16_Weights

        url = VGG16_Weights.IMAGENET1K_V1.url
    else:
        raise VaekitError(
            f"'{name}' has no file of weights, only code that fetches them, which vaekit does not run: export the "
            "network to TorchScript (uint8 images (N, C, H, W) to features (N, F)) and give --extractor FILE.ts"
        )
    return url, url.rsplit("/", 1)[1]


def find_weights(name: str, given: str | Path | None = None, *, offline: bool = False) -> Path:
    """Return the file with the weights of a network, downloaded to where torch.hub keeps such files if need be.

    Arguments:
        name: A network of torch-fidelity's.
        given: The file, if it lies elsewhere.
        offline: Forbid the download.

    Raises:
        VaekitError: The file is not there, or cannot be downloaded.
    """
    url, file = source_of(name)
    if given is not None:
        if not Path(given).is_file():
            raise VaekitError(f"there is no file {given}: --weights must name the weights of '{name}' ({file})")
        return Path(given)
    place = Path(torch.hub.get_dir()) / "checkpoints" / file
    if place.is_file():
        return place
    if offline:
        raise VaekitError(
            f"the weights of '{name}' are not here: put {file} (from {url}) into {place.parent}, give it with "
            f"--weights, have it downloaded (--extractor {name}, without --offline), or give a network of your own "
            "with --extractor FILE.ts"
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(place), Path(file).stem.rsplit("-", 1)[1], progress=False)
    except (OSError, RuntimeError) as error:
        raise VaekitError(
            f"the weights of '{name}' cannot be downloaded from {url} ({error}): put {file} into {place.parent}, give "
            "it with --weights, or give a network of your own with --extractor FILE.ts"
        ) from error
    return place


def without_code(name: str, path: Path) -> io.BytesIO:
    """Return weights for the constructor of a network, with nothing in them that could run.

    torch-fidelity unpickles what it is given: it is given a file made here from tensors alone, which were read with
    `weights_only` or as safetensors. CLIP's weights are TorchScript, which it reads without Python's pickle.

    Arguments:
        name: A network of torch-fidelity's.
        path: The file.

    Raises:
        Exception: Whatever torch makes of a file that holds anything else.
    """
    if name.startswith("clip-"):
        return io.BytesIO(path.read_bytes())
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: Any = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("weights are tensors by name")
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    return buffer
