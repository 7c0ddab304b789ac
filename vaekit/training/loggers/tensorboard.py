"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vaekit.registry import loggers
from vaekit.training.loggers.base import Logger, require

__all__ = ["TensorBoard"]


@loggers.register(
    "tensorboard",
    about="TensorBoard events in the run directory",
    source="Abadi et al., TensorFlow: Large-Scale Machine Learning on Heterogeneous Systems, 2015, arXiv 1603.04467",
    needs=("the extra vaekit[tensorboard]",),
)
class TensorBoard(Logger):
    """Writes events into the folder `tensorboard` of the run directory: `tensorboard --logdir runs` shows them.

    Source: Abadi et al., TensorFlow: Large-Scale Machine Learning on Heterogeneous Systems, 2015, arXiv 1603.04467.

    Raises:
        VaekitError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        require("tensorboard", "tensorboard")

    def start(self, out: Path, identity: str | None, config: Mapping[str, Any], notes: Sequence[str]) -> str:
        """Open another file of events in the same folder."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"))
        if identity is None:
            lines = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).splitlines()
            self._writer.add_text("configuration", "\n".join(f"    {line}" for line in lines))
            self._writer.add_text("notes", "\n\n".join(notes))
        return "tensorboard"

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars, and see to it that they are on the disk."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, name: str, file: Path, step: int) -> None:
        """Write the pixels."""
        import numpy as np
        from PIL import Image

        with Image.open(file, formats=("PNG",)) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def finish(self, complete: bool) -> None:
        """Close the file."""
        self._writer.close()
