"""Features of many images, made block by block and kept in a file, from which an interrupted extraction goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vaekit.data.cache import cache_folder
from vaekit.data.dataset import Progress
from vaekit.documents import read_json
from vaekit.errors import VaekitError
from vaekit.evaluation.extractors import Extractor
from vaekit.evaluation.records import digest, plain
from vaekit.evaluation.samplers import BLOCK
from vaekit.files import save_json, storage_errors

__all__ = ["Blocks", "FeatureStore", "reference_store"]

#: The number of the first block that is wanted, to the blocks from there on: each one its uint8 images (B, C, H, W) in
#: parts of any size.
Blocks: TypeAlias = Callable[[int], Iterator[Iterable[Tensor]]]

_FORMAT = 1


class FeatureStore:
    """A folder of features, one file of float32 rows for each key, with a small JSON file beside it.

    The JSON file says how many blocks there are and gives the checksum of each. A block counts if its bytes in the file
    have that checksum: whatever a killed process, a full disk or a foreign hand left behind is made anew, and nothing
    else is. Bytes are only ever written where their block lies, so that two processes with one key do no harm.

    Arguments:
        folder: The folder; a temporary one that goes with the store if not given.

    Raises:
        VaekitError: The folder cannot be made.

    Examples:
        >>> means = Extractor("means", "0" * 64, lambda images: images.float().mean((2, 3)))
        >>> def ones(start):
        ...     for block in range(start, 2):
        ...         yield torch.ones(500 if block == 0 else 100, 1, 4, 4, dtype=torch.uint8).split(64)
        >>> rows = FeatureStore().rows({"images": "ones"}, ones, 600, means)
        >>> rows.shape, rows.mean()
        (torch.Size([600, 1]), tensor(1.))
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="vaekit-features-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        else:
            self.folder = Path(folder)
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def rows(
        self,
        key: Mapping[str, Any],
        blocks: Blocks,
        count: int,
        extractor: Extractor,
        *,
        progress: Progress | None = None,
        what: str = "features",
    ) -> Tensor:
        """Return the extractor's rows for `count` images, shape (count, F + L), memory-mapped.

        Blocks that an earlier call with the same key, count and extractor left are not made again.

        Arguments:
            key: Everything that decides the images, as JSON values.
            blocks: The images: 500 in each block, as samplers draw them, and the rest in the last.
            count: How many images.
            extractor: What makes rows of them.
            progress: Called as `progress(done, count, what)` after every part.
            what: What is being computed, for the report.

        Raises:
            VaekitError: A block has not as many images as it should, the disk is full, or the extractor fails.
        """
        made = {"extractor": {"name": extractor.name, "sha256": extractor.sha256}, "count": count, "block": BLOCK}
        key = plain({"format": _FORMAT, **made, "torch-fidelity": version("torch-fidelity"), "images": key})
        path = self.folder / f"{digest(key)}.f32"
        sizes = [min(BLOCK, count - start) for start in range(0, count, BLOCK)]
        dims, sums = _intact(path, key, sizes)
        for number, parts in zip(range(len(sums), len(sizes)), blocks(len(sums)), strict=False):
            made_rows, done = [], number * BLOCK
            for images in parts:
                made_rows.append(extractor.rows(images))
                done += len(images)
                if progress is not None:
                    progress(done, count, what)
            rows = torch.cat(made_rows)
            dims = dims or rows.shape[1]
            if rows.shape != (sizes[number], dims):
                raise VaekitError(
                    f"{what}: block {number} has rows of shape {tuple(rows.shape)} instead of {(sizes[number], dims)}"
                )
            data = rows.contiguous().numpy().tobytes()
            sums.append(zlib.crc32(data))
            with storage_errors(path):
                path.touch()
                with open(path, "r+b") as file:
                    file.seek(4 * number * BLOCK * dims)
                    file.write(data)
            save_json(path.with_suffix(".json"), {"key": key, "dims": dims, "blocks": sums})
        return torch.from_file(str(path), shared=False, size=count * dims, dtype=torch.float32).view(count, dims)


def reference_store() -> FeatureStore:
    """Return the store of features of data sets, beside the decoded data sets in the user's cache.

    It is a temporary one where the cache cannot be written.
    """
    folder = cache_folder().with_name("features")
    with contextlib.suppress(VaekitError, OSError):
        store = FeatureStore(folder)
        if os.access(folder, os.W_OK):
            return store
    return FeatureStore()


def _intact(path: Path, key: Any, sizes: Sequence[int]) -> tuple[int, list[int]]:
    """Return the number of columns and the checksums of the blocks that lie whole in a file; 0 and none if new."""
    kept: list[int] = []
    try:
        said = read_json(path.with_suffix(".json"))
        if said["key"] != key:
            return 0, []
        dims = int(said["dims"])
        with open(path, "rb") as file:
            for size, checksum in zip(sizes, said["blocks"], strict=False):
                data = file.read(4 * size * dims)
                if len(data) != 4 * size * dims or zlib.crc32(data) != checksum:
                    break
                kept.append(checksum)
    except (OSError, ValueError, LookupError, TypeError):
        return 0, []
    return (dims, kept) if kept else (0, [])
