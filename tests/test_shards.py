"""Tar shards: their names, their index, what is read of them, and shards on another machine."""

from __future__ import annotations

import functools
import http.server
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import numbered_image, numbers_of, streamed, streamed_numbers, write_shards, write_tar

from vaekit.data import load
from vaekit.data.remote import Place, locate
from vaekit.errors import VaekitError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


# ---- shards ----------------------------------------------------------------------------------------------------------


def test_names_of_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, 3, 3)
    files = [str(tmp_path / f"train-00{n}.tar") for n in range(2)]
    for urls in (f"{tmp_path}/train-{{000..001}}.tar", f"{tmp_path}/train-00{{0,1}}.tar", "train-*.tar", str(tmp_path)):
        assert locate(urls, tmp_path, True) == files
    assert locate(files[::-1], tmp_path, True) == files[::-1]


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        ("pipe:curl -s https://example.org/a.tar", "it would run a command"),
        ("simplecache::https://example.org/a.tar", "'simplecache:' address"),
        ("https://example.org/a.tar::s3://b", "'https:' address"),
        ("python://a.tar", "'python:' address"),
        ("https://example.org/{00..09}.tar", "offline forbids"),
        ("nothing-{00..09}.tar", "10 of 10 shards are missing, the first of them nothing-00.tar"),
        ("nothing-{a}.tar", "must be a span"),
        ("nothing-{09..00}.tar", "there is no shard at"),
        ([], "there is no shard at"),
    ],
)
def test_shards_that_are_refused(tmp_path: Path, urls: Any, words: str) -> None:
    with pytest.raises(VaekitError, match=words) as raised:
        load("webdataset", tmp_path, urls=urls, offline=True)
    assert "\n" not in str(raised.value)


