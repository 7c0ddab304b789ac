"""A run on several modalities: what it draws, reconstructs and generates from some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.array_files import read_array
from vaekit.errors import VaekitError, suggest
from vaekit.observed import Observed
from vaekit.reporting.grids import Views
from vaekit.reporting.images import Images
from vaekit.run import Run

__all__ = ["MultimodalRun"]

_ONE = "this is for runs of one modality, and this run has several: use `vaekit sample RUN --given MODALITY=VALUE`"


class MultimodalRun(Run):
    """A configured run on several modalities; `vaekit.recipe` and `vaekit.Run` make it where the recipe asks for it.

    Arguments:
        config: The configuration.
        out: The run directory; `None` for `runs/<recipe>-<data>`, numbered when that is taken.
        offline: Forbid downloads.
        progress: Called as `progress(done, total, what)` while data is decoded for the first time.
    """

    def _last_picture(self, source: str, path: Path) -> None:
        if self.data.values is not None and "image" in self.data.values.values():
            self.sample(12, source).save(path)

    @torch.no_grad()
    def sample(self, count: int = 12, source: str = "prior", seed: int | None = None) -> Views:
        """Draw samples of all modalities together.

        Arguments:
            count: How many.
            source: Where latents are drawn from, one of `vaekit.sources.SOURCES`; see `vaekit.evaluation.Sampler`.
            seed: Seed of the draws; `None` to go on with the current random state.

        Raises:
            VaekitError: `count` is below 1, or the source does not suit the posterior.
        """
        z = self.sampler.draw(source, count, seed)
        model = self._ready()
        parts = [model.decode_shared(part) for part in z.split(256)]
        return Views({name: torch.cat([part[name] for part in parts]) for name in model.names}, model.data_range)

    @torch.no_grad()
    def generate(self, given: Mapping[str, Tensor], count: int = 1, seed: int | None = None) -> Views:
        """Generate all modalities from some of them.

        Arguments:
            given: Modality to samples (N, *X_m) in the model's range, as `read_modality` gives them.
            count: Draws for each sample, one after the other.
            seed: Seed of the draws; `None` to go on with the current random state.

        Raises:
            VaekitError: There is no such modality, nothing is given, or `count` is below 1.
        """
        model = self._ready()
        if count < 1 or not given:
            raise VaekitError("generation needs one modality or more, and one draw or more of each sample")
        for name in given:
            self._require(name)
        if seed is not None:
            torch.manual_seed(seed)
        device = model.last_layer.device
        repeated = {name: value.to(device).repeat_interleave(count, 0) for name, value in given.items()}
        blank = model.blank(len(next(iter(repeated.values())))).values
        generated = model.generate(Observed({**blank, **repeated}).only(*given))
        return Views(generated, model.data_range)

    @torch.no_grad()
    def reconstruct(self, x: Observed) -> Views:  # type: ignore[override]
        """Return the reconstructions of all modalities given those that are available, at the posterior mean."""
        model = self._ready()
        return Views(model.reconstruct(x.to(model.last_layer.device)), model.data_range)

    def read(self, files: Sequence[str | Path], crop: int | None = None) -> Tensor:
        """Refuse: a file belongs to a modality.

        Raises:
            VaekitError: Always.
        """
        raise VaekitError(_ONE)

    def validation_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Refuse: walks are for one modality.

        Raises:
            VaekitError: Always.
        """
        raise VaekitError(_ONE)

    def interpolate(self, first: Any, second: Any, steps: int = 6) -> Images:
        """Refuse: a walk between samples of several modalities is not one picture.

        Raises:
            VaekitError: Always.
        """
        raise VaekitError(_ONE)

    def _require(self, name: str) -> None:
        """Refuse a name that is no modality's."""
        if name not in (names := self._ready().names):
            raise VaekitError(f"the run has no modality '{name}': {suggest(name, names)}")

    def read_modality(self, name: str, given: str) -> Tensor:
        """Read one sample of a modality as this model takes it, shape (1, *X_m).

        Arguments:
            name: The modality.
            given: An image file for images; for anything else an .npy file, numbers parted by commas, or the number of
                a class.

        Raises:
            VaekitError: There is no such modality, or the value cannot be read as one.
        """
        model = self._ready()
        self._require(name)
        shape = model.data_shape[name]
        if len(shape) == 3:
            return self._read_images([given], shape, model.data_range[name])
        kind = (self.config.data_values or {}).get(name)
        try:
            if given.endswith(".npy"):
                values = torch.from_numpy(np.array(read_array(Path(given)).samples)).float()
            else:
                values = torch.tensor([float(part) for part in given.split(",")])
            if not values.isfinite().all():
                raise ValueError("numbers are finite")
        except (OSError, TypeError, ValueError) as error:
            raise VaekitError(
                f"'{given}' cannot be read as the modality '{name}' of shape {shape}: give numbers parted by commas, "
                "or an .npy file"
            ) from error
        if kind == "classes" and values.numel() == 1 and shape != (1,):
            number = int(values)
            if number != values or not 0 <= number < shape[-1]:
                raise VaekitError(f"the modality '{name}' has the classes 0 to {shape[-1] - 1}, not {given}")
            values = torch.nn.functional.one_hot(torch.tensor(number), shape[-1]).float()
        if values.shape != shape:
            raise VaekitError(f"the modality '{name}' has the shape {shape}, not {tuple(values.shape)}")
        return values.unsqueeze(0)
