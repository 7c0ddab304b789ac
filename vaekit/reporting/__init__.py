"""Pictures, curves, pages and progress bars.

Everything is imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from vaekit.lazy import lazy

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

__getattr__, __dir__ = lazy(__name__, _EXPORTS)
