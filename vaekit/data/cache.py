"""Arrays that are made once: a memory-mapped file in the user's cache, written atomically and reused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.errors import VaekitError

__all__ = [
    "Stored",
    "available_memory",
    "block_rows",
    "build",
    "build_once",
    "cache_folder",
    "collect",
    "fits",
    "user_cache",
]

FORMAT = 1  # raised whenever the same key would give other bytes

Blocks = Callable[[dict[int, str]], Generator[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Stored:
    """An array, whether it is memory-mapped, the rows that could not be made and why, and what to announce."""

    array: np.ndarray
    mapped: bool = False
    skipped: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def user_cache() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME`, otherwise `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()


def cache_folder() -> Path:
    """Return where decoded data sets are kept: `$VAEKIT_CACHE`, otherwise `vaekit` in the user's cache."""
    given = os.environ.get("VAEKIT_CACHE")
    return (Path(given).expanduser() if given else user_cache() / "vaekit") / "decoded"


def available_memory() -> int:
    """Return how many bytes of memory can be taken without swapping, a container's limit included; 0 if unknown."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(limit - used, 0))
    if not found and hasattr(os, "sysconf"):
        with contextlib.suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=0)


def fits(size: int) -> bool:
    """Return whether so many bytes fit in half of the available memory."""
    return size <= available_memory() // 2


def block_rows(size: int) -> int:
    """Return how many rows of `size` bytes make a block that is worth a call and small beside the memory."""
    return max(32, min(1024, 2**24 // max(size, 1)))


def collect(blocks: Iterator[np.ndarray], rows: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return the blocks as one array in memory; `rows` is the most that can come."""
    array = np.empty((rows, *shape), dtype)
    done = 0
    for block in blocks:
        array[done : done + len(block)] = block
        done += len(block)
    return array[:done]


def build(key: Any, blocks: Blocks, *, rows: int, shape: tuple[int, ...], dtype: str = "uint8") -> Stored:
    """Return the array made by `blocks`: in memory where it fits in half of what is free, otherwise by `build_once`.

    For arrays that are quicker to make than to keep on the disk.
    """
    if fits(rows * int(np.prod(shape)) * np.dtype(dtype).itemsize):
        return Stored(collect(blocks({}), rows, shape, dtype))
    return build_once(key, blocks, rows=rows, shape=shape, dtype=dtype)


def build_once(
    key: Any, blocks: Blocks, *, rows: int, shape: tuple[int, ...], dtype: str = "uint8", load: bool = True
) -> Stored:
    """Return the array made by `blocks`, from the cache where an earlier call with the same key left it.

    The array is loaded where it fits in half of the available memory and stays memory-mapped otherwise. Where the cache
    cannot be written, it is made in memory and a note says so.

    Arguments:
        key: Everything that decides the bytes, as JSON values.
        blocks: Called with an empty mapping, which it fills with skipped rows and reasons; yields arrays (n, *shape).
        rows: The most rows that can come.
        shape: The shape of a row.
        dtype: The element type.
        load: Whether to load it where it fits; otherwise it always stays memory-mapped.

    Raises:
        VaekitError: The cache cannot be written and the array does not fit in memory.
    """
    text = json.dumps([FORMAT, key, shape, dtype], sort_keys=True)
    place = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
    stored = _read(place, load)
    if stored is not None:
        return stored
    skipped: dict[int, str] = {}
    size = rows * int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        if _write(place, blocks, skipped, rows, shape, dtype) == 0:
            return Stored(np.empty((0, *shape), dtype), False, skipped)
        stored = _read(place, load)
        if stored is None:
            raise OSError("what was written cannot be read back")
        return stored
    except OSError as error:
        why = f"the cache folder {place.parent} cannot be written ({error.strerror or error})"
        if not fits(size):
            raise VaekitError(
                f"{why} and the data ({size / 1e9:.1f} GB) do not fit in memory: set VAEKIT_CACHE to a folder with room"
            ) from error
        skipped = {}
        array = collect(blocks(skipped), rows, shape, dtype)
        note = f"{why}, so the images are in memory and will be decoded again next time; set VAEKIT_CACHE to mend this"
        return Stored(array, False, skipped, [note])


def _read(place: Path, load: bool) -> Stored | None:
    """Return what a finished build left, None where there is none or it is damaged."""
    try:
        skipped = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))["skipped"]
        # Copy-on-write: torch wants a writable array, and the file itself is never changed.
        array = np.load(place, mmap_mode="c", allow_pickle=False)
        left_out = {int(row): str(reason) for row, reason in skipped.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    mapped = not (load and fits(array.nbytes))
    if not mapped:
        array = np.fromfile(place, array.dtype, offset=array.offset).reshape(array.shape)
    return Stored(array, mapped, left_out)


def _write(place: Path, blocks: Blocks, skipped: dict[int, str], rows: int, shape: tuple[int, ...], dtype: str) -> int:
    """Write the blocks to `place` and what was skipped beside it, both atomically; return how many rows came."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _clear_stale(place.parent)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    with _temporary(place) as array_file, _temporary(place) as skip_file:
        done = 0
        with open(array_file, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, *shape)})
            start = file.tell()
            with contextlib.closing(blocks(skipped)) as made:
                for block in made:
                    file.write(np.ascontiguousarray(block).data)
                    done += len(block)
            # The header leaves room for the first axis to grow, so the true number of rows takes the same space.
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (done, *shape)})
            if file.tell() != start:
                raise OSError("the header of the array changed its size")
            file.flush()
            os.fsync(file.fileno())
        with open(skip_file, "w", encoding="utf-8") as text:
            json.dump({"skipped": skipped}, text)
            text.flush()
            os.fsync(text.fileno())
        if done:
            os.replace(array_file, place)
            os.replace(skip_file, place.with_suffix(".json"))
    return done


@contextlib.contextmanager
def _temporary(place: Path) -> Iterator[Path]:
    """A name of our own beside `place`; the file is removed at the end unless it was renamed."""
    file = place.with_name(f"{place.stem}.{uuid.uuid4().hex}.tmp")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _clear_stale(folder: Path) -> None:
    """Remove what builds that were killed more than a day ago left behind."""
    for left in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                left.unlink()
