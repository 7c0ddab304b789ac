"""Discriminators and adversarial losses.

`vaekit.discriminators.<ClassName>` imports a class when it is first asked for; `dir(vaekit.discriminators)` lists them.
"""

from typing import Any

from vaekit.registry import adversarial_losses, discriminators


def __getattr__(name: str) -> Any:
    registry = adversarial_losses if name in adversarial_losses.attributes() else discriminators
    return registry.attribute(name)


def __dir__() -> list[str]:
    return [*discriminators.attributes(), *adversarial_losses.attributes()]
