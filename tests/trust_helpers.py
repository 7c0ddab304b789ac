"""What the tests of trust share: code that would run if it were unpickled, archives, and refusals."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers import call

__all__ = ["Code", "refused", "stored"]


class Code:
    """What runs when it is unpickled: it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def stored(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Write a zip archive of these parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """Return the one sentence with which a command is refused."""
    capsys.readouterr()
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("vaekit: ")
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
    return said
