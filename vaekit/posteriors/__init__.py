"""Posteriors q(z|x): modules that turn an encoder's features into a distribution.

The classes are imported when first asked for: `vaekit.posteriors.<ClassName>` (`dir(vaekit.posteriors)` lists them).
"""

from typing import Any

from vaekit.registry import posteriors


def __getattr__(name: str) -> Any:
    return posteriors.attribute(name)


def __dir__() -> list[str]:
    return posteriors.attributes()
