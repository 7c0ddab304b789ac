"""`vaekit list`, `show` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

from typing import Annotated

import typer

from vaekit.errors import VaekitError, suggest
from vaekit.registry import FAMILIES, options_of
from vaekit.schedules import Scalar

__all__ = ["doctor", "list_", "show"]


def list_(
    kind: Annotated[str | None, typer.Argument(help="recipes, posteriors, priors, ...; all if not given.")] = None,
    pattern: Annotated[str, typer.Argument(help="A wildcard such as 'gam*'.")] = "*",
) -> None:
    """List recipes and parts by name."""
    import fnmatch

    from vaekit.config import read_recipe, recipe_names

    kinds = ["recipes", *FAMILIES]
    if kind is not None and kind not in kinds:
        raise VaekitError(f"unknown kind '{kind}': {suggest(kind, kinds)}")
    for family in [kind] if kind else kinds:
        if family == "recipes":
            rows = {name: read_recipe(name).get("about", "") for name in fnmatch.filter(recipe_names(), pattern)}
        else:
            registry = FAMILIES[family]
            rows = {name: registry.info(name).about for name in registry.names(pattern)}
        typer.echo(family)
        width = max((len(name) for name in rows), default=0)
        for name, about in rows.items():
            typer.echo(f"  {name:<{width}}  {about}".rstrip())


def show(
    what: Annotated[str, typer.Argument(metavar="RECIPE|KIND/NAME", help="A recipe, or for instance posteriors/gmm.")],
) -> None:
    """Show a recipe's file, or a part's options and source."""
    import inspect

    from vaekit.config import read_recipe, recipe_file

    family, slash, name = what.partition("/")
    if not (slash and family in FAMILIES):
        read_recipe(what)  # What is no recipe is refused here, with a suggestion.
        typer.echo(recipe_file(what).read_text(encoding="utf-8"), nl=False)
        return
    registry = FAMILIES[family]
    part, info = registry.get(name), registry.info(name)  # in this order: a plug-in brings its metadata when imported
    typer.echo(f"{registry.kind} '{info.name}'  ({info.target}, from {info.provider})")
    for label, text in (("about", info.about), ("source", info.source)):
        if text:
            typer.echo(f"{label}: {text}")
    for label, words in (("needs", info.needs), ("supports", info.supports)):
        if words:
            typer.echo(f"{label}: {', '.join(words)}")
    for other, names in info.only_with.items():
        typer.echo(f"only with {other}: {', '.join(names)}")
    typer.echo("options:")
    for key, parameter in options_of(part).items():
        default = "required" if parameter.default is inspect.Parameter.empty else f"= {parameter.default!r}"
        typer.echo(f"  {key}: {_type_name(parameter.annotation)} {default}")
    if doc := inspect.getdoc(part):
        typer.echo(f"\n{doc}")


def doctor() -> None:
    """Check that the installation works, and say what is here."""
    import importlib
    import platform
    import tempfile
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    problems = 0
    typer.echo(f"python {platform.python_version()} on {platform.platform()}")
    for package in ("vaekit", "torch", "torchvision", "pyro-ppl", "torch-fidelity", "lightning-fabric", "scikit-learn"):
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            problems += 1
            typer.echo(f"{package} is missing: pip install {package}")
    for module in ("torch", "torchvision", "pyro", "lightning_fabric", "sklearn", "matplotlib", "safetensors"):
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken install raises anything
            problems += 1
            typer.echo(f"{module} cannot be imported: {error}")
    if not problems:
        import torch

        import vaekit as vk

        typer.echo(f"threads {torch.get_num_threads()}")
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            typer.echo(f"cuda:{index} {torch.cuda.get_device_name(index)}, {free >> 30} of {total >> 30} GiB free")
        if not torch.cuda.is_available():
            typer.echo("no CUDA device: training runs on the CPU")
        with tempfile.TemporaryDirectory() as folder:
            run = vk.recipe("vae", out=Path(folder) / "run", trainer={"max_steps": 5, "sample_every": 0})
            run.fit()
        typer.echo("five training steps of the recipe 'vae' on digits: fine")
    if problems:
        raise VaekitError(f"{problems} problem(s) found; the lines above say which")
    typer.echo("all is well")


def _type_name(annotation: object) -> str:
    if annotation == Scalar:
        return "number | schedule"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
