"""One trial: a run for each seed, and what it is judged by."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaekit.data.dataset import Progress
from vaekit.documents import read_json
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.records import digest
from vaekit.files import save_json
from vaekit.reporting.comparison_reading import read_run
from vaekit.reporting.record import read_record
from vaekit.reporting.report import write_report
from vaekit.run import Run
from vaekit.run_evaluation import evaluate_run
from vaekit.series import SharedData, train_to_end
from vaekit.sweeping.definition import Definition
from vaekit.sweeping.result import Trial, command_of, run_place, seeds_of
from vaekit.training.listeners import Listener, Plan

if TYPE_CHECKING:
    import optuna

__all__ = ["train_trial"]


class _Hopeless(Exception):  # noqa: N818
    """The validation loss is worse than the median of the other trials at the same epoch."""


class _Pruner(Listener):
    """Reports validation losses to the study, and ends a run that is hopeless."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.known = dict(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        self.hopeless = False

    def on_start(self, plan: Plan) -> None:
        self.hopeless = bool(self.known) and self.trial.should_prune()

    def on_metrics(self, line: dict[str, Any]) -> None:
        # An epoch that is trained again after an interruption was reported before it.
        if line["split"] == "valid" and line["epoch"] + 1 not in self.known:
            self.known[line["epoch"] + 1] = line["loss"]
            self.trial.report(line["loss"], line["epoch"] + 1)
            self.hopeless = self.trial.should_prune()

    def on_step(self, step: int) -> None:
        # One step late, and so after the checkpoint of the epoch: the run can be resumed by hand.
        if self.hopeless:
            raise _Hopeless


def train_trial(
    definition: Definition,
    out: Path,
    trial: optuna.Trial,
    started: Trial,
    shared: SharedData,
    *,
    listeners: Sequence[Listener] = (),
    offline: bool = False,
    progress: Progress | None = None,
) -> Trial:
    """Train a trial with every seed, from where it stands, and return how it ended.

    Arguments:
        definition: The sweep.
        out: Its folder.
        trial: The trial of the study, to which losses are reported.
        started: The trial with its values.
        shared: What lends the data.
        listeners: Called while runs are trained.
        offline: Forbid downloads.
        progress: Called as `progress(done, total, what)` while data is decoded or a metric is computed.

    Raises:
        Stopped: A signal ended a run early.
    """
    began, scores = time.perf_counter(), []
    pruner = [_Pruner(trial)] if definition.prune else []
    for seed in seeds_of(definition):
        place = run_place(out, started.number, seed)
        try:
            config = definition.laid(started.values, seed)
            command = command_of(definition, started.values, seed)
            watching = [*listeners, *(pruner if seed == definition.first_seed else [])]
            run = Run(config, place, offline=offline, progress=progress)
            shared.lend(run)
            run = train_to_end(run, listeners=watching, command=command)
            scores.append(_score(run, definition, shared, progress))
        except _Hopeless:
            last = read_record(place).of_split("valid")[-1]
            _say_pruned(place, last)
            return replace(started, state="pruned", scores=(last["loss"],), seconds=time.perf_counter() - began)
        except VaekitError as error:
            return replace(started, state="failed", error=str(error), seconds=time.perf_counter() - began)
    return replace(started, state="complete", scores=tuple(scores), seconds=time.perf_counter() - began)


def _score(run: Run, definition: Definition, shared: SharedData, progress: Progress | None) -> float:
    """Return what a run is judged by."""
    assert run.out is not None
    target = definition.target
    if target is None:
        score = read_record(run.out).best["loss"]
    else:
        shared.lend(run)
        found = evaluate_run(
            run,
            [target.metric],
            split="valid",
            samplers=(target.sampler,),
            progress=progress,
            **_evaluation(definition.evaluation),
        )
        digests = {digest(record.protocol) for record in found}
        figures = {
            number.figure: number.value
            for number in read_run(run.out).numbers
            if number.metric.partition("[")[0] == target.metric and number.key[2] in digests
        }
        if target.figure not in figures:
            raise VaekitError(
                f"'{target.metric}' has no figure '{target.figure}' here: {suggest(target.figure, figures)}"
            )
        score = figures[target.figure]
    if not (isinstance(score, int | float) and math.isfinite(score)):
        raise VaekitError(f"the {definition.judge} is not finite: there is nothing to compare")
    return float(score)


def _evaluation(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: Path(value) if key == "weights" else value for key, value in options.items()}


def _say_pruned(place: Path, last: Mapping[str, Any]) -> None:
    """Write into the run directory why its training ended."""
    environment = read_json(place / "environment.json")
    environment["notes"] = [
        *environment.get("notes", []),
        f"the sweep ended this run after epoch {last['epoch'] + 1}: its validation loss was worse than the median of "
        "the trials before it",
    ]
    save_json(place / "environment.json", environment)
    write_report(place)
