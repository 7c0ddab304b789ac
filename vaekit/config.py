"""The configuration of a run: recipe, file and overrides, merged and typed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vaekit.documents import parse_yaml, read_yaml
from vaekit.errors import VaekitError, suggest
from vaekit.registry import datasets

__all__ = [
    "LOADER_OPTIONS",
    "RunConfig",
    "apply_overrides",
    "as_number",
    "merge",
    "read_recipe",
    "recipe_file",
    "recipe_names",
    "resolve",
]

RECIPES = Path(__file__).parent / "recipes"

# What the `data` section says to the loader; the rest of it are the data set's own options.
LOADER_OPTIONS = ("root", "batch_size", "flip", "binarize", "resident")

# The parts that are named by a string or a mapping with `name`.
_PARTS = ("backbone", "posterior", "prior", "likelihood", "fusion", "private", "objective", "data")

_LARGEST_SEED = 2**48

# What a modality may have of its own.
_OF_MODALITY = ("backbone", "posterior", "likelihood")


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("use a number")
    return value


_Shape: TypeAlias = Annotated[tuple[Annotated[int, Field(gt=0, le=2**31)], ...], Field(min_length=1)]


class RunConfig(BaseModel):
    """A fully resolved run: what `config.yaml` in a run directory holds.

    Every part is a mapping with `name` and that part's options; the part itself declares and checks its options.

    Attributes:
        recipe: Where the configuration came from.
        about: One line about it.
        source: What it follows.
        latent_dim: Latent dimensions.
        backbone: Encoder and decoder.
        posterior: q(z|x).
        prior: p(z).
        likelihood: p(x|z).
        modalities: For several modalities: name to what one of them has of its own of `backbone`, `likelihood` and,
            without a fusion, `posterior`; `{}` where all have the same. `None` for data of one modality.
        fusion: What joins the modalities; `None` for a latent of each modality.
        private: The posterior of private latents with their `latent_dim`; `None` for none.
        objective: What is minimised.
        regularizers: Name to options; `{}` for the defaults, `null` for none of it.
        adversary: `discriminator`, `loss` and the options of `vaekit.Adversary`; `None` for none.
        data: The data set with its options, and `root`, `batch_size`, `flip`, `binarize`, `resident`.
        data_shape: The shape of one sample (of each modality), filled in when the data is loaded.
        data_values: What each of several modalities holds (`image`, `vector`, `classes`, `binary`), filled in likewise.
        trainer: The options of `vaekit.Trainer`.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    recipe: str = ""
    about: str = ""
    source: str = ""
    latent_dim: Annotated[int, BeforeValidator(_no_truth), Field(gt=0, le=2**48)]
    backbone: dict[str, Any]
    posterior: dict[str, Any] = {"name": "gaussian"}
    prior: dict[str, Any] = {"name": "standard_normal"}
    likelihood: dict[str, Any]
    modalities: dict[str, dict[str, Any]] | None = None
    fusion: dict[str, Any] | None = None
    private: dict[str, Any] | None = None
    objective: dict[str, Any] = {"name": "elbo"}
    regularizers: dict[str, dict[str, Any]] = {"kl": {}}
    adversary: dict[str, Any] | None = None
    data: dict[str, Any] = {"name": "digits"}
    data_shape: _Shape | dict[str, _Shape] | None = None
    data_values: dict[str, Literal["image", "vector", "classes", "binary"]] | None = None
    trainer: dict[str, Any] = {}

    def to_yaml(self) -> str:
        """Return the configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with vaekit."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_file(name_or_file: str | Path) -> Path:
    """Return the file of a recipe, by name, path or run directory.

    Raises:
        VaekitError: There is none; the sentence suggests the nearest name.
    """
    path = Path(name_or_file)
    if str(name_or_file) in recipe_names():
        return RECIPES / f"{name_or_file}.yaml"
    if path.is_dir() and (path / "config.yaml").is_file():
        return path / "config.yaml"
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise VaekitError(
            f"there is no recipe file {path}: give a file that exists or one of {', '.join(recipe_names())}"
        )
    raise VaekitError(f"unknown recipe '{path}': {suggest(str(path), recipe_names())}")


def read_recipe(name_or_file: str | Path) -> dict[str, Any]:
    """Return a recipe as a mapping, by name or from a YAML file (or a run directory, or its config.yaml).

    Raises:
        VaekitError: There is no such recipe or file, or it is not a YAML mapping.
    """
    path = recipe_file(name_or_file)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise VaekitError(f"{path} must hold a YAML mapping such as 'latent_dim: 16', not {type(content).__name__}")
    content.setdefault("recipe", path.stem)
    return content


def _as_part(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def merge(base: Any, over: Any) -> Any:
    """Lay one configuration over another and return the result.

    Mappings merge key by key; a part under another name replaces the part whole; anything else, `None` too, replaces
    what was there.

    Examples:
        >>> merge({"posterior": {"name": "gmm", "components": 4}}, {"posterior": {"components": 8}})
        {'posterior': {'name': 'gmm', 'components': 8}}
        >>> merge({"posterior": {"name": "gmm", "components": 4}}, {"posterior": "gaussian"})
        {'posterior': {'name': 'gaussian'}}
    """
    if isinstance(base, Mapping) and "name" in base:
        over = _as_part(over)
    if isinstance(base, str) and isinstance(over, Mapping):
        base = _as_part(base)
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return dict(over)
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in over.items()}}


def apply_overrides(config: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Lay `a.b=value` assignments over a configuration; values are YAML.

    Raises:
        VaekitError: An assignment without `=`, or a value that is not YAML.

    Examples:
        >>> apply_overrides({"posterior": "gmm"}, ["posterior.components=8"])
        {'posterior': {'name': 'gmm', 'components': 8}}
    """
    result = dict(config)
    for assignment in assignments:
        result = merge(result, _assignment(assignment))
    return result


