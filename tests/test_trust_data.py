"""Arrays, archives, tables and downloads run no code, lead nowhere and stay packed where they are bombs."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trust_helpers import Code, stored

from vaekit.data import downloads, load
from vaekit.errors import VaekitError

# ---- data ------------------------------------------------------------------------------------------------------------

HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s, }\n"


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


NPY = {
    "huge": npy(HEADER % ("'<f8'", "(1000000000000, 2)")),
    "past counting": npy(HEADER % ("'<f8'", f"({10**30}, 2)")),
    "negative": npy(HEADER % ("'<f8'", "(-5, 2)"), bytes(80)),
    "objects": npy(HEADER % ("'|O'", "(5,)"), bytes(80)),
    "pickled": b"\x80\x04.",
    "code": npy("__import__('os').mkdir('made')"),
    "brackets": npy("(" * 3000 + ")" * 3000),
    "no header": npy("{'descr': '<f8', 'fo"),
    "odd type": npy(HEADER % ("('<f8', (1000000, 1000000))", "(5,)"), bytes(80)),
    "axes": npy(HEADER % ("'<f8'", f"({'1, ' * 100})"), bytes(80)),
}


@pytest.mark.parametrize("case", NPY)
def test_hostile_arrays(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.npy").write_bytes(NPY[case])
    stored(Path("a.npz"), {"x.npy": NPY[case], "y.npy": npy(HEADER % ("'<i8'", "(1,)"), bytes(8))})
    stored(Path("pair.npz"), {"left.npy": NPY[case], "right.npy": NPY[case]})
    Path("a.csv").write_text("left,right\na.npy,1\na.npy,2\n")
    for name in ("a.npy", "a.npz", "pair.npz", "a.csv"):
        with pytest.raises(VaekitError) as caught:
            load(name)
        assert "a.npy" in str(caught.value) or name in str(caught.value)
    assert not Path("made").exists()


def test_nothing_is_unpickled_from_arrays(tmp_path: Path) -> None:
    made = tmp_path / "made"
    np.save(tmp_path / "a.npy", np.array([Code(made)] * 4, dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([Code(made)] * 4, dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(VaekitError, match="Python objects"):
            load(tmp_path / name)
    assert not made.exists()


def test_archives_lead_nowhere_and_bombs_stay_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((9, 3)))
    stored(tmp_path / "up.npz", {"../../up.npy": buffer.getvalue(), "/etc/down.npy": buffer.getvalue()})
    with pytest.raises(VaekitError, match="array named '../../up'"):
        load(tmp_path / "up.npz")
    stored(tmp_path / "words.npz", {"x": b"words", "y.npy": buffer.getvalue()})
    with pytest.raises(VaekitError, match="'x', which is no NumPy array"):
        load(tmp_path / "words.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["up.npz", "words.npz"]
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((10**7, 1), np.uint8))
    monkeypatch.setattr("vaekit.data.array_files.available_memory", lambda: 10**6)
    with pytest.raises(VaekitError, match="bomb.npz does not fit in memory"):
        load(tmp_path / "bomb.npz")


def test_tables_name_files_of_their_own_folder(tmp_path: Path) -> None:
    place = tmp_path / "table"
    place.mkdir()
    for folder in (tmp_path, place):
        for number in range(3):
            Image.new("L", (8, 8), 9).save(folder / f"{number}.png")
    (place / "linked.png").symlink_to(tmp_path / "0.png")
    table = place / "a.csv"
    for name in ("../0.png", str(tmp_path / "0.png"), "sub/../../0.png"):
        table.write_text(f"picture,number\n0.png,1\n1.png,2\n{name},3\n")
        with pytest.raises(VaekitError, match="line 4 of .*outside the folder of the table"):
            load(table, image_size=8)
    table.write_text("picture,number\n0.png,1\n1.png,2\nlinked.png,3\n")  # Whoever makes a link knows where it leads.
    assert sum(map(len, load(table, image_size=8).splits.values())) == 3
    table.write_text("label,number\n" + "".join(f"{'9' * 30}{n},{n}\n" for n in range(4)))
    assert load(table).protocol["classes"]["label"] == [f"{'9' * 30}{n}" for n in range(4)]


def idx(shape: tuple[int, ...], content: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + content


@pytest.mark.parametrize("packed", [True, False])
def test_hostile_idx_files(tmp_path: Path, packed: bool) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    good = {
        f"{part}-{kind}": idx(shape, bytes(int(np.prod(shape))))
        for part in ("train", "t10k")
        for kind, shape in (("images-idx3-ubyte", (12, 28, 28)), ("labels-idx1-ubyte", (12,)))
    }
    bad = {
        "train-images-idx3-ubyte": [
            idx((12, 28, 28), bytes(5)), idx((2**31, 2**31, 4), b""), idx((60_000, 28_000, 28_000), b""),
            idx((12, 28, 28), bytes(10**8 if packed else 10**4)), idx((12,), bytes(12)), b"\0\0\x08", b"",
        ],
        "train-labels-idx1-ubyte": [idx((11,), bytes(11)), idx((12, 1), bytes(12))],
    }  # fmt: skip
    for name, contents in bad.items():
        for content in contents:
            for file, right in good.items():
                chosen = content if file == name else right
                (raw / f"{file}{'.gz' * packed}").write_bytes(gzip.compress(chosen, 1) if packed else chosen)
            with pytest.raises(VaekitError, match="is damaged|do not go together"):
                load("mnist", tmp_path, offline=True)
    if packed:
        whole = gzip.compress(good["train-images-idx3-ubyte"])
        (raw / "train-images-idx3-ubyte.gz").write_bytes(whole[:20] + b"\xff" + whole[21:])
        with pytest.raises(VaekitError, match="is damaged"):
            load("mnist", tmp_path, offline=True)


# ---- downloads -------------------------------------------------------------------------------------------------------


class Answer(io.BytesIO):
    headers: Mapping[str, str] = {}


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_downloads_are_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_open", lambda request: Answer(b"words"))
    path = tmp_path / "deep" / "file"
    with pytest.raises(OSError, match="another checksum"):
        downloads.fetch("https://example.org/file", path, "0" * 32)
    assert not list(tmp_path.rglob("*file*"))
    downloads.fetch("https://example.org/file", path, md5_of(b"words"))
    assert path.read_bytes() == b"words"
    monkeypatch.setattr(downloads, "_LARGEST", 3)
    with pytest.raises(OSError, match="does not come to an end"):
        downloads.fetch("https://example.org/file", tmp_path / "endless", md5_of(b"words"))
    assert not (tmp_path / "endless").exists()


def test_downloads_are_https_all_the_way(tmp_path: Path) -> None:
    for url in ("http://example.org/a", "file:///etc/passwd", "ftp://example.org/a"):
        with pytest.raises(OSError, match="is no https address"):
            downloads.fetch(url, tmp_path / "a", "0" * 32)
    follow = downloads._HttpsOnly().redirect_request
    request = downloads.urllib.request.Request("https://example.org/a")
    assert follow(request, None, 302, "", {}, "https://example.com/b") is not None
    for url in ("http://example.org/a", "file:///etc/passwd"):
        with pytest.raises(OSError, match="is no https address"):
            follow(request, None, 302, "", {}, url)
    from vaekit.data import standard

    assert all(url.startswith("https://") for url in (*standard._IDX_URLS.values(), standard._SVHN))


def test_a_wrong_file_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_open", lambda request: Answer(b"<html>login</html>"))
    for name in ("mnist", "fashion-mnist", "cifar10", "svhn"):
        for _ in range(2):  # What the first attempt got is not there for the second.
            with pytest.raises(VaekitError, match=f"'{name}' could not be downloaded .*another checksum"):
                load(name, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_only_what_is_named_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, kind in (("set/good", tarfile.REGTYPE), ("../evil", tarfile.REGTYPE), ("set/link", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"words"))
    into = tmp_path / "into"
    downloads.unpack(archive, ["set/good"], into)
    for name in ("set/link", "set/missing"):
        with pytest.raises(OSError, match="is damaged|is no file"):
            downloads.unpack(archive, [name], into)
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(OSError, match="is damaged"):
        downloads.unpack(archive, ["set/good"], into)
    assert [path.name for path in into.rglob("*") if not path.is_dir()] == ["good"]
    assert not (tmp_path / "evil").exists()
