"""Packages whose names are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["lazy"]


def lazy(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package, for the names that its stub imports.

    The stub is the `.pyi` file beside `__init__.py`, which type checkers and editors read too. Its imports are
    `from module import Name as Name`, for modules of the package itself `from package import module as module`.

    Arguments:
        package: `__name__` of the package.
        file: `__file__` of the package.

    Examples:
        >>> import vaekit.training
        >>> attribute, names, _ = lazy("vaekit.training", vaekit.training.__file__)
        >>> attribute("Fit").__module__, names()
        ('vaekit.training.loop', ['Fit', 'Listener', 'Trainer'])
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.name: node.module or package
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        if homes[name] == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(homes[name]), name)

    return attribute, lambda: sorted(homes), sorted(homes)