def as_number(value: Any) -> Any:
    """Return a number for a word that is one: YAML 1.1 takes 1e-4 for a word.

    Examples:
        >>> as_number("1e-4"), as_number("gmm"), as_number(3)
        (0.0001, 'gmm', 3)
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _assignment(text: str) -> dict[str, Any]:
    """Return `a.b=value` as nested mappings."""
    path, equals, written = text.partition("=")
    if not equals or not path.strip("."):
        raise VaekitError(f"--set takes KEY=VALUE, for instance posterior.components=4, not '{text}'")
    try:
        value: Any = parse_yaml(written)
    except VaekitError as error:
        raise VaekitError(f"--set {path}: '{written}' is not a value that YAML can read") from error
    value = as_number(value)
    for key in reversed(path.strip().split(".")):
        value = {key: value}
    return value


def resolve(
    recipe: Mapping[str, Any],
    *overlays: Mapping[str, Any],
    data: str | Path | None = None,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """Merge a recipe with what the user asked for, and check the result's shape.

    Precedence, weakest first: the recipe; its `for_data` section for the chosen data set; `overlays`; `assignments`.

    Arguments:
        recipe: A recipe as `read_recipe` gives it.
        overlays: Mappings laid over it.
        data: The data set, by name or path.
        assignments: `a.b=value` strings.

    Raises:
        VaekitError: An unknown key or a value of the wrong type.
    """
    base = {**recipe, "data": _data_of(recipe)}
    for_data = base.pop("for_data", None)
    for_data = {} if for_data is None else for_data
    if not isinstance(for_data, Mapping) or not all(isinstance(layer, Mapping) for layer in for_data.values()):
        raise VaekitError("for_data must name data sets, each with a mapping of what is other for it")
    for key in ("trainer", "regularizers", "modalities", "adversary", *_PARTS):
        # What is laid over it would hide it.
        if not isinstance(base.get(key), Mapping | None) and not (key in _PARTS and isinstance(base[key], str)):
            raise VaekitError(f"{key} must be a mapping of its options, not {base[key]!r}")
    layers = [*overlays, *map(_assignment, assignments)]
    if data is not None:
        layers.append({"data": {"name": str(data)}})
    names = [_as_part(layer["data"]).get("name") for layer in layers if isinstance(layer.get("data"), str | Mapping)]
    chosen = next((name for name in reversed(names) if name and isinstance(name, str)), base["data"]["name"])
    if base["data"]["name"] != chosen:
        # What the other data set does not know stays behind.
        known = {*LOADER_OPTIONS, *_data_options(chosen)}
        base["data"] = {key: value for key, value in base["data"].items() if key in known}
    base["data"] = {**base["data"], "name": chosen}
    for layer in (for_data.get(chosen, {}), *layers):
        base = merge(base, layer)
    return _typed(base)


def _data_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data section of a recipe, with a name."""
    section = _as_part(recipe.get("data"))
    if section is not None and not isinstance(section, Mapping):
        raise VaekitError(f"data must be a data set's name or a mapping with 'name', not {section!r}")
    return _named({"name": "digits", **(section or {})}, "data")


def _named(part: Any, where: str) -> Any:
    """Return a part, and refuse one whose name is no word."""
    name = part.get("name", where) if isinstance(part, Mapping) else where
    if not isinstance(name, str) or not name:
        raise VaekitError(f"{where}.name must be a word, not {name!r}")
    return part


def _data_options(name: str) -> list[str]:
    """Return the options of a data set by name or path."""
    if name not in datasets.names():
        from vaekit.data.loading import reader_of

        name = reader_of(Path(name))
    return list(datasets.options(name))


def _of_modality(name: str, parts: Any) -> Any:
    """Return what a modality has of its own, each part as a mapping."""
    if not isinstance(parts, Mapping):
        return parts
    for key in parts:
        if key not in _OF_MODALITY:
            raise VaekitError(f"unknown key 'modalities.{name}.{key}': {suggest(key, _OF_MODALITY)}")
    return {key: _named(_as_part(value), f"modalities.{name}.{key}") for key, value in parts.items()}


def _typed(content: Mapping[str, Any]) -> RunConfig:
    known = RunConfig.model_fields
    for key in content:
        if key not in known:
            raise VaekitError(f"unknown key '{key}' in the configuration: {suggest(key, known)}")
    ready = {key: _named(_as_part(value), key) if key in _PARTS else value for key, value in content.items()}
    seed = content["trainer"].get("seed", 0) if isinstance(content.get("trainer"), Mapping) else 0
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= _LARGEST_SEED:
        raise VaekitError(f"trainer.seed must be a whole number from 0 to {_LARGEST_SEED:,}, not {seed!r}")
    root = content["data"].get("root") if isinstance(content.get("data"), Mapping) else None
    if not isinstance(root, str | PathLike | None):
        raise VaekitError(f"data.root must be a folder, not {root!r}")
    if isinstance(ready.get("modalities"), Mapping):
        ready["modalities"] = {name: _of_modality(name, parts) for name, parts in ready["modalities"].items()}
    if isinstance(ready.get("regularizers"), Mapping):
        # `null` takes a regularizer away; `{}` is one with its defaults.
        ready["regularizers"] = {key: value for key, value in ready["regularizers"].items() if value is not None}
    try:
        return RunConfig(**ready)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise VaekitError(
                f"the configuration has no '{where}': add it to the recipe or --set {where}=..."
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        raise VaekitError(f"{where} = {first['input']!r} is not valid: {message}") from error
