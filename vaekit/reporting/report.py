"""The page of a run: pictures, curves and figures with what a reader must know to judge them."""

from __future__ import annotations

from pathlib import Path

from vaekit.files import save_text
from vaekit.reporting.page import page
from vaekit.reporting.record import read_record
from vaekit.reporting.sections.curves import curves, figures
from vaekit.reporting.sections.evaluation import evaluation
from vaekit.reporting.sections.headline import headline, title_of_run
from vaekit.reporting.sections.latent import latent
from vaekit.reporting.sections.origin import notes, remake
from vaekit.reporting.sections.pictures import pictures

__all__ = ["write_report"]

_SECTIONS = (headline, pictures, curves, figures, evaluation, latent, notes, remake)


def write_report(out: str | Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    The page is made from the directory alone and holds everything it shows: it loads nothing, from the network or
    from elsewhere. What is missing or damaged is said on the page.

    Arguments:
        out: The run directory.

    Raises:
        VaekitError: It is no run directory, or the page cannot be written.
    """
    record = read_record(out)
    path = record.out / "report.html"
    save_text(path, page(title_of_run(record), [part for section in _SECTIONS for part in section(record)]))
    return path
