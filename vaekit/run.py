"""A run: a configuration, what it builds, and the directory it leaves."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit import build, rundir
from vaekit.backbones.pretrained import pretrained_weights
from vaekit.config import LOADER_OPTIONS, RunConfig, read_recipe, resolve
from vaekit.data import Dataset, load, make_batches
from vaekit.data.images import read_images
from vaekit.data.loading import refuse_own
from vaekit.errors import VaekitError, memory_errors
from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.latent import interpolate
from vaekit.evaluation.samplers import Sampler, list_sources
from vaekit.exporting.names import Format, What
from vaekit.files import load_tensors, save_json, save_tensors
from vaekit.models import Model
from vaekit.objectives.elbo import Objective
from vaekit.registry import datasets
from vaekit.reporting.images import Images
from vaekit.schedules import with_steps
from vaekit.training.interrupt import listen
from vaekit.training.listeners import Listener
from vaekit.training.loop import Fit
from vaekit.training.trainer import Trainer

__all__ = ["Run", "recipe"]


class Run:
    """A configured run: fit it, then sample from it; or load a finished one.

    The run of a configuration with `modalities` is a `vaekit.multimodal_run.MultimodalRun`.

    Arguments:
        config: The configuration.
        out: The run directory; `None` for `runs/<recipe>-<data>`, numbered when that is taken.
        offline: Forbid downloads.
        progress: Called as `progress(done, total, what)` while data is decoded for the first time.
    """

    def __new__(
        cls,
        config: RunConfig,
        out: str | Path | None = None,
        *,
        offline: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Run:
        """Return a run of the kind that the configuration asks for."""
        if cls is Run and config.modalities is not None:
            from vaekit.multimodal_run import MultimodalRun

            cls = MultimodalRun
        return super().__new__(cls)

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

    # ---- training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        *,
        resume: bool = False,
        listeners: Sequence[Listener] = (),
        command: str | None = None,
        profile: int = 0,
    ) -> Fit:
        """Train, and leave a complete run directory.

        Arguments:
            resume: Whether to go on from the last checkpoint of the run directory.
            listeners: Called on rank zero; `vaekit.reporting.Progress()` shows a bar.
            command: The command that makes the run again, for the record; `vaekit run` on its `config.yaml` if none.
            profile: Time so many steps and leave `profile/summary.html` and a trace; 0 for none.

        Raises:
            VaekitError: A part, an option, the data or the directory is not right; the sentence says what to do.
        """
        leader = rundir.is_leader(self.config.trainer.get("nodes", 1) != 1)
        loader = self._loader_options()
        self.config = self.config.model_copy(update={"data_shape": self.data.shape, "data_values": self.data.values})
        out = self.out = rundir.settle(self.config, self.out, resume, leader)
        resume = resume and not rundir.untouched(out)
        with pretrained_weights("nowhere" if resume else "anywhere"):
            trainer, model, objective = self.prepare()
        environment = rundir.describe(
            self.config, self.data, model, objective, command or f"vaekit run {out}/config.yaml"
        )
        record = rundir.Record(out, self.config, environment)
        if leader and not resume:
            record.write()
        listeners = [record, *listeners] if resume else listeners
        with listen():  # A signal after the last step must not cut the keeping short.
            fit = trainer.fit(
                model, objective, self.data, out=out, resume=resume, listeners=listeners, profile=profile, **loader
            )
            self._trained = self.__dict__["model"] = fit.model
            self.__dict__.pop("sampler", None)  # of an earlier fit
            if leader:
                self._keep(out, fit, environment)
        return fit

    def prepare(self) -> tuple[Trainer, Any, Objective]:
        """Build what `fit` trains, and refuse what cannot be trained; nothing is launched or written.

        Returns:
            The trainer, a fresh model and the objective.

        Raises:
            VaekitError: A part, an option or the data is not right.

        Examples:
            >>> recipe("vae", data="digits").prepare()[2].label
            'negative ELBO'
        """
        batch_size = self._loader_options()["batch_size"]
        # A schedule may speak of a share of the run; what is kept and resumed is the share.
        asked = build.trainer(self.config)
        steps = asked.epochs * max(len(self.data.fitted_to) // batch_size, 1)
        config = RunConfig(**with_steps(self.config.model_dump(), min(steps, asked.max_steps or steps)))
        with self._pretrained_weights():
            model = build.model(config, self.data.shape, self.data.values)
        trainer = build.trainer(config)
        with memory_errors(build.smaller(config)):
            objective = build.objective(config, self.data.shape)
            trainer.check(model, objective, batch_size, len(self.data.fitted_to))
        if (trainer.devices, trainer.nodes, trainer.strategy) != (1, 1, "auto"):
            trainer.engine()  # What is not here is said before anything is written.
        return trainer, model, objective

    def _loader_options(self) -> dict[str, Any]:
        options = {key: value for key, value in self.config.data.items() if key in LOADER_OPTIONS and key != "root"}
        batch_size = options.setdefault("batch_size", 64)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise VaekitError(f"data.batch_size must be a whole number of 1 or more, not {batch_size!r}")
        for key in ("flip", "binarize", "resident"):
            if not isinstance(options.get(key, False), bool):
                raise VaekitError(f"data.{key} must be true or false, not {options[key]!r}")
        return options

    @torch.no_grad()
    def _keep(self, out: Path, fit: Fit, environment: dict[str, Any]) -> None:
        """Leave weights, aggregate posterior, last pictures and report in the run directory."""
        from vaekit.reporting.report import write_report

        save_tensors(out / "model.safetensors", fit.model.state_dict())
        (out / "samples" / "neighbours.png").unlink(missing_ok=True)  # of an evaluation of earlier weights
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # One pass of the encoder, and never more samples than training has seen (one batch at least).
            batches = itertools.islice(self._batches().epoch(0), max(fit.steps, 1))
            aggregate = aggregate_posterior(self.sampler.encode, batches)
            save_tensors(out / "aggregate.safetensors", aggregate.tensors())
            for source in ("prior", "aggregate-gaussian"):
                if source in list_sources(fit.model):
                    self._last_picture(source, out / "samples" / f"{source}.png")
        training = {
            "steps": fit.steps,
            "interrupted_by_signal": fit.signal,
            "seconds": round(fit.seconds, 2),
            "samples_per_second": round(fit.samples_per_second, 1),
            "peak_memory_bytes": fit.peak_memory,
            **({"skipped_steps": fit.skipped} if fit.skipped else {}),
            "active_units": f"{aggregate.active_units} of {fit.model.latent_dim}",
            "mean_posterior_variance": round(float(aggregate.mean_variance.mean()), 6),
        }
        save_json(out / "environment.json", {**environment, "training": training})
        self.portray()
        write_report(out)

    def portray(self) -> None:
        """Compute what the report shows of the latent space and keep it with the run: `vaekit.reporting.portrait`.

        Raises:
            VaekitError: The run has no directory yet, or its data are not there.
        """
        from vaekit.reporting.portrait import portray

        if self.out is None:
            raise VaekitError("the run has no directory yet: fit it first")
        portray(self.sampler, self.out)

    def _last_picture(self, source: str, path: Path) -> None:
        """Draw samples of the finished model, where they are images."""
        if self.data.is_image:
            self.sample(64, source).save(path)

    # ---- using ---------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        out: str | Path,
        *,
        offline: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Run:
        """Load a run from its directory.

        Raises:
            VaekitError: It is no run directory, or its weights are missing or damaged.
        """
        out = Path(out)
        if not (out / "config.yaml").is_file():
            raise VaekitError(f"{out} is not a run directory: it has no config.yaml")
        run = cls(resolve(read_recipe(out)), out, offline=offline, progress=progress)
        weights = load_tensors(out / "model.safetensors")
        with pretrained_weights("nowhere"):
            expected = run.model.state_dict()
        try:
            for name, value in expected.items():
                if name in weights and weights[name].dtype != value.dtype:
                    raise RuntimeError(f"{name} is of another type")
            run.model.load_state_dict(weights)
        except RuntimeError as error:
            raise VaekitError(f"the weights in {out} are not those of its config.yaml: restore one of them") from error
        run._trained = run.model.eval()
        return run

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

    # ---- leaving this machine ------------------------------------------------------------------------------------

    def export(self, format: Format = "onnx", what: What = "both", out: str | Path | None = None) -> Path:
        """Write encoder and decoder as files that run without vaekit: see `vaekit.exporting.export`."""
        from vaekit.exporting import export

        return export(self, format, what, out)

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Write the model as a folder that `from_pretrained` reads: see `vaekit.hub.save_pretrained`."""
        from vaekit.hub import save_pretrained

        return save_pretrained(self, folder, license=license)

    def push_to_hub(self, repo_id: str, *, private: bool = False, license: str | None = None) -> str:
        """Write the model into a repository on the Hugging Face Hub: see `vaekit.hub.push_to_hub`."""
        from vaekit.hub import push_to_hub

        return push_to_hub(self, repo_id, private=private, license=license)

    @staticmethod
    def from_pretrained(name: str | Path, *, revision: str | None = None, offline: bool = False) -> Run:
        """Load a model from a folder or from the Hugging Face Hub: see `vaekit.hub.from_pretrained`."""
        from vaekit.hub import from_pretrained

        return from_pretrained(name, revision=revision, offline=offline)


def recipe(
    name: str | Path,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    offline: bool = False,
    **overrides: Any,
) -> Run:
    """Return a run from a recipe, by name or file, with changes laid over it.

    Arguments:
        name: A recipe's name, a YAML file, or a run directory.
        data: The data set, by name or path, or a mapping with `name` and options such as `image_size` and
            `batch_size`; the recipe's own if not given.
        out: The run directory.
        offline: Forbid downloads.
        overrides: Keys of the recipe; mappings are merged; `regularizers={"kl": None}` takes a regularizer away.

    Raises:
        VaekitError: An unknown recipe, key, part or option.

    Examples:
        >>> run = recipe("vae", data="digits", posterior={"name": "gmm", "components": 3}, trainer={"epochs": 1})
        >>> run.config.posterior
        {'name': 'gmm', 'components': 3}
    """
    if isinstance(data, Mapping):
        overrides, data = {**overrides, "data": dict(data)}, None
    return Run(resolve(read_recipe(name), overrides, data=data), out, offline=offline)
