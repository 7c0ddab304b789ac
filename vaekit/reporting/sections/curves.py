"""The curves of training, and the figures that they end with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from vaekit.reporting.curves import draw_curves, drawable, panels_of
from vaekit.reporting.page import notice, table, themed
from vaekit.reporting.record import RunRecord
from vaekit.reporting.wording import title_of, unit_of, value_of, when

__all__ = ["curves", "figures"]


def curves(record: RunRecord) -> Iterator[str]:
    """Yield the curves of the training's log, one picture a panel."""
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
    shown = [themed(partial(draw_curves, [panel], format="svg"), "svg+xml", panel.describe()) for panel in panels]
    yield f'<div class="curves">{"".join(shown)}</div>'


def figures(record: RunRecord) -> Iterator[str]:
    """Yield the table of losses and terms: last, and at the lowest validation loss."""
    yield "<h2>Figures</h2>"
    train, valid = record.of_split("train"), record.of_split("valid")
    if not record.lines:
        yield "<p>There are no figures yet.</p>"
        return
    if not valid:
        yield "<p>No validation was reached: these are training figures.</p>"
    columns = [(f"validation, last ({when(valid[-1])})", valid[-1])] if valid else []
    columns += [(f"validation, lowest loss ({when(best := record.best)})", best)] if valid else []
    columns += [("training, last", train[-1])] if train else []
    terms = dict.fromkeys(term for _, line in columns for term in line if term not in ("split", "step", "epoch"))
    rows = [
        [
            (record.label if term == "loss" else title_of(term)) + (" (nats)" if _in_nats(record, term) else ""),
            *(value_of(line, term) for _, line in columns),
        ]
        for term in terms
    ]
    yield table(["term", *(name for name, _ in columns)], rows, numbers=range(1, len(columns) + 1))
    yield '<p class="quiet">Nats are per sample.</p>'
    if valid:
        yield '<p class="quiet">The weights at the lowest validation loss are in checkpoints/best.</p>'


def _in_nats(record: RunRecord, term: str) -> bool:
    return unit_of(term, record.regularizers).startswith("nats")
