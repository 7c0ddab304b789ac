"""The page of a sweep: the best trials, how they were found, and the command that trains the best one again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vaekit.files import save_text
from vaekit.reporting.page import details, escape, notice, page, table, themed
from vaekit.reporting.wording import duration, number
from vaekit.sweeping.figures import draw_history, draw_importance, draw_slice
from vaekit.sweeping.result import Sweep, Trial
from vaekit.sweeping.space import Choices, Option, written

if TYPE_CHECKING:
    import optuna

__all__ = ["importance", "rows", "write_page"]

_ENOUGH = 8  # Complete trials below which a share of the variance says nothing.
_LINKED = 5  # Reports that are linked.


def write_page(found: Sweep, study: optuna.Study) -> Path:
    """Write `sweep.html` into the folder of a sweep, and return its path; the page loads nothing.

    Arguments:
        found: The sweep.
        study: The study, from which the importance of the options is computed.

    Raises:
        VaekitError: The page cannot be written.
    """
    path = found.out / "sweep.html"
    title = f"Sweep of {found.definition.config.recipe or 'run'} on {found.definition.config.data['name']}"
    save_text(path, page(title, [*_head(found, title), *_best(found), *_figures(found, study), *_trials(found)]))
    return path


def _head(found: Sweep, title: str) -> Iterator[str]:
    definition = found.definition
    over = "; ".join(f"{key}: {spec}" for key, spec in definition.over.items())
    seeds = f"the mean over {definition.seeds} seeds, " if definition.seeds > 1 else ""
    pruning = "; hopeless trials are ended early" if definition.prune else ""
    yield f"<header><h1>{escape(title)}</h1><p>Over {escape(over)}.</p>"
    yield (
        f"<p>Judged by: {escape(definition.judge)}, {seeds}{definition.direction} is better. "
        f"Sampler: {definition.sampler}{pruning}.</p></header>"
    )
    ended = len(found.trials) - len(found.of("running"))
    if ended < definition.trials:
        yield notice(f"{ended} of {definition.trials} trials have ended. Go on with: vaekit sweep {found.out} --resume")
    tiles = [
        ("trials", str(len(found.trials))),
        *((s, str(len(found.of(s)))) for s in ("complete", "pruned", "failed")),
    ]
    tiles.append(("time", duration(sum(trial.seconds for trial in found.trials))))
    if found.best is not None:
        tiles.insert(0, (definition.judge, score(found.best)))
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    yield f'<dl class="tiles">{cells}</dl>'


def score(trial: Trial) -> str:
    """Write the score of a trial, with its confidence interval where it has several seeds."""
    if not trial.scores:
        return ""
    half = trial.cell.half_width
    return number(trial.score, padded=True) + ("" if half is None else f" ± {number(float(f'{half:.2g}'))}")


def _best(found: Sweep) -> Iterator[str]:
    if found.best is None:
        yield "<p>No trial is complete yet.</p>"
        return
    yield f"<h2>The best trial</h2><p>Trial {found.best.number}. To train it again:</p>"
    yield f"<pre>{escape(found.command(found.best))}</pre>"
    yield (
        '<p class="quiet">The best of many trials looks better than it is: it was chosen by this very figure. Judge it '
        "by the test split, or by other seeds.</p>"
    )
    runs = [run.name for trial in found.ranked[:_LINKED] for run in found.runs(trial)[:1]]
    links = ", ".join(f'<a href="{escape(name)}/report.html">{escape(name)}</a>' for name in runs)
    yield f"<p>Reports of the best: {links}.</p>"


def _figures(found: Sweep, study: optuna.Study) -> Iterator[str]:
    if found.best is None:
        return
    yield "<h2>Trials</h2>"
    best = f"The best is trial {found.best.number} with {score(found.best)}."
    alt = f"{found.definition.judge} of {len(found.of('complete'))} complete trials by number. {best}"
    pruned = "Crosses are pruned trials at their last validation loss, or at the edge." if found.of("pruned") else ""
    yield f'<div class="large">{themed(partial(draw_history, found), "svg+xml", alt, pruned)}'
    shares = importance(study)
    if shares:
        words = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        yield themed(
            partial(draw_importance, shares), "svg+xml", f"Shares of the variance of the score: {words}.",
            "fANOVA over a random forest fitted to the complete trials: a rough guide, for the ranges searched.",
        )  # fmt: skip
    yield '</div><h2>Options</h2><div class="curves">'
    for option in found.definition.options:
        value = written(found.best.values[option.key])
        alt = f"{found.definition.judge} by {option.key}; the best trial has {value}."
        yield themed(partial(draw_slice, found, option), "svg+xml", alt)
    yield "</div>"


def importance(study: optuna.Study) -> Mapping[str, float]:
    """Return the share of each option in the variance of the score, by fANOVA; nothing where trials are too few.

    References:
        An Efficient Approach for Assessing Hyperparameter Importance, Hutter, Hoos and Leyton-Brown, 2014, ICML.

    Arguments:
        study: The study.
    """
    import optuna

    complete = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len(complete) < _ENOUGH or len(complete[0].params) < 2:
        return {}
    # Scores that are all the same have no variance to share.
    with contextlib.suppress(RuntimeError, ValueError, ZeroDivisionError):
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    return {}


def _trials(found: Sweep) -> Iterator[str]:
    head, body = rows(found, found.ranked)
    others = [trial for trial in found.trials if trial.state != "complete"]
    if body:
        yield "<h2>Complete trials, the best first</h2>"
        yield table(head, body, numbers=(1,))
    if others:
        head, body = rows(found, others)
        full = [[*row, trial.error] for row, trial in zip(body, others, strict=True)]
        shown = table([*head, "why"], full, numbers=(1,))
        yield details(f"{len(others)} pruned, failed or unfinished trials", shown)


def rows(found: Sweep, trials: list[Trial]) -> tuple[list[str], list[list[str]]]:
    """Return trials as the head and the rows of a table.

    Arguments:
        found: The sweep.
        trials: Which of its trials.
    """
    body = [
        [
            f"{trial.number}" if trial.state == "complete" else f"{trial.number}, {trial.state}",
            score(trial),
            *(_cell(option, trial) for option in found.definition.options),
        ]
        for trial in trials
    ]
    return ["trial", found.definition.judge, *(option.key for option in found.definition.options)], body


def _cell(option: Option, trial: Trial) -> str:
    if option.key not in trial.values:
        return ""
    value = trial.values[option.key]
    return written(value) if isinstance(option, Choices) or option.whole else number(value, padded=True)
