"""The page of several runs: their curves over each other, their last pictures in a row, their figures in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vaekit.errors import VaekitError
from vaekit.files import save_text
from vaekit.reporting.comparison import compare
from vaekit.reporting.comparison_formats import to_parts
from vaekit.reporting.curves import Panel, draw_curves, panels_of
from vaekit.reporting.page import embed_file, escape, figure, notice, page, table, themed
from vaekit.reporting.record import RunRecord, mapping, read_record
from vaekit.reporting.sections.headline import title_of_run
from vaekit.reporting.sections.latent import activity, dead_units, unit_bars
from vaekit.reporting.sections.pictures import CAPTIONS, last_pictures
from vaekit.reporting.wording import duration

__all__ = ["write_side_by_side"]

_ALIKE = ("data", "likelihood", "objective", "regularizers")  # What must be equal for losses to compare.


def write_side_by_side(outs: Sequence[str | Path], path: str | Path) -> Path:
    """Write a page that puts runs side by side, and return its path.

    The page is made from the run directories alone and loads nothing.

    Arguments:
        outs: Two or more run directories.
        path: The .html file.

    Raises:
        VaekitError: A directory is no run, or there are fewer than two.
    """
    records = {out.resolve(): read_record(out) for out in map(Path, outs)}
    if len(records) < 2:
        raise VaekitError("a page of several runs needs two or more different ones")
    named = dict(zip(_names(list(records)), records.values(), strict=True))
    parts = [*_head(named), *_pictures(named), *_curves(named), *_latents(named), *_figures(named)]
    save_text(path, page(f"{len(named)} runs side by side", parts))
    return Path(path)


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest last parts of paths that tell them apart.

    Examples:
        >>> _names([Path("/a/x/run"), Path("/a/y/run")]), _names([Path("/a/x"), Path("/b/y")])
        (['x/run', 'y/run'], ['x', 'y'])
    """
    depth = 1
    while len(names := {"/".join(place.parts[-depth:]) for place in places}) < len(places):
        depth += 1
    return ["/".join(place.parts[-depth:]) for place in places] if names else []


def _head(named: dict[str, RunRecord]) -> Iterator[str]:
    yield f"<header><h1>{len(named)} runs side by side</h1></header>"
    rows = []
    for name, record in named.items():
        training = mapping(record.environment.get("training"))
        steps = max((line["step"] for line in record.lines), default=0)
        seconds = training.get("seconds")
        rows.append(
            [
                name,
                title_of_run(record),
                record.label,
                f"{steps:,}",
                duration(seconds) if isinstance(seconds, int | float) else "",
                f"{found[1] - len(found[0])} of {found[1]}" if (found := dead_units(record)) else "",
            ]
        )
    yield table(["run", "recipe and data", "loss", "steps", "time", "active units"], rows, numbers=(3,))
    apart = [key for key in _ALIKE if len({str(_config(record, key)) for record in named.values()}) > 1]
    if apart:
        yield notice(
            f"These runs differ in {', '.join(apart)}: losses compare only between runs where these are equal."
        )


def _config(record: RunRecord, key: str) -> Any:
    value = record.config.get(key)
    return mapping(value).get("name", value) if key == "data" else value


def _pictures(named: dict[str, RunRecord]) -> Iterator[str]:
    shown: dict[str, list[str]] = {}
    known = list(CAPTIONS)
    for name, record in named.items():
        for kind, path, when in last_pictures(record):
            alt = f"{name}: {CAPTIONS.get(kind, kind)}, {when}"
            source = embed_file(path, 640)
            shown.setdefault(kind, []).append(
                figure(source, alt, name) if source else notice(f"{path} cannot be read.")
            )
    if shown:
        yield "<h2>Pictures</h2>"
    for kind in sorted(shown, key=lambda kind: known.index(kind) if kind in known else len(known)):
        yield f'<h3>{escape(CAPTIONS.get(kind, kind))}</h3><div class="row" tabindex="0">{"".join(shown[kind])}</div>'


def _curves(named: dict[str, RunRecord]) -> Iterator[str]:
    """Yield each term with a line for every run: of the validation where there is one, otherwise of the training."""
    joined: dict[tuple[str, str], dict[str, tuple[list[float], list[float]]]] = {}
    for name, record in named.items():
        for panel in panels_of(record.lines, record.label, list(record.regularizers)):
            if "validation" in panel.series:
                chosen = {panel.title: panel.series["validation"]}
            else:
                chosen = {f"{panel.title}, {legend}": series for legend, series in panel.series.items()}
            for title, series in chosen.items():
                joined.setdefault((title, panel.unit), {})[name] = series
    yield "<h2>Curves</h2>"
    yield '<p class="quiet">Of the validation where the title does not say otherwise, before their weights.</p>'
    panels = [Panel(title, unit, series) for (title, unit), series in joined.items()]
    drawn = [themed(partial(draw_curves, [panel], format="svg"), "svg+xml", panel.describe()) for panel in panels]
    yield f'<div class="curves">{"".join(drawn)}</div>'


def _latents(named: dict[str, RunRecord]) -> Iterator[str]:
    there = {name: record for name, record in named.items() if record.latent.get("order")}
    if there:
        yield "<h2>Latent space</h2>"
    for name, record in there.items():
        yield f"<h3>{escape(name)}</h3><p>{escape(activity(record))}</p>"
        try:
            yield f'<div class="curves">{"".join(unit_bars(record.latent))}</div>'
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            yield notice(f"latent.json of {name} is damaged: remove it, and `vaekit report` makes it again.")


def _figures(named: dict[str, RunRecord]) -> Iterator[str]:
    try:
        yield from to_parts(compare([record.out for record in named.values()]))
    except VaekitError as error:
        yield f"<h2>Figures</h2><p>{escape(str(error)[0].upper() + str(error)[1:])}.</p>"
