"""What a run directory holds, read with patience: any part may be missing, cut short or damaged."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.documents import parse_json, parse_yaml, read_text
from vaekit.errors import VaekitError, printable
from vaekit.evaluation.records import Record, read_records
from vaekit.files import sha256

__all__ = ["RunRecord", "read_record"]

_LONGEST = 80  # signs in the name of a term
_EPOCH_PICTURE = re.compile(r"epoch-(\d+)-(.+)\.png")


@dataclass(frozen=True)
class RunRecord:
    """A run as its directory tells it.

    Arguments:
        out: The run directory.
        config: The configuration; empty where it cannot be read.
        config_text: The configuration as written.
        environment: Versions, device, command, data protocol, notes and timings; empty where it cannot be read.
        lines: The lines of metrics that can be read, each with `split` and `step`.
        epoch_pictures: Kind of picture to (epoch, file), in order of epochs.
        pictures: The other pictures.
        latent: What `vaekit.reporting.portrait` kept of the latent space; empty where it is not there or of other
            weights.
        evaluation: The figures of `evaluation.json`.
        weights_sha256: The hash of the weights; empty where there are none.
        problems: Sentences about what is missing or damaged.
    """

    out: Path
    config: dict[str, Any]
    config_text: str
    environment: dict[str, Any]
    lines: list[dict[str, Any]]
    epoch_pictures: dict[str, list[tuple[int, Path]]]
    pictures: list[Path]
    latent: dict[str, Any]
    evaluation: list[Record]
    weights_sha256: str
    problems: list[str]

    @property
    def label(self) -> str:
        """What the loss is: `"negative ELBO"`, `"surrogate loss"`, or `"loss"` where that was not recorded."""
        return str(self.environment.get("label") or "loss")

    @property
    def regularizers(self) -> dict[str, Any]:
        """The regularizers by name."""
        return mapping(self.config.get("regularizers"))

    def of_split(self, split: str) -> list[dict[str, Any]]:
        """Return the lines of one split."""
        return [line for line in self.lines if line["split"] == split]

    @property
    def best(self) -> dict[str, Any]:
        """The line of the lowest validation loss; there must be one."""

        def loss(line: dict[str, Any]) -> float:
            value = line.get("loss")
            return value if isinstance(value, int | float) and not math.isnan(value) else math.inf

        return min(self.of_split("valid"), key=loss)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping as it is, and anything else as an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def read_record(out: str | Path) -> RunRecord:
    """Read a run directory.

    Raises:
        VaekitError: It is no run directory: neither config.yaml nor metrics.jsonl is there.
    """
    out = Path(out)
    if not any((out / name).is_file() for name in ("config.yaml", "metrics.jsonl")):
        raise VaekitError(f"{out} is not a run directory: it has neither config.yaml nor metrics.jsonl")
    problems: list[str] = []
    config_text = _text(out / "config.yaml", problems)
    try:
        config = parse_yaml(config_text)
    except VaekitError:
        problems.append("config.yaml is not readable YAML.")
        config = {}
    environment = _json(out / "environment.json", problems)
    lines = _lines(_text(out / "metrics.jsonl", problems), problems)
    by_kind: dict[str, list[tuple[int, Path]]] = {}
    others: list[Path] = []
    for path in sorted((out / "samples").glob("*.png")):
        if match := _EPOCH_PICTURE.fullmatch(path.name):
            by_kind.setdefault(match[2], []).append((int(match[1]), path))
        else:
            others.append(path)
    by_kind = {kind: sorted(pictures) for kind, pictures in by_kind.items()}
    weights = out / "model.safetensors"
    sha = sha256(weights) if weights.is_file() else ""
    latent = _json(out / "latent.json", problems) if (out / "latent.json").is_file() else {}
    if sha and latent.get("weights_sha256", sha) != sha:
        problems.append("latent.json is of other weights than those of the run; `vaekit report` makes it again.")
        latent = {}
    try:
        evaluation = read_records(out)
    except VaekitError as error:
        problems.append(f"{error}.")
        evaluation = []
    return RunRecord(
        out, mapping(config), config_text, environment, lines, by_kind, others, latent, evaluation, sha, problems
    )


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return mapping(parse_json(_text(path, problems) or "{}"))
    except VaekitError:
        problems.append(f"{path.name} is not readable JSON.")
        return {}


def _text(path: Path, problems: list[str]) -> str:
    if not path.is_file():
        problems.append(f"{path.name} is missing.")
        return ""
    try:
        # A long run writes many lines of metrics.
        return read_text(path, 2**31, "replace") if path.suffix == ".jsonl" else read_text(path, errors="replace")
    except VaekitError as error:
        problems.append(f"{error}.")
        return ""


def _lines(text: str, problems: list[str]) -> list[dict[str, Any]]:
    lines, damaged = [], 0
    for raw in filter(str.strip, text.splitlines()):
        try:
            line = parse_json(raw)
        except VaekitError:
            line = None
        if isinstance(line, dict) and isinstance(line.get("split"), str) and isinstance(line.get("step"), int):
            # Their names are drawn, and some signs cannot be.
            named = {printable(key)[:_LONGEST]: value for key, value in line.items()}
            lines.append({**named, "split": printable(line["split"])[:_LONGEST]})
        else:
            damaged += 1
    if damaged:
        problems.append(f"metrics.jsonl has {damaged} line{'s' * (damaged > 1)} that cannot be read, left out here.")
    return lines
