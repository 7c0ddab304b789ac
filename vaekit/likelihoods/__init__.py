"""Likelihoods p(x|z): modules that turn a decoder's output into a distribution over the data.

`vaekit.likelihoods.<ClassName>` imports a class when it is first asked for; `dir(vaekit.likelihoods)` lists them.
"""

from typing import Any

from vaekit.registry import likelihoods


def __getattr__(name: str) -> Any:
    return likelihoods.attribute(name)


def __dir__() -> list[str]:
    return likelihoods.attributes()
