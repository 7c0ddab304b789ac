"""Atomic writes: a file is there whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vaekit.errors import VaekitError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "atomic",
    "half_written",
    "load_tensors",
    "move",
    "pack_tensors",
    "save_json",
    "save_state",
    "save_tensors",
    "save_text",
    "sha256",
    "storage_errors",
]


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one plain sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise VaekitError(
                f"no space left to write {path}: free some space or choose another place with --out (VAEKIT_CACHE for "
                "caches), then resume"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise VaekitError(
                f"no permission to write {path}: choose another place with --out (VAEKIT_CACHE for caches)"
            ) from error
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            raise VaekitError(f"cannot write {path}: the disk takes no such name") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise VaekitError(f"cannot write {path}: a file stands where a folder is needed") from error
        raise


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of `path` for writing bytes; on success it becomes `path`, else it is removed.

    Raises:
        VaekitError: The disk is full or the place may not be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a file another name on the same disk, atomically, in the place of what has that name.

    Raises:
        VaekitError: The place may not be written.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _rename(source, target)


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
    # The rename itself must survive a power cut.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def half_written(folder: Path) -> list[Path]:
    """Return the temporary neighbours below a folder that `atomic` had no time to remove: those of killed processes."""
    return [path for path in folder.rglob(".*.tmp") if path.is_file()]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as file:
        file.write(text.encode())


def save_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically."""
    save_text(path, json.dumps(value, indent=2) + "\n")


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, with words about them if wanted, atomically."""
    payload = pack_tensors(tensors, metadata)
    with atomic(path) as file:
        file.write(payload)


def pack_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return tensors as the bytes of a safetensors file: always the same for the same tensors."""
    from safetensors.torch import save

    packed: bytes = save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata
    )
    return packed


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        VaekitError: The file is missing or damaged.
    """
    from safetensors.torch import load_file

    if not Path(path).is_file():  # A pipe would be waited for.
        raise VaekitError(f"{path} is not there: is this the directory of a finished run?")
    try:
        return load_file(path)
    except Exception as error:  # A damaged header fails in many ways.
        raise VaekitError(f"{path} is damaged ({error}): restore it or train again") from error


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a nested state of tensors and plain values in torch's format, atomically."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with atomic(path) as file:
        file.write(buffer.getbuffer())
