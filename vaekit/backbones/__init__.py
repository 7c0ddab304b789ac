"""Backbones: builders of encoder and decoder networks for any data shape.

`vaekit.backbones.<ClassName>` imports a class when it is first asked for; `dir(vaekit.backbones)` lists them.
"""

from typing import Any

from vaekit.registry import backbones


def __getattr__(name: str) -> Any:
    return backbones.attribute(name)


def __dir__() -> list[str]:
    return backbones.attributes()
