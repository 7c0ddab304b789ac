"""The registry: names, metadata, lazy listing, typed options and parts of other packages."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from vaekit.errors import VaekitError, suggest
from vaekit.registry import FAMILIES, Registry, check_options, options_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def registry() -> Registry:
    """A registry of posteriors of its own: what a test registers stays here."""
    return Registry("posteriors", "posterior", "vaekit.posteriors")


def part(
    size: int,
    *,
    count: int,
    rate: float = 0.5,
    mode: Literal["soft", "hard"] = "soft",
    limits: tuple[float, float] | None = None,
    copy: bool = False,
) -> dict[str, Any]:
    """A part with options of several types, one of them named like a method of pydantic's."""
    return {"size": size, "count": count, "rate": rate, "mode": mode, "limits": limits, "copy": copy}


# ---- names and metadata ----------------------------------------------------------------------------------------------


def test_the_decorator_returns_the_part_and_keeps_its_metadata(registry: Registry) -> None:
    decorated = registry.register("mine", about="one line", source="me", only_with={"priors": ("standard_normal",)})(
        part
    )
    assert decorated is part
    assert registry.get("mine") is part
    info = registry.info("mine")
    assert (info.about, info.source, info.provider) == ("one line", "me", __name__.split(".")[0])
    assert info.only_with == {"priors": ("standard_normal",)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.about = "another"  # type: ignore[misc]


def test_a_second_part_of_one_name_is_refused_naming_both_places(registry: Registry) -> None:
    registry.register("mine")(part)
    registry.register("mine")(part)  # the same one again, as when a notebook's cell is run twice
    with pytest.raises(VaekitError, match=rf"'mine' is registered twice, by {__name__}:part and by {__name__}:test_"):

        @registry.register("mine")
        def other() -> None:
            """Another part."""


def test_the_name_of_one_of_ours_is_refused(registry: Registry) -> None:
    with pytest.raises(VaekitError, match=r"'gmm' is registered twice, by vaekit\.posteriors\.mixture:GaussianMixture"):
        registry.register("gmm")(part)


def test_unknown_metadata_is_refused(registry: Registry) -> None:
    with pytest.raises(TypeError, match="colour"):
        registry.register("mine", colour="red")


def test_an_unknown_name_suggests_the_nearest_and_lists_all(registry: Registry) -> None:
    with pytest.raises(
        VaekitError, match=r"unknown posterior 'gausian': did you mean 'gaussian'\? Valid: .*gaussian, gmm"
    ):
        registry.get("gausian")
    with pytest.raises(VaekitError, match=r"unknown posterior 'zzz': valid: categorical, delta"):
        registry.info("zzz")
    assert suggest("x", []) == "there are none to choose from."


@pytest.mark.parametrize(("pattern", "names"), [("ga*", ["gaussian"]), ("gm*", ["gmm"]), ("g??", ["gmm"]), ("q*", [])])
def test_wildcards(registry: Registry, pattern: str, names: list[str]) -> None:
    assert registry.names(pattern) == names
    assert "gmm" in repr(registry)


@pytest.mark.parametrize("family", FAMILIES)
def test_metadata_read_from_the_source_is_that_of_the_decorator(family: str) -> None:
    registry = FAMILIES[family]
    assert registry.names()
    for name in registry.names():
        read = registry._builtin.get(name)
        if read is None:
            continue
        registry.get(name)
        assert registry._local[name] == read, name


STUBS = [".".join(file.parent.relative_to(ROOT).parts) for file in sorted((ROOT / "vaekit").rglob("__init__.pyi"))]


# Parts of the others are used by name alone.
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"optimizers", "schedules", "datasets"}))
def test_parts_are_attributes_of_their_package(family: str) -> None:
    registry = FAMILIES[family]
    package = importlib.import_module(registry.home)
    for name in registry._builtin:
        part = registry.get(name)
        assert getattr(package, part.__name__) is part, f"{registry.home} has no {part.__name__}: add it to the stub"
        assert part.__name__ in dir(package)


