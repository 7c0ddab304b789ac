"""Data sets of the Hugging Face Hub, and folders in the same formats."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from vaekit.data.dataset import Dataset, Progress
from vaekit.data.hub_rows import MappedRows, ParquetRows
from vaekit.data.stream import Source, Stream, threads
from vaekit.data.streaming import assemble
from vaekit.errors import VaekitError, one_line, suggest
from vaekit.registry import datasets

__all__ = ["hf"]


@datasets.register(
    "hf",
    about="Images of a Hugging Face data set, from the Hub or a folder",
    needs=("data.path: owner/name or a folder; pip install 'vaekit[datasets]'",),
)
def hf(
    root: Path,
    progress: Progress | None,
    offline: bool,
    *,
    path: str,
    subset: str | None = None,
    revision: str | None = None,
    split: str = "train",
    valid_split: str | None = None,
    test_split: str | None = None,
    column: str = "image",
    label: str = "label",
    image_size: int = 64,
    crop: int | None = None,
    antialias: bool = True,
    channels: Literal[1, 3] = 3,
    streaming: bool = False,
    valid_samples: int = 5_000,
    test_samples: int = 50_000,
    examples: int = 10_000,
    window: int = 64,
    workers: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Return the images of a column, decoded once into the cache, or read while a model trains.

    Without `streaming` the package `datasets` downloads the data set, and all its images are decoded once. With it, a
    folder written by `save_to_disk` stays where it is, memory-mapped, and the Parquet files of any other data set are
    read from where they are, a row group at a time, without a copy on this machine. No code that comes with a data set
    is ever run.

    Arguments:
        root: Where a relative folder is looked for too.
        progress: Called with (samples done, samples, words) while images are decoded for the first time.
        offline: Whether only what is on this machine may be used.
        path: `owner/name` on the Hub, a folder of files, or one that `save_to_disk` wrote.
        subset: Which configuration of the data set, where it has several.
        revision: Which commit, tag or branch on the Hub.
        split: The training split.
        valid_split: The validation split; `validation`, `valid` or `val` if not given, and where there is none of these
            a fixed part of the training samples is held out.
        test_split: The test split; `test`, where there is one, if not given.
        column: The column that holds the images.
        label: The column that holds labels, where there is one of that name with whole numbers.
        image_size: Side of the images.
        crop: Side of the centre crop before the resize; None, and any larger value, takes the largest square.
        antialias: Whether the resize averages over the pixels that it drops.
        channels: 3, or 1 for grey.
        streaming: Whether to read the training samples as a model trains; false decodes all of them once into the
            cache.
        valid_samples: The most validation samples, which are kept; a tenth of the samples where there is no split for
            it and that is fewer.
        test_samples: The most test samples, which are kept.
        examples: With `streaming`, training samples that are kept, for all that looks at training samples besides
            training.
        window: With `streaming`, batches that are read and mixed together; memory holds twice as many.
        workers: Threads that read and decode, one for each core but at most 8 if not given.
        limit: Keep the first so many samples of each split.

    Raises:
        VaekitError: The package is not installed, or the data set, a split or the column is not there.
    """
    place = _place(path, root)
    found = _splits(place, subset, revision, offline, streaming)
    wanted = {"train": split, "valid": valid_split, "test": test_split}
    for key, usual in (("valid", ("validation", "valid", "val")), ("test", ("test",))):
        wanted[key] = wanted[key] or next((name for name in usual if name in found and name != split), None)
    pixels = {"image_size": image_size, "crop": crop, "antialias": antialias, "channels": channels}
    streams = {}
    for key, name in wanted.items():
        if name is None:
            continue
        if name not in found:
            raise VaekitError(f"the data set '{path}' has no split '{name}': {suggest(name, found)}")
        rows = found[name]
        source: Source = (
            ParquetRows(rows, column, label, progress) if isinstance(rows, list) else MappedRows(rows, column, label)
        )
        streams[key] = Stream.whole(source, pixels, window, threads(workers))
    return assemble(
        "hf",
        streams,
        streaming=streaming,
        most={"valid": valid_samples, "test": test_samples, "train": examples},
        limit=limit,
        notes=[],
        progress=progress,
        path=Path(place).name if Path(place).is_dir() else path,
        subset=subset,
        revision=revision,
    )


def _place(path: str, root: Path) -> str:
    """Return a folder on this machine, or the name of a data set on the Hub."""
    if "://" in path:
        raise VaekitError(f"data.path is owner/name on the Hub or a folder, not '{path}'")
    for folder in (Path(path).expanduser(), root / path):
        if folder.is_dir():
            return str(folder)
    if path.count("/") > 1 or path.startswith((".", "~", "/")):
        raise VaekitError(f"there is no folder {path}: data.path is owner/name on the Hub or a folder")
    return path


def _splits(path: str, subset: str | None, revision: str | None, offline: bool, streaming: bool) -> dict[str, Any]:
    """Return split to `datasets.Dataset`, or to a list of Parquet files where these are to be read in place."""
    try:
        import datasets as hub
    except ImportError as error:
        raise VaekitError("the data set 'hf' needs the package datasets: pip install 'vaekit[datasets]'") from error
    local = Path(path).is_dir()
    try:
        with _quiet(hub), _without_network(hub) if offline else contextlib.nullcontext():
            if local and any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json")):
                saved = hub.load_from_disk(path)
                return dict(saved) if isinstance(saved, Mapping) else {str(saved.split or "train"): saved}
            if not streaming:
                return dict(hub.load_dataset(path, subset, revision=revision))
            if offline and not local:
                raise VaekitError(
                    f"'{path}' would be read from the Hub and offline forbids it: set data.streaming to false"
                )
            builder = hub.load_dataset_builder(path, subset, revision=revision)
    except VaekitError:
        raise
    except Exception as error:  # the package and its downloads raise errors of every type
        where = "" if local else " from the Hub" if not offline else " (offline: only what was downloaded before)"
        raise VaekitError(f"the data set '{path}' could not be loaded{where}: {one_line(error)}") from error
    files = {str(name): [str(file) for file in part] for name, part in (builder.config.data_files or {}).items()}
    if not files or not all(file.endswith(".parquet") for part in files.values() for file in part):
        raise VaekitError(
            f"'{path}' holds no Parquet files, and no others can be read in place: set data.streaming to false, or "
            "name tar shards with the data set 'webdataset'"
        )
    return files


@contextlib.contextmanager
def _without_network(hub: Any) -> Iterator[None]:
    """Keep the package off the network, as HF_HUB_OFFLINE=1 does where it is set before the package is imported."""
    from huggingface_hub import constants

    before = hub.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    hub.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Keep the package's progress bars, one for each file and step, off the screen."""
    before = hub.is_progress_bar_enabled()
    hub.disable_progress_bars()
    try:
        yield
    finally:
        if before:
            hub.enable_progress_bars()
