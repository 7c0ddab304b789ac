"""What trials are judged by: a figure of an evaluation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vaekit.config import RunConfig
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.metrics import METRICS_OF_ONE, METRICS_OF_SEVERAL
from vaekit.reporting.comparison_cells import Column

__all__ = ["Direction", "Target"]

Direction: TypeAlias = Literal["lower", "higher"]

_METRIC = re.compile(r"(?P<metric>\w+)(\[(?P<sampler>[\w-]+)\])?\.(?P<figure>.+)")


@dataclass(frozen=True)
class Target:
    """A figure of an evaluation.

    Arguments:
        metric: The metric.
        sampler: Where generated samples come from.
        figure: The figure's name within the metric.
    """

    metric: str
    sampler: str
    figure: str

    @classmethod
    def read(cls, text: str, config: RunConfig) -> Target:
        """Read `metric.figure` or `metric[sampler].figure`.

        Raises:
            VaekitError: It has no figure, or a run of this configuration has no such metric.

        Examples:
            >>> from vaekit.config import read_recipe, resolve
            >>> Target.read("kid[expost-flow].kernel_distance", resolve(read_recipe("vae")))
            Target(metric='kid', sampler='expost-flow', figure='kernel_distance')
        """
        known = METRICS_OF_ONE if config.modalities is None else METRICS_OF_SEVERAL
        match = _METRIC.fullmatch(text)
        if match is None:
            raise VaekitError(
                f"--metric takes a metric and one of its figures, for instance likelihood.log_likelihood, not '{text}'"
            )
        if match["metric"] not in known:
            raise VaekitError(
                f"there is no metric '{match['metric']}' for this model: {suggest(match['metric'], known)}"
            )
        return cls(match["metric"], match["sampler"] or "prior", match["figure"])

    @property
    def better(self) -> Direction | None:
        """Which side is better, where that is known."""
        return Column(self.metric, self.figure, {}).better
