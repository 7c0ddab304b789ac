"""Configurations with one thing wrong, made from every recipe, and some that only look wrong.

Each is a recipe at a size that trains in a second, with one change. The generator knows which words the refusal must
have, or that there must be none.
"""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from bad_options import OPTIONS, PARTS, NoCaseError, change
from helpers import SEVERAL_MODALITIES, tiny

from vaekit.compatibility import pair
from vaekit.config import RunConfig, recipe_names
from vaekit.registry import FAMILIES

__all__ = ["Case", "cases"]

_NOT_HERE = "autoencoder-kl"  # Its networks come from another package.
_WORDS = ["naïve", "损失", "δ\u202eelta", "🙂", "a b", "../../etc/passwd", "$(reboot)", "<script>alert(1)</script>"]


@dataclass(frozen=True)
class Case:
    """A configuration.

    Arguments:
        name: What was done to which recipe.
        text: The configuration as YAML.
        words: One of these must stand in the sentence that refuses it; none for a configuration that is right.
    """

    name: str
    text: str
    words: tuple[str, ...]


@cache
def _base(recipe: str) -> dict[str, Any]:
    """Return a recipe as a mapping, at a size that trains in a second."""
    trainer = {"max_steps": 1, "epochs": 1, "sample_every": 0, "accelerator": "cpu"}
    data = {"limit": 60, "batch_size": 20, **({"image_size": None} if recipe == "gamix-author" else {})}
    config: RunConfig = tiny(recipe, trainer=trainer, data=data)
    content = config.model_dump(mode="json", exclude={"data_shape", "data_values"})
    if recipe in SEVERAL_MODALITIES:
        content["modalities"] = content["modalities"] or {}
    if content["posterior"]["name"] == "categorical":
        content["latent_dim"] = 20
    if content["objective"].get("exact"):
        content["backbone"]["hidden"] = []
    return {key: value for key, value in content.items() if value is not None}


# ---- parts and sections ----------------------------------------------------------------------------------------------


