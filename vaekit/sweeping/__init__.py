"""Sweeps: options are searched, every trial is a run.

`space` reads what is searched, `target` what is judged by, `definition` keeps both, `checks` refuses what could not be
judged, `store` keeps the study, `trial` trains one trial, and `search` puts them together.
"""

from __future__ import annotations

from vaekit.sweeping.result import Sweep, Trial
from vaekit.sweeping.search import Watcher, sweep

__all__ = ["Sweep", "Trial", "Watcher", "sweep"]
