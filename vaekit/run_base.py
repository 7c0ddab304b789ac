"""What a run is made of, and what its model is used for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit import build
from vaekit.backbones.pretrained import pretrained_weights
from vaekit.config import LOADER_OPTIONS, RunConfig
from vaekit.data import Dataset, load, make_batches
from vaekit.data.images import read_images
from vaekit.data.loading import refuse_own
from vaekit.errors import VaekitError
from vaekit.evaluation.aggregate import Aggregate
from vaekit.evaluation.latent import interpolate
from vaekit.evaluation.samplers import Sampler
from vaekit.models import Model
from vaekit.registry import datasets
from vaekit.reporting.images import Images

__all__ = ["RunBase"]


class RunBase:
    """The configuration of a run, what it builds, and what its model is used for; `vaekit.Run` trains it and keeps it.

    Arguments:
        config: The configuration.
        out: The run directory; `None` for `runs/<recipe>-<data>`, numbered when that is taken.
        offline: Forbid downloads.
        progress: Called as `progress(done, total, what)` while data is decoded for the first time.
    """

    def __init__(
        self,
        config: RunConfig,
        out: str | Path | None = None,
        *,
        offline: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        self.config = config
        self.out = Path(out) if out is not None else None
        self.offline = offline
        self.progress = progress
        self._trained: Model | None = None
        self._loader_options()  # What is wrong with them is said here.

    # ---- what the configuration names ----------------------------------------------------------------------------

    @cached_property
    def data(self) -> Dataset:
        """The data set, loaded when first asked for."""
        options = {key: value for key, value in self.config.data.items() if key not in (*LOADER_OPTIONS, "name")}
        name = self.config.data["name"]
        refuse_own(options)
        for key in options:
            near = difflib.get_close_matches(key, LOADER_OPTIONS, n=1, cutoff=0.8)
            if near and not (name in datasets.names() and key in datasets.options(name)):
                raise VaekitError(f"unknown option 'data.{key}': did you mean '{near[0]}'?")
        return load(
            self.config.data["name"],
            self.config.data.get("root"),
            progress=self.progress,
            offline=self.offline,
            **options,
        )

    @cached_property
    def model(self) -> Any:
        """The model: freshly built, or as trained by `fit` or loaded with the run."""
        with self._pretrained_weights():
            if self.config.data_shape is None:
                return build.model(self.config, self.data.shape, self.data.values)
            return build.model(self.config, self.config.data_shape, self.config.data_values)

    def _pretrained_weights(self) -> AbstractContextManager[None]:
        return pretrained_weights("disk" if self.offline else "anywhere")

    def _batches(self, split: str = "train", shuffle: bool = False) -> Any:
        model = self._ready()
        return make_batches(
            self.data,
            self.data.splits[split],
            min(int(self.config.data.get("batch_size", 64)), len(self.data.splits[split])),
            model.data_range,
            device=model.last_layer.device,
            shuffle=shuffle,
            flip=False,
            binarize=bool(self.config.data.get("binarize", False)),
            seed=int(self.config.trainer.get("seed", 0)),
            drop_last=False,
            resident=False,
        )

    def _ready(self) -> Any:
        return (self._trained or self.model).eval()

    def _loader_options(self) -> dict[str, Any]:
        options = {key: value for key, value in self.config.data.items() if key in LOADER_OPTIONS and key != "root"}
        batch_size = options.setdefault("batch_size", 64)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise VaekitError(f"data.batch_size must be a whole number of 1 or more, not {batch_size!r}")
        for key in ("flip", "binarize", "resident"):
            if not isinstance(options.get(key, False), bool):
                raise VaekitError(f"data.{key} must be true or false, not {options[key]!r}")
        return options

    # ---- using ---------------------------------------------------------------------------------------------------

    @cached_property
    def sampler(self) -> Sampler:
        """What draws latents; the densities that it fits are kept in the run directory, under `expost`."""
        return Sampler(
            self._ready(),
            lambda: self.data,
            binarize=bool(self.config.data.get("binarize", False)),
            batch_size=int(self.config.data.get("batch_size", 64)),
            folder=None if self.out is None else self.out / "expost",
            aggregate=None if self.out is None else self.out / "aggregate.safetensors",
            progress=self.progress,
        )

    @property
    def aggregate(self) -> Aggregate:
        """The moments of the aggregate posterior over the training split, as kept with the run."""
        return self.sampler.aggregate

    @torch.no_grad()
    def sample(self, count: int = 64, source: str = "prior", seed: int | None = None) -> Images:
        """Draw samples.

        Arguments:
            count: How many.
            source: Where latents are drawn from, one of `vaekit.sources.SOURCES`; see `vaekit.evaluation.Sampler`.
            seed: Seed of the draws; `None` to go on with the current random state.

        Raises:
            VaekitError: `count` is below 1, the source does not suit the posterior, or the training data that it needs
                is not there.
        """
        z = self.sampler.draw(source, count, seed)
        model = self._ready()
        return Images(torch.cat([model.decode(part).mean for part in z.split(256)]), model.data_range)

    def draw_data(self, count: int, split: str = "train") -> Any:
        """Return samples of a split as the model takes them, chosen at random with replacement.

        Arguments:
            count: How many.
            split: `"train"`, `"valid"` or `"test"`.

        Raises:
            VaekitError: The data are not there.
        """
        rows_of = self.data.splits[split]
        chosen = torch.randint(len(rows_of), (count,)).sort().values
        rows = make_batches(
            self.data,
            rows_of.rows(chosen),
            count,
            self.model.data_range,
            device=self._ready().last_layer.device,
            shuffle=False,
            flip=False,
            binarize=bool(self.config.data.get("binarize", False)),
            seed=0,
            drop_last=False,
            resident=False,
        )
        return next(iter(rows.epoch(0)))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Images:
        """Return the reconstructions of samples (B, *X) in the model's range, at the posterior mean."""
        model = self._ready()
        return Images(model.reconstruct(x.to(model.last_layer.device)), model.data_range)

    @torch.no_grad()
    def interpolate(self, first: Tensor, second: Tensor, steps: int = 6) -> Images:
        """Return walks between samples (B, *X), row by row: B times `steps` images.

        Raises:
            VaekitError: Fewer than two steps.
        """
        model = self._ready()
        device = model.last_layer.device
        walks = interpolate(model, first.to(device), second.to(device), steps)
        return Images(walks.transpose(0, 1).flatten(0, 1), model.data_range)

    def read(self, files: Sequence[str | Path], crop: int | None = None) -> Tensor:
        """Read image files as this model takes them: centre crop, size, channels and range.

        Arguments:
            files: Image files.
            crop: Side of the centre crop in pixels of the file; the data set's own if not given, 0 for the largest
                square.

        Raises:
            VaekitError: A file is missing or unreadable, or the model does not take square images.
        """
        model = self._ready()
        return self._read_images(files, model.data_shape, model.data_range, crop)

    def _read_images(
        self,
        files: Sequence[str | Path],
        shape: tuple[int, ...],
        data_range: tuple[float, float],
        crop: int | None = None,
    ) -> Tensor:
        """Read image files as the data set does."""
        name = self.config.data["name"]
        declared = datasets.options(name) if name in datasets.names() else {}
        options: dict[str, Any] = {
            key: self.config.data.get(key, declared[key].default if key in declared else default)
            for key, default in (("crop", None), ("antialias", True))
        }
        if crop is not None:
            options["crop"] = crop or None
        return read_images(files, shape, data_range, **options)

    def validation_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Return two batches of `count` validation samples each.

        Raises:
            VaekitError: `count` is below 1, or there are too few samples.
        """
        if not 1 <= count <= len(self.data.valid) // 2:
            raise VaekitError(f"the number of pairs must lie between 1 and {len(self.data.valid) // 2}, not {count}")
        chosen: list[Tensor] = []
        for x in self._batches("valid", shuffle=True).epoch(0):
            chosen.append(x)
            if sum(map(len, chosen)) >= 2 * count:
                break
        first, second = torch.cat(chosen)[: 2 * count].split(count)
        return first, second