@pytest.mark.parametrize("package", STUBS)
def test_a_package_has_what_its_stub_says(package: str) -> None:
    found = importlib.import_module(package)
    assert found.__all__ == dir(found)
    # A module that is imported becomes an attribute of its package, in the place of what has the same name.
    modules = {name for name in found.__all__ if importlib.util.find_spec(f"{package}.{name}")}
    assert all(inspect.ismodule(getattr(found, name)) for name in modules)
    assert all(getattr(found, name) is not None for name in found.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Gausian'"):
        _ = found.Gausian


# ---- options ---------------------------------------------------------------------------------------------------------


def test_options_are_the_keywords_with_their_types() -> None:
    options = options_of(part)
    assert list(options) == ["count", "rate", "mode", "limits", "copy"]
    assert options["rate"].annotation is float
    assert options["rate"].default == 0.5


def test_values_are_converted_and_only_the_given_are_returned() -> None:
    given = {"count": 3, "rate": 1, "limits": [0, 1], "copy": True}
    checked = check_options(part, given, "part")
    assert checked == {"count": 3, "rate": 1.0, "limits": (0.0, 1.0), "copy": True}
    assert isinstance(checked["rate"], float)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 1, "rates": 2}, r"unknown option 'part\.rates' of it: did you mean 'rate'\? Valid: copy, count,"),
        ({}, r"part needs the option 'count' of it"),
        ({"count": "many"}, r"part\.count = 'many' is not valid of it: input should be a valid integer"),
        ({"count": 1.5}, r"part\.count = 1\.5 is not valid"),
        ({"count": 1, "mode": "firm"}, r"part\.mode = 'firm' is not valid of it: input should be 'soft' or 'hard'"),
        ({"count": 1, "limits": [1]}, r"part\.limits = \[1\] is not valid"),
        ({"count": 1, "rate": None}, r"part\.rate = None is not valid"),
    ],
)
def test_wrong_options_give_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VaekitError, match=sentence) as caught:
        check_options(part, options, "part", " of it")
    assert "\n" not in str(caught.value)


def test_build_takes_a_name_or_a_mapping(registry: Registry) -> None:
    registry.register("mine")(part)
    assert registry.build({"name": "mine", "count": 2}, 7)["count"] == 2
    with pytest.raises(VaekitError, match="posterior needs the option 'count' of posterior 'mine'"):
        registry.build("mine", 7)
    for spec in (3, {}, {"name": 4}, None):
        with pytest.raises(VaekitError, match="must be a posterior's name or a mapping with 'name'"):
            registry.build(spec, 7)  # type: ignore[arg-type]


