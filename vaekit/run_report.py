"""Writing the report of a run again, with what only the model can tell."""

from __future__ import annotations

from pathlib import Path

from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError
from vaekit.reporting.portrait import is_current
from vaekit.reporting.report import write_report
from vaekit.run import Run

__all__ = ["report_run"]


def report_run(out: str | Path, *, offline: bool = False, progress: Progress | None = None) -> tuple[Path, str]:
    """Write the report of a run directory again, and first its portrait where that is missing or of other weights.

    Arguments:
        out: The run directory.
        offline: Forbid downloads.
        progress: Called as `progress(done, total, what)` while data is decoded for the first time.

    Returns:
        The page, and a sentence on what is missing from it: the run's data may not be here any more.

    Raises:
        VaekitError: It is no run directory, or the page cannot be written.
    """
    missing = ""
    if (Path(out) / "model.safetensors").is_file() and not is_current(out):
        try:
            Run.load(out, offline=offline, progress=progress).portray()
        except VaekitError as error:
            missing = f"what shows the latent space could not be made again: {error}"
    return write_report(out), missing
