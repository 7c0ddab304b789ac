"""Pictures, curves, pages and progress bars.

Everything is imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the module it lives in.
_EXPORTS = {
    "Comparison": "comparison",
    "Panel": "curves",
    "Progress": "progress",
    "RunRecord": "record",
    "compare": "comparison",
    "decode_progress": "progress",
    "draw_curves": "curves",
    "latent_map": "plots",
    "panels_of": "curves",
    "portray": "portrait",
    "read_record": "record",
    "save_grid": "images",
    "side_by_side": "images",
    "tile": "images",
    "to_uint8": "images",
    "write_report": "report",
    "write_side_by_side": "several_runs",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"vaekit.reporting.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'vaekit.reporting' has no attribute '{name}'")


def __dir__() -> list[str]:
    return list(__all__)
