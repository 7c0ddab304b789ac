"""Priors p(z): modules, with or without parameters, that return a distribution.

The classes are imported when first asked for: `vaekit.priors.<ClassName>` (`dir(vaekit.priors)` lists them).
"""

from typing import Any

from vaekit.registry import priors


def __getattr__(name: str) -> Any:
    return priors.attribute(name)


def __dir__() -> list[str]:
    return priors.attributes()
