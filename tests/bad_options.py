"""Options with a wrong value, for every option of every part of a recipe."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from vaekit.objectives.adversary import Adversary
from vaekit.registry import FAMILIES, options_of
from vaekit.training.trainer import Trainer

__all__ = ["OPTIONS", "PARTS", "NoCaseError", "change"]

#: The sections of a configuration that are a part each, and its family.
PARTS = {
    "posterior": "posteriors", "prior": "priors", "likelihood": "likelihoods", "backbone": "backbones",
    "objective": "objectives", "fusion": "fusions",
}  # fmt: skip
#: Options that count or measure, of which there is no less than one.
_POSITIVE = {
    "width", "components", "categories", "transforms", "latent_channels", "depth", "draws", "epochs", "max_steps",
    "log_every", "checkpoint_every", "devices", "nodes", "accumulate", "image_size", "limit", "levels", "bins",
}  # fmt: skip
#: Options of which there is no less than nothing.
_NOT_NEGATIVE = {"sample_every", "free_bits", "eps", "lr", "weight_decay", "start_step", "encoder_blocks", "seed"}


class NoCaseError(Exception):
    """There is no such option in a recipe."""


def _options(content: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the type of every option of the parts of a configuration."""
    for key, family in PARTS.items():
        if key in content:
            yield from (((key, name), p.annotation) for name, p in _of(family, content[key]["name"]))
    for term in content["regularizers"]:
        yield from ((("regularizers", term, name), p.annotation) for name, p in _of("regularizers", term))
    if content.get("adversary"):
        yield from ((("adversary", name), p.annotation) for name, p in options_of(Adversary).items())
    yield from ((("trainer", name), p.annotation) for name, p in options_of(Trainer).items())
    optimizer = content["trainer"]["optimizer"]["name"]
    yield from ((("trainer", "optimizer", name), p.annotation) for name, p in _of("optimizers", optimizer))
    yield from ((("data", name), p.annotation) for name, p in _of("datasets", content["data"]["name"]))


def _of(family: str, name: str) -> Any:
    return options_of(FAMILIES[family].get(name)).items()


def _kinds(annotation: Any) -> set[Any]:
    """Return what a type admits: `int`, `float`, `bool`, `str`, `list`, `dict`, `None` for null, and other words."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    names = {NoneType: None, Literal: "choice", Callable: "function", Mapping: dict}
    kinds = [get_origin(member) or member for member in members]
    return {names.get(kind, kind if kind in (int, float, bool, str, dict) else list) for kind in kinds}


def change(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a configuration with another value at a path."""
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return changed


def _pick(draw: random.Random, content: dict[str, Any], good: Callable[[str, set[Any]], bool]) -> tuple[str, ...]:
    found = [path for path, annotation in _options(content) if good(path[-1], _kinds(annotation))]
    if not found:
        raise NoCaseError
    return draw.choice(found)


def _wrong_type(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda _, kinds: str not in kinds)
    kinds = _kinds(dict(_options(content))[path])
    wrong: list[Any] = ["many", "", "2024-05-01", "损失", [[1], "a"], {"strange": {"deeper": 1}}]
    if dict in kinds:  # A schedule, or weights by name.
        wrong.remove({"strange": {"deeper": 1}})
    return change(content, path, draw.choice(wrong)), (path[-1],)


def _truth(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda _, kinds: bool not in kinds and bool({int, float} & kinds))
    return change(content, path, draw.choice([True, False])), (path[-1],)


def _not_finite(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda _, kinds: bool({int, float} & kinds))
    return change(content, path, draw.choice([math.nan, math.inf, -math.inf])), (path[-1],)


def _too_small(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda name, kinds: name in _POSITIVE | _NOT_NEGATIVE and bool({int, float} & kinds))
    value = draw.choice([0, -1, -(10**6)] if path[-1] in _POSITIVE else [-1, -(10**6)])
    return change(content, path, value), (path[-1], path[-1].replace("_", " "))


def _too_large(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Numbers that no counter holds, and sizes that no memory holds."""
    if draw.random() < 0.5:
        path = _pick(draw, content, lambda _, kinds: int in kinds)
        return change(content, path, draw.choice([10**30, -(10**30), 2**60])), (path[-1],)
    return change(content, ("latent_dim",), draw.choice([2**44, 10**14])), ("latent_dim", "out of memory")


def _fraction(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda _, kinds: int in kinds and float not in kinds)
    return change(content, path, draw.choice([1.5, 0.1, "2.7"])), (path[-1],)


def _null(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda _, kinds: None not in kinds)
    return change(content, path, None), (path[-1],)


def _schedule(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    path = _pick(draw, content, lambda _, kinds: {float, dict} <= kinds)
    wrong = draw.choice(
        [{}, {"name": "linear"}, {"name": "linaer", "steps": 3}, {"name": "linear", "steps": 3, "portion": 0.5},
         {"name": "linear", "steps": -1}, {"name": "linear", "stepps": 1}, {"name": "step"}, {"steps": 3}, {"name": 3}]
    )  # fmt: skip
    return change(content, path, wrong), (path[-1], "schedule", "portion", "milestones")


#: Each takes a random state and a configuration, and gives a changed one and the words of which one must be said.
OPTIONS = [_wrong_type, _truth, _not_finite, _too_small, _too_large, _fraction, _null, _schedule]
