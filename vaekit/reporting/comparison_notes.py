"""What a reader of a comparison must be told: where protocols differ, and what the figures do not say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vaekit.reporting.comparison_cells import Column, Row
from vaekit.reporting.comparison_reading import ComparedRun, entries

__all__ = ["conflicts", "differences", "notes_on"]

_NAMED = 4  # Runs that a sentence names.
_LONG = 32  # Characters of a value that a sentence shows.


def differences(protocols: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return for each protocol the words for the entries in which it differs from the others.

    Where data sets differ by name, what else differs between them goes without saying.

    Examples:
        >>> differences([{"split": "test", "samples": 1000}, {"split": "test", "samples": 5000, "clip": True}])
        [['1,000 samples', 'no clip'], ['5,000 samples', 'clip true']]
    """
    flat = [entries(protocol) for protocol in protocols]
    names = [name for name in dict.fromkeys(n for each in flat for n in each) if len({f.get(name) for f in flat}) > 1]
    if "data.data" in names:
        names = ["data.data", *(name for name in names if not name.startswith("data."))]
    return [[_words(name.removeprefix("data."), each.get(name)) for name in names] for each in flat]


def conflicts(read: Sequence[ComparedRun], columns: Iterable[Column]) -> list[str]:
    """Return the first part of a sentence for all figures that runs share, but under no protocol that all of them have.

    Arguments:
        read: The runs.
        columns: The columns.
    """
    holders: dict[tuple[str, str], dict[Column, list[ComparedRun]]] = {}
    for column in columns:
        having = [run for run in read if any(number.key == column.key for number in run.numbers)]
        holders.setdefault((column.metric, column.figure), {})[column] = having
    found: dict[tuple[str, str], list[str]] = {}
    for (metric, _), by_column in holders.items():
        base = max(by_column, key=lambda column: len(by_column[column]))
        other = next((run for runs in by_column.values() for run in runs if run not in by_column[base]), None)
        if other is not None:
            # Of several protocols that the other run has, the nearest shows what is amiss.
            theirs = [column for column, runs in by_column.items() if other in runs]
            pairs = [differences([base.protocol, column.protocol]) for column in theirs]
            here, there = min(pairs, key=lambda pair: len(pair[0]))
            words = f"of {by_column[base][0].out}", f"from {_some(here)} and of {other.out} from {_some(there)}"
            found[words] = [*dict.fromkeys([*found.get(words, []), metric])]
    return [f"{_all(of)} {which} {'is' if len(of) == 1 else 'are'} {how}" for (which, how), of in found.items()]


def notes_on(
    read: Sequence[ComparedRun], rows: Iterable[Row], columns: Sequence[Column], left_out: Mapping[str, int]
) -> Iterator[str]:
    """Yield the sentences on runs that are not what they seem, on what is left out, and those kept with the figures.

    Arguments:
        read: The runs.
        rows: The rows.
        columns: The columns.
        left_out: Figures that are not shown, and how many columns they would be.
    """
    keys = {column.key for column in columns}
    if bare := [run for run in read if not run.evaluated]:
        commands = " and ".join(f"`vaekit evaluate {run.out}`" for run in bare[:2])
        yield (
            f"{_listed(bare)} {_have(bare)} no figures but those of the training: compute them with {commands}"
            f"{', and so on' * (len(bare) > 2)}"
        )
    if stale := [run for run in read if any(number.stale and number.key in keys for number in run.numbers)]:
        yield (
            f"the weights of {_listed(stale)} have changed since the figures marked † were computed: compute them again"
        )
    if unchecked := [run for run in read if not run.checked]:
        yield f"the weights of {_listed(unchecked)} are not there: whether they are those evaluated cannot be said"
    if unfinished := [run for run in read if not run.finished]:
        yield f"no end of the training is recorded for {_listed(unfinished)}: the figures may not be final"
    for row in rows:
        for seed, times in Counter(row.seeds).items():
            if times > 1:
                yield f"{row.name}: seed {seed} was trained {times} times, whose figures are averaged and count once"
    for name, size in left_out.items():
        yield f"{name} is not shown, with {size} figures: ask for it with --metrics {name}"
    shown = {column.metric for column in columns}
    for metric, note in dict.fromkeys((metric, note) for run in read for metric, note in run.notes if metric in shown):
        of = [run for run in read if (metric, note) in run.notes]
        everyone = sum(any(number.metric == metric for number in run.numbers) for run in read)
        yield f"{metric}{'' if len(of) == everyone else f' of {_listed(of)}'}: {note}"


def _words(name: str, value: str | None) -> str:
    """Write an entry of a protocol: `1,000 samples`, `split test`, `no clip`."""
    name = name.removesuffix(".name")
    if value is None or value == "null":
        return f"no {name}"
    if value.isdigit() and name.endswith("s"):
        return f"{int(value):,} {name.rpartition('.')[2].replace('_', ' ')}"
    return f"{name} {value if len(value) <= _LONG else value[: _LONG - 3] + '...'}"


def _some(words: Sequence[str]) -> str:
    return ", ".join([*words[:3], *([f"{len(words) - 3} more"] if len(words) > 3 else [])])


def _have(runs: Sequence[ComparedRun]) -> str:
    return "has" if len(runs) == 1 else "have"


def _listed(runs: Sequence[ComparedRun]) -> str:
    names = [str(run.out) for run in runs]
    if len(names) > _NAMED:
        names[_NAMED:] = [f"{len(names) - _NAMED} others"]
    return _all(names)


def _all(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
