"""What is refused before anything is trained: values that can never work, and losses that do not compare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vaekit.config import RunConfig
from vaekit.errors import VaekitError
from vaekit.registry import schedules
from vaekit.run import Run
from vaekit.series import SharedData
from vaekit.sweeping.definition import Definition
from vaekit.sweeping.space import Option, written

__all__ = ["check"]

_LOSS = ("objective", "regularizers", "likelihood", "modalities")
_ADVICE = "say with --metric what to judge by, for instance --metric likelihood.log_likelihood"


def check(definition: Definition, run: Run, shared: SharedData) -> None:
    """Try every choice and both ends of every range, and refuse a sweep whose trials could not be judged.

    A value must work with the first values of the other options, or with another value of one of them. Validation
    losses compare where the options leave alone what the loss is: its label, the objective, the regularizers, the
    likelihood and the data, and for a surrogate also the batch size, on which terms of the batch depend.

    Arguments:
        definition: The sweep.
        run: The run of its configuration.
        shared: What lends the data.

    Raises:
        VaekitError: A value cannot work, or the loss has another meaning from trial to trial or from epoch to epoch.
    """
    if definition.metric is None and (place := next(_scheduled(run.config), "")):
        raise VaekitError(f"the loss changes its meaning while it is trained, since {place} is a schedule: {_ADVICE}")
    for option in definition.options:
        meanings = {_meaning(*_working(definition, option, value, run, shared)) for value in option.ends}
        if definition.metric is None and len(meanings) > 1:
            raise VaekitError(f"{option.key} changes what the loss means, so that losses do not compare: {_ADVICE}")


def _working(definition: Definition, option: Option, value: Any, run: Run, shared: SharedData) -> tuple[RunConfig, str]:
    """Return the first configuration with a value that can be trained, and what its loss is."""
    others = [other for other in definition.options if other is not option]
    usual = {each.key: each.ends[0] for each in definition.options} | {option.key: value}
    first: VaekitError | None = None
    for more in ({}, *({other.key: end} for other in others for end in other.ends[1:])):
        try:
            config = definition.laid(usual | more)
            tried = Run(config, offline=run.offline, progress=run.progress)
            shared.lend(tried)
            return config, tried.prepare()[2].label
        except VaekitError as error:
            first = first or error
    if str(first) == _fault(run):
        raise VaekitError(str(first)) from first
    raise VaekitError(f"no trial with {option.key}={written(value)} can be trained: {first}") from first


def _fault(run: Run) -> str:
    """Return why a run cannot be trained, or an empty string."""
    try:
        run.prepare()
    except VaekitError as error:
        return str(error)
    return ""


def _meaning(config: RunConfig, label: str) -> str:
    """Return a text that is the same for losses that compare."""
    content = config.model_dump(mode="json")
    batch_size = content["data"].pop("batch_size", None)
    for circumstance in ("root", "resident"):
        content["data"].pop(circumstance, None)
    own = {name: part.get("likelihood") for name, part in (content["modalities"] or {}).items()}
    parts = {key: content[key] for key in ("objective", "regularizers", "likelihood", "data")}
    batch = batch_size if label == "surrogate loss" else None
    return json.dumps([label, parts, own, batch], sort_keys=True, default=str)


def _scheduled(config: RunConfig) -> Iterator[str]:
    """Yield the paths of schedules in what the loss is made of."""
    moving = set(schedules.names()) - {"constant"}

    def walk(content: Any, path: str) -> Iterator[str]:
        if isinstance(content, Mapping):
            if content.get("name") in moving:
                yield path
            for key, part in content.items():
                yield from walk(part, f"{path}.{key}")

    for key in _LOSS:
        yield from walk(getattr(config, key), key)
