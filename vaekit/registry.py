"""One small registry per family of parts: names, metadata, lazy import, plug-ins, typed options.

A part is registered beside its class:

    @posteriors.register("gmm", about="Mixture of diagonal Gaussians", source="...")
    class GaussianMixture(Posterior): ...

vaekit's own parts are found by *reading* the source files of their folder (the decorator's arguments are literals),
so `vaekit list` answers without importing torch; the class is imported when it is first asked for. Third parties
add parts through entry points (`vaekit.posteriors`, `vaekit.priors`, ...) or by using the decorator themselves.

A constructor's keyword arguments are the part's options. `check_options` checks their names and types.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from vaekit.errors import VaekitError, suggest

__all__ = [
    "FAMILIES",
    "Info",
    "Registry",
    "adversarial_losses",
    "backbones",
    "check_options",
    "check_spec",
    "datasets",
    "discriminators",
    "fusions",
    "likelihoods",
    "loggers",
    "objectives",
    "optimizers",
    "options_of",
    "posteriors",
    "priors",
    "private_fusions",
    "regularizers",
    "schedules",
]

Part = TypeVar("Part", bound=Callable[..., Any])


@dataclass(frozen=True)
class Info:
    """What is known about a registered part without importing it.

    Arguments:
        name: The name used in recipes and on the command line.
        target: Where it lives, as `module:attribute`.
        about: One line for `vaekit list`.
        source: Title, authors, year and arXiv id (or the like) of what it implements.
        needs: What it needs from its neighbours, as plain words (`"batch of two or more"`).
        supports: What it offers its neighbours (`"reparameterised"`, `"closed-form KL to standard_normal"`).
        only_with: `"posteriors"` or `"priors"` -> the only names of that family it works with; `build` refuses any
            other.
        support: Where the latent lives, for posteriors and priors: `"real"`, `"interval"` (a box), `"counts"`,
            `"one-hot"`, `"sphere"` or `"point"` (no density); empty where that is not known.
        closed_kl: For posteriors, the priors to which their KL has a closed form.
        bounded_kl: For posteriors, the priors to which their KL is sampled and has closed-form bounds.
        requires: For regularizers and objectives, what a posterior must support (`"reparameterised"`,
            `"factorised"`, ...), what a prior must (`"factorised prior"`), and `"finite KL"` where the KL of one to the
            other must be finite.
        provider: The distribution package that brought it.
    """

    name: str
    target: str
    about: str = ""
    source: str = ""
    needs: tuple[str, ...] = ()
    supports: tuple[str, ...] = ()
    only_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    support: str = ""
    closed_kl: tuple[str, ...] = ()
    bounded_kl: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    provider: str = "vaekit"


# Of a whole number: no size and no count comes near it, and PyTorch can still be asked for as many bytes.
_LARGEST = 2**48

_NAME = re.compile(r"\w[\w.-]{0,99}")
_METADATA = {entry.name for entry in fields(Info)} - {"name", "target", "provider"}


class Registry:
    """The parts of one family, by name.

    Arguments:
        family: The plural, which is also the name of the variable and of the entry-point group `vaekit.<family>`.
        kind: The singular word used in messages, e.g. `"posterior"`.
        home: The package or module of vaekit that holds the family's own parts.
    """

    def __init__(self, family: str, kind: str, home: str) -> None:
        self.family = family
        self.kind = kind
        self.home = home
        self._classes: dict[str, Any] = {}
        self._local: dict[str, Info] = {}

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}, {self.names()})"

    # ---- registering -------------------------------------------------------------------------------------------

    def register(self, name: str, **metadata: Any) -> Callable[[Part], Part]:
        """Return a decorator that registers a part under `name` and gives it back unchanged.

        Arguments:
            name: The name used in recipes.
            metadata: The other fields of `Info`: `about`, `source`, `needs`, `supports`, ...

        Raises:
            VaekitError: The name is taken by another part.
        """
        unknown = set(metadata) - _METADATA | set(metadata.get("only_with", ())) - {"posteriors", "priors"}
        if unknown:
            raise TypeError(f"unknown metadata {sorted(unknown)} for {self.kind} '{name}': use {sorted(_METADATA)}")

        self._check_name(name, "a module")

        def decorate(part: Part) -> Part:
            target = f"{part.__module__}:{part.__qualname__}"
            taken = self._local.get(name) or self._builtin.get(name) or self._foreign(name, part.__module__)
            if taken is not None and taken.target != target:
                raise VaekitError(
                    f"{self.kind} '{name}' is registered twice, by {taken.target} and by {target}; rename one of them"
                )
            provider = part.__module__.partition(".")[0]
            self._local[name] = Info(name=name, target=target, provider=provider, **metadata)
            self._classes[name] = part
            return part

        return decorate

    def _check_name(self, name: str, provider: str) -> None:
        """Refuse a name that could be taken for a path, an option or markup."""
        if not _NAME.fullmatch(name):
            raise VaekitError(
                f"{provider} registers the {self.kind} '{name}', and names are letters, digits, _, - and . alone: "
                "uninstall or rename it"
            )

    def _foreign(self, name: str, module: str) -> Info | None:
        """Return the plug-in of that name, unless it is of the same package: it may name a re-export of the class."""
        taken = self._plugins.get(name)
        packages = (re.split(r"[.:]", place)[0] for place in (taken.target if taken else "", module))
        return None if len(set(packages)) == 1 else taken

    @cached_property
    def _builtin(self) -> dict[str, Info]:
        """Our own parts, read from the source without running it."""
        found: dict[str, Info] = {}
        place = Path(__file__).parent.joinpath(*self.home.split(".")[1:])
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            module = f"{self.home}.{file.stem}" if place.is_dir() else self.home
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                    continue
                for call in node.decorator_list:
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{self.family}.register":
                        name = ast.literal_eval(call.args[0])
                        metadata = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
                        found[name] = Info(name=name, target=f"{module}:{node.name}", **metadata)
        return found

    @cached_property
    def _plugins(self) -> dict[str, Info]:
        """Parts of other packages, announced as entry points."""
        found: dict[str, Info] = {}
        for point in importlib.metadata.entry_points(group=f"vaekit.{self.family}"):
            provider = point.dist.name if point.dist else "unknown"
            self._check_name(point.name, f"the package {provider}")
            taken = self._builtin.get(point.name) or found.get(point.name)
            if taken is not None and taken.target != point.value:
                raise VaekitError(
                    f"{self.kind} '{point.name}' is registered twice, by {taken.target} ({taken.provider}) and by "
                    f"{point.value} ({provider}); uninstall or rename one of them"
                )
            found[point.name] = Info(name=point.name, target=point.value, about=f"from {provider}", provider=provider)
        return found

    @property
    def _infos(self) -> dict[str, Info]:
        return {**self._plugins, **self._builtin, **self._local}

    # ---- looking up --------------------------------------------------------------------------------------------

    def names(self, pattern: str = "*") -> list[str]:
        """Return the registered names that match a shell-style wildcard, sorted."""
        return sorted(fnmatch.filter(self._infos, pattern))

    def info(self, name: str) -> Info:
        """Return the metadata of a part, without importing it.

        Raises:
            VaekitError: No part has that name; the sentence suggests the nearest.
        """
        infos = self._infos
        if name not in infos:
            raise VaekitError(f"unknown {self.kind} '{name}': {suggest(name, infos)}")
        return infos[name]

    def get(self, name: str) -> Any:
        """Import and return the class (or function) registered under `name`.

        Raises:
            VaekitError: The name is unknown, or a plug-in cannot be imported.
        """
        if name not in self._classes:
            info = self.info(name)
            module, _, attribute = info.target.partition(":")
            try:
                part = getattr(importlib.import_module(module), attribute)
            except VaekitError:
                raise
            except (Exception, SystemExit) as error:  # a plug-in's module may raise anything
                raise VaekitError(
                    f"{self.kind} '{name}' of {info.provider} cannot be imported from '{info.target}': "
                    f"{type(error).__name__}: {error}"
                ) from error
            if not callable(part):
                raise VaekitError(f"{self.kind} '{name}' of {info.provider} is no class and no function: {info.target}")
            self._classes[name] = part
        return self._classes[name]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """Return the options of a part by name, with their types and defaults."""
        return options_of(self.get(name))

    def check(self, name: str, options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Return `options` of a part with values converted to the declared types.

        Raises:
            VaekitError: An unknown option, a missing one, or a value of the wrong type.
        """
        return check_options(self.get(name), options, where or self.kind, f" of {self.kind} '{name}'")

    def build(self, spec: str | Mapping[str, Any], *context: Any, where: str = "") -> Any:
        """Build a part from a name or a mapping with `name` and options.

        Arguments:
            spec: `"gmm"` or `{"name": "gmm", "components": 4}`.
            context: The positional arguments that the part's neighbours decide (shapes, sizes).
            where: The path of the spec within a configuration, for messages.

        Raises:
            VaekitError: Unknown name, unknown option or a value of the wrong type.
        """
        options = check_spec(self, spec, where or self.kind)
        return self.get(options.pop("name"))(*context, **options)


