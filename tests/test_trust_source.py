"""No source of vaekit does what could run what it reads."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import vaekit as vk

ROOT = Path(vk.__file__).parent

# ---- the source ------------------------------------------------------------------------------------------------------

SOURCES = sorted(ROOT.rglob("*.py"))
BANNED = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
    "yaml.full_load", "yaml.safe_load", "pickle.load", "pickle.loads", "marshal.loads", "shelve.open", "torch.hub.load",
    "tempfile.mktemp", "np.fromregex",
}  # fmt: skip
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess"}
# Modules that may read what the others may not, and why.
READERS = {
    "yaml.SafeLoader": {"documents.py"},  # with limits
    "torch.jit.load": {"evaluation/extractors.py"},  # a network that the user names
}
LOCAL = {("exploring/server.py", "http://")}  # the page's own address


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def option(node: ast.Call, name: str) -> Any:
    found = next((keyword.value for keyword in node.keywords if keyword.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else found


def faults(tree: ast.AST, file: str) -> list[str]:
    """Return what a source must not do."""
    found = []
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"imports {name}" for name in names if name.split(".")[0] in BANNED_MODULES]
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in READERS and file not in READERS[name]:
            found.append(name)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            plain = node.value.startswith(("http://", "ftp://"))
            if plain and (file, node.value) not in LOCAL:
                found.append(f"names {node.value}")
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        if name in BANNED:
            found.append(f"calls {name}")
        if name == "torch.load" and option(node, "weights_only") is not True:
            found.append("calls torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and option(node, "allow_pickle") is not False:
            found.append("calls np.load without allow_pickle=False")
        if option(node, "allow_pickle") is True or option(node, "shell") is True:
            found.append(f"{name} unpickles or asks a shell")
        if option(node, "trust_remote_code") not in (None, False):
            found.append(f"{name} runs code from elsewhere")
        if name.endswith((".extractall", ".extract")) and option(node, "filter") != "data":
            found.append(f"calls {name} without filter='data'")
        if name == "Image.open" and option(node, "formats") is None:
            found.append("calls Image.open without formats")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_read_data_as_data(path: Path) -> None:
    file = path.relative_to(ROOT).as_posix()
    assert not faults(ast.parse(path.read_text(encoding="utf-8")), file)


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "eval('1')", "torch.load(f)", "torch.load(f, weights_only=False)",
     "np.load(f)", "np.load(f, allow_pickle=True)", "yaml.safe_load(f)", "yaml.load(f, yaml.SafeLoader)",
     "run(a, shell=True)", "tar.extractall(p)", "tar.extractall(p, filter='fully_trusted')", "x = 'http://example.org'",
     "f'http://{host}'", "torch.jit.load(f)", "Image.open(f)", "import subprocess",
     "load_dataset(a, trust_remote_code=x)"],
)  # fmt: skip
def test_the_watch_sees(source: str) -> None:
    assert faults(ast.parse(source), "somewhere.py")
