"""Checkpoints, weights and what lies beside them run no code, take no more memory than they have, and are compared."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import tiny
from safetensors.torch import save_file
from trust_helpers import Code, refused, stored

import vaekit as vk
from vaekit.config import read_recipe
from vaekit.errors import VaekitError
from vaekit.evaluation import Aggregate
from vaekit.evaluation.classifiers import Classifiers
from vaekit.files import load_tensors, save_state, save_tensors, save_text
from vaekit.training import checkpoint

# ---- checkpoints and tensors -----------------------------------------------------------------------------------------


STATE = {
    "format": 1, "step": 3, "best": 1.0, "metrics_bytes": 0, "meter": {}, "model": {}, "objective": {},
    "averaged": None, "optimizers": {}, "rng": [],
}  # fmt: skip


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    made, path = tmp_path / "made", checkpoint.path_of(tmp_path, "last")
    code = pickle.dumps({**STATE, "model": Code(made)})
    for parts in ({"a/data.pkl": code, "a/version": b"3"}, {"a/data.pkl": code, "a/constants.pkl": code}):
        stored(path, parts)
        with pytest.raises(VaekitError, match="is damaged and cannot be read"):
            checkpoint.load(tmp_path)
    path.write_bytes(code)  # as torch wrote them long ago
    with pytest.raises(VaekitError, match="is damaged and cannot be read"):
        checkpoint.load(tmp_path)
    assert not made.exists()


def test_a_compressed_checkpoint_is_refused_unread(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path, "last")
    save_state(path, {**STATE, "model": {"a": torch.zeros(10_000)}})
    assert checkpoint.load(tmp_path)["step"] == 3
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    stored(path, parts, zipfile.ZIP_DEFLATED)
    with pytest.raises(VaekitError, match="is damaged and cannot be read"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"step": "3"}, {"step": -1}, {"best": None}, {"metrics_bytes": -7}, {"meter": []}, {"model": 3}, {"rng": {}},
     {"optimizers": torch.zeros(3)}, {"format": torch.ones(2)}, {"format": True}, {"format": 2}],
)  # fmt: skip
def test_a_checkpoint_holds_what_it_should(change: dict[str, Any], tmp_path: Path) -> None:
    save_state(checkpoint.path_of(tmp_path, "last"), {**STATE, **change})
    with pytest.raises(VaekitError, match="is not whole|another version"):
        checkpoint.load(tmp_path)


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(packed) if length is None else length) + packed + body


def tensor(dtype: str = "F32", shape: tuple[Any, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0\0", safetensors({"a": tensor()}, bytes(8), 2**63), safetensors({"a": tensor()}, bytes(8), 500),
        safetensors({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)),
        safetensors({"a": tensor(), "b": tensor()}, bytes(8)), safetensors({"a": tensor(offsets=(0, 800))}, bytes(8)),
        safetensors({"a": tensor(offsets=(-8, 0))}, bytes(8)), safetensors({"a": tensor(offsets=(8, 0))}, bytes(8)),
        safetensors({"a": tensor("F33")}, bytes(8)), safetensors({"a": tensor(shape=(3,))}, bytes(8)),
        safetensors({"a": tensor(shape=(2**62, 8))}, bytes(8)), safetensors({"a": tensor(shape=(-2,))}, bytes(8)),
        safetensors({"a": tensor(shape=(2.5,))}, bytes(8)), safetensors({"a": tensor()}, bytes(80)),
        safetensors(b"[" * 5000), safetensors(b"words"), safetensors(b"[]"), safetensors(b'{"\xff": 1}'),
        safetensors({"__metadata__": {"a": 3}, "a": tensor()}, bytes(8)), pickle.dumps({"a": 1}),
    ],
)  # fmt: skip
def test_hostile_safetensors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(VaekitError, match=r"a.safetensors is damaged \("):
        load_tensors(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its first weights: what is made of hostile files does not depend on training."""
    out = tmp_path_factory.mktemp("trust") / "run"
    made = vk.Run(tiny("vae"), out)
    save_text(out / "config.yaml", made.config.model_copy(update={"data_shape": (1, 8, 8)}).to_yaml())
    save_tensors(out / "model.safetensors", made.model.state_dict())
    moments = Aggregate(*(torch.ones(4, dtype=torch.float64) for _ in range(3)), 10)
    save_tensors(out / "aggregate.safetensors", moments.tensors())
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize("kind", ["missing", "more", "shape", "type", "empty"])
def test_weights_are_those_of_the_model(copy: Path, kind: str, capsys: pytest.CaptureFixture) -> None:
    weights = load_tensors(copy / "model.safetensors")
    name = next(iter(weights))
    if kind == "missing":
        del weights[name]
    elif kind == "more":
        weights["more"] = torch.zeros(3)
    elif kind == "shape":
        weights[name] = torch.zeros(2**40, 0)
    elif kind == "type":
        weights[name] = weights[name].to(torch.complex64)
    else:
        weights = {}
    save_file(weights, copy / "model.safetensors")
    assert "are not those of its config.yaml" in refused(capsys, "sample", str(copy))


