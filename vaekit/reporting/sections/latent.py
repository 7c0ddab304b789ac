"""The latent space of a run: which units are active, how they are distributed, what they do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from vaekit.evaluation.records import Record
from vaekit.reporting.page import embed_file, escape, figure, notice, themed
from vaekit.reporting.plots import draw_map
from vaekit.reporting.record import RunRecord, mapping
from vaekit.reporting.unit_plots import draw_histogram, draw_units
from vaekit.reporting.wording import number

__all__ = ["activity", "dead_units", "latent", "unit_bars"]

_NAMED = 8


def dead_units(record: RunRecord) -> tuple[list[int], int] | None:
    """Return the dead units and the number of all units; `None` where they are not known."""
    try:
        return [int(each) for each in record.latent["activity"]["dead"]], len(record.latent["order"])
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return None


def activity(record: RunRecord) -> str:
    """Say in words how many latent units are active; an empty string where that is not known."""
    found = dead_units(record)
    if found is None:
        return ""
    dead, units = found
    if not dead:
        return f"All {units} latent units are active."
    if len(dead) < units:
        named = f" ({', '.join(f'z[{each}]' for each in dead)})" if len(dead) <= _NAMED else ""
        return f"{len(dead)} of {units} latent units {'is' if len(dead) == 1 else 'are'} dead{named}."
    with contextlib.suppress(KeyError, TypeError):  # Where it is damaged, less is said.
        total = sum(record.latent["kl"])
        if total <= record.latent["activity"]["threshold"] * units:
            words = number(total) if total >= 0.01 else "less than 0.01"
            return (
                f"0 of {units} latent units are active: the posterior has collapsed to the prior (KL {words} nats). "
                "Reconstructions do not depend on the sample."
            )
    return f"0 of {units} latent units are active: the posterior is nearly the same for all samples."


def latent(record: RunRecord) -> Iterator[str]:
    """Yield what `vaekit.reporting.portrait` kept, drawn."""
    if not record.latent:
        return
    yield "<h2>Latent space</h2>"
    try:
        notes = [f"<p>{escape(note)}</p>" for note in record.latent.get("notes") or []]
        with np.errstate(all="ignore"):  # Numbers may be absurd.
            parts = [*notes, *_units(record), *_histograms(record.latent, record.evaluation), *_pictures(record)]
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        parts = [notice("latent.json is damaged: remove it, and `vaekit report` makes it again.")]
    yield from parts


def unit_bars(kept: dict[str, Any]) -> list[str]:
    """Return the drawings of KL and variance by unit, where they are known."""
    found = kept["activity"] or {"by": None, "dead": None, "threshold": 0.0}
    shown = []
    for name, title, unit in (
        ("kl", f"KL per {kept['unit']}", "nats"),
        ("variance_of_means", "variance of posterior means", ""),
    ):
        values = kept[name]
        if values is None:
            continue
        dead, threshold = found["dead"], found["threshold"] if found["by"] == name else None
        first, last = kept["order"][0], kept["order"][-1]
        alt = f"Bars of {title} from z[{first}], {number(values[first])}, to z[{last}], {number(values[last])}"
        alt += f"; dead: {', '.join(f'z[{each}]' for each in dead) or 'none'}." if dead is not None else "."

        draw = partial(draw_units, values, kept["order"], dead, title=title, unit=unit, threshold=threshold)
        shown.append(themed(draw, "svg+xml", alt))
    return shown


def _units(record: RunRecord) -> Iterator[str]:
    kept = record.latent
    if "order" not in kept:
        return
    words = activity(record)
    found = kept["activity"]
    if words and found["by"] == "kl":
        yield f"<p>{escape(words)} A unit is dead where its KL is {found['threshold']:g} nats or less.</p>"
    elif words:
        yield (
            f"<p>{escape(words)} A unit is dead where the variance of its posterior mean is {found['threshold']:g} "
            f"or less over {kept['training_samples']:,} training samples.</p>"
        )
    if kept["kl"] is None:
        yield (
            "<p>The KL of single units is not known for this posterior and this prior: units are in the order of the "
            "variance of their posterior means.</p>"
        )
    else:
        how = "exact" if kept["exact"] else "from one draw a sample"
        yield (
            f'<p class="quiet">KL of each unit\'s own posterior to its prior, mean over {kept["samples"]:,} validation '
            f"samples, {how}. Where the posterior's units depend on each other, these add up to less than the whole "
            "KL.</p>"
        )
    yield f'<div class="curves">{"".join(unit_bars(kept))}</div>'


def _histograms(kept: dict[str, Any], evaluated: Sequence[Record]) -> Iterator[str]:
    if not kept.get("histograms"):
        return
    yield "<h3>Aggregate posterior and prior</h3>"
    yield (
        f'<p class="quiet">Bars: one draw from the posterior of each of {kept["samples"]:,} validation samples, the '
        "most active units first. Line: the prior. Where the two differ, draws from the prior are not what the decoder "
        "was trained on.</p>"
    )
    for each in evaluated:
        gap = mapping(mapping(each.values).get("marginal_kl"))
        if each.metric == "latent" and isinstance(mean := gap.get("mean"), int | float):
            where = f"{each.protocol.get('samples')} samples of {each.protocol.get('split')}"
            yield f"<p>KL of the aggregate posterior to the prior: {number(mean)} nats, from {escape(where)}.</p>"
    shown = []
    for each in kept["histograms"]:
        own, prior = each["aggregate"], each["prior"]
        alt = f"Histogram of z[{each['unit']}] from {number(each['centres'][0])} to {number(each['centres'][-1])}, "
        alt += f"highest {number(max(own))}; the prior's highest {number(max(prior))}."

        shown.append(themed(partial(draw_histogram, each), "svg+xml", alt))
    yield f'<div class="small">{"".join(shown)}</div>'


def _pictures(record: RunRecord) -> Iterator[str]:
    """Yield the map and the traversals, beside each other where there is room."""
    found, moved = record.latent.get("map"), record.latent.get("traversal")
    shown = []
    if found:
        points, shares, labels = np.asarray(found["points"]), found["shares"], found["labels"]
        coloured = "without labels" if labels is None else "coloured by their labels"
        caption = (
            f"Map: posterior means of {len(points):,} validation samples on their first two principal components, "
            f"which carry {shares[0]:.0%} and {shares[1]:.0%} of the variance; {coloured}"
        )

        draw = partial(draw_map, points, shares, None if labels is None else np.asarray(labels))
        shown.append(themed(draw, "png", caption, caption))
    if moved:
        path, units = record.out / "samples" / "traversals.png", ", ".join(f"z[{each}]" for each in moved["units"])
        rows = f"rows of {', '.join(moved['rows'])} for each unit" if moved["rows"] else "one row a unit"
        caption = f"Traversals, {rows}, the most active first ({units}): {moved['columns']}"
        source = embed_file(path, 1280)
        shown.append(figure(source, caption, caption) if source else notice(f"samples/{path.name} cannot be read."))
    if shown:
        title = " and ".join(name for name, there in (("Map", found), ("traversals", moved)) if there)
        yield f'<h3>{title[0].upper()}{title[1:]}</h3><div class="pair">{"".join(shown)}</div>'
