"""Regularizers: named terms of an objective that see the latent side of the model.

The classes are imported when first asked for: `vaekit.regularizers.<ClassName>` (`dir(vaekit.regularizers)` lists them).
"""

from typing import Any

from vaekit.registry import regularizers


def __getattr__(name: str) -> Any:
    return regularizers.attribute(name)


def __dir__() -> list[str]:
    return regularizers.attributes()
