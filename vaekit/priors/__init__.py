"""Priors p(z): modules, with or without parameters, that return a distribution.

`vaekit.priors.<ClassName>` imports a class when it is first asked for; `dir(vaekit.priors)` lists them.
"""

from typing import Any

from vaekit.registry import priors


def __getattr__(name: str) -> Any:
    return priors.attribute(name)


def __dir__() -> list[str]:
    return priors.attributes()
