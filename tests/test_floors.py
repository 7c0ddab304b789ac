"""An import only ever points down, and nothing below the command line prints or reads sys.argv."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vaekit

ROOT = Path(vaekit.__file__).parent
FLOORS = {
    0: (
        "distributions",
        "documents",
        "registry",
        "schedules",
        "errors",
        "files",
        "lazy",
        "latents",
        "precision",
        "distributed",
        "compatibility",
        "observed",
        "sources",
    ),
    1: ("posteriors", "priors", "likelihoods", "backbones", "regularizers", "discriminators", "fusions"),
    2: ("models", "objectives"),
    3: ("training", "evaluation", "reporting", "data"),
    4: (
        "config",
        "build",
        "exploring",
        "exporting",
        "hub",
        "multimodal_run",
        "places",
        "reproducing",
        "run",
        "run_base",
        "run_evaluation",
        "run_report",
        "rundir",
        "series",
        "sweeping",
    ),
    5: ("cli", "testing"),
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported(tree: ast.AST) -> set[str]:
    """Return the subpackages of vaekit that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vaekit":
            rest = node.module.split(".")[1:]
            found.update(rest[:1] or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vaekit."))
    return found - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file(path: Path) -> None:
    tree = ast.parse(path.read_text())
    own = FLOOR[path.relative_to(ROOT).parts[0].removesuffix(".py")]
    above = {name for name in imported(tree) if FLOOR[name] > own}
    assert not above, f"imports from a higher floor: {above}"
    if own < 5:
        names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert "print" not in names
        assert "sys.argv" not in path.read_text()
    if own == 0:
        assert "nn.Module" not in path.read_text(), "floor 0 knows no network"
