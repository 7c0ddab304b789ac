"""What the tests of sweeps share: tiny settings, and reports that are left undrawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vaekit.reporting.report
import vaekit.sweeping.trial
from vaekit.files import save_text

TINY: dict[str, Any] = {
    "backbone": {"hidden": [8]},
    "data": {"limit": 60, "batch_size": 20},
    "trainer": {"epochs": 2, "sample_every": 0, "log_every": 2, "accelerator": "cpu"},
}
#: The same for the command line.
ARGUMENTS = [
    "--set=backbone.hidden=[8]", "--set=data.limit=60", "--set=data.batch_size=20", "--set=trainer.sample_every=0",
    "--set=trainer.log_every=2", "--set=trainer.accelerator=cpu", "--epochs=2",
]  # fmt: skip
OVER = {"latent_dim": "2..9", "trainer.optimizer.lr": "1e-4..1e-2:log"}


def draw_no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the reports of single runs undrawn: they have tests of their own, and a tiny run takes less time."""

    def page(out: Path) -> None:
        save_text(out / "report.html", "")

    monkeypatch.setattr(vaekit.reporting.report, "write_report", page)
    monkeypatch.setattr(vaekit.sweeping.trial, "write_report", page)
