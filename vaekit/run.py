"""A run: a configuration, what it builds, and the directory it leaves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vaekit import build, rundir
from vaekit.backbones.pretrained import pretrained_weights
from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.errors import VaekitError, memory_errors
from vaekit.evaluation.aggregate import aggregate_posterior
from vaekit.evaluation.samplers import list_sources
from vaekit.exporting.names import Format, What
from vaekit.files import load_tensors, save_json, save_tensors
from vaekit.objectives.elbo import Objective
from vaekit.run_base import RunBase
from vaekit.schedules import with_steps
from vaekit.training.interrupt import listen
from vaekit.training.listeners import Listener
from vaekit.training.loop import Fit
from vaekit.training.trainer import Trainer

__all__ = ["Run", "recipe"]


class Run(RunBase):
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
