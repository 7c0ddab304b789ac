"""The head of a report: what the run is, what its loss is, and what strikes the eye."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaekit.errors import VaekitError
from vaekit.registry import regularizers
from vaekit.reporting.page import escape, notice
from vaekit.reporting.record import RunRecord, mapping
from vaekit.reporting.sections.evaluation import memory
from vaekit.reporting.sections.latent import activity, dead_units
from vaekit.reporting.wording import duration, number, title_of, value_of, when

__all__ = ["headline", "title_of_run"]

_SPLITS = ("train", "valid")


def title_of_run(record: RunRecord) -> str:
    """Name a run: its recipe and its data."""
    recipe = record.config.get("recipe") or record.out.resolve().name
    data = mapping(record.config.get("data")).get("name")
    return f"{recipe} on {Path(str(data)).name or data}" if data else str(recipe)


def headline(record: RunRecord) -> Iterator[str]:
    """Yield what the run is, what is wrong with it, what is seen at once, and its first figures."""
    config, training = record.config, mapping(record.environment.get("training"))
    yield f"<header><h1>{escape(title_of_run(record))}</h1>"
    if config.get("about"):
        yield f"<p>{escape(str(config['about']).rstrip('.'))}.</p>"
    if config.get("source"):
        yield f'<p class="quiet">After: {escape(config["source"])}</p>'
    yield f"<p>{escape(_data(record))}</p>"
    yield f"<p><strong>What the figures are.</strong> {escape(_loss(record))}</p></header>"
    for problem in (*_interruption(record), *record.problems):
        yield notice(problem)
    seen = " ".join(filter(None, (activity(record), _overfitting(record), *memory(record))))
    yield f"<p><strong>What is seen.</strong> {escape(seen)}</p>" if seen else ""
    tiles = []
    valid = record.of_split("valid")
    if valid:
        tiles += [(f"validation {record.label}", value_of(valid[-1], "loss"), "nats per sample, last")]
        tiles += [("lowest", value_of(best := record.best, "loss"), f"nats per sample, {when(best)}")]
        if "bits_per_dim" in valid[-1]:
            tiles.append((f"{record.label}, per dimension", value_of(valid[-1], "bits_per_dim"), "bits, last"))
    if record.lines:
        tiles.append(("trained", f"{max(line['step'] for line in record.lines):,} steps", when(record.lines[-1])))
    if isinstance(seconds := training.get("seconds"), int | float):
        rate = training.get("samples_per_second")
        tiles.append(("time", duration(seconds), f"{number(rate)} samples/s" if isinstance(rate, int | float) else ""))
    if found := dead_units(record):
        tiles.append(("active latent units", f"{found[1] - len(found[0])} of {found[1]}", ""))
    cells = (f"<div><dt>{escape(a)}</dt><dd>{escape(b)} <small>{escape(c)}</small></dd></div>" for a, b, c in tiles)
    yield f'<dl class="tiles">{"".join(cells)}</dl>' if tiles else ""


def _data(record: RunRecord) -> str:
    data = mapping(record.config.get("data"))
    words = f"Data: {data.get('name', 'not recorded')}"
    if shape := record.config.get("data_shape"):
        words += f", samples of shape {_shape(shape)}"
    counts = mapping(mapping(record.environment.get("data")).get("samples"))
    if counts:
        words += ": " + ", ".join(
            f"{number(count) if isinstance(count, int) else count} {split}" for split, count in counts.items()
        )
    return f"{words}."


def _shape(shape: Any) -> str:
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_shape(part)}" for name, part in shape.items())
    return " × ".join(map(str, shape)) if isinstance(shape, list) else str(shape)


def _loss(record: RunRecord) -> str:
    """Say what the loss is, from its label and the configuration."""
    if isinstance(record.config.get("modalities"), dict):
        objective = mapping(record.config.get("objective"))
        options = ", ".join(f"{key} {value}" for key, value in objective.items() if key != "name")
        bound = (
            "an upper bound on the negative log-likelihood of the modalities that are there"
            if record.label.startswith("negative")
            else "a surrogate, no bound on the likelihood: compare it only with runs that minimise the same loss"
        )
        return (
            f"The loss is that of the objective '{objective.get('name')}'{f' ({options})' if options else ''}: {bound};"
            " in nats per sample. Lower is better."
        )
    formula = " + ".join(["reconstruction", *(_weighted(name, mapping(o)) for name, o in record.regularizers.items())])
    if record.label == "negative ELBO":
        text = (
            f"The loss is the negative ELBO, {formula}: an upper bound on -log p(x), in nats per sample. "
            "Lower is better."
        )
    elif record.label == "surrogate loss":
        text = (
            f"The loss is a surrogate, {formula}, in nats per sample. It is not a bound on the likelihood: compare it "
            "only with runs that minimise the same loss."
        )
    else:
        text = f"The loss is {formula}, in nats per sample; whether it is a bound on the likelihood was not recorded."
    adversary = mapping(record.config.get("adversary"))
    if adversary:
        named = adversary.get("discriminator")
        weight = f", weight {adversary['weight']}" if "weight" in adversary else ""
        text += (
            f" Training adds an adversary ({mapping(named).get('name', named)}{weight}) that is not part of the loss "
            "shown here."
        )
    return text


def _weighted(name: str, options: dict[str, Any]) -> str:
    """Write a regularizer with its weight and its other options."""
    weight = options.get("weight")
    if weight is None:
        with contextlib.suppress(VaekitError):  # A plug-in that is no longer there: its weight stays unsaid.
            weight = regularizers.options(name)["weight"].default
    shown = f"{weight:g} × " if isinstance(weight, int | float) else "scheduled weight × " if weight else ""
    others = ", ".join(f"{key} {value}" for key, value in options.items() if key != "weight")
    return f"{'' if weight == 1 else shown}{title_of(name)}{f' ({others})' if others else ''}"


def _overfitting(record: RunRecord) -> str:
    """Say that the validation loss has risen while the training loss fell, by more than a tenth of what it fell."""
    train, valid = ([line for line in record.of_split(name) if _is_number(line.get("loss"))] for name in _SPLITS)
    if len(valid) < 3 or not train:
        return ""
    first, best, last = valid[0]["loss"], min(valid, key=lambda line: line["loss"]), valid[-1]["loss"]
    then = [line["loss"] for line in train if line["step"] <= best["step"]]
    risen = last - best["loss"]
    if risen <= 0.1 * (first - best["loss"]) or not then or train[-1]["loss"] >= then[-1]:
        return ""
    return (
        f"The validation loss has risen by {number(risen)} nats since {when(best)} while the training loss fell: the "
        "model has overfitted."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _interruption(record: RunRecord) -> Iterator[str]:
    if not record.lines:
        return
    resume = f"vaekit run {shlex.quote(str(record.out))} --resume"
    training = mapping(record.environment.get("training"))
    if number_of_signal := training.get("interrupted_by_signal"):
        named = {str(int(known)): known.name for known in signal.Signals}
        name = named.get(str(number_of_signal), number_of_signal)
        step = training.get("steps", "?")
        yield f"Interrupted by {name} at step {step}: these figures are not final. Go on with: {resume}"
    elif not training:
        yield f"No end of the training is recorded: it still runs, or it was cut off. If it was, go on with: {resume}"
