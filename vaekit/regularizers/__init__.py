"""Regularizers: named terms of an objective that see the latent side of the model.

`vaekit.regularizers.<ClassName>` imports a class when it is first asked for; `dir(vaekit.regularizers)` lists them.
"""

from typing import Any

from vaekit.registry import regularizers


def __getattr__(name: str) -> Any:
    return regularizers.attribute(name)


def __dir__() -> list[str]:
    return regularizers.attributes()
