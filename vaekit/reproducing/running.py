"""Training and evaluating the rows of a table, as far as that was not done before."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.data.dataset import Progress
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.extractors import load_extractor
from vaekit.evaluation.metrics import METRICS_OF_ONE, METRICS_OF_SEVERAL
from vaekit.evaluation.records import plain
from vaekit.files import save_json, save_text, sha256
from vaekit.reproducing.definition import Table, read_table
from vaekit.reproducing.parts import Evaluation, Measured, Row
from vaekit.reproducing.reading import STAMP, Stamp, measured, read_stamp
from vaekit.run import Run
from vaekit.run_evaluation import evaluate_run
from vaekit.rundir import is_leader, settle
from vaekit.series import SharedData, is_finished, train_to_end
from vaekit.sources import SOURCES
from vaekit.training.listeners import Listener

__all__ = ["reproduce"]


def reproduce(
    table: str | Path | Table,
    *,
    rows: Sequence[str] = (),
    seeds: int = 1,
    full: bool = False,
    assignments: Sequence[str] = (),
    data_root: str | Path | None = None,
    extractor: str | None = None,
    weights: Path | None = None,
    out: str | Path | None = None,
    offline: bool = False,
    listeners: Sequence[Listener] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Measured:
    """Train and evaluate rows of a published table, and return all figures of it that are there.

    Every row and seed is a run of its own under `out`. Whatever ends the command, repeating it goes on from there: what
    is finished stays, what was interrupted is resumed, and figures that are there are not computed again. What was
    found is also left in `out` as `measured.yaml`, in the form in which a table keeps what the project measured.

    Arguments:
        table: A table, by name or as a YAML file.
        rows: The rows to train; all of them if not given.
        seeds: How many seeds each row is trained with, from 0 on.
        full: Whether to train for the published length, and not for the shortened one.
        assignments: `a.b=value` strings laid over all rows.
        data_root: Where named data sets lie.
        extractor: A feature extractor by name, or a TorchScript file, for tables that compare images by features.
        weights: The weights of a named extractor.
        out: Where the runs lie; `reproductions/<table>`, and for the published length `reproductions/<table>-full`, if
            not given.
        offline: Forbid downloads.
        listeners: Called while runs are trained.
        progress: Called as `progress(done, total, what)` while data is decoded or a metric is computed.
        say: Called with a sentence before a run is trained or evaluated.

    Raises:
        Stopped: A signal ended a run early.
        VaekitError: There is no such table or row, data or the extractor are missing, a run that lies there has another
            configuration, or a run cannot be trained or evaluated.
    """
    table = table if isinstance(table, Table) else read_table(table)
    chosen = [table.row(name) for name in dict.fromkeys(rows)] or table.rows
    if seeds < 1:
        raise VaekitError(f"--seeds must be 1 or more, not {seeds}")
    evaluation = table.evaluation(full)
    asked = {**plain(evaluation.model_dump()), "extractor": _extractor(table, extractor, weights, offline)}
    place = Path(out) if out is not None else Path("reproductions") / f"{table.name}{'-full' if full else ''}"
    root = None if data_root is None else Path(data_root)
    places = {row.name: [place / f"{row.name}-seed-{seed}" for seed in range(seeds)] for row in table.rows}
    shared = SharedData()

    def runs(of: Sequence[Row]) -> Iterator[tuple[Row, int, Path, Run]]:
        for row in of:
            for seed, where in enumerate(places[row.name]):
                config = table.config(row, seed=seed, full=full, root=root, assignments=assignments)
                yield row, seed, where, Run(config, where, offline=offline, progress=progress)

    # What cannot work is found before hours are spent on what can.
    for _, _, where, run in runs(table.rows):
        _refuse_another(run.config, where)
    for _, seed, where, run in runs(chosen):
        _refuse_unknown(evaluation, run.config)
        if seed == 0 and not is_finished(where):
            _refuse_several(run.config)
            shared.lend(run)
            run.prepare()
    total = len(chosen) * seeds
    for number, (row, seed, where, run) in enumerate(runs(chosen)):
        if read_stamp(where, asked) is not None:
            continue
        if say is not None:
            say(f"{table.name}: row {row.name}, seed {seed} ({number + 1} of {total})")
        shared.lend(run)
        given = [*(["--full"] if full else []), *(f"--set={change}" for change in assignments)]
        command = ["vaekit", "reproduce", table.spec, f"--row={row.name}", f"--seeds={seed + 1}", *given]
        done = train_to_end(run, listeners=listeners, command=shlex.join(command))
        done.data = run.data  # Those that are at hand, wherever they lay when it was trained.
        _evaluate(done, where, evaluation, asked, extractor, weights, progress)
    found = measured(
        table,
        places,
        asked,
        full=full,
        changes=assignments,
        extractor=None if extractor is None else Path(extractor).name,
    )
    save_text(place / "measured.yaml", yaml.safe_dump(found.model_dump(), sort_keys=False, allow_unicode=True))
    return found


def _extractor(table: Table, spec: str | None, weights: Path | None, offline: bool) -> dict[str, Any] | None:
    """Return what figures say of the extractor that was asked for, or refuse to go on without one."""
    if not table.needs_extractor:
        if spec is not None or weights is not None:
            raise VaekitError(f"the table '{table.name}' compares no images by features: leave the extractor out")
        return None
    if spec is None:
        raise VaekitError(
            f"the table '{table.name}' compares images by features: give --extractor inception, or a TorchScript file"
        )
    return load_extractor(spec, weights=weights, offline=offline).protocol()


def _refuse_another(config: RunConfig, out: Path) -> None:
    """Refuse a run directory that holds another configuration."""
    if not (out / "config.yaml").is_file():
        return
    there = resolve(read_recipe(out))
    known = {"data_shape": there.data_shape, "data_values": there.data_values}
    settle(config.model_copy(update=known), out, resume=True, leader=True)
    for key in ("epochs", "max_steps"):
        if (before := there.trainer.get(key)) != (now := config.trainer.get(key)):
            raise VaekitError(
                f"{out} was trained with trainer.{key} = {before!r}, not {now!r}: choose another place with --out"
            )


def _refuse_unknown(evaluation: Evaluation, config: RunConfig) -> None:
    """Refuse metrics and samplers that there are not for a configuration."""
    metrics = METRICS_OF_ONE if config.modalities is None else METRICS_OF_SEVERAL
    asked = [("metric", evaluation.metrics, metrics), ("sampler", evaluation.samplers, (*SOURCES, "reconstructions"))]
    for what, names, known in asked:
        for name in names:
            if name not in known:
                raise VaekitError(f"there is no {what} '{name}' for this model: {suggest(name, known)}")


def _refuse_several(config: RunConfig) -> None:
    if not is_leader() or any(config.trainer.get(key, 1) != 1 for key in ("devices", "nodes")):
        raise VaekitError("a row is trained on one device: leave trainer.devices and trainer.nodes at 1")


def _evaluate(
    run: Run,
    out: Path,
    evaluation: Evaluation,
    asked: Mapping[str, Any],
    extractor: str | None,
    weights: Path | None,
    progress: Progress | None,
) -> None:
    """Compute what a table needs of a run, and leave a stamp beside it."""
    splits = run.data.splits
    whole = len(splits[evaluation.split]) if evaluation.split in splits else evaluation.samples
    found = evaluate_run(
        run,
        evaluation.metrics,
        split=evaluation.split,
        samples=min(evaluation.samples, whole),
        samplers=evaluation.samplers,
        extractor=extractor,
        weights=weights,
        particles=evaluation.particles,
        progress=progress,
    )
    stamp = Stamp(
        asked=asked,
        weights_sha256=sha256(out / "model.safetensors"),
        date=datetime.date.today().isoformat(),
        records=[[record.metric, record.digest] for record in found],
        notes=list(run.data.notes),
    )
    save_json(out / STAMP, asdict(stamp))