# ---- lazy listing ----------------------------------------------------------------------------------------------------


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the interpreter, with a folder of installed packages before the others."""
    places = [str(place) for place in (path, ROOT) if place is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=path or ROOT, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize(
    "code",
    [
        "import vaekit",
        "from vaekit.registry import FAMILIES; [r.info(name) for r in FAMILIES.values() for name in r.names()]",
        "from vaekit.cli.main import app; app(['list'], standalone_mode=False)",
    ],
)
def test_listing_imports_nothing_heavy(code: str) -> None:
    heavy = "{'torch', 'pyro', 'numpy', 'sklearn', 'matplotlib', 'lightning_fabric'}"
    done = python("-c", f"import sys\n{code}\nfound = {heavy} & set(sys.modules)\nsys.exit(str(found) if found else 0)")
    assert done.returncode == 0, done.stderr


# ---- parts of other packages -----------------------------------------------------------------------------------------

PLUGIN = '''
import pyro.distributions as dist
import torch
from torch import nn

from vaekit.posteriors.base import Posterior
from vaekit.registry import posteriors


@posteriors.register("unit", about="Unit variance", source="nobody", only_with={"priors": ("standard_normal",)})
class Unit(Posterior):
    """A Gaussian of one variance.

    Arguments:
        scale: Its scale.
    """

    def __init__(self, features, latent_dim, *, scale: float = 1.0):
        super().__init__(features, latent_dim)
        self.loc, self.scale = nn.Linear(features, latent_dim), scale

    def forward(self, features, prior):
        return dist.Normal(self.loc(features), self.scale).to_event(1)
'''


def install(site: Path, package: str, module: str, points: str) -> None:
    """Leave in `site` what an installed distribution leaves: a module and its metadata."""
    folder = site / f"{package}-0.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (folder / "entry_points.txt").write_text(points)
    (site / f"{package}.py").write_text(module)


def vaekit(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line beside what is installed in `site`."""
    return python("-m", "vaekit.cli.main", *arguments, path=site)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages with a posterior in it."""
    install(tmp_path / "site", "unitvae", PLUGIN, "[vaekit.posteriors]\nunit = unitvae:Unit\n")
    return tmp_path / "site"


def test_a_plugin_is_listed_and_shown(site: Path) -> None:
    listed = vaekit(site, "list", "posteriors")
    assert re.search(r"^  unit +from unitvae$", listed.stdout, re.M)
    shown = vaekit(site, "show", "posteriors/unit")
    assert shown.returncode == 0, shown.stderr
    for words in ("(unitvae:Unit, from unitvae)", "source: nobody", "scale: float = 1.0", "only with priors"):
        assert words in shown.stdout


@pytest.mark.slow
def test_a_plugin_trains(site: Path, tmp_path: Path) -> None:
    from vaekit.config import read_recipe

    out = tmp_path / "run"
    settings = ["posterior.name=unit", "posterior.scale=0.5", "trainer.max_steps=3", "backbone.hidden=[8]"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = vaekit(site, "run", "vae", *sets, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").is_file()
    assert read_recipe(out)["posterior"] == {"name": "unit", "scale": 0.5}


def test_what_a_plugin_works_with_is_respected(site: Path, tmp_path: Path) -> None:
    sets = ["--set", "posterior.name=unit", "--set", "prior.name=gaussian_mixture"]
    done = vaekit(site, "run", "vae", *sets, "--out", str(tmp_path / "run"))
    assert_one_sentence(
        done,
        "'unit' and the prior 'gaussian_mixture' do not go together: 'unit' works with standard_normal only",
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command ended with exit code 2 and one line on standard error."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("vaekit: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_plugin_with_the_name_of_one_of_ours_is_refused(tmp_path: Path) -> None:
    install(tmp_path, "greedy", "", "[vaekit.posteriors]\ngmm = greedy:Mixture\n")
    done = vaekit(tmp_path, "list", "posteriors")
    assert_one_sentence(
        done, "'gmm' is registered twice", "vaekit.posteriors.mixture:GaussianMixture", "greedy:Mixture"
    )


def test_two_plugins_of_one_name_are_refused(site: Path) -> None:
    install(site, "othervae", "", "[vaekit.posteriors]\nunit = othervae:Unit\n")
    done = vaekit(site, "list", "posteriors")
    assert_one_sentence(done, "'unit' is registered twice", "unitvae", "othervae")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("", "has no attribute 'Part'"),
        ("import a_package_that_is_not_here\n", "No module named 'a_package_that_is_not_here'"),
        ("class Part(:\n", "SyntaxError"),
        ("raise RuntimeError('no licence')\n", "no licence"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_sentence(tmp_path: Path, module: str, words: str) -> None:
    install(tmp_path, "broken", module, "[vaekit.priors]\nbroken = broken:Part\n")
    assert_one_sentence(vaekit(tmp_path, "show", "priors/broken"), "prior 'broken' of broken cannot be imported", words)


@pytest.mark.slow
def test_the_example_of_the_documentation_passes_its_contract(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.S)
    for name, block in zip(("vaelogistic.py", "test_vaelogistic.py", "use.py"), blocks, strict=True):
        (tmp_path / name).write_text(block)
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-Werror", path=tmp_path)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 30
    used = python("use.py", path=tmp_path)
    assert used.returncode == 0, used.stderr
