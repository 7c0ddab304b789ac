"""The page of a run: pictures, curves and figures with what a reader must know to judge them."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaekit.errors import VaekitError
from vaekit.files import save_text
from vaekit.registry import regularizers
from vaekit.reporting.curves import draw_curves, drawable, panels_of
from vaekit.reporting.page import data_uri, details, embed_file, escape, figure, flatten, notice, page, table
from vaekit.reporting.record import RunRecord, mapping, read_record
from vaekit.reporting.wording import duration, number, title_of, unit_of

__all__ = ["write_report"]

_CAPTIONS = {
    "reconstructions": "Reconstructions: each validation image with its reconstruction to its right",
    "every-to-every": "Each modality generated from each: a row of validation samples of one modality, and below it "
    "what is generated from them alone, one row a modality; then the next modality",
    "prior": "Samples from the prior, decoded",
    "aggregate-gaussian": "Samples from a Gaussian with the moments of the aggregate posterior, decoded",
    "aggregate-mixture": "Samples around training images: near-reconstructions, not new images",
    "interpolations": "Walks between validation images in the latent space",
}


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
    parts = [
        *_headline(record),
        *_pictures(record),
        *_curves(record),
        *_summary(record),
        *_notes(record),
        *_remake(record),
    ]
    save_text(path, page(_title(record), parts))
    return path


def _title(record: RunRecord) -> str:
    recipe = record.config.get("recipe") or record.out.resolve().name
    data = mapping(record.config.get("data")).get("name")
    return f"{recipe} on {Path(str(data)).name or data}" if data else str(recipe)


# ---- the headline --------------------------------------------------------------------------------------------------


def _headline(record: RunRecord) -> Iterator[str]:
    config, training = record.config, mapping(record.environment.get("training"))
    yield f"<header><h1>{escape(_title(record))}</h1>"
    if config.get("about"):
        yield f"<p>{escape(str(config['about']).rstrip('.'))}.</p>"
    if config.get("source"):
        yield f'<p class="quiet">After: {escape(config["source"])}</p>'
    yield f"<p>{escape(_data(record))}</p>"
    yield f"<p><strong>What the figures are.</strong> {escape(_loss(record))}</p></header>"
    for problem in (*_interruption(record), *record.problems):
        yield notice(problem)
    tiles = []
    valid = record.of_split("valid")
    if valid:
        tiles += [(f"validation {record.label}", _value(valid[-1], "loss"), "nats per sample, last")]
        tiles += [("lowest", _value(best := _best(valid), "loss"), f"nats per sample, {_when(best)}")]
        if "bits_per_dim" in valid[-1]:
            tiles.append((f"{record.label}, per dimension", _value(valid[-1], "bits_per_dim"), "bits, last"))
    if record.lines:
        tiles.append(("trained", f"{max(line['step'] for line in record.lines):,} steps", _when(record.lines[-1])))
    if isinstance(seconds := training.get("seconds"), int | float):
        rate = training.get("samples_per_second")
        tiles.append(("time", duration(seconds), f"{number(rate)} samples/s" if isinstance(rate, int | float) else ""))
    if training.get("active_units"):
        tiles.append(("active latent units", str(training["active_units"]), ""))
    cells = (f"<div><dt>{escape(a)}</dt><dd>{escape(b)} <small>{escape(c)}</small></dd></div>" for a, b, c in tiles)
    yield f'<dl class="tiles">{"".join(cells)}</dl>' if tiles else ""


def _data(record: RunRecord) -> str:
    data = mapping(record.config.get("data"))
    words = f"Data: {data.get('name', 'not recorded')}"
    if shape := record.config.get("data_shape"):
        words += f", samples of shape {_shape(shape)}"
    counts = mapping(mapping(record.environment.get("data")).get("samples"))
    if counts:
        words += ": " + ", ".join(
            f"{number(count) if isinstance(count, int) else count} {split}" for split, count in counts.items()
        )
    return f"{words}."


def _shape(shape: Any) -> str:
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_shape(part)}" for name, part in shape.items())
    return " × ".join(map(str, shape)) if isinstance(shape, list) else str(shape)


def _loss(record: RunRecord) -> str:
    """Say what the loss is, from its label and the configuration."""
    if isinstance(record.config.get("modalities"), dict):
        objective = mapping(record.config.get("objective"))
        options = ", ".join(f"{key} {value}" for key, value in objective.items() if key != "name")
        bound = (
            "an upper bound on the negative log-likelihood of the modalities that are there"
            if record.label.startswith("negative")
            else "a surrogate, no bound on the likelihood: compare it only with runs that minimise the same loss"
        )
        return (
            f"The loss is that of the objective '{objective.get('name')}'{f' ({options})' if options else ''}: {bound};"
            " in nats per sample. Lower is better."
        )
    formula = " + ".join(["reconstruction", *(_weighted(name, mapping(o)) for name, o in record.regularizers.items())])
    if record.label == "negative ELBO":
        text = (
            f"The loss is the negative ELBO, {formula}: an upper bound on -log p(x), in nats per sample. "
            "Lower is better."
        )
    elif record.label == "surrogate loss":
        text = (
            f"The loss is a surrogate, {formula}, in nats per sample. It is not a bound on the likelihood: compare it "
            "only with runs that minimise the same loss."
        )
    else:
        text = f"The loss is {formula}, in nats per sample; whether it is a bound on the likelihood was not recorded."
    adversary = mapping(record.config.get("adversary"))
    if adversary:
        named = adversary.get("discriminator")
        weight = f", weight {adversary['weight']}" if "weight" in adversary else ""
        text += (
            f" Training adds an adversary ({mapping(named).get('name', named)}{weight}) that is not part of the loss "
            "shown here."
        )
    return text


def _weighted(name: str, options: dict[str, Any]) -> str:
    """Write a regularizer with its weight and its other options."""
    weight = options.get("weight")
    if weight is None:
        with contextlib.suppress(VaekitError):  # A plug-in that is no longer there: its weight stays unsaid.
            weight = regularizers.options(name)["weight"].default
    shown = f"{weight:g} × " if isinstance(weight, int | float) else "scheduled weight × " if weight else ""
    others = ", ".join(f"{key} {value}" for key, value in options.items() if key != "weight")
    return f"{'' if weight == 1 else shown}{title_of(name)}{f' ({others})' if others else ''}"


def _interruption(record: RunRecord) -> Iterator[str]:
    if not record.lines:
        return
    resume = f"vaekit run {shlex.quote(str(record.out))} --resume"
    training = mapping(record.environment.get("training"))
    if number_of_signal := training.get("interrupted_by_signal"):
        named = {str(int(known)): known.name for known in signal.Signals}
        name = named.get(str(number_of_signal), number_of_signal)
        step = training.get("steps", "?")
        yield f"Interrupted by {name} at step {step}: these figures are not final. Go on with: {resume}"
    elif not training:
        yield f"No end of the training is recorded: it still runs, or it was cut off. If it was, go on with: {resume}"


# ---- pictures ------------------------------------------------------------------------------------------------------


def _pictures(record: RunRecord) -> Iterator[str]:
    yield "<h2>Pictures</h2>"
    if not record.epoch_pictures and not record.pictures:
        shape = record.config.get("data_shape")
        vectors = isinstance(shape, list) and len(shape) != 3
        yield f"<p>{'The samples are vectors: there are no pictures.' if vectors else 'There are no pictures.'}</p>"
        return
    large, earlier = [(path.stem, path, "at the end of training") for path in record.pictures], []
    final = {kind for kind, _, _ in large}
    for kind, pictures in sorted(record.epoch_pictures.items(), key=lambda item: _rank(item[0])):
        if kind not in final:  # The finished model's own grid stands for the last epoch's.
            large.append((kind, pictures[-1][1], f"after epoch {pictures[-1][0]}"))
        for index in sorted({0, len(pictures) // 2} - {len(pictures) - 1}):
            earlier.append((kind, pictures[index][1], f"epoch {pictures[index][0]}"))
    yield _figures(sorted(large, key=lambda item: _rank(item[0])), "large", 1280)
    if earlier:
        yield "<h3>How it got there</h3>" + _figures(earlier, "small", 640)


def _rank(kind: str) -> tuple[int, str]:
    """Order kinds of pictures as they are best read: reconstructions, samples, and the rest by name."""
    return (list(_CAPTIONS).index(kind) if kind in _CAPTIONS else len(_CAPTIONS), kind)


def _figures(items: list[tuple[str, Path, str]], size: str, largest: int) -> str:
    shown = []
    for kind, path, when in items:
        alt = f"{_CAPTIONS.get(kind, kind)}, {when}"
        source = embed_file(path, largest)
        caption = alt if size == "large" else f"{kind}, {when}"
        shown.append(figure(source, alt, caption) if source else notice(f"samples/{path.name} cannot be read."))
    return f'<div class="{size}">{"".join(shown)}</div>'


# ---- curves and figures --------------------------------------------------------------------------------------------


def _curves(record: RunRecord) -> Iterator[str]:
    yield "<h2>Curves</h2>"
    panels = panels_of(record.lines, record.label, list(record.regularizers))
    lost = sum(isinstance(value, float) and not drawable(value) for line in record.lines for value in line.values())
    if lost:
        yield notice(f"Not finite, and so not drawn: {lost} of the values in metrics.jsonl.")
    if not panels:
        yield "<p>There are no curves: the metrics hold nothing to draw.</p>"
        return
    yield (
        '<p class="quiet">Terms are per sample and before their weights. Training values are means over the steps '
        "since the value before; validation is over the whole split at the end of an epoch.</p>"
    )
    shown = []
    for panel in panels:
        light, dark = (data_uri(draw_curves([panel], format="svg", dark=dark), "svg+xml") for dark in (False, True))
        shown.append(figure(light, panel.describe(), dark=dark))
    yield f'<div class="curves">{"".join(shown)}</div>'


def _summary(record: RunRecord) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    train, valid = record.of_split("train"), record.of_split("valid")
    if not record.lines:
        yield "<p>There are no figures yet.</p>"
        return
    if not valid:
        yield "<p>No validation was reached: these are training figures.</p>"
    columns = [(f"validation, last ({_when(valid[-1])})", valid[-1])] if valid else []
    columns += [(f"validation, lowest loss ({_when(best := _best(valid))})", best)] if valid else []
    columns += [("training, last", train[-1])] if train else []
    terms = dict.fromkeys(term for _, line in columns for term in line if term not in ("split", "step", "epoch"))
    rows = [
        [
            (record.label if term == "loss" else title_of(term)) + (" (nats)" if _in_nats(record, term) else ""),
            *(_value(line, term) for _, line in columns),
        ]
        for term in terms
    ]
    yield table(["term", *(name for name, _ in columns)], rows, numbers=range(1, len(columns) + 1))
    yield '<p class="quiet">Nats are per sample.</p>'
    if valid:
        yield '<p class="quiet">The weights at the lowest validation loss are in checkpoints/best.</p>'


def _in_nats(record: RunRecord, term: str) -> bool:
    return unit_of(term, record.regularizers).startswith("nats")


def _best(valid: list[dict[str, Any]]) -> dict[str, Any]:
    def loss(line: dict[str, Any]) -> float:
        value = line.get("loss")
        return value if isinstance(value, int | float) and not math.isnan(value) else math.inf

    return min(valid, key=loss)


def _value(line: dict[str, Any], term: str) -> str:
    value = line.get(term)
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:.3f}" if term == "bits_per_dim" else number(value, padded=True)


def _when(line: dict[str, Any]) -> str:
    epoch = line.get("epoch")
    return f"epoch {epoch + 1}" if isinstance(epoch, int) else f"step {line['step']}"


# ---- how it was made -----------------------------------------------------------------------------------------------


def _notes(record: RunRecord) -> Iterator[str]:
    notes = record.environment.get("notes")
    if isinstance(notes, list) and notes:
        yield f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _remake(record: RunRecord) -> Iterator[str]:
    yield "<h2>How to make it again</h2>"
    if command := record.environment.get("command"):
        yield f"<p>It was started with:</p><pre>{escape(command)}</pre>"
    if record.config_text.strip():
        command = shlex.join(["vaekit", "run", str(record.out / "config.yaml"), "--out", f"{record.out}-again"])
        yield f"<p>From its configuration alone:</p><pre>{escape(command)}</pre>"
        yield details("Configuration (config.yaml)", f"<pre>{escape(record.config_text)}</pre>")
    if record.environment:
        rows = flatten({key: value for key, value in record.environment.items() if key not in ("notes", "command")})
        yield details("Environment (environment.json)", table(["name", "value"], rows))
