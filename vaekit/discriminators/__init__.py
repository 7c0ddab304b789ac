"""Discriminators and adversarial losses.

`vaekit.discriminators.<ClassName>` imports a class when it is first asked for; `dir(vaekit.discriminators)` lists them.
"""

from typing import Any

from vaekit.registry import discriminators


def __getattr__(name: str) -> Any:
    return discriminators.attribute(name)


def __dir__() -> list[str]:
    return discriminators.attributes()