def test_a_configuration_of_a_run_may_be_hostile_too(copy: Path, capsys: pytest.CaptureFixture) -> None:
    config = read_recipe(copy)
    for changes, words in (
        ({"data_shape": [3, 2**31, 2**31]}, "out of memory"), ({"data_shape": [-1, 8, 8]}, "data_shape"),
        ({"data_shape": []}, "data_shape"), ({"latent_dim": 10**14}, "latent_dim"),
        ({"latent_dim": True}, "latent_dim"), ({"trainer": {"seed": "x"}}, "trainer.seed"),
        ({"data": {"name": "digits", "batch_size": "x"}}, "batch_size"), ({"data_values": {"a": "b"}}, "data_values"),
        ({"backbone": {"name": "mlp", "hidden": [2**44]}}, "backbone.hidden"),
    ):  # fmt: skip
        save_text(copy / "config.yaml", yaml.safe_dump({**config, **changes}))
        assert words in refused(capsys, "sample", str(copy)), changes


@pytest.mark.parametrize("kind", ["missing", "shape", "type", "count", "dimension", "nothing"])
def test_damaged_moments_are_said(copy: Path, kind: str) -> None:
    found = load_tensors(copy / "aggregate.safetensors")
    if kind == "missing":
        del found["mean"]
    elif kind == "dimension":
        found |= {name: torch.ones(9, dtype=torch.float64) for name in found if name != "count"}
    elif kind == "nothing":
        found["count"] = torch.tensor(0)
    else:
        found["count" if kind == "count" else "mean"] = torch.ones(3, 3, dtype=torch.bool)
    save_file(found, copy / "aggregate.safetensors")
    with pytest.raises(VaekitError, match="aggregate.safetensors cannot be used .*remove it"):
        _ = vk.Run.load(copy).aggregate


@pytest.mark.parametrize(
    "part",
    [{"shape": [10**9, 10**9]}, {"shape": "x"}, {"classes": 10**12}, {"classes": "x"}, {"kind": []}, {"shape": []}],
)
def test_classifiers_of_absurd_sizes_take_no_memory(part: dict[str, Any], tmp_path: Path) -> None:
    described = {"kind": "mlp", "shape": [4], "classes": 3, **part}
    record = {"networks": {"a": described}, "accuracy": {"a": 1.0}, "protocol": {}}
    for said in (json.dumps(record), "[" * 5000, "{}", json.dumps({**record, "accuracy": {"a": "x"}})):
        words = {"format": "vaekit classifiers 1", "record": said}
        save_tensors(tmp_path / "c.safetensors", {"a": torch.zeros(3)}, words)
        with pytest.raises(VaekitError, match="c.safetensors is damaged"):
            Classifiers.load(tmp_path / "c.safetensors")
