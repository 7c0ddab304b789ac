"""Packages whose names are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy"]


def lazy(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    Arguments:
        package: Its name.
        exports: Public name to the module of the package that it lives in, or to the module itself (the same name).

    Examples:
        >>> getattribute, names = lazy("vaekit.training", {"Fit": "loop"})
        >>> getattribute("Fit").__module__, names()
        ('vaekit.training.loop', ['Fit'])
    """

    def attribute(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module = importlib.import_module(f"{package}.{exports[name]}")
        return module if name == exports[name] else getattr(module, name)

    return attribute, lambda: sorted(exports)
