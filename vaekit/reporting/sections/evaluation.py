"""The figures of `vaekit evaluate`, each under the protocol that it was computed with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vaekit.evaluation.records import Record
from vaekit.reporting.comparison_reading import entries
from vaekit.reporting.evaluation_tables import protocol_in_words, table_of
from vaekit.reporting.page import details, escape, flatten, notice, table
from vaekit.reporting.record import RunRecord, mapping
from vaekit.reporting.wording import title_of

__all__ = ["evaluation", "memory"]

_COMPARED = ("samples", "reconstructions")
_MOST = 24  # Figures of one metric that are shown at once.


def evaluation(record: RunRecord) -> Iterator[str]:
    """Yield a table for each metric: one column for each protocol, with the protocol in words."""
    if not record.evaluation:
        return
    yield "<h2>Evaluation</h2>"
    yield (
        '<p class="quiet">A column holds figures of one protocol; only those of equal protocols compare. ± is the '
        "standard error of a mean over samples.</p>"
    )
    by_metric: dict[str, list[Record]] = {}
    for each in record.evaluation:
        by_metric.setdefault(each.metric, []).append(each)
    for metric, records in by_metric.items():
        try:
            parts = list(_metric(metric, records, record.weights_sha256))
        except (KeyError, TypeError, ValueError, AttributeError):
            parts = [notice(f"The figures of {metric} in evaluation.json are damaged.")]
        yield from parts


def memory(record: RunRecord) -> Iterator[str]:
    """Say in words how near samples lie to training images: a sentence for each space of distances."""
    spaces: dict[tuple[str, Any, Any], dict[str, Any]] = {}
    for each in record.evaluation:
        values, protocol = mapping(each.values), mapping(each.protocol)
        samples, others = (mapping(mapping(values.get(name)).get("near")).get("mean") for name in _COMPARED)
        least, space = protocol.get("quantile"), protocol.get("space")
        if each.metric == "memorisation" and all(isinstance(part, int | float) for part in (samples, others, least)):
            where = str(mapping(space).get("name", space)).partition(" ")[0]
            spaces.setdefault((where, least, others), {})[str(protocol.get("sampler"))] = samples
    for (where, least, others), found in spaces.items():
        shares = " and ".join(f"{share:.0%} of the samples from {sampler}" for sampler, share in found.items())
        copies = [sampler for sampler, share in found.items() if share >= 0.5 and share > others + 0.25]
        yield (
            f"By {where}, {shares} lie as near to a training image as only the nearest {least:.0%} of unseen images "
            f"do; of the reconstructions of unseen images {others:.0%}."
        ) + (f" Samples from {' and '.join(copies)} are close to copies of training images." if copies else "")


def _metric(metric: str, records: Sequence[Record], weights: str) -> Iterator[str]:
    yield f"<h3>{escape(title_of(metric))}</h3>"
    heads, rows = table_of(records)
    yield table(["figure", *heads], rows[:_MOST], numbers=range(1, len(heads) + 1))
    if len(rows) > _MOST:
        rest = table(["figure", *heads], rows[_MOST:], numbers=range(1, len(heads) + 1))
        yield details(f"{len(rows) - _MOST} more figures of {metric}", rest)
    for each in records:
        known = mapping(each.made).get("weights_sha256")
        if weights and known and known != weights:
            yield notice(f"Figures of {metric} were computed with earlier weights: compute them again.")
            break
    for note in dict.fromkeys(note for each in records for note in each.notes):
        yield f'<p class="quiet">{escape(note)}</p>'
    yield f'<p class="quiet">Protocol: {escape(protocol_in_words(records))}.</p>'
    for each, head in zip(records, heads, strict=True):
        how: list[tuple[str, str]] = [
            ("digest", each.digest),
            *entries(each.protocol).items(),
            *flatten(mapping(each.made), "made."),
        ]
        named = "" if head == "value" else f", {head}"
        yield details(f"How {metric} was computed{named}", table(["name", "value"], how))