def _unknown_part(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    key = draw.choice([key for key in (*PARTS, "data") if key in content])
    name = content[key]["name"]
    wrong = draw.choice([f"{name}x", name.upper(), "", *_WORDS])
    if draw.random() < 0.5 and wrong:
        return change(content, (key,), wrong), (f"'{wrong}'", key, *_escaped(wrong))
    return change(content, (key, "name"), wrong), (f"'{wrong}'", key, *_escaped(wrong))


def _escaped(word: str) -> tuple[str, ...]:
    return ("\\u202e",) if "\u202e" in word else ()


def _odd_name(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    key = draw.choice([key for key in (*PARTS, "data") if key in content])
    return change(content, (key, "name"), draw.choice([None, 3, True, ["gmm"], {"a": 1}, 1.5])), (key,)


def _unknown_key(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    place = draw.choice(
        [(), ("trainer",), ("trainer", "optimizer"), ("data",), *((key,) for key in PARTS if key in content)]
    )
    word = draw.choice(["strange", "latent_dmi", "naïve", "a b", "__class__", "self", "0", "no", "lr2"])
    return change(content, (*place, word), draw.choice([1, "a", None, {}])), (word,)


def _wrong_section(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    key = draw.choice([*PARTS, "trainer", "data", "regularizers", "latent_dim", "for_data", "about", "modalities"])
    if key not in content and key != "for_data":
        raise NoCaseError
    wrong: list[Any] = [3, 1.5, True, ["a"], [{"name": "gmm"}], [[]]]
    if key == "latent_dim":
        wrong = [0, -3, 1.5, "many", "", [4], {"a": 4}, True, None, math.nan]
    if key == "about":
        wrong = [3, ["a"], {"a": 1}]
    return change(content, (key,), draw.choice(wrong)), (key,)


def _missing(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    key = draw.choice(["latent_dim", "backbone", "likelihood", "posterior name", "backbone name"])
    changed = copy.deepcopy(content)
    if key.endswith(" name"):
        key = key.removesuffix(" name")
        del changed[key]["name"]
    else:
        del changed[key]
    return changed, (key,)


def _wrong_nesting(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    changed = copy.deepcopy(content)
    kind = draw.choice(["moved", "wrapped", "flat"])
    if kind == "moved":
        changed["trainer"]["latent_dim"] = changed.pop("latent_dim")
        return changed, ("latent_dim",)
    if kind == "wrapped":
        return {"config": changed}, ("config", "latent_dim")
    changed["lr"] = 1e-3
    return changed, ("lr",)


def _misfit(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    posteriors, priors = FAMILIES["posteriors"].names(), FAMILIES["priors"].names()
    misfits = [(q, p) for q in posteriors for p in priors if pair(q, p).kind == "impossible"]
    q, p = draw.choice(misfits)
    changed = {**copy.deepcopy(content), "posterior": {"name": q}, "prior": {"name": p}}
    return changed, (f"'{q}'", f"'{p}'")


def _another_kind(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Parts of several modalities for one, and the other way round."""
    changed = copy.deepcopy(content)
    if "modalities" not in content:
        key, value = draw.choice(
            [("fusion", "poe"), ("private", {"name": "independent", "latent_dim": 2}), ("objective", "masked"),
             ("modalities", {}), ("objective", "mmvae"), ("data", {"name": "polymnist", "digits": "digits"})]
        )  # fmt: skip
        return {**changed, key: value}, (key, "modalit", "multimodal")
    key, value, words = draw.choice(
        [("objective", "elbo", "objective"), ("data", {"name": "digits", "limit": 60, "batch_size": 20}, "modalities"),
         ("modalities", {"left": {}}, "left"), ("modalities", {"m0": {"backbon": "mlp"}}, "backbon"),
         ("modalities", {"m0": {"likelihood": "nowhere"}}, "nowhere"), ("modalities", {"m0": 3}, "m0"),
         ("private", {"name": "independent"}, "latent_dim"), ("modalities", ["m0"], "modalities")]
    )  # fmt: skip
    return {**changed, key: value}, (words,)


def _data(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    key, value = draw.choice(
        [("batch_size", 0), ("batch_size", -5), ("batch_size", 10**6), ("batch_size", "many"), ("batch_size", 2.5),
         ("batch_size", True), ("batch_size", None), ("flip", "yes please"), ("flip", 1), ("binarize", [True]),
         ("resident", "no"), ("root", 3), ("root", ["a"]), ("name", "nowhere.npz"), ("name", "no/such/folder"),
         ("name", "n" * 300), ("name", "a\0b"), ("progress", 3), ("offline", True), ("batchsize", 3), ("limit", 1)]
    )  # fmt: skip
    words = (key, str(value)[:20], "batch_size", "training", "a\\x00b")
    return change(content, ("data", key), value), words


# ---- what only looks wrong -------------------------------------------------------------------------------------------


def _right(draw: random.Random, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    changes: list[tuple[tuple[str, ...], Any]] = [
        (("about",), "naïve 损失 <b>"), (("about",), "2024-05-01"), (("recipe",), "../../a b"), (("latent_dim",), "6"),
        (("trainer", "optimizer", "lr"), "1e-3"), (("trainer", "seed"), 2**40), (("latent_dim",), 6.0),
        (("trainer", "clip"), 1), (("trainer", "log_every"), 10**9), (("for_data",), {"nowhere": {"latent_dim": -1}}),
        (("for_data",), None), (("trainer", "optimizer"), "sgd"), (("data", "binarize"), False),
        (("trainer", "optimizer", "lr"), {"name": "linear", "start": 1e-3, "end": 0, "portion": 0.5}),
    ]  # fmt: skip
    path, value = draw.choice(changes)
    if path == ("latent_dim",) and content["posterior"]["name"] == "categorical":
        raise NoCaseError  # It must be a multiple of the categories.
    return change(content, path, value), ()


# ---- text ------------------------------------------------------------------------------------------------------------


def _text(draw: random.Random, text: str) -> tuple[str, tuple[str, ...]]:
    """Spoil the text itself."""
    return draw.choice(
        [
            (text.replace(": ", ":\t", 1) + "\t- a", ("YAML",)),
            (text + "latent_dim: 3\n", ("latent_dim",)),
            (text + "odd: !!python/object/apply:os.system [reboot]\n", ("python/object/apply:os.system",)),
            (text[: len(text) // 2] + "\n{", ("YAML",)),
            (text + "a: &a [*a]\n", ("YAML", "itself")),
            (text + "---\n" + text, ("YAML",)),
            ("- " + text.replace("\n", "\n  "), ("mapping",)),
            (text + "b: " + "[" * 100 + "]" * 100 + "\n", ("deep",)),
            ("", ("mapping",)),
            ("\ufeffjust words\n", ("mapping",)),
            (text + "c: \x1b[31m\n", ("YAML",)),
        ]
    )


_CHANGES = [
    *OPTIONS, _unknown_part, _odd_name, _unknown_key, _wrong_section, _missing, _wrong_nesting, _misfit, _another_kind,
    _data, _right,
]  # fmt: skip


def cases(count: int, seed: int) -> list[Case]:
    """Return configurations: recipes and kinds of changes take turns, and chance does the rest.

    Arguments:
        count: How many.
        seed: The seed; one seed gives the same configurations always.
    """
    draw, found = random.Random(seed), []
    recipes = [name for name in recipe_names() if name != _NOT_HERE]
    kinds = [*_CHANGES, None]
    while len(found) < count:
        recipe, kind = recipes[len(found) % len(recipes)], draw.choice(kinds)
        content = _base(recipe)
        try:
            if kind is None:
                text, words = _text(draw, yaml.safe_dump(content, allow_unicode=True))
            else:
                changed, words = kind(draw, content)
                text = yaml.safe_dump(changed, allow_unicode=True)
        except NoCaseError:
            continue
        name = "text" if kind is None else kind.__name__.strip("_")
        found.append(Case(f"{len(found)} {recipe}: {name}", text, words))
    return found
