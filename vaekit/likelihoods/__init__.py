"""Likelihoods p(x|z): modules that turn a decoder's output into a distribution over the data.

The classes are imported when first asked for: `vaekit.likelihoods.<ClassName>` (`dir(vaekit.likelihoods)` lists them).
"""

from typing import Any

from vaekit.registry import likelihoods


def __getattr__(name: str) -> Any:
    return likelihoods.attribute(name)


def __dir__() -> list[str]:
    return likelihoods.attributes()
