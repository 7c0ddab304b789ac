"""README, documentation and docstrings: code runs, commands and options exist, nothing public is left out.

Conventions: the ```python blocks of a page run from top to bottom in one namespace, in an empty folder. One that begins
with a docstring that names a file becomes that file, for the blocks after it. A block that cannot run (hours, a GPU)
stands under a line `<!-- not run: why -->`. ```bash blocks are commands; ```yaml blocks are recipes or parts of one.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer.main
import yaml

import vaekit
from vaekit.build import _refuse_misfits
from vaekit.cli.main import app
from vaekit.config import read_recipe, recipe_names, resolve
from vaekit.objectives import Adversary
from vaekit.registry import FAMILIES, adversarial_losses, check_options, check_spec, discriminators, objectives
from vaekit.training import Trainer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = ["vaekit", *(info.name for info in pkgutil.walk_packages(vaekit.__path__, "vaekit."))]
BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^\n]+ -->\n)?^(?P<fence>```+)(?P<language>[^\n]*)\n(?P<body>.*?)^(?P=fence)$", re.M | re.S
)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Yield line number and body of the blocks of a page that are not marked as not run."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if found["language"] == language and not found["skip"]:
            yield text[: found.start("body")].count("\n") + 1, found["body"]


def with_blocks(language: str) -> list[Any]:
    return [pytest.param(page, id=page_id(page)) for page in PAGES if any(blocks(page, language))]


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


# ---- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_says_its_language(page: Path) -> None:
    languages = {found["language"] for found in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    assert languages <= {"python", "bash", "yaml", "toml", "text"}, f"{page}: unknown block languages"


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    registered = {family: dict(registry._local) for family, registry in FAMILIES.items()}
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for line, body in blocks(page, "python"):
            if file := re.match(r'"""(\w+\.py)\b', body):
                (tmp_path / file[1]).write_text(body, encoding="utf-8")
                continue
            # Line numbers in a traceback are those of the page.
            exec(compile("\n" * (line - 1) + body, str(page), "exec"), namespace)
    finally:
        for file in tmp_path.glob("*.py"):
            sys.modules.pop(file.stem, None)
        for family, registry in FAMILIES.items():
            # Our own stay: their modules were imported for good, and would not register them again.
            for name in registry._local.keys() - registered[family].keys() - registry._builtin.keys():
                del registry._local[name], registry._classes[name]
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    results = doctest.testmod(module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples of {name} failed; see the output"


# ---- commands --------------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[tuple[int, str]]:
    for line, body in blocks(page, "bash"):
        for offset, text in enumerate(body.splitlines()):
            for part in text.split(" && "):
                if part.startswith("vaekit"):
                    yield line + offset, part


def parse(command: str) -> dict[str, Any]:
    """Parse a command as the command line would, without running it."""
    arguments = shlex.split(command, comments=True)[1:]
    current: Any = typer.main.get_command(app)
    context = current.make_context("vaekit", list(arguments))
    while hasattr(current, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, current, rest = current.resolve_command(context, rest)
        context = current.make_context(name, rest, parent=context)
    return context.params | {"command": context.info_name}


def check_config(config: Any) -> None:
    """Check names and options of a resolved configuration without building a network."""
    for key, family in (
        ("posterior", "posteriors"),
        ("prior", "priors"),
        ("likelihood", "likelihoods"),
        ("backbone", "backbones"),
    ):
        check_spec(FAMILIES[family], getattr(config, key), key)
    check_spec(objectives, config.objective, "objective")
    for name, options in config.regularizers.items():
        FAMILIES["regularizers"].check(name, options)
    check_options(Trainer, config.trainer, "trainer")
    check_adversary(config.adversary)
    _refuse_misfits(config)


def check_adversary(section: dict[str, Any] | None) -> None:
    options = dict(section or {})
    check_spec(discriminators, options.pop("discriminator", "patchgan"), "adversary.discriminator")
    check_spec(adversarial_losses, options.pop("loss", "bce"), "adversary.loss")
    check_options(Adversary, options, "adversary")


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_commands_parse(page: Path) -> None:
    for line, command in commands(page):
        try:
            params = parse(command)
            if params["command"] == "run" and params["recipe"] in recipe_names():
                config = resolve(read_recipe(params["recipe"]), data=params["data"], assignments=params["set_"] or [])
                check_config(config)
            elif params["command"] == "show":
                family, _, name = params["what"].partition("/")
                assert FAMILIES[family].get(name) if name and family in FAMILIES else params["what"] in recipe_names()
        except Exception as error:
            pytest.fail(f"{page_id(page)}:{line}: {command}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_yaml_blocks_are_recipes_or_parts_of_one(page: Path) -> None:
    base = read_recipe("gamix")
    for line, body in blocks(page, "yaml"):
        content = yaml.safe_load(body)
        try:
            whole = "latent_dim" in content
            check_config(resolve(content) if whole else resolve(base, content))
        except Exception as error:
            pytest.fail(f"{page_id(page)}:{line}: {type(error).__name__}: {error}")


def cli_commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {key}": value for key, value in inner.items()} if inner else {name: command}
    return found


def test_cli_page_has_every_command() -> None:
    titles = re.findall(r"^## `vaekit (.+)`$", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.M)
    assert sorted(titles) == sorted(cli_commands())


@pytest.mark.parametrize("name", cli_commands())
def test_cli_page_has_every_option(name: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = text.split(f"## `vaekit {name}`\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*?) ?\| .+ \|$", section, re.M))
    parameters = cli_commands()[name].params
    expected = {p.opts[0] if p.param_type_name == "option" else p.name.upper() for p in parameters} - {"--help"}
    assert rows.keys() == expected
    for p in parameters:
        row = rows.get(p.opts[0] if p.param_type_name == "option" else p.name.upper(), "")
        default = getattr(p.default, "value", p.default)
        assert ("required" in row) == p.required, f"{name}: {p.name} is documented as '{row}'"
        if default is not None and not isinstance(default, bool) and default != [] and default is not p.required:
            assert row.strip("`") == str(default), f"{name}: {p.name} is {default} by default, documented as '{row}'"


# ---- nothing left out ------------------------------------------------------------------------------------------------


def test_reference_covers_every_public_name() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    covered = re.findall(r"^::: (\S+)$", text, re.M)
    assert len(covered) == len(set(covered)), "a module is on two pages"
    assert set(covered) <= set(MODULES), "a page names a module that is not there"
    for name in MODULES:
        for public in getattr(module(name), "__all__", []):
            value = getattr(module(name), public)
            if inspect.ismodule(value):
                continue
            # A package's name is covered where it is defined.
            home = next((m for m in covered if getattr(module(m), "__dict__", {}).get(public) is value), None)
            assert name in covered or home, f"{name}.{public} is in no page of docs/reference"
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                # Constants and types have no docstring to be shown: a sentence on the page names them.
                assert re.search(rf"`(vaekit\.[\w.]+\.)?{public}`", text), f"{name}.{public} is named on no page"


def test_reference_pages_leave_nothing_of_a_module_out() -> None:
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        assert "members:" not in page.read_text(encoding="utf-8"), f"{page} selects members by hand"


def documented() -> Iterator[tuple[str, Any]]:
    """Yield every public class and function, and every public method, with its full name."""
    for name in MODULES:
        for public in getattr(module(name), "__all__", []):
            value = getattr(module(name), public)
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == name:
                yield f"{name}.{public}", value
                for key, member in vars(value).items() if inspect.isclass(value) else ():
                    member = getattr(member, "__func__", member)
                    if inspect.isfunction(member) and not key.startswith("_"):
                        yield f"{name}.{public}.{key}", member


def test_docstrings_name_parameters_that_exist() -> None:
    wrong = []
    for name, value in documented():
        doc = inspect.getdoc(value) or ""
        section = re.search(r"^Arguments:\n((?: .*\n?|\n)*)", doc, re.M)
        if section:
            named = set(re.findall(r"^ {4}(\w+):", section[1], re.M))
            parameters = set(inspect.signature(value).parameters)
            wrong += [f"{name}: {word}" for word in sorted(named - parameters)]
    assert not wrong


def test_docstring_sections_have_the_names_that_the_reference_understands() -> None:
    wrong = [
        name
        for name, value in documented()
        if re.search(r"^(Example|Args|Reference|Raise):$", inspect.getdoc(value) or "", re.M)
    ]
    assert not wrong, (
        "write Arguments, Raises, References and Examples: the reference shows other titles as plain quotes"
    )


def test_pages_are_in_the_navigation() -> None:
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def files(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values() if isinstance(entry, dict) else entry:
                yield from files(value)

    listed = set(files(yaml.safe_load(text)["nav"]))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES if "docs" in page.parts}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page_id(page)} links to {target}"


def test_documentation_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings", reason="the docs extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    html = (tmp_path / "reference" / "posteriors" / "index.html").read_text(encoding="utf-8")
    assert 'id="vaekit.posteriors.mixture.GaussianMixture"' in html


# ---- README ----------------------------------------------------------------------------------------------------------


def test_set_up_lines_are_those_of_ci() -> None:
    lines = [
        line
        for _, body in blocks(ROOT / "README.md", "bash")
        for line in body.splitlines()
        if line.startswith("pip install -e")
    ]
    assert lines == ["pip install -e . && vaekit run gamix", 'pip install -e ".[test]" && pytest -n 2 --dist loadfile']
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line.strip() for line in run if "pip install -e" in line and not line.lstrip().startswith("#")] == lines


def test_readme_lists_every_recipe_and_part() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    recipes = text.split("## Recipes")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", recipes, re.M)) == recipe_names()
    parts = text.split("## Parts")[1].split("\n## ")[0]
    rows = {
        kind: re.findall(r"`([\w-]+)`", names) for kind, names in re.findall(r"^\| (\w+) \| (`.+) \|$", parts, re.M)
    }
    assert {kind: sorted(names) for kind, names in rows.items()} == {
        family: sorted(name for name in registry.names() if registry.info(name).provider == "vaekit")
        for family, registry in FAMILIES.items()
    }


def test_cli_page_lists_every_kind() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| `KIND`"))
    assert set(re.findall(r"`(\w+)`", row)) == {"KIND", "recipes", *FAMILIES}


def test_training_page_has_every_option() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = text.split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", table, re.M)
    names = [name for cell, _ in cells for name in re.findall(r"`(\w+)`", cell)]
    signature = inspect.signature(Trainer).parameters
    assert sorted(names) == sorted(signature)
    for cell, defaults in cells:
        for name, default in zip(re.findall(r"`(\w+)`", cell), defaults.split(", "), strict=False):
            value = signature[name].default
            written = default.strip("` ")
            words = {"None": "none", "True": "true", "False": "false"}
            assert written == words.get(str(value), str(value)) or written.startswith("as `"), name


def test_floor_table_of_the_gamix_page() -> None:
    from vaekit.regularizers.population import population_kl_floor

    text = (ROOT / "docs" / "methods" / "gamix.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (0\.\d{4}) \|((?: [\d.]+ \|){4})$", text, re.M)
    assert len(rows) == 7
    for batch, one, rest in rows:
        assert one == f"{population_kl_floor(int(batch), 1):.4f}"
        assert rest.split(" | ")[0].strip() == f"{population_kl_floor(int(batch), 16):.1f}"
        for cell, dimensions in zip(rest.strip(" |").split(" | "), (16, 128, 256, 512), strict=True):
            assert cell == f"{population_kl_floor(int(batch), dimensions):.1f}"
