"""The run directory: where it lies, whether it may be used, and what is written down about a run."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import vaekit
from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.data import Dataset
from vaekit.errors import VaekitError
from vaekit.files import half_written, save_json, save_text, storage_errors
from vaekit.models import Model
from vaekit.objectives.elbo import Objective
from vaekit.training.checkpoint import path_of
from vaekit.training.listeners import Listener, Plan

__all__ = ["Record", "default_place", "describe", "is_leader", "settle", "untouched"]

# What may differ between a run and its continuation without making it another run.
_FREE = {
    "trainer": {"epochs", "max_steps", "accelerator", "devices", "nodes", "strategy", "loggers", "log_every",
                "checkpoint_every", "sample_every", "activation_checkpointing", "not_finite"},
    "data": {"root", "resident", "workers"},
}  # fmt: skip


_LONGEST = 100  # signs in the name of a folder


def is_leader(several: bool = False) -> bool:
    """Whether this process is the one that writes and speaks, also before the ranks have met.

    Arguments:
        several: Whether the run has several machines. `NODE_RANK`, the number of this one, counts then alone: a machine
            may have one that a run on it has nothing to do with.
    """
    # torchrun gives the rank among all; otherwise the first process is first on its machine, and that the first one.
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "SLURM_PROCID", *(["NODE_RANK"] if several else []))
    return all(int(os.environ.get(name, "0")) == 0 for name in names)


def settle(config: RunConfig, out: Path | None, resume: bool, leader: bool) -> Path:
    """Return the directory of a run and check that it may be used.

    Arguments:
        config: The configuration of the run.
        out: The directory asked for; `None` for `runs/<recipe>-<data>`, numbered when that is taken.
        resume: Whether the run goes on from what lies there.
        leader: Whether this process is the one that writes; the others follow it.

    Raises:
        VaekitError: There is nothing to resume, the run there is another one, or the place is taken.
    """
    out = out or default_place(config, resume or not leader)
    if resume:
        if not (out / "config.yaml").is_file():
            raise VaekitError(f"nothing to resume: {out} holds no run; leave out --resume to start one")
        _refuse_changes(resolve(read_recipe(out)), config, out)
    elif leader and out.exists() and (not out.is_dir() or set(out.iterdir()) - set(out.glob(".*.tmp"))):
        raise VaekitError(
            f"{out} already holds another run or other files: add --resume to go on with it, "
            "or choose another place with --out"
        )
    if leader:
        for path in half_written(out):
            path.unlink(missing_ok=True)
    return out


def untouched(out: Path) -> bool:
    """Whether a run was ended before it kept anything: to resume it is to start it."""
    return not (out / "metrics.jsonl").exists() and not path_of(out, "last").exists()


def describe(config: RunConfig, data: Dataset, model: Model, objective: Objective, command: str) -> dict[str, Any]:
    """Return what `environment.json` says of a run before it begins.

    Arguments:
        config: The configuration of the run.
        data: The data set.
        model: The model.
        objective: The objective.
        command: The command that makes the run again.
    """
    from importlib.metadata import version

    packages = ("torch", "torchvision", "pyro-ppl", "lightning-fabric", "numpy")
    batch_size = config.data.get("batch_size", 64)
    return {
        "vaekit": vaekit.__version__,
        "label": objective.label,
        "command": command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "data": data.protocol,
        "notes": [*data.notes, *model.notes(), *objective.notes(batch_size, config.latent_dim)],
    }


class Record(Listener):
    """Writes what is trained and where; of a resumed run when its checkpoint has been read, not before.

    Arguments:
        out: The run directory.
        config: The configuration.
        environment: The circumstances: see `describe`.
    """

    def __init__(self, out: Path, config: RunConfig, environment: dict[str, Any]) -> None:
        self.out, self.config, self.environment = out, config, environment

    def write(self) -> None:
        """Write the configuration and the circumstances."""
        with storage_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        save_text(self.out / "config.yaml", self.config.to_yaml())
        save_json(self.out / "environment.json", self.environment)

    def on_start(self, plan: Plan) -> None:
        """Write, now that nothing stands in the way of going on."""
        self.write()


def default_place(config: RunConfig, existing: bool, root: str = "runs") -> Path:
    """Return `<root>/<recipe>-<data>`, numbered: the next free one, or the last existing one.

    Arguments:
        config: The configuration.
        existing: Whether the last existing one is meant.
        root: The folder that they lie in.
    """
    # A recipe may be of anybody's making: its name leads to no other folder.
    stem = re.sub(r"[^\w.+-]+", "-", f"{config.recipe or 'run'}-{Path(str(config.data['name'])).stem}")[:_LONGEST]
    number, place = 1, Path(root) / stem
    while (following := Path(root) / (stem if number == 1 else f"{stem}-{number}")).exists():
        place, number = following, number + 1
    return place if existing else following


def _refuse_changes(earlier: RunConfig, now: RunConfig, out: Path) -> None:
    before, after = earlier.model_dump(mode="json"), now.model_dump(mode="json")
    for key in before:
        if key in ("recipe", "about", "source"):
            continue
        old, new = ({} if side[key] is None else side[key] for side in (before, after))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            free = _FREE.get(key, set())
            for option in sorted({*old, *new} - free):
                if old.get(option) != new.get(option):
                    raise VaekitError(
                        f"{out} was trained with {key}.{option} = {old.get(option)!r}, not {new.get(option)!r}: resume "
                        "with the same configuration, or start another run with another --out"
                    )
        elif old != new:
            raise VaekitError(
                f"{out} was trained with {key} = {old!r}, not {new!r}: resume with the same configuration, or start "
                "another run with another --out"
            )