def options_of(part: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the options of a class or function: its keyword-only parameters, with their types resolved."""
    hints = get_type_hints(part.__init__ if inspect.isclass(part) else part)
    return {
        key: parameter.replace(annotation=hints.get(key, Any))
        for key, parameter in inspect.signature(part).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_options(part: Callable[..., Any], options: Mapping[str, Any], where: str, whose: str = "") -> dict[str, Any]:
    """Return `options` with values converted to the types that `part` declares.

    Arguments:
        part: The class or function whose keyword-only parameters are the valid options.
        options: Names and values.
        where: The path of the options within a configuration, for messages.
        whose: Words about the part, for messages.

    Raises:
        VaekitError: An unknown option, a missing one, or a value of the wrong type.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    declared = options_of(part)
    for key in options:
        if key not in declared:
            raise VaekitError(f"unknown option '{where}.{key}'{whose}: {suggest(key, declared)}")
        if _is_misplaced_truth(options[key], declared[key].annotation):
            raise VaekitError(f"{where}.{key} = {options[key]!r} is not valid{whose}: use a number")
    # The fields get neutral names: an option may be called what pydantic keeps for itself.
    aliases = {f"option_{number}": key for number, key in enumerate(declared)}
    model_fields: dict[str, Any] = {
        field_name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default)
        for field_name, p in zip(aliases, declared.values(), strict=True)
    }
    numbered = {key: field_name for field_name, key in aliases.items()}
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        checked = create_model("Options", __config__=config, **model_fields)(
            **{numbered[key]: value for key, value in options.items()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = aliases[str(first["loc"][0])]
        if first["type"] == "missing" and len(first["loc"]) == 1:  # deeper: an element of the value is missing
            raise VaekitError(f"{where} needs the option '{key}'{whose}") from error
        message = first["msg"][0].lower() + first["msg"][1:]
        raise VaekitError(f"{where}.{key} = {options[key]!r} is not valid{whose}: {message}") from error
    found = {key: getattr(checked, numbered[key]) for key in options}
    for key, value in found.items():
        # What may be a function of the step is a schedule where it is a mapping: what is wrong with it is said here.
        scalar = any(get_origin(kind) is Callable for kind in _kinds(declared[key].annotation))
        if scalar and isinstance(value, Mapping):
            check_spec(schedules, value, f"{where}.{key}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise VaekitError(f"{where}.{key} = {value} is not valid{whose}: it is larger than {_LARGEST:,}")
    return found


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_misplaced_truth(value: Any, annotation: Any) -> bool:
    """Whether `value` is true or false, or a list that holds one of them, and the type has no place for it."""
    kinds = _kinds(annotation)
    if isinstance(value, list | tuple):
        kinds = tuple(kind for each in kinds for kind in get_args(each))
        value = next((part for part in value if isinstance(part, bool)), None)
    places = [kind in (bool, Any) or value in get_args(kind) for kind in kinds]  # A literal has values as arguments.
    return isinstance(value, bool) and not any(places)


def check_spec(registry: Registry, spec: str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a spec as a mapping with `name` and checked options.

    Arguments:
        registry: Where the name is looked up.
        spec: A name, or a mapping with `name` and options.
        where: The path of the spec within a configuration, for messages.

    Raises:
        VaekitError: Unknown name, unknown option or a value of the wrong type.
    """
    given = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise VaekitError(
            f"{where} must be a {registry.kind}'s name or a mapping with 'name': {suggest('', registry.names())}"
        )
    return {"name": name, **registry.check(name, given, where)}


posteriors = Registry("posteriors", "posterior", "vaekit.posteriors")
priors = Registry("priors", "prior", "vaekit.priors")
likelihoods = Registry("likelihoods", "likelihood", "vaekit.likelihoods")
backbones = Registry("backbones", "backbone", "vaekit.backbones")
regularizers = Registry("regularizers", "regularizer", "vaekit.regularizers")
discriminators = Registry("discriminators", "discriminator", "vaekit.discriminators")
adversarial_losses = Registry("adversarial_losses", "adversarial loss", "vaekit.discriminators")
fusions = Registry("fusions", "fusion", "vaekit.fusions")
private_fusions = Registry("private_fusions", "private fusion", "vaekit.fusions")
objectives = Registry("objectives", "objective", "vaekit.objectives")
optimizers = Registry("optimizers", "optimizer", "vaekit.training")
loggers = Registry("loggers", "logger", "vaekit.training.loggers")
schedules = Registry("schedules", "schedule", "vaekit.schedules")
datasets = Registry("datasets", "dataset", "vaekit.data")

FAMILIES: dict[str, Registry] = {
    registry.family: registry
    for registry in (
        posteriors,
        priors,
        likelihoods,
        backbones,
        regularizers,
        discriminators,
        adversarial_losses,
        fusions,
        private_fusions,
        objectives,
        optimizers,
        loggers,
        schedules,
        datasets,
    )
}
