"""Everything that exact resume needs, in one file, written atomically and read without unpickling code.

The last checkpoint has the one before it beside it, `previous`, for the case that a disk or a hand damages the last.
Each file has the checksums of its parts and the mark of its run: one that was damaged, or is another run's, is told.
"""

from __future__ import annotations

import uuid
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from vaekit.distributed import world_size
from vaekit.errors import VaekitError
from vaekit.files import move, save_state, save_text

__all__ = ["collect_rng", "latest", "load", "path_of", "restore_rng", "save"]

_FORMAT = 1
_PARTS: dict[str, Any] = {
    "step": int, "best": float, "metrics_bytes": int, "meter": dict, "model": dict, "objective": dict,
    "optimizers": dict, "rng": list,
}  # fmt: skip


def path_of(out: Path, which: str) -> Path:
    """Return the file of the checkpoint `which` (`"last"`, `"previous"` or `"best"`) of a run directory."""
    return out / "checkpoints" / which / "state.pt"


class _UnusableError(VaekitError):
    """A checkpoint that cannot be used."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}: {advice}")
        self.reason = reason


def save(out: Path, which: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before it stays whole until this one is, and the one before `"last"` after that."""
    mark = _mark_of(out)
    if not mark.is_file():
        save_text(mark, uuid.uuid4().hex)
    state = {"format": _FORMAT, "mark": mark.read_text("utf-8", "replace"), **state}
    if which != "last":
        save_state(path_of(out, which), state)
        return
    last = path_of(out, "last")
    written = last.with_name("next.pt")
    save_state(written, state)
    if last.is_file():
        move(last, path_of(out, "previous"))
    move(written, last)


def latest(out: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the last checkpoint, or the one before it where the last cannot be used, and what there is to say of that.

    Raises:
        VaekitError: Neither can be used; the sentence speaks of the last.
    """
    try:
        return load(out), []
    except _UnusableError as error:
        try:
            state = load(out, "previous")
        except VaekitError:
            raise error from None
        return state, [f"{error.reason}: going on from the checkpoint before it, of step {state['step']:,}"]


def load(out: Path, which: str = "last") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        VaekitError: It is missing, damaged, of another format or of another run.
    """
    path, mark = path_of(out, which), _mark_of(out)
    if not path.is_file():
        raise _UnusableError(f"{path} is not there", f"{out} has nothing to resume; leave out --resume to start")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("torch compresses nothing: what is compressed may be of any size")
            if damaged := archive.testzip():  # torch.load does not compare checksums
                raise ValueError(f"the checksum of {damaged} does not match")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file; all mean the same to the user
        raise _UnusableError(f"the checkpoint {path} is damaged and cannot be read", _advice(out)) from error
    if not isinstance(state, dict) or repr(state.get("format")) != repr(_FORMAT):
        raise _UnusableError(f"the checkpoint {path} was written by another version of vaekit", "start again")
    whole = all(isinstance(state.get(name), kind) for name, kind in _PARTS.items())
    if not whole or min(state["step"], state["metrics_bytes"]) < 0:
        raise _UnusableError(f"the checkpoint {path} is not whole", _advice(out))
    # Checkpoints of earlier versions have no mark.
    if mark.is_file() and "mark" in state and repr(state["mark"]) != repr(mark.read_text("utf-8", "replace")):
        raise _UnusableError(f"the checkpoint {path} is of another run", _advice(out))
    return state


def _mark_of(out: Path) -> Path:
    return out / "checkpoints" / "mark"


def _advice(out: Path) -> str:
    best = path_of(out, "best")
    return f"copy {best} over it to go on from the best epoch, or start again with another --out"


def collect_rng(device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Return the random state of every rank (all ranks must call this together)."""
    mine = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(device)
    if world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def restore_rng(states: list[dict[str, torch.Tensor]], rank: int, device: torch.device) -> None:
    """Set the random state of this rank; with another number of ranks, a rank without one keeps its seed's."""
    if rank < len(states):
        torch.set_rng_state(states[rank]["cpu"])
        if device.type == "cuda" and "cuda" in states[rank]:
            torch.cuda.set_rng_state(states[rank]["cuda"], device)
