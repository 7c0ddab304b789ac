"""Where shards lie, on this machine or another one, and reading a stretch of one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from vaekit.errors import VaekitError, one_line

__all__ = ["Place", "expand", "locate", "protocol_of", "unreadable"]

T = TypeVar("T")

# Stores that serve a stretch of a file. What else fsspec knows may run programs or unpack archives.
_PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf")
_MOST = 100_000  # shards in one span
_WAITS = (0.0, 1.0, 4.0)  # seconds before each attempt to read from another machine
_AHEAD = 2**22  # bytes that are fetched at once while a remote shard is indexed


@dataclass(frozen=True)
class Place:
    """A file on this machine, or a URL.

    Arguments:
        name: The path or URL.
        stamp: What tells whether it has changed: its size and, where they are known, its time of change or its tag.

    Examples:
        >>> place = Place.of(__file__)
        >>> place.read(0, 3) == Path(__file__).read_bytes()[:3]
        True
    """

    name: str
    stamp: tuple[Any, ...]

    @classmethod
    def of(cls, name: str) -> Place:
        """Look a file up.

        Raises:
            VaekitError: It cannot be found.
        """
        try:
            if protocol_of(name) is None:
                found = os.stat(name)
                return cls(name, (found.st_size, found.st_mtime_ns))
            fs, path = _store(name)
            info = fs.info(path)
            marks = (info.get(key) for key in ("ETag", "etag", "md5", "LastModified", "mtime"))
            return cls(name, (info["size"], next((str(mark) for mark in marks if mark is not None), "")))
        except Exception as error:  # every store has errors of its own
            raise unreadable(name, error) from error

    @property
    def size(self) -> int:
        """Bytes.

        Raises:
            VaekitError: The server does not say.
        """
        if not isinstance(self.stamp[0], int):
            raise VaekitError(f"the server does not say how large {self.name} is: copy the shards to this machine")
        return self.stamp[0]

    def open(self) -> BinaryIO:
        """Open the file to be read from its beginning on.

        Raises:
            OSError: It cannot be read, or is no longer the file that was looked up.
        """
        if protocol_of(self.name) is None:
            file = open(self.name, "rb")  # noqa: SIM115 (the caller closes it)
            found = os.fstat(file.fileno())
            if (found.st_size, found.st_mtime_ns) != self.stamp:
                file.close()
                raise OSError("it has changed since it was looked up")
            return file
        fs, path = _store(self.name)
        return cast(BinaryIO, fs.open(path, "rb", block_size=_AHEAD, cache_type="readahead"))

    def read(self, start: int, stop: int) -> bytes:
        """Return a stretch of the file.

        Raises:
            VaekitError: It cannot be read, or it is no longer the file that was looked up.
        """
        content = self.patiently(lambda: self._stretch(start, stop))
        if len(content) != stop - start:
            raise VaekitError(
                f"{self.name} gave {len(content):,} bytes where {stop - start:,} were asked for: it was cut short, or "
                "its server does not serve parts of files"
            )
        return content

    def patiently(self, read: Callable[[], T]) -> T:
        """Return what `read` gives, after up to three attempts where the file is on another machine.

        Arguments:
            read: Reads from this file.

        Raises:
            VaekitError: It cannot be read.
        """
        for wait in (0.0,) if protocol_of(self.name) is None else _WAITS:
            try:
                time.sleep(wait)
                return read()
            except Exception as error:  # every store has errors of its own
                failed = error
        raise unreadable(self.name, failed) from failed

    def _stretch(self, start: int, stop: int) -> bytes:
        if protocol_of(self.name) is None:
            with self.open() as file:
                file.seek(start)
                return file.read(stop - start)
        fs, path = _store(self.name)
        return cast(bytes, fs.cat_file(path, start=start, end=stop))


def protocol_of(name: str) -> str | None:
    """Return the protocol of a URL, None for a path.

    Examples:
        >>> protocol_of("https://example.org/a.tar"), protocol_of("pipe:cat a.tar"), protocol_of("a.tar")
        ('https', 'pipe', None)
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", name)  # one letter is a drive
    return found[1].lower() if found else None


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern with braces stands for.

    Raises:
        VaekitError: What stands in braces is neither a span nor a list.

    Examples:
        >>> expand("train-{008..010}.tar")
        ['train-008.tar', 'train-009.tar', 'train-010.tar']
        >>> expand("{a,b}.tar")
        ['a.tar', 'b.tar']
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span is None and "," not in found[1]:
        raise VaekitError(
            f"'{{{found[1]}}}' in '{pattern}' must be a span such as {{000..099}} or a list such as {{a,b}}"
        )
    words = found[1].split(",")
    if span is not None and int(span[2]) - int(span[1]) > _MOST:
        raise VaekitError(f"'{{{found[1]}}}' in '{pattern}' stands for more than {_MOST:,} shards: name fewer")
    if span is not None:
        words = [f"{number:0{len(span[1])}}" for number in range(int(span[1]), int(span[2]) + 1)]
    return [name for word in words for name in expand(pattern[: found.start()] + word + pattern[found.end() :])]


def locate(urls: str | Sequence[str], root: Path, offline: bool, option: str = "urls") -> list[str]:
    """Return the shards that a user names, in the order given.

    Arguments:
        urls: Paths, where `*` and folders of `.tar` files may be, or URLs; braces stand for several names.
        root: Where relative paths are looked for too.
        offline: Whether other machines may not be asked.
        option: The option that named them, for messages.

    Raises:
        VaekitError: A shard is missing, or a URL may not be read.
    """
    names: list[str] = []
    for pattern in [urls] if isinstance(urls, str) else urls:
        protocol = protocol_of(pattern)
        if protocol is None:
            names += [file for name in expand(pattern) for file in _local(name, root)]
            continue
        if protocol not in _PROTOCOLS or "::" in pattern:
            why = " (it would run a command)" if protocol == "pipe" else ""
            raise VaekitError(
                f"data.{option} may not be a '{protocol}:' address{why}: give paths, or addresses of "
                f"{', '.join(_PROTOCOLS)}"
            )
        if offline:
            raise VaekitError(f"data.{option} is on another machine ({pattern}) and offline forbids to ask it")
        names += expand(pattern)
    missing = [name for name in names if protocol_of(name) is None and not os.path.isfile(name)]
    if missing:
        which = f"{len(missing)} of {len(names)} shards are missing, the first of them {missing[0]}"
        raise VaekitError(f"{which}: put them there or change data.{option}")
    if not names:
        raise VaekitError(f"there is no shard at {urls}: put shards there or change data.{option}")
    return names


def _local(name: str, root: Path) -> list[str]:
    """Return the files that a path stands for, as it is or under the data root; the path itself where none is there."""
    path = Path(name).expanduser()
    for place in (path, root / path):
        if place.is_dir():
            return sorted(str(file) for file in place.glob("*.tar"))
        if place.is_file():
            return [str(place)]
        if any(sign in place.name for sign in "*?[") and (files := sorted(place.parent.glob(place.name))):
            return [str(file) for file in files]
    return [str(path)]


def _store(name: str) -> tuple[Any, str]:
    import fsspec

    return cast(tuple[Any, str], fsspec.core.url_to_fs(name))


def unreadable(name: str, error: Exception) -> VaekitError:
    """Return one sentence about a shard that cannot be read."""
    reason = one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    return VaekitError(f"{name} cannot be read ({reason}): mend this, then start again, or go on with --resume")
