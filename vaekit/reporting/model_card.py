"""The card of a model: the README of a repository on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from vaekit.evaluation.records import Record
from vaekit.registry import datasets
from vaekit.reporting.comparison_reading import entries
from vaekit.reporting.evaluation_tables import protocol_in_words, table_of
from vaekit.reporting.record import RunRecord, mapping
from vaekit.reporting.wording import duration, title_of

__all__ = ["model_card"]

_PARTS = ("posterior", "prior", "likelihood", "backbone", "fusion", "private", "objective", "regularizers", "adversary")


def model_card(
    config: Mapping[str, Any],
    record: RunRecord | None,
    weights_sha256: str,
    *,
    name: str | None = None,
    license: str | None = None,
) -> str:
    """Return the card of a model in Markdown: metadata, parts, use, training, what to know, and figures.

    Figures stand in tables under their protocols in words. Those of other weights are left out, and counted.

    Arguments:
        config: The configuration.
        record: What the run directory holds; `None` where there is none.
        weights_sha256: The hash of the weights that the card stands beside.
        name: What the model is loaded by: its repository, or the folder it lies in.
        license: The licence for the metadata; left out if not given.

    Examples:
        >>> from vaekit.config import read_recipe, resolve
        >>> text = model_card(resolve(read_recipe("vae")).model_dump(mode="json"), None, "", license="mit")
        >>> text.splitlines()[1:4]
        ['license: mit', 'library_name: vaekit', 'tags:']
    """
    lines = [*_metadata(config, license), "", f"# {_title(config, name)}", "", *_parts(config), *_use(config, name)]
    lines += [*_training(config, record), *_notes(record), *_figures(record, weights_sha256)]
    return "\n".join([*lines, "", f"SHA-256 of `model.safetensors`: `{weights_sha256}`", ""])


def _metadata(config: Mapping[str, Any], license: str | None) -> Iterator[str]:
    tags = ["variational-autoencoder", config["recipe"], f"{config['posterior']['name']}-posterior"]
    several = ["multimodal"] if config["modalities"] is not None else []
    metadata = {
        **({"license": license} if license else {}),
        "library_name": "vaekit",
        "tags": ["vaekit", *filter(None, tags), *several],
    }
    yield from ["---", *yaml.safe_dump(metadata, sort_keys=False).splitlines(), "---"]


def _title(config: Mapping[str, Any], name: str | None) -> str:
    return name or f"{config['recipe'] or 'a model'} on {config['data']['name']}"


def _parts(config: Mapping[str, Any]) -> Iterator[str]:
    for line in (config["about"], config["source"]):
        if line:
            yield from [f"{line.rstrip('.')}.", ""]
    yield from ["| part | what it is |", "|---|---|", f"| latent | {config['latent_dim']} dimensions |"]
    for part in _PARTS:
        if words := _in_words(config[part]):
            yield _row([part, words])
    for name, own in (config["modalities"] or {}).items():
        for part, options in own.items():
            yield _row([f"{part} of {name}", _in_words(options)])
    yield _row(["data", f"{_in_words(config['data'])}; {_shape(config['data_shape'])}"])


def _in_words(part: Mapping[str, Any] | None) -> str:
    """Return a part's name and its options."""
    if not part:
        return ""
    options = entries({key: value for key, value in part.items() if key != "name"})
    names = [f"`{part['name']}`"] if "name" in part else []
    return ", ".join([*names, *(key if value == "{}" else f"{key} {value}" for key, value in options.items())])


def _shape(shape: Any) -> str:
    if isinstance(shape, Mapping):
        return ", ".join(f"{name} {_shape(own)}" for name, own in shape.items())
    return "x".join(map(str, shape)) if shape else "of unknown shape"


def _use(config: Mapping[str, Any], name: str | None) -> Iterator[str]:
    place = name or "folder/of/this/file"
    yield from ["", "## Use", "", "```python", "import vaekit as vk", ""]
    yield from [f'run = vk.Run.from_pretrained("{place}")', "samples = run.sample(12)", "```", ""]
    yield "Weights are safetensors and the configuration is plain YAML: loading them runs no code of this repository."


def _training(config: Mapping[str, Any], record: RunRecord | None) -> Iterator[str]:
    own = config["data"]["name"] not in datasets.names()
    yield from ["", "## Training", "", "This makes the run again" + (", given its data:" if own else ":"), ""]
    yield from ["```bash", "vaekit run config.yaml" + (" --data PATH" if own else ""), "```", ""]
    environment = {} if record is None else record.environment
    if not environment:
        yield (
            "The record of the run was not at hand when this card was written: what is to be known of its training, "
            "the terms of its data among it, and its figures are not here."
        )
        return
    training, packages = mapping(environment.get("training")), mapping(environment.get("packages"))
    with_what = ", ".join(f"{key} {value}" for key, value in {"vaekit": environment.get("vaekit"), **packages}.items())
    how_long = f"{training['steps']:,} steps, {duration(training['seconds'])}; " if training else ""
    yield f"Loss: {environment.get('label', 'unknown')}. {how_long}on {environment.get('device')}, with {with_what}."


def _notes(record: RunRecord | None) -> Iterator[str]:
    notes = [] if record is None else record.environment.get("notes")
    if isinstance(notes, list) and notes:
        yield from ["", "## What to know", "", *(f"- {note}" for note in notes)]


def _figures(record: RunRecord | None, weights_sha256: str) -> Iterator[str]:
    records = [] if record is None else record.evaluation
    current = [each for each in records if each.made.get("weights_sha256") in (None, weights_sha256)]
    by_metric: dict[str, list[Record]] = {}
    for each in current:
        by_metric.setdefault(each.metric, []).append(each)
    if records:
        yield from ["", "## Figures", ""]
    if current:
        yield (
            "A column holds figures of one protocol; only those of equal protocols, which have the same digest, "
            "compare. ± is the standard error of a mean over samples."
        )
    for metric, of_metric in by_metric.items():
        yield from ["", f"### {title_of(metric)}", "", *_table(of_metric), ""]
        yield f"Protocol: {protocol_in_words(of_metric)}."
        for note in dict.fromkeys(note for each in of_metric for note in each.notes):
            yield from ["", f"Note: {note}."]
    if left_out := len(records) - len(current):
        yield from ["", f"{left_out} metric(s) were computed with earlier weights and are left out."]


def _table(records: Sequence[Record]) -> Iterator[str]:
    heads, rows = table_of(records)
    yield from [_row(["figure", *heads]), _row(["---"] * (len(heads) + 1)), *map(_row, rows)]
    yield _row(["digest", *(f"`{each.digest}`" for each in records)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
