"""The pieces of a table's definition: its source, its columns, its rows, and what was measured of them."""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vaekit.sources import BY_FEATURES

__all__ = ["Evaluation", "Figure", "MadeRow", "Measured", "Row", "Schedule", "Source", "Strict"]

_PATH = re.compile(r"(?P<metric>\w+)(\[(?P<sampler>[\w-]+)\])?\.(?P<figure>.+)")


class Strict(BaseModel):
    """A part of a definition: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where figures were published.

    Attributes:
        authors: The authors.
        title: The title.
        year: The year.
        arxiv: The arXiv identifier, if there is one.
        where: The table, or the page, that the figures stand in.
    """

    authors: str
    title: str
    year: int
    arxiv: str = ""
    where: str


class Evaluation(Strict):
    """What is computed of every run.

    Attributes:
        metrics: The metrics by name.
        split: The split.
        samples: How many of its samples, chosen at random; all where there are fewer.
        samplers: Where generated samples come from.
        particles: Particles per sample in importance sampling.
    """

    metrics: list[str]
    split: Literal["train", "valid", "test"] = "test"
    samples: int = Field(gt=0)
    samplers: list[str] = ["prior"]
    particles: int = Field(512, gt=0)


class Schedule(Strict):
    """A length of training.

    Attributes:
        about: The length, and what else differs by it, in words.
        config: Overrides of the configuration, laid over those of the rows.
        evaluate: What differs in the evaluation.
    """

    about: str
    config: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}


class Figure(Strict):
    """A column of figures that vaekit computes.

    Attributes:
        heading: Its heading.
        path: Where it stands in `evaluation.json`: `metric.figure`, or `metric[sampler].figure`.
        derive: What is made of it: `negated`, or of a list `share above X`.
        beside: The published column that it stands beside, if it is the same figure.
        digits: Decimal places.
    """

    heading: str
    path: str = Field(pattern=f"^{_PATH.pattern}$")
    derive: str | None = Field(None, pattern=r"^(negated|share above \d+(\.\d+)?)$")
    beside: str | None = None
    digits: int = Field(2, ge=0)

    @property
    def metric(self) -> str:
        """The metric."""
        return self._part("metric")

    @property
    def sampler(self) -> str | None:
        """The sampler, where the metric has one."""
        return self._part("sampler") or None

    @property
    def keys(self) -> list[str]:
        """The way to the figure within the values of the metric."""
        return self._part("figure").split(".")

    @property
    def by_features(self) -> bool:
        """Whether it is a figure of some feature extractor, which has to be named: no FID, KID or inception score."""
        return self.compares_images and self.keys[0] not in ("fid", "kid", "isc")

    @property
    def compares_images(self) -> bool:
        """Whether the metric compares images by features, so that the name of its figure depends on the extractor."""
        return self.metric in BY_FEATURES

    def _part(self, name: str) -> str:
        match = _PATH.fullmatch(self.path)
        assert match is not None
        return match[name] or ""


class Row(Strict):
    """A row of the table.

    Attributes:
        name: Its name, which is also that of its run directories.
        recipe: The recipe.
        overrides: What is laid over it, after what all rows share.
        published: Heading to published figure, as it was printed.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.+=-]*$")
    recipe: str
    overrides: dict[str, Any] = {}
    published: dict[str, str] = {}


class MadeRow(Strict):
    """What was measured of a row.

    Attributes:
        figures: Heading to one figure for each seed.
        steps: Steps of a run.
        seconds: Seconds that a run took, the mean over seeds.
    """

    figures: dict[str, list[float]]
    steps: int
    seconds: float


class Measured(Strict):
    """What vaekit measured of a table.

    Attributes:
        date: The day of the last evaluation.
        machine: What it ran on.
        schedule: The length of training.
        changes: Further changes, as `--set` takes them.
        extractor: The feature extractor, as `--extractor` took it, without its folder.
        rows: Name of a row to its figures.
        protocols: Metric to its protocol.
        notes: Sentences that a reader of the figures should know.
    """

    date: datetime.date
    machine: str
    schedule: Literal["short", "full"] = "short"
    changes: list[str] = []
    extractor: str | None = None
    rows: dict[str, MadeRow]
    protocols: dict[str, str] = {}
    notes: list[str] = []

    @property
    def seeds(self) -> int:
        """The largest number of seeds of a row."""
        return max((len(values) for row in self.rows.values() for values in row.figures.values()), default=1)
