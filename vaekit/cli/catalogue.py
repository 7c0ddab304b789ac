"""`vaekit list`, `show` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

from typing import Annotated

import typer

from vaekit.compatibility import PLACES, pair
from vaekit.errors import VaekitError, suggest
from vaekit.registry import FAMILIES, options_of, posteriors, priors
from vaekit.schedules import Scalar

__all__ = ["doctor", "list_", "show"]


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="recipes, posteriors, priors, ..., or pairs; all but pairs if not given.")
    ] = None,
    pattern: Annotated[str, typer.Argument(help="A wildcard such as 'gam*'.")] = "*",
) -> None:
    """List recipes and parts by name; or `pairs`, how each posterior's KL to each prior is computed."""
    import fnmatch

    from vaekit.config import read_recipe, recipe_names

    kinds = ["recipes", "pairs", *FAMILIES]
    if kind is not None and kind not in kinds:
        raise VaekitError(f"unknown kind '{kind}': {suggest(kind, kinds)}")
    if kind == "pairs":
        _pairs(pattern)
        return
    for family in [kind] if kind else [k for k in kinds if k != "pairs"]:
        if family == "recipes":
            rows = {name: read_recipe(name).get("about", "") for name in fnmatch.filter(recipe_names(), pattern)}
        else:
            registry = FAMILIES[family]
            rows = {name: registry.info(name).about for name in registry.names(pattern)}
        typer.echo(family)
        width = max((len(name) for name in rows), default=0)
        for name, about in rows.items():
            typer.echo(f"  {name:<{width}}  {about}".rstrip())


_MARKS = {"closed": "closed", "bound": "bound", "sampled": "sampled", "infinite": "inf", "impossible": "-"}
_KINDS = """
The KL of the posterior (row) to the prior (column). closed: in closed form. bound: estimated from draws,
with closed-form bounds. sampled: estimated from draws. inf: infinite, so that only terms without a KL can
be used (evae_penalty, mmd, ...). -: the two do not share a space, or one of them is made for others."""


def _pairs(pattern: str) -> None:
    """Print the table of posteriors (rows) and priors (columns)."""
    columns, rows = priors.names(), posteriors.names(pattern)
    heads = [name.rpartition("_")[::2] for name in columns]
    widths = [max(7, *map(len, head)) for head in heads]
    first = max(map(len, rows), default=0)
    for line in (0, 1):
        typer.echo(
            " ".join([" " * first, *(head[line].ljust(w) for head, w in zip(heads, widths, strict=True))]).rstrip()
        )
    for row in rows:
        marks = [_MARKS[pair(row, column).kind].ljust(w) for column, w in zip(columns, widths, strict=True)]
        typer.echo(" ".join([row.ljust(first), *marks]).rstrip())
    typer.echo(_KINDS)


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
    for label in ("needs", "requires", "supports", "closed_kl", "bounded_kl"):
        if words := getattr(info, label):
            typer.echo(f"{label.replace('_kl', ' KL to')}: {', '.join(words)}")
    if info.support:
        typer.echo(f"lives on: {PLACES[info.support]}")
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
    packages = ("vaekit", "torch", "torchvision", "pyro-ppl", "zuko", "torch-fidelity", "lightning-fabric")
    for package in (*packages, "scikit-learn"):
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            problems += 1
            typer.echo(f"{package} is missing: pip install {package}")
    # zuko by way of the one module that may import it.
    modules = ("torch", "torchvision", "pyro", "vaekit.backbones.flows", "lightning_fabric", "sklearn", "matplotlib")
    for module in (*modules, "safetensors"):
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
