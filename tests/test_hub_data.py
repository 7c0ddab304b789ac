"""Data sets of the package `datasets`: saved ones, Parquet files read in place, and what is refused."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import call, hub_rows, numbered_image, numbers_of, save_hub, streamed_numbers

from vaekit.data import Dataset, StreamedBatches, load
from vaekit.data.hub_rows import ParquetRows
from vaekit.errors import VaekitError
from vaekit.registry import datasets

pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")


def write_parquet(folder: Path, rows: int = 40, **splits: range) -> Path:
    """Write splits of numbered images as Parquet files with row groups of this many rows, two files for `train`."""
    (folder / "data").mkdir(parents=True)
    for split, numbers in splits.items():
        parts = [numbers] if split != "train" else [numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]]
        for part, some in enumerate(parts):
            file = folder / "data" / f"{split}-{part:05d}-of-{len(parts):05d}.parquet"
            hub_rows(some).to_parquet(str(file), batch_size=rows)
    return folder


PLACES = {
    "saved": lambda folder: save_hub(folder, train=range(300), test=range(300, 350)),
    "parquet": lambda folder: write_parquet(folder, train=range(300), test=range(300, 350)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("streaming", [False, True])
def test_splits(tmp_path: Path, place: str, streaming: bool) -> None:
    path = PLACES[place](tmp_path / "set")
    data = load("hf", path=str(path), image_size=8, streaming=streaming, valid_samples=20, examples=50, offline=True)
    assert [len(data.fitted_to), len(data.train), len(data.valid), data.test and len(data.test)] == [
        280, 50 if streaming else 280, 20, 50,
    ]  # fmt: skip
    for split in data.splits.values():
        assert split.labels.tolist() == [number % 10 for number in numbers_of(split.samples.float())]
    assert data.test is not None
    assert numbers_of(data.test.samples.float()) == list(range(300, 350))
    assert json.loads(json.dumps(data.protocol)) == data.protocol
    assert data.protocol["path"] == "set", "another machine has it elsewhere"
    assert data.protocol["samples"] == {"train": 280, "valid": 20, "test": 50}
    again = load("hf", path=str(path), image_size=8, streaming=streaming, valid_samples=20, examples=50, offline=True)
    assert again.protocol == data.protocol


@pytest.mark.parametrize("place", PLACES)
def test_stream_order_ranks_and_resume(tmp_path: Path, place: str) -> None:
    path = PLACES[place](tmp_path / "set")
    data = load("hf", path=str(path), image_size=8, streaming=True, valid_samples=20, window=5, offline=True)
    whole = streamed_numbers(data, 16, epoch=1)
    seen = [number for batch in whole for number in batch]
    assert len(set(seen)) == len(seen) == 272
    assert not set(seen) & set(numbers_of(data.valid.samples.float()))
    ranks = [streamed_numbers(data, 8, epoch=1, rank=rank, world=2) for rank in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole
    assert streamed_numbers(data, 16, epoch=1, start=11) == whole[11:]
    assert streamed_numbers(data, 16, epoch=0) != whole


def opened(path: Path, **options: Any) -> Dataset:
    """A stream of which no row group has been read: what is kept comes from the cache."""
    options = {"path": str(path), "image_size": 8, "streaming": True, "offline": True, **options}
    load("hf", **options)
    return load("hf", **options)


def test_row_groups_are_read_once_while_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(write_parquet(tmp_path / "set", 10, train=range(200), validation=range(200, 220)), workers=8)
    read: list[int] = []
    lock = threading.Lock()
    inner = ParquetRows._load

    def counted(self: ParquetRows, unit: int, columns: list[str]) -> Any:
        with lock:
            read.append(unit)
        return inner(self, unit, columns)

    monkeypatch.setattr(ParquetRows, "_load", counted)
    assert len(streamed_numbers(data, 8)) == 25
    assert sorted(read) == list(range(20)), "threads that want the same row group wait for one of them"
    assert data.stream is not None
    source: Any = data.stream.source
    source._kept.clear()
    read.clear()
    monkeypatch.setattr("vaekit.data.hub_rows._KEPT", 0)
    streamed_numbers(data, 8)
    assert len(read) > 20, "without room they are read again"
    assert len(source._kept) == 1


def test_lost_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set", train=range(200), validation=range(200, 220))
    data = opened(path)
    (path / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(VaekitError, match=r"train-00001-of-00002.parquet cannot be read .* go on with --resume"):
        streamed_numbers(data, 8)


def test_images_that_are_files_or_missing(tmp_path: Path) -> None:
    hub = pytest.importorskip("datasets")
    (tmp_path / "a.png").write_bytes(numbered_image(5))
    cells = [{"bytes": None, "path": str(tmp_path / "a.png")}, None, {"bytes": numbered_image(7), "path": None}] * 10
    rows = hub.Dataset.from_dict({"picture": cells}, features=hub.Features({"picture": hub.Image()}))
    rows.save_to_disk(str(tmp_path / "set"))
    data = load("hf", path=str(tmp_path / "set"), column="picture", image_size=8)
    assert set(numbers_of(data.train.samples.float())) == {5, 7}
    assert len(data.train) + len(data.valid) == 20
    assert any("cannot be decoded and are left out: row " in note for note in data.notes)
    assert data.train.labels is None


@pytest.mark.parametrize("kind", ["binary", "Image"])
def test_columns_of_bytes_are_images(tmp_path: Path, kind: str) -> None:
    hub = pytest.importorskip("datasets")
    feature = hub.Image() if kind == "Image" else hub.Value("binary")
    cells = [numbered_image(n) for n in range(30)]
    rows = hub.Dataset.from_dict({"image": cells}, features=hub.Features({"image": feature}))
    (tmp_path / "set").mkdir()
    rows.to_parquet(str(tmp_path / "set" / "train.parquet"))
    for streaming in (False, True):
        data = load("hf", path=str(tmp_path / "set"), image_size=8, streaming=streaming)
        assert len(data.train) == 27


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("parquet") / "set", train=range(60), validation=range(60, 70))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "trian"}, "has no split 'trian': did you mean 'train'"),
        ({"test_split": "exam"}, "has no split 'exam'"),
        ({"column": "img"}, "there is no column 'img': set data.column to one of image, label"),
        ({"column": "label"}, "the column 'label' holds no images"),
        ({"path": "https://example.org/set"}, "owner/name on the Hub or a folder"),
        ({"path": "/no/such/folder"}, "there is no folder /no/such/folder"),
        (
            {"path": "nobody/nothing", "streaming": False},
            "could not be loaded .offline: only what was downloaded before",
        ),
        ({"path": "nobody/nothing", "streaming": True}, "offline forbids it: set data.streaming to false"),
        ({"image_size": 0}, "image_size must be 1 or more"),
        ({"workers": 0}, "workers must be 1 or more"),
        ({"examples": 0}, "examples must be 1 or more"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_user_errors(parquet: Path, options: dict[str, Any], words: str, streaming: bool) -> None:
    with pytest.raises(VaekitError, match=words) as raised:
        load("hf", **{"path": str(parquet), "streaming": streaming, "offline": True, **options})
    assert "\n" not in str(raised.value)


def test_only_parquet_files_are_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text('{"image": "x"}\n')
    with pytest.raises(VaekitError, match="holds no Parquet files"):
        load("hf", path=str(tmp_path / "set"), streaming=True)


def test_code_that_comes_with_a_data_set_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w').close()\n")
    with pytest.raises(VaekitError, match="could not be loaded"):
        load("hf", path=str(folder))
    assert not (tmp_path / "owned").exists()


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_hub(tmp_path / "set", train=range(20))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(VaekitError, match=r"pip install 'vaekit\[datasets\]'"):
        load("hf", path=str(path))


OTHERS: dict[str, Any] = {
    "path": "other",
    "split": "more",
    "valid_split": "more",
    "test_split": "more",
    "column": "image2",
    "label": "label2",
    "image_size": 6,
    "crop": 4,
    "antialias": False,
    "channels": 1,
    "streaming": False,
    "valid_samples": 3,
    "test_samples": 3,
    "examples": 20,
    "window": 3,
    "workers": 3,
    "limit": 9,
}


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    hub = pytest.importorskip("datasets")
    noise = torch.randint(0, 256, (300, 9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    hub.disable_progress_bars()
    for name, shift in (("set", 0), ("other", 100)):
        splits = {}
        for split, first in (("train", shift), ("more", shift + 50), ("test", shift + 80)):
            pictures, count = noise[first : first + 80].numpy(), 80 if split == "train" else 30
            table = {
                "image": list(pictures[:count]),
                "image2": list(pictures[:count][::-1]),
                "label": list(range(count)),
                "label2": list(range(count, 2 * count)),
            }
            features = hub.Features(
                {"image": hub.Image(), "image2": hub.Image(), "label": hub.Value("int64"), "label2": hub.Value("int64")}
            )
            splits[split] = hub.Dataset.from_dict(table, features=features)
        hub.DatasetDict(splits).save_to_disk(str(folder / name))
    return folder


@pytest.mark.parametrize("option", OTHERS)
def test_every_option_changes_something(two_sets: Path, option: str) -> None:
    # `subset` and `revision` are passed on: below.
    assert {*OTHERS, "subset", "revision"} == set(datasets.options("hf"))

    def seen(**options: Any) -> str:
        given = {
            "path": "set",
            "streaming": True,
            "image_size": 8,
            "examples": 30,
            "window": 4,
            "workers": 2,
            **options,
        }
        data = load("hf", two_sets, **given)
        order = []
        if data.stream is not None:
            order = [x.tolist() for x in StreamedBatches(data.stream, 8, data_range=None).epoch(0)]
        kept = [(split.samples.tolist(), split.labels.tolist()) for split in data.splits.values()]
        return repr((kept, order, getattr(data.stream, "workers", 0)))

    given = {"crop": {"image_size": 6}, "antialias": {"image_size": 5}}.get(option, {})
    assert seen(**given) == seen(**given)
    assert seen(**given) != seen(**{**given, option: OTHERS[option]})


@pytest.mark.parametrize(("streaming", "name"), [(False, "load_dataset"), (True, "load_dataset_builder")])
def test_subset_and_revision_are_passed_on(monkeypatch: pytest.MonkeyPatch, streaming: bool, name: str) -> None:
    asked: list[Any] = []

    def ask(path: str, subset: str, revision: str) -> Any:
        asked.append((path, subset, revision))
        raise FileNotFoundError("nothing there")

    monkeypatch.setattr(f"datasets.{name}", ask)
    with pytest.raises(VaekitError, match="'owner/name' could not be loaded from the Hub: nothing there"):
        load("hf", path="owner/name", subset="small", revision="v1", streaming=streaming)
    assert asked == [("owner/name", "small", "v1")]


def test_command_line(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set", train=range(200), test=range(200, 230))
    options = ["--set", f"data.path={path}", "--set", "data.split=train", "--set", "data.column=image", "--offline"]
    options += ["--set", "data.image_size=8", "--set", "data.streaming=true", "--set", "latent_dim=2"]
    options += ["--set", "backbone.hidden=[4]", "--set", "trainer.max_steps=5", "--out", str(tmp_path / "run")]
    assert call("run", "vae", "--data", "hf", *options) == 0
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data"]["samples"] == {"train": 180, "valid": 20, "test": 30}
    assert call("data", "check", "hf", "--set", f"path={path}", "--set", "image_size=8") == 0
