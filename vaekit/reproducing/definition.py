"""What a table of published figures is, and how vaekit remakes its rows: one YAML file for each table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.documents import read_yaml
from vaekit.errors import VaekitError, suggest
from vaekit.reproducing.parts import Evaluation, Figure, Measured, Row, Schedule, Source, Strict
from vaekit.sources import BY_FEATURES

__all__ = ["Table", "read_table", "table_names"]

_TABLES = Path(__file__).parents[1] / "reproductions"


class Table(Strict):
    """Rows of a published table, and how vaekit remakes them.

    Attributes:
        name: Its name, which is that of the file.
        spec: How it is named on the command line: by name, or by file.
        title: The heading of its section.
        source: Where it was published.
        published_protocol: How the published figures were made, in plain sentences.
        difference: What is different here whatever the schedule, in plain sentences.
        given: What the columns that were not computed here are called.
        published: Their headings.
        shared: Overrides of all rows, at the published length as far as vaekit can.
        full: What the published length is.
        short: The shortened schedule.
        evaluate: What is computed of every run.
        figures: The columns that are computed.
        rows: The rows.
        ours: What the project measured.
    """

    name: str
    spec: str
    title: str
    source: Source
    published_protocol: str
    difference: str
    given: str = "published"
    published: list[str] = []
    shared: dict[str, Any] = {}
    full: Schedule
    short: Schedule
    evaluate: Evaluation
    figures: list[Figure]
    rows: list[Row]
    ours: Measured | None = None

    @model_validator(mode="after")
    def _agree(self) -> Table:
        """Refuse names that lead nowhere, and what must not stand side by side."""
        headings, names = [figure.heading for figure in self.figures], [row.name for row in self.rows]
        for what, words in (("figures", headings), ("rows", names)):
            if len(set(words)) < len(words):
                raise ValueError(f"two of the {what} have one name")
        for row in self.rows:
            _among(row.published, self.published, f"published figures of the row '{row.name}'")
        for figure in self.figures:
            _among([figure.metric], self.evaluate.metrics, f"metrics of the figure '{figure.heading}'")
            _among([figure.beside] if figure.beside else [], self.published, f"columns beside '{figure.heading}'")
            if figure.sampler is not None:
                _among([figure.sampler], self.evaluate.samplers, f"samplers of the figure '{figure.heading}'")
            if figure.beside and figure.by_features:
                raise ValueError(f"'{figure.heading}' depends on the extractor: no published column stands beside it")
        if self.ours is not None:
            _among(self.ours.rows, names, "rows of ours")
            for name, made in self.ours.rows.items():
                _among(made.figures, headings, f"figures of our row '{name}'")
        return self

    @property
    def needs_extractor(self) -> bool:
        """Whether images are compared by features."""
        return any(metric in BY_FEATURES for metric in self.evaluate.metrics)

    def row(self, name: str) -> Row:
        """Return a row by name.

        Raises:
            VaekitError: There is none.
        """
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise VaekitError(f"the table '{self.name}' has no row '{name}': {suggest(name, rows)}")
        return rows[name]

    def schedule(self, full: bool) -> Schedule:
        """Return the length of training that was asked for."""
        return self.full if full else self.short

    def evaluation(self, full: bool) -> Evaluation:
        """Return what is computed of every run of a schedule."""
        return Evaluation(**{**self.evaluate.model_dump(), **self.schedule(full).evaluate})

    def config(
        self, row: Row, *, seed: int = 0, full: bool = False, root: Path | None = None, assignments: Sequence[str] = ()
    ) -> RunConfig:
        """Return the configuration of a run.

        Arguments:
            row: The row.
            seed: The seed of the training.
            full: Whether to train for the published length.
            root: Where named data sets lie.
            assignments: `a.b=value` strings laid over everything but the seed.

        Raises:
            VaekitError: An unknown recipe or key, or a value of the wrong type.
        """
        layers = [self.shared, row.overrides, self.schedule(full).config]
        if root is not None:
            layers.append({"data": {"root": str(root)}})
        return resolve(read_recipe(row.recipe), *layers, assignments=[*assignments, f"trainer.seed={seed}"])


def table_names() -> list[str]:
    """Return the names of the tables that come with vaekit."""
    return sorted(path.stem for path in _TABLES.glob("*.yaml"))


def read_table(name_or_file: str | Path) -> Table:
    """Read a table by name, or from a YAML file.

    Raises:
        VaekitError: There is no such table or file, or it does not define a table.

    Examples:
        >>> read_table("mnist-nll").row("vae").published
        {'pythae': '89.78 (0.01)', 'paper': '89.9'}
    """
    path = Path(name_or_file)
    if str(name_or_file) in table_names():
        path = _TABLES / f"{name_or_file}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        raise VaekitError(f"unknown table '{name_or_file}': {suggest(str(name_or_file), table_names())}")
    if not path.exists():
        raise VaekitError(f"there is no file {path}: give one that exists, or a table by name")
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise VaekitError(f"{path} must hold the definition of a table, not {type(content).__name__}")
    try:
        return Table(**{**content, "name": path.stem, "spec": str(name_or_file)})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise VaekitError(f"{path} defines no table: {f'{where}: ' if where else ''}{message}") from error


def _among(words: Iterable[str], known: Iterable[str], what: str) -> None:
    for word in words:
        if word not in (valid := list(known)):
            raise ValueError(f"{what}: unknown '{word}', {suggest(word, valid)}")
