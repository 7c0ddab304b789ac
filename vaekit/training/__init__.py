"""Training: the one trainer, its state on disk, and what listens to it.

Everything is imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from vaekit.lazy import lazy

# Public name -> the module it lives in.
_EXPORTS = {"Fit": "loop", "Listener": "listeners", "Trainer": "trainer"}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy(__name__, _EXPORTS)