def test_only_images_and_labels_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside an image is never decoded: a pickle there is bytes that nobody reads."""
    opened = []
    inner = tarfile.TarFile.extractfile
    monkeypatch.setattr(
        tarfile.TarFile, "extractfile", lambda self, member: opened.append(member.name) or inner(self, member)
    )
    bomb = b"cos\nsystem\n(S'touch /tmp/owned'\ntR."
    members = [
        (f"a/{n}.{end}", content)
        for n in range(20)
        for end, content in (("pyd", bomb), ("JPG", numbered_image(n)), ("pickle", bomb), ("cls", b"3"))
    ]
    data = load("webdataset", urls=str(write_tar(tmp_path / "a.tar", members)), image_size=8)
    assert data.stream is not None
    assert len(data.stream) + len(data.valid) == 20
    assert {name.rpartition(".")[2] for name in opened} == {"cls"}


def test_samples_without_an_image_are_counted(tmp_path: Path) -> None:
    members = [(f"{n}.{'txt' if n % 5 == 0 else 'png'}", numbered_image(n)) for n in range(20)]
    data = load("webdataset", urls=str(write_tar(tmp_path / "a.tar", members)), image_size=8)
    assert any("a.tar: 4 samples without an image (they hold png, txt)" in note for note in data.notes)
    assert data.train.labels is None
    with pytest.raises(VaekitError, match=r"no sample in .*a.tar has an image: .*20 samples without an image"):
        load("webdataset", urls=str(tmp_path / "a.tar"), image="jpg")


# Whether the sample before a damaged header is whole cannot be told.
@pytest.mark.parametrize(("where", "left"), [("header", 9), ("content", 10)])
def test_a_damaged_shard_is_used_up_to_the_damage(tmp_path: Path, where: str, left: int) -> None:
    streamed(tmp_path, 20, 20)
    file = tmp_path / "train-001.tar"
    with tarfile.open(file) as tar:
        member = tar.getmember("000030.png")
    content = bytearray(file.read_bytes())
    if where == "header":
        content[member.offset : member.offset + 512] = b"\xff" * 512
    else:
        content = content[: member.offset_data + 5]
    file.write_bytes(content)
    data = load("webdataset", urls=str(tmp_path / "train-*.tar"), image_size=8)
    assert data.stream is not None
    assert len(data.stream) + len(data.valid) == 20 + left
    assert any(f"train-001.tar: what comes after its first {left} samples" in note for note in data.notes)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tar", b"", "no tar file"),
        ("a.tar", b"this is something else entirely" * 100, "no tar file"),
        ("a.tar", bytes(10240), "no sample in"),
        ("a.tar.gz", b"", "unpack it"),
    ],
)
def test_files_that_are_no_shards(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VaekitError, match=words):
        load("webdataset", urls=str(tmp_path / name))


def test_the_index_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = streamed(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda **_: pytest.fail("the shards are read through again"))
        second = load("webdataset", urls=str(tmp_path / "train-{000..002}.tar"), image_size=8, valid_samples=10)
        assert streamed_numbers(second, 16) == streamed_numbers(first, 16)
    write_shards(tmp_path, 150, 90, 78)
    third = load("webdataset", urls=str(tmp_path / "train-{000..002}.tar"), image_size=8, valid_samples=10)
    assert third.stream is not None
    assert len(third.stream) == 308


def test_shards_of_the_package_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "s-%04d.tar"), maxcount=30, verbose=0) as writer:
        for n in range(80):
            writer.write({"__key__": f"deep/{n:05d}", "png": numbered_image(n), "cls": n % 10, "json": {"class": n}})
    data = load("webdataset", urls=str(tmp_path / "s-{0000..0002}.tar"), image_size=8, label="json.class")
    found = numbers_of(data.train.samples.float())
    assert data.train.labels is not None
    assert data.train.labels.tolist() == found
    assert sorted(found + numbers_of(data.valid.samples.float())) == list(range(80))


# ---- another machine -------------------------------------------------------------------------------------------------


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A file server that serves parts of files, unless it is told not to."""

    asked: list[str] = []  # noqa: RUF012
    whole = False

    def do_GET(self) -> None:  # noqa: N802
        file, span = Path(self.translate_path(self.path)), self.headers.get("Range")
        Ranges.asked.append(span or "all")
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        self.send_response(206 if span and not Ranges.whole else 200)
        if span and not Ranges.whole:
            first, last = span.removeprefix("bytes=").split("-")
            end = min(int(last), len(content) - 1) if last else len(content) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            content = content[int(first) : end + 1]
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("vaekit.data.remote._WAITS", (0.0, 0.01, 0.01))
    (tmp_path / "served").mkdir()
    handler = functools.partial(Ranges, directory=str(tmp_path / "served"))
    monkeypatch.setattr(Ranges, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_shards_on_another_machine_are_read_in_parts(tmp_path: Path, server: str) -> None:
    write_shards(tmp_path / "served", 150, 90)
    near = load("webdataset", urls=str(tmp_path / "served" / "train-{000..001}.tar"), image_size=8, examples=10)
    far = load("webdataset", urls=f"{server}/train-{{000..001}}.tar", image_size=8, examples=10)
    assert torch.equal(near.valid.samples, far.valid.samples)
    Ranges.asked.clear()
    assert streamed_numbers(far, 16) == streamed_numbers(near, 16)
    spans = [span.removeprefix("bytes=").split("-") for span in Ranges.asked]
    size = sum((tmp_path / "served" / f"train-00{n}.tar").stat().st_size for n in range(2))
    assert sum(int(last) - int(first) + 1 for first, last in spans) < size, "no shard is fetched whole, or twice"


def test_another_machine_that_fails_for_a_while(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256))
    (tmp_path / "served" / "a.tar").write_bytes(content)
    place, fails = Place.of(f"{server}/a.tar"), [2]
    inner = Place._stretch

    def flaky(self: Place, start: int, stop: int) -> bytes:
        fails[0] -= 1
        if fails[0] >= 0:
            raise ConnectionError("reset by peer")
        return inner(self, start, stop)

    monkeypatch.setattr(Place, "_stretch", flaky)
    assert place.read(3, 9) == content[3:9]
    fails[0] = 3
    with pytest.raises(VaekitError, match="a.tar cannot be read .reset by peer."):
        place.read(3, 9)


def test_another_machine_that_is_of_no_use(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VaekitError, match="nothing.tar cannot be read"):
        load("webdataset", urls=f"{server}/nothing.tar")
    (tmp_path / "served" / "a.tar").write_bytes(bytes(5000))
    place = Place.of(f"{server}/a.tar")
    monkeypatch.setattr(Ranges, "whole", True)
    with pytest.raises(VaekitError, match="does not serve parts of files"):
        place.read(0, 100)
