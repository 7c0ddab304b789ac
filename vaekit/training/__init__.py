"""Training: the one trainer, its state on disk, and what listens to it."""

from typing import Any

__all__ = ["Fit", "Listener", "Trainer"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vaekit.training import listeners, loop, trainer

        return next(getattr(place, name) for place in (trainer, loop, listeners) if hasattr(place, name))
    raise AttributeError(f"module 'vaekit.training' has no attribute '{name}'")
