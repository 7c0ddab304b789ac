"""The search: trial after trial, on disk at every moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.config import read_recipe, resolve
from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError
from vaekit.files import storage_errors
from vaekit.run import Run
from vaekit.rundir import default_place, is_leader
from vaekit.series import SharedData, Stopped
from vaekit.sweeping.checks import check
from vaekit.sweeping.definition import Definition, Sampler
from vaekit.sweeping.page import write_page
from vaekit.sweeping.result import Sweep, Trial
from vaekit.sweeping.space import as_texts, written
from vaekit.sweeping.store import Store, require_optuna
from vaekit.sweeping.target import Direction
from vaekit.sweeping.trial import train_trial
from vaekit.training.listeners import Listener

__all__ = ["Watcher", "sweep"]

_PAGE = 60.0  # Seconds between drawings of the page.
_ENOUGH = 5  # If so many trials fail and none ends well, none will.


class Watcher(Listener):
    """Told of a sweep as it goes on, and as a listener of each of its runs; subclass it and override what you need."""

    def on_trial(self, trial: Trial, found: Sweep) -> None:  # noqa: B027
        """A trial begins."""

    def on_result(self, trial: Trial, found: Sweep) -> None:  # noqa: B027
        """A trial ended."""


def sweep(
    recipe: str | Path,
    over: Mapping[str, str | Sequence[Any]] | None = None,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    trials: int | None = None,
    seeds: int | None = None,
    sampler: Sampler | None = None,
    metric: str | None = None,
    direction: Direction | None = None,
    prune: bool | None = None,
    samples: int | None = None,
    extractor: str | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
    watcher: Watcher | None = None,
    **overrides: Any,
) -> Sweep:
    """Search options of a recipe: every trial is a run, and the best is the one with the best mean over its seeds.

    Whatever ends a sweep, `resume=True` goes on from there: an interrupted trial from its last checkpoint. Several
    processes may resume the same sweep at once; each takes trials that no other has.

    References:
        Optuna: A Next-generation Hyperparameter Optimization Framework, Akiba, Sano, Yanase, Ohta and Koyama, 2019,
        arXiv 1907.10902.
        Algorithms for Hyper-Parameter Optimization, Bergstra, Bardenet, Bengio and Kégl, 2011, NeurIPS 24 (TPE).

    Arguments:
        recipe: A recipe's name, a YAML file, a run directory, or the folder of a sweep to resume.
        over: Path in the configuration to choices (`"2,4,8"` or a sequence) or to a range of numbers (`"8..128"`,
            `"1e-5..1e-2:log"`).
        data: The data set, by name or path, or a mapping with `name` and options such as `image_size` and
            `batch_size`; the recipe's own if not given.
        assignments: `a.b=value` strings laid over the recipe.
        trials: How many trials, all in all; 20 if not given, and for a grid all of its points.
        seeds: How many seeds each trial is trained with; 1 if not given.
        sampler: `"tpe"`, the tree-structured Parzen estimator, if not given; `"random"`; or `"grid"`.
        metric: `metric.figure` or `metric[sampler].figure` of `vaekit.run_evaluation.evaluate_run`, computed on the
            validation split; the lowest validation loss if not given, where the options leave its meaning alone.
        direction: `"lower"` or `"higher"`, whichever is better; that of the figure where it is known.
        prune: Whether to end a trial whose validation loss in its first seed is worse than the median of the others'
            at the same epoch.
        samples: How many validation samples a metric takes; 1,000 or all where there are fewer, if not given.
        extractor: A feature extractor of the metric, by name or as a TorchScript file.
        weights: The weights of a named extractor.
        out: The folder of the sweep; `sweeps/<recipe>-<data>`, numbered when that is taken, if not given.
        resume: Whether to go on with the sweep that is there; only `trials` may differ then, and what is not given is
            as it was.
        offline: Forbid downloads.
        progress: Called as `progress(done, total, what)` while data is decoded or a metric is computed.
        watcher: Told of trials as they begin and end.
        overrides: Keys of the recipe; mappings are merged.

    Returns:
        The trials so far, `signal` saying whether one stopped the sweep early.

    Raises:
        VaekitError: optuna is not installed, an option cannot be searched, losses would not compare and no metric is
            given, the place is taken, or every trial failed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place, quick = Path(folder) / "sweep", {"max_steps": 2}
        ...     found = sweep("vae", {"latent_dim": "2..8"}, trials=2, out=place, trainer=quick)
        >>> [trial.state for trial in found.trials], 2 <= found.best.values["latent_dim"] <= 8
        (['complete', 'complete'], True)
    """
    require_optuna()
    if isinstance(data, Mapping):
        overrides, data = {**overrides, "data": dict(data)}, None
    if not is_leader():
        raise VaekitError(
            "a trial is trained on one device: start the sweep without torchrun, and once more with --resume for every "
            "further device"
        )
    asked: dict[str, Any] = {
        "sampler": sampler,
        "seeds": seeds,
        "metric": metric,
        "direction": direction,
        "prune": prune,
    }
    given = {"samples": samples, "extractor": extractor, "weights": None if weights is None else str(weights)}
    evaluation = {key: value for key, value in given.items() if value is not None}
    folder = Path(recipe) if Definition.at(Path(recipe)) else None
    if folder is not None and not resume:
        raise VaekitError(f"{folder} is a sweep: add --resume to go on with it, or name a recipe to start another one")
    base = Definition.load(folder).config.model_dump() if folder is not None else read_recipe(recipe)
    config = resolve(base, overrides, data=data, assignments=assignments)
    place = Path(out) if out is not None else folder or default_place(config, resume, "sweeps")
    shared = SharedData()
    if resume:
        if not Definition.at(place):
            raise VaekitError(f"nothing to resume: {place} holds no sweep; leave out --resume to start one")
        texts = None if over is None else as_texts(over)
        asked |= {"config": config, "over": texts, "evaluation": evaluation or None}
        definition = Definition.load(place).resumed(place, trials, asked)
    else:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise VaekitError(
                f"{place} already holds another sweep or other files: add --resume to go on with it, or choose another "
                "place with --out"
            )
        command = _command(recipe, data, overrides, assignments)
        definition = Definition.start(config, over or {}, command, trials=trials, evaluation=evaluation, **asked)
        check(definition, Run(config, offline=offline, progress=progress), shared)
        with storage_errors(place):
            place.mkdir(parents=True, exist_ok=True)
    definition.save(place)
    return _search(definition, place, shared, watcher or Watcher(), offline, progress)


def _search(
    definition: Definition, out: Path, shared: SharedData, watcher: Watcher, offline: bool, progress: Progress | None
) -> Sweep:
    """Train trials until there are enough, and leave a page."""
    store, drawn, signal = Store(out, definition), time.monotonic(), 0
    try:
        with storage_errors(out):
            while (claimed := store.claim()) is not None:
                trial, started = claimed
                watcher.on_trial(started, Sweep(out, definition, store.trials))
                try:
                    ended = train_trial(
                        definition, out, trial, started, shared, listeners=[watcher], offline=offline, progress=progress
                    )
                except Stopped as stopped:
                    signal = stopped.signal
                    break
                store.tell(trial, ended)
                found = Sweep(out, definition, store.trials)
                watcher.on_result(ended, found)
                if len(found.of("failed")) == len(found.trials) >= _ENOUGH:
                    break
                if time.monotonic() - drawn > _PAGE:
                    write_page(found, store.study)
                    drawn = time.monotonic()
            found = Sweep(out, definition, store.trials, signal)
            write_page(found, store.study)
    finally:
        store.close()
    failed = found.of("failed")
    if failed and len(failed) == len(found.trials):
        raise VaekitError(f"all of {len(failed)} trials failed; the first one: {failed[0].error}")
    return found


def _command(
    recipe: str | Path, data: str | Path | None, overrides: Mapping[str, Any], assignments: Sequence[str]
) -> list[str]:
    """Return the command that trains a recipe with changes laid over it."""
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        # The options of what has no name can stand alone; those of a part stay with its name.
        alone = isinstance(value, Mapping) and "name" not in value
        flat |= {f"{key}.{option}": each for option, each in value.items()} if alone else {key: value}
    flat.pop("trainer.seed", None)  # Every trial names its own.
    changes = [*(f"{key}={written(value)}" for key, value in flat.items()), *assignments]
    named = [] if data is None else [f"--data={data}"]
    return ["vaekit", "run", str(recipe), *named, *(f"--set={change}" for change in changes)]
