"""Posteriors q(z|x): modules that turn an encoder's features into a distribution.

`vaekit.posteriors.<ClassName>` imports a class when it is first asked for; `dir(vaekit.posteriors)` lists them.
"""

from typing import Any

from vaekit.registry import posteriors


def __getattr__(name: str) -> Any:
    return posteriors.attribute(name)


def __dir__() -> list[str]:
    return posteriors.attributes()
