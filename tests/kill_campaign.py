"""Run a command many times over, each time killed at a random instant, and at last let it come to its end.

    python kill_campaign.py KILLS OUT COMMAND...

The processes are forked from one that has everything imported, so that all of their time is the run's own: reading the
checkpoint, training, writing checkpoints and lines, validating, drawing, keeping. Prints how many were killed before
and after there was a checkpoint.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import sklearn.datasets  # noqa: F401

import vaekit.reporting.portrait
import vaekit.reporting.report
import vaekit.run  # noqa: F401
from vaekit.cli.main import main
from vaekit.training.checkpoint import path_of

_LONGEST = 2.0  # Seconds of a life: some end before the first step, and some while the run is kept.


def begin(command: list[str]) -> int:
    """Fork a process that runs the command in silence, and return its number."""
    if number := os.fork():
        return number
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    code = 1
    try:
        main(command)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def campaign(kills: int, out: Path, command: list[str]) -> dict[str, int]:
    """Kill the command so many times, then let it end; return what was hit."""
    draw, hit = random.Random(0), {"before": 0, "after": 0, "ended": 0}
    while True:
        resume = ["--resume"] if (out / "config.yaml").is_file() else []
        process = begin([*command, "--out", str(out), *resume])
        if sum(hit.values()) == kills:
            _, status = os.waitpid(process, 0)
            if status:
                raise SystemExit(f"the last run ended with {os.waitstatus_to_exitcode(status)}")
            return hit
        time.sleep(draw.uniform(0.0, _LONGEST))
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"a resumed run ended with {os.waitstatus_to_exitcode(status)}")
            hit["ended"] += 1
            continue
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        hit["after" if path_of(out, "last").is_file() else "before"] += 1


if __name__ == "__main__":
    sys.stdout.write(f"{campaign(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])}\n")
