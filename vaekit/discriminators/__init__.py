"""Discriminators and adversarial losses.

The classes are imported when first asked for: `vaekit.discriminators.<ClassName>` (`dir(vaekit.discriminators)` lists them).
"""

from typing import Any

from vaekit.registry import discriminators


def __getattr__(name: str) -> Any:
    return discriminators.attribute(name)


def __dir__() -> list[str]:
    return discriminators.attributes()
