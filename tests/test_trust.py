"""What comes from elsewhere is data and never code: documents and names are refused with a sentence, at little cost."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from trust_helpers import refused

from vaekit.config import read_recipe, resolve
from vaekit.data.images import read_images
from vaekit.documents import parse_json, read_json, read_text, read_yaml
from vaekit.errors import VaekitError
from vaekit.evaluation.records import read_records
from vaekit.files import load_tensors
from vaekit.registry import Registry
from vaekit.rundir import default_place

# ---- YAML and JSON ---------------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [*{before}, *{before}, *{before}]}}\n"
    for before, name in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)
HOSTILE_YAML = {
    "object": ("a: !!python/object/apply:os.mkdir [made]", "python/object/apply:os.mkdir"),
    "name": ("a: !!python/name:os.system", "python/name:os.system"),
    "own tag": ("%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system x", "python/name:os.system"),
    "binary": ("a: !!binary aGVsbG8=", "binary"),
    "bomb": (BOMB, "more than 20,000 values"),
    "merges": (MERGES, "more than 20,000 values"),
    "many": ("a: 1\n" * 30_000, "more than 20,000 values"),
    "itself": ("a: &a [*a]", "a value holds itself"),
    "lists": ("[" * 100_000, "deeper than 40 levels"),
    "maps": ("{a: " * 50_000, "deeper than 40 levels"),
    "blocks": ("\n".join(" " * depth + "a:" for depth in range(400)), "deeper than 40 levels"),
    "digits": ("latent_dim: " + "9" * 5000, "a value is none of its type"),
    "hexadecimal": ("latent_dim: 0x" + "f" * 5000, "a value is none of its type"),
    "integer": ("a: !!int x", "a value is none of its type"),
    "twice": ("latent_dim: 3\nlatent_dim: 4", "the key 'latent_dim' stands twice"),
    "control": ("about: \x1b[31m", "special characters are not allowed"),
    "bytes": (b"about: \xff\xfe\xfa", "no text in UTF-8"),
    "utf-16": ("about: x".encode("utf-16"), "no text in UTF-8"),
}


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_hostile_yaml(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = HOSTILE_YAML[case]
    Path("mine.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    began = time.process_time()
    said = refused(capsys, "run", "mine.yaml", "--out", "run")
    assert words in said
    assert "mine.yaml is not readable YAML: " in said
    assert time.process_time() - began < 5
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("mine.yaml", "evaluation.json", "config.yaml"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**30)
    began = time.process_time()
    assert "has 1,073,741,824 bytes" in refused(capsys, "run", str(tmp_path / "mine.yaml"))
    assert "is not readable YAML" in refused(capsys, "sample", str(tmp_path))
    with pytest.raises(VaekitError, match="evaluation.json is damaged"):
        read_records(tmp_path)
    assert time.process_time() - began < 2


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("pipe.yaml", "pipe.npy", "pipe.png"):
        os.mkfifo(tmp_path / name)
    assert "there is no recipe file" in refused(capsys, "run", str(tmp_path / "pipe.yaml"))
    assert "is no data set" in refused(capsys, "data", "check", str(tmp_path / "pipe.npy"))
    for read in (read_yaml, read_json, read_text, load_tensors):
        with pytest.raises(VaekitError, match="there is no file|is not there"):
            read(tmp_path / "pipe.yaml")
    with pytest.raises(VaekitError, match="pipe.png cannot be read as an image: no regular file"):
        read_images([tmp_path / "pipe.png"], (1, 8, 8), (0.0, 1.0), crop=None, antialias=True)


def test_keys_and_dates_are_words(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{1: 2, no: 3, 2024-99-99: 2024-05-01, a: &a {b: 1e400}, c: {<<: *a, d: 4}}")
    assert read_yaml(tmp_path / "a.yaml") == {
        "1": 2, "no": 3, "2024-99-99": "2024-05-01", "a": {"b": "1e400"}, "c": {"b": "1e400", "d": 4},
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"a":' * 5_000, "[" * 41 + "]" * 41, "{", "", "nul", b"\xff", '{"format": 1}', "[]", "3",
     '{"format": 1, "records": [{}]}', '{"format": 1, "records": 3}', '{"format": [[]], "records": []}'],
)  # fmt: skip
def test_hostile_json(content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(VaekitError, match="damaged|format"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    "change", [{"metric": []}, {"values": 3}, {"protocol": []}, {"made": "x"}, {"notes": 3}, {"notes": [{}]}]
)
def test_records_are_what_they_should_be(change: dict[str, Any], tmp_path: Path) -> None:
    record = {"metric": "m", "values": {}, "protocol": {}, "made": {}, "notes": ["words"], **change}
    (tmp_path / "evaluation.json").write_text(json.dumps({"format": 1, "records": [record]}))
    with pytest.raises(VaekitError, match="is damaged"):
        read_records(tmp_path)


def test_no_number_is_too_long_to_be_shown() -> None:
    found = parse_json(f"[{'9' * 100_000}, -{'9' * 30}, 123456789012345678, 1e999]")
    assert found == [float("inf"), -1e30, 123456789012345678, float("inf")]
    assert len(repr(found)) < 100


# ---- names -----------------------------------------------------------------------------------------------------------


class Point:
    """An entry point."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value
        self.dist = type("Dist", (), {"name": "elsewhere"})()


@pytest.mark.parametrize("name", ["a b", "../up", "<script>", "-rf", "a\x1b[31m", "", "a" * 200, "a/b", "a=b"])
def test_odd_names_of_plug_ins_are_refused(capsys, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point(name, "os:system")])
    registry = Registry("priors", "prior", "vaekit.priors")
    with pytest.raises(VaekitError, match="elsewhere registers the prior"):
        registry.names()
    monkeypatch.undo()
    with pytest.raises(VaekitError, match="registers the prior"):
        Registry("priors", "prior", "vaekit.priors").register(name)


@pytest.mark.parametrize(
    ("module", "words"),
    [("raise SystemExit(0)", "SystemExit: 0"), ("part = 3", "is no class and no function"), ("", "no attribute 'part'"),
     ("import os.nowhere", "nowhere")],
)  # fmt: skip
def test_a_plug_in_that_ends_the_process_does_not(
    module: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"plugin_{abs(hash(module))}"
    (tmp_path / f"{name}.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point("odd", f"{name}:part")])
    with pytest.raises(VaekitError, match=words):
        Registry("priors", "prior", "vaekit.priors").get("odd")


def test_a_recipe_does_not_choose_the_folder_of_its_run() -> None:
    for name in ("../../up", "/etc/passwd", "..", "a\0b", "x" * 500, "a\nb", "~root"):
        config = resolve(read_recipe("vae"), {"recipe": name, "data": {"name": f"{name}.npz"}})
        place = default_place(config, existing=False)
        assert place.parent == Path("runs")
        assert place.name.isprintable()
        assert len(place.name) <= 110


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    odd = os.fsdecode(b"odd\xff\x1b[31m\n.yaml")
    (tmp_path / odd).write_text("latent_dim: [")
    assert "odd\\udcff\\x1b[31m" in refused(capsys, "run", str(tmp_path / odd))
    for name in ("n" * 300, "~nobody-of-that-name/a.npz", "a\nb.npz"):
        refused(capsys, "data", "check", name)
        refused(capsys, "run", f"{name}.yaml")
    assert "data.progress" in refused(capsys, "data", "check", "digits", "--set", "progress=3")
    assert "samples must be" in refused(capsys, "data", "check", "digits", "--set", "samples=x")
