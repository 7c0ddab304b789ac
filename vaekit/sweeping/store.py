"""The study on disk: which trials there are, and which process works on which."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.errors import VaekitError
from vaekit.files import storage_errors
from vaekit.sweeping.definition import Definition
from vaekit.sweeping.locks import Locks
from vaekit.sweeping.result import State, Trial

if TYPE_CHECKING:
    import optuna

__all__ = ["Store", "require_optuna"]

# The locks: of the journal, of choosing the next trial, and from the last on those of the trials.
_JOURNAL, _CLAIM, _TRIALS = 0, 1, 2


def require_optuna() -> Any:
    """Return optuna, made to speak only of what is wrong.

    Raises:
        VaekitError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise VaekitError('a sweep needs optuna: pip install "vaekit[sweep]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class _JournalLock:
    """The lock that optuna takes around each line of its journal."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._held: AbstractContextManager[None] | None = None

    def acquire(self) -> bool:
        self._held = self._locks.holding(_JOURNAL)
        self._held.__enter__()
        return True

    def release(self) -> None:
        if self._held is not None:
            self._held.__exit__(None, None, None)


class Store:
    """The study of a sweep: a journal of JSON lines, in which nothing is code.

    The values of a trial depend on the seed, its number and the trials before it alone, so that a sweep which was
    interrupted chooses as one which was not.

    Arguments:
        folder: The folder of the sweep.
        definition: What the sweep is.

    Raises:
        VaekitError: optuna is not installed, or the journal is damaged or cannot be written.
    """

    def __init__(self, folder: Path, definition: Definition) -> None:
        self._optuna = optuna = require_optuna()
        self.definition, self._options = definition, definition.options
        path = folder / "study.jsonl"
        self._locks = Locks(folder / ".locks")
        try:
            with storage_errors(path), self._locks.holding(_JOURNAL):
                _mend(path)
            backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=_JournalLock(self._locks))
            self.study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="sweep",
                direction="minimize" if definition.direction == "lower" else "maximize",
                pruner=optuna.pruners.MedianPruner() if definition.prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except Exception as error:  # a damaged journal may raise anything
            self._locks.close()
            if isinstance(error, VaekitError | OSError):
                raise
            raise VaekitError(f"{path} is damaged and cannot be read: restore it, or start another sweep") from error

    def claim(self) -> tuple[optuna.Trial, Trial] | None:
        """Return a trial to train: one that was interrupted, otherwise a new one; `None` when there are enough."""
        states = self._optuna.trial.TrialState
        with self._locks.holding(_CLAIM):
            found = self.study.get_trials(deepcopy=False)
            for frozen in found:
                if frozen.state == states.RUNNING and self._locks.take(_TRIALS + frozen.number):
                    trial = self._optuna.trial.Trial(self.study, frozen._trial_id)
                    break
            else:
                waiting = next((frozen.number for frozen in found if frozen.state == states.WAITING), None)
                number = len(found) if waiting is None else waiting
                if number >= self.definition.trials:
                    return None
                self.study.sampler = self._sampler(number)
                if self.definition.sampler == "grid" and waiting is None:
                    self.study.enqueue_trial(self._point(number))
                trial = self.study.ask()
                self._locks.take(_TRIALS + trial.number)
            values = {option.key: option.suggest(trial) for option in self._options}
        return trial, Trial(trial.number, "running", values)

    def _sampler(self, number: int) -> Any:
        """Return the sampler of one trial."""
        seed = int(np.random.SeedSequence([self.definition.first_seed, number]).generate_state(1)[0])
        kind: Callable[..., Any] = {"tpe": self._optuna.samplers.TPESampler}.get(
            self.definition.sampler, self._optuna.samplers.RandomSampler
        )
        return kind(seed=seed)

    def _point(self, number: int) -> dict[str, Any]:
        """Return a point of the grid, the last option going fastest."""
        points = itertools.product(*(option.grid for option in self._options))
        point = next(itertools.islice(points, number, None))
        return dict(zip((option.key for option in self._options), point, strict=True))

    def tell(self, trial: optuna.Trial, found: Trial) -> Trial:
        """Record how a trial ended, and return it."""
        states = self._optuna.trial.TrialState
        for name in ("scores", "error", "seconds"):
            trial.set_user_attr(name, getattr(found, name))
        if found.state == "complete":
            self.study.tell(trial, found.score)
        else:
            self.study.tell(trial, state=states.PRUNED if found.state == "pruned" else states.FAIL)
        return found

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials, by number."""
        return tuple(
            self._read(frozen)
            for frozen in self.study.get_trials(deepcopy=False)
            if frozen.state != self._optuna.trial.TrialState.WAITING
        )

    def _read(self, frozen: optuna.trial.FrozenTrial) -> Trial:
        states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        kept = frozen.user_attrs
        return Trial(
            frozen.number,
            states.get(frozen.state.name, "running"),
            {
                option.key: option.value(frozen.params[option.key])
                for option in self._options
                if option.key in frozen.params
            },
            tuple(kept.get("scores", ())),
            kept.get("error", ""),
            kept.get("seconds", 0.0),
        )

    def close(self) -> None:
        """Let other processes have the trials that this one has not ended."""
        self._locks.close()


def _mend(path: Path) -> None:
    """Take away a last line that was cut off by a power cut: the one after it would be lost too."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)
