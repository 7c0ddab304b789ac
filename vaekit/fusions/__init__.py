"""Fusions: from what each modality says to one posterior, for every subset of the modalities.

`vaekit.fusions.<ClassName>` imports a class when it is first asked for; `dir(vaekit.fusions)` lists them.
"""

from typing import Any

from vaekit.registry import fusions, private_fusions


def __getattr__(name: str) -> Any:
    registry = private_fusions if name in private_fusions.attributes() else fusions
    return registry.attribute(name)


def __dir__() -> list[str]:
    return [*fusions.attributes(), *private_fusions.attributes()]
