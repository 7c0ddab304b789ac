"""The pieces of a comparison: a figure over seeds, a column of one protocol, a row of one configuration."""

from __future__ import annotations

import fnmatch
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vaekit.errors import printable
from vaekit.evaluation.records import digest
from vaekit.reporting.comparison_reading import TRAINING

__all__ = ["Cell", "Column", "Row"]

# The figures whose better side is known, as `metric.figure`.
_BETTER: dict[Literal["higher", "lower"], tuple[str, ...]] = {
    "higher": (
        "*.log_likelihood", "conditional.rest.*", "conditional.targets.*", "*.accuracy", "*.accuracy.*",
        "*.average_precision*", "probe.subsets.*", "coherence.conditional.*", "coherence.pairs.*", "coherence.joint",
        "*.isc", "*.class_score", "*.precision", "*.recall", "*.f_score", "*.psnr", "*.ssim", "*.mig", "*.sap",
        "*.dci.*", "*.disentanglement", "*.completeness", "*.informativeness",
    ),
    "lower": (
        f"{TRAINING}.*", "*.negative_elbo", "*.bits_per_dim", "linear.gap", "linear.posterior_kl.*", "*.fid",
        "*.frechet_distance", "*.kid", "*.kernel_distance", "*.absolute_error", "*.squared_error", "*.lpips",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A figure of a row.

    Arguments:
        values: Seed to figure; the mean where several runs have the same seed.
        stale: Whether the weights of one of the runs have changed since.

    Examples:
        >>> cell = Cell({0: 1.0, 1: 2.0, 2: 3.0})
        >>> cell.n, cell.mean, round(cell.half_width, 3), Cell({0: 1.0}).half_width
        (3, 2.0, 2.484, None)
    """

    values: Mapping[int, float]
    stale: bool = False

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN where the figure of one is not finite."""
        return statistics.fmean(self.values.values())

    @cached_property
    def half_width(self) -> float | None:
        r"""Half the width of the 95 % confidence interval, $t_{0.975,\,n-1}\,s/\sqrt n$; `None` for one seed."""
        if self.n < 2 or not math.isfinite(self.mean):
            return None
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 0.975)) * statistics.stdev(self.values.values()) / math.sqrt(self.n)


@dataclass(frozen=True, eq=False)
class Column:
    """A figure under one protocol.

    Arguments:
        metric: The metric, with the sampler in brackets where it has one.
        figure: The figure's name within the metric.
        protocol: What all numbers of the column have in common.
    """

    metric: str
    figure: str
    protocol: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Metric and figure, as `--metrics` takes it."""
        return f"{self.metric}.{self.figure}"

    @cached_property
    def key(self) -> tuple[str, str, str]:
        """Metric, figure and digest of the protocol."""
        return self.metric, self.figure, digest(self.protocol)

    @property
    def bare(self) -> str:
        """The metric without the sampler."""
        return self.metric.partition("[")[0]

    @property
    def sampler(self) -> str:
        """The sampler, or an empty string."""
        return self.metric.partition("[")[2].rstrip("]")

    @property
    def group(self) -> str:
        """The first part of the figure's name."""
        return self.figure.partition(".")[0]

    @property
    def data(self) -> str:
        """The name of the data that it is measured on."""
        found = self.protocol.get("data")
        name = str(found.get("data", "unknown") if isinstance(found, Mapping) else found)
        return printable(Path(name).name or name)

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """Which side is better; `None` where that is not known."""
        name = f"{self.bare}.{self.figure}"
        return next((side for side, known in _BETTER.items() if any(fnmatch.fnmatch(name, p) for p in known)), None)

    def is_called(self, name: str) -> bool:
        """Whether a name means this column: a metric, with a sampler or without, and a part of a figure's name."""
        full = (f"{self.metric}.{self.figure}.", f"{self.bare}.{self.figure}.")
        return any(title.startswith(f"{name}.") for title in full)


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one configuration.

    Arguments:
        name: The recipe, and what differs from the other rows of the same recipe and data.
        data: The name of the training data.
        runs: The run directories.
        seeds: The seed of each.
        cells: Key of a column to figure.
    """

    name: str
    data: str
    runs: tuple[Path, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[str, str, str], Cell]
