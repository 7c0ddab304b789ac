"""The picture grids of a model: what it reconstructs, draws and, for several modalities, generates from each."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.files import atomic
from vaekit.models import VAE, Model, MultimodalVAE
from vaekit.observed import Observed
from vaekit.reporting.images import Images, side_by_side

__all__ = ["Views", "grids"]

_COLUMNS = 12


class Views(Images):
    """Samples of several modalities: as a picture, one row for each, all of one size.

    Images are shown as they are, everything else as a square of grey cells, one for each number.

    Arguments:
        modalities: Name to samples (N, *X_m).
        data_range: Name to the interval of its images.

    Examples:
        >>> views = Views({"image": torch.zeros(4, 1, 8, 8), "label": torch.eye(4)}, {"image": (0.0, 1.0)})
        >>> views.tensor.shape
        torch.Size([8, 3, 8, 8])
    """

    def __init__(self, modalities: dict[str, Tensor], data_range: dict[str, tuple[float, float]]) -> None:
        self.modalities = {name: samples.detach().float().cpu() for name, samples in modalities.items()}
        shown = [_shown(samples, data_range.get(name, (0.0, 1.0))) for name, samples in self.modalities.items()]
        size = max(max(images.shape[-2:]) for images in shown)
        shown = [F.interpolate(images, size=(size, size)).expand(-1, 3, -1, -1) for images in shown]
        super().__init__(torch.cat(shown), (0.0, 1.0), columns=len(shown[0]))

    def __len__(self) -> int:
        """The number of samples of each modality."""
        return len(next(iter(self.modalities.values())))

    def save(self, path: str | Path, columns: int | None = None) -> Path:
        """Write one picture of all modalities, or an `.npz` file of their samples by name; return where it is.

        Raises:
            VaekitError: The path ends in `.npy`, which holds one array.
        """
        path = Path(path)
        if path.suffix == ".npy":
            raise VaekitError(f"{path} would hold one array, and these are several modalities: save them as .npz")
        if path.suffix != ".npz":
            return super().save(path, columns)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: samples.numpy() for name, samples in self.modalities.items()}
        np.savez(buffer, **arrays)
        with atomic(path) as file:
            file.write(buffer.getvalue())
        return path


def grids(model: Model, x: object) -> dict[str, Images]:
    """Return the grids of a model for a batch of real samples, by name; none where there is no image.

    Arguments:
        model: The model, in evaluation mode.
        x: Real samples; the first of them are shown.
    """
    if isinstance(model, VAE):
        if not isinstance(x, Tensor) or x.dim() != 4:
            return {}
        x = x[:32]
        pairs = side_by_side(x, model.reconstruct(x))
        return {
            "reconstructions": Images(pairs, model.data_range),
            "prior": Images(model.sample(64), model.data_range),
        }
    assert isinstance(x, Observed)
    if not any(len(shape) == 3 for shape in model.data_shape.values()):
        return {}
    whole = x.available.all(1)
    x = x[whole] if whole.any() else x
    x = x[:_COLUMNS]
    return {
        "reconstructions": _reconstructions(model, x),
        "prior": Views(model.sample(_COLUMNS), model.data_range),
        "every-to-every": every_to_every(model, x),
    }


def _reconstructions(model: MultimodalVAE, x: Observed) -> Images:
    """Return a row of originals and below it a row of reconstructions for each modality."""
    reconstructed = model.reconstruct(x)
    pairs = [torch.cat([x.values[name], reconstructed[name]]) for name in x.names]
    views = Views(dict(zip(x.names, pairs, strict=True)), model.data_range)
    return Images(views.tensor, (0.0, 1.0), columns=len(x))


def every_to_every(model: MultimodalVAE, x: Observed) -> Images:
    """Return, for each modality, a row of its samples and below it what is generated from them in every modality."""
    blocks = []
    for source in x.names:
        rows = {"": x.values[source], **model.generate(x.only(source))}
        blocks.append(Views(rows, {**model.data_range, "": model.data_range[source]}).tensor)
        blocks.append(torch.ones_like(blocks[-1][: len(x)]))  # A white row parts the blocks.
    return Images(torch.cat(blocks[:-1]), (0.0, 1.0), columns=len(x))


def _shown(samples: Tensor, data_range: tuple[float, float]) -> Tensor:
    """Return samples as images in [0, 1]: (N, 1 or 3, H, W)."""
    if samples.dim() == 4 and samples.shape[1] in (1, 3):
        low, high = data_range
        return (samples - low) / (high - low)
    flat = samples.flatten(1)
    low, high = min(float(flat.min()), 0.0), max(float(flat.max()), 1e-6)
    side = math.ceil(math.sqrt(flat.shape[1]))
    padded = F.pad((flat - low) / (high - low), (0, side * side - flat.shape[1]), value=0.5)
    return padded.view(len(flat), 1, side, side)
