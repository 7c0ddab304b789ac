"""Everything that exact resume needs, in one file, written atomically and read without unpickling code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from vaekit.distributed import world_size
from vaekit.errors import VaekitError
from vaekit.files import save_state

__all__ = ["collect_rng", "load", "path_of", "restore_rng", "save"]

_FORMAT = 1


def path_of(out: Path, which: str) -> Path:
    """Return the file of the checkpoint `which` (`"last"` or `"best"`) of a run directory."""
    return out / "checkpoints" / which / "state.pt"


def save(out: Path, which: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before it stays whole until this one is."""
    save_state(path_of(out, which), {"format": _FORMAT, **state})


def load(out: Path, which: str = "last") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        VaekitError: It is missing, damaged, or of another format.
    """
    path = path_of(out, which)
    if not path.is_file():
        raise VaekitError(f"nothing to resume in {out}: {path} is not there; leave out --resume to start")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load does not compare checksums
                raise ValueError(f"the checksum of {damaged} does not match")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file; all mean the same to the user
        raise VaekitError(
            f"the checkpoint {path} is damaged and cannot be read: copy {path_of(out, 'best')} over it to go on from "
            "the best epoch, or start again with another --out"
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise VaekitError(f"the checkpoint {path} was written by another version of vaekit: start again")
    return state


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
