"""Locks that a process which is killed leaves open at once."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from vaekit.files import storage_errors

__all__ = ["Locks"]


class Locks:
    """Numbered locks in one file; the system releases those of a process that ends, in whatever way.

    Arguments:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        with storage_errors(path):
            self._file = open(path, "ab")  # noqa: SIM115, for as long as the locks are held

    def take(self, number: int) -> bool:
        """Take a lock unless another process has it, and return whether it was taken."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def holding(self, number: int) -> Iterator[None]:
        """Hold a lock inside; waits until it is free."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Release all."""
        self._file.close()
