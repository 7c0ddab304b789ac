"""Where the images in a tar file lie: an index that is made once, so that any of them can be read by itself."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Generator, Iterator
from itertools import groupby, islice
from typing import BinaryIO

import numpy as np

from vaekit.data.cache import Stored, build_once
from vaekit.data.images import ENDINGS
from vaekit.data.remote import Place, unreadable
from vaekit.errors import VaekitError, one_line

__all__ = ["index_of"]

_COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_LABEL = 2**16  # bytes that a member with a label may have


def index_of(place: Place, image: str | None, label: str) -> Stored:
    """Return the index of a shard, from the cache where it was made before.

    It is int64 of shape (N, 3): where each image begins, its bytes, and its label, -1 where there is none. What is left
    out is said in `skipped`.

    Arguments:
        place: The shard.
        image: As the option of `vaekit.data.shards.webdataset`.
        label: As the option of `vaekit.data.shards.webdataset`.

    Raises:
        VaekitError: It cannot be read, is compressed, or is no tar file.
    """
    if place.name.lower().endswith(_COMPRESSED):
        raise VaekitError(f"{place.name} is compressed, so that no place in it can be read: unpack it to a plain .tar")

    def blocks(skipped: dict[int, str]) -> Generator[np.ndarray]:
        found = _samples(place, image, label, skipped)
        while rows := list(islice(found, 4096)):
            yield np.array(rows, np.int64)

    key = ["index of a tar", place.name, *place.stamp, image, label]
    # A sample takes a header and a block of content, 512 bytes each, or more.
    return build_once(key, blocks, rows=place.size // 1024 + 1, shape=(3,), dtype="int64", load=False)


def _samples(place: Place, image: str | None, label: str, skipped: dict[int, str]) -> Iterator[tuple[int, int, int]]:
    """Yield a row of the index for each sample with an image, and note what is left out."""
    ending, _, inner = label.partition(".")
    seen, without, done = set[str](), 0, 0
    try:
        with place.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for _, members in groupby(_members(tar, file, place.size), key=lambda member: member[0]):
                found, number = None, -1
                for _, end, member in members:
                    seen.add(end)
                    if found is None and (end == image if image else f".{end}".endswith(ENDINGS)):
                        found = member.offset_data, member.size
                    elif end == ending and member.size <= _LABEL and (opened := tar.extractfile(member)) is not None:
                        number = _label(opened.read(), inner)
                if found is None:
                    without += 1
                else:
                    done += 1
                    yield *found, number
    except tarfile.TarError as error:
        if not done:
            raise VaekitError(
                f"{place.name} is no tar file that can be read ({error}): make it again or leave it out"
            ) from error
        skipped[1] = f"what comes after its first {done:,} samples, where it is damaged ({error})"
    except Exception as error:  # every store has errors of its own
        raise unreadable(place.name, error) from error
    if without:
        skipped[0] = one_line(f"{without:,} samples without an image (they hold {', '.join(sorted(seen)[:10])})")


def _members(tar: tarfile.TarFile, file: BinaryIO, size: int) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield the files in a tar: their sample, what they end in, and their header."""
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # It would keep all of them.
        name = re.fullmatch(r"((?:.*/)?[^/.]+)\.([^/]+)", member.name)
        if member.isfile() and name is not None:
            yield name[1], name[2].lower(), member
    # What looks like the end may be damage: an archive ends in zeros.
    file.seek(tar.offset)
    if tar.offset < size and any(file.read(512)):
        raise tarfile.ReadError("a header is damaged")


def _label(content: bytes, key: str) -> int:
    """Return a whole number from text, or from a key of a JSON object; -1 where there is none."""
    try:
        return int(json.loads(content)[key] if key else content.decode())
    except (ValueError, KeyError, TypeError):
        return -1
