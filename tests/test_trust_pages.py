"""Names of runs, modalities and classes are text on every page, and the page of a run answers itself alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import call, tiny
from PIL import Image

import vaekit as vk
from vaekit.config import read_recipe
from vaekit.evaluation import Aggregate
from vaekit.evaluation.records import Record, keep_record
from vaekit.files import save_tensors, save_text
from vaekit.reporting.page import embed_file
from vaekit.reporting.several_runs import write_side_by_side

NAME = "\"><script>alert(1)</script>'[/red][link=javascript:x](y)|$\x1b]0;owned\x07\u202e"
MODALITY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, with first weights, that are called and evaluated in hostile words."""
    import torch

    places = []
    for seed in range(2):
        out = tmp_path_factory.mktemp("pages") / f"<b>{seed}"
        made = vk.Run(tiny("vae", trainer={"seed": seed}), out)
        text = made.config.model_copy(update={"data_shape": (1, 8, 8)}).to_yaml()
        save_text(out / "config.yaml", yaml.safe_dump({**yaml.safe_load(text), "recipe": NAME, "about": NAME}))
        save_tensors(out / "model.safetensors", made.model.state_dict())
        moments = Aggregate(*(torch.ones(4, dtype=torch.float64) for _ in range(3)), 10)
        save_tensors(out / "aggregate.safetensors", moments.tensors())
        estimate = {"mean": 1.0 + seed, "standard_error": 0.1, "count": 5}
        protocol = {"split": "test", "sampler": MODALITY, "data": {"data": NAME}, "extractor": {"name": NAME}}
        values = {"accuracy": estimate, MODALITY: {NAME: estimate}}
        keep_record(out, Record("probe", values, protocol, {"seed": NAME}, [NAME, MODALITY]))
        places.append(out)
    return places


def test_pages_show_names_as_text(runs: list[Path], tmp_path: Path) -> None:
    one = tmp_path / "run"
    shutil.copytree(runs[0], one)
    (one / "model.safetensors").unlink()  # The page is made from the directory alone.
    assert call("report", str(one)) == 0
    assert call("compare", *map(str, runs), "--out", str(tmp_path / "c.html")) == 0
    write_side_by_side(runs, tmp_path / "s.html")
    for page in (one / "report.html", tmp_path / "c.html", tmp_path / "s.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;" in text
        assert "default-src 'none'" in text


def test_other_formats_show_names_as_text(runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    for kind in ("table", "markdown", "latex", "csv", "json"):
        capsys.readouterr()
        assert call("compare", *map(str, runs), "--format", kind) == 0
        shown, said = capsys.readouterr()
        hostile = {"\x1b"} if kind == "json" else {"\x1b", "\u202e"}  # JSON writes out what commands, and no more.
        assert not hostile & set(shown + said), kind
        if kind == "markdown":
            assert "<script" not in shown.replace("\\<", "")
            assert "](" not in shown.replace("\\[", "").replace("](y)\\|", "")
            assert len({line.replace("\\|", "").count("|") for line in shown.splitlines() if line.startswith("|")}) == 1


def test_the_page_of_a_sweep_shows_names_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from vaekit.sweeping import sweep

    quick = {"max_steps": 1, "sample_every": 0, "accelerator": "cpu"}
    content = {**read_recipe("vae"), "recipe": NAME, "about": NAME, "backbone": {"name": "mlp", "hidden": [8]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**content, "trainer": quick}))
    found = sweep(tmp_path / "mine.yaml", {"latent_dim": "2,3"}, trials=1, out=tmp_path / "sweep")
    text = (found.out / "sweep.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for link in text.split('href="')[1:]:
        assert link.startswith("trial-")


def test_pictures_of_a_run_directory_are_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (400, 400)).save(picture)
    assert (embed_file(picture, 100) or "").startswith("data:image/png;base64,")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399 * 400)
    with pytest.warns(Image.DecompressionBombWarning):
        assert embed_file(picture, 100) is None
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"<svg onload='alert(1)'/>", b""):
        picture.write_bytes(content)
        assert embed_file(picture, 100) is None


# ---- explore ---------------------------------------------------------------------------------------------------------

OWN = "http://127.0.0.1:7860"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"host": "localhost:7860"}, 200), ({"host": "evil.example:7860"}, 400), ({"origin": OWN}, 200),
        ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403), ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"host": "127.0.0.1:9000", "origin": "http://127.0.0.1:9000"}, 200),  # ssh carries it from another port
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403), ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "origin": OWN}, 200),
    ],
)  # fmt: skip
def test_other_pages_are_not_answered(headers: dict[str, str], status: int) -> None:
    pytest.importorskip("starlette")
    from vaekit.exploring.server import guarded

    asked, answered = [], []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"words"})

    async def send(message: Any) -> None:
        answered.append(message)

    said = {"host": "127.0.0.1:7860", **headers}
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"", "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in said.items()],
    }  # fmt: skip
    with contextlib.suppress(StopIteration):
        guarded(page)(scope, None, send).send(None)
    assert answered[0]["status"] == status
    assert bool(asked) == (status == 200)
    assert dict(answered[0]["headers"])[b"content-security-policy"].startswith(b"default-src 'self'")


ASK = """
import json, sys
import vaekit as vk
from starlette.testclient import TestClient
from vaekit.exploring.server import _application
client = TestClient(_application(vk.Run.load(sys.argv[1], offline=True)), base_url="http://127.0.0.1:7860")
page = client.get("/")
files = ["/etc/passwd", sys.argv[1] + "/config.yaml", "config.yaml", "..%2f..%2fetc%2fpasswd"]
upload = client.post("/gradio_api/upload", files={"files": ("../../a.png", b"words")})
foreign = {"origin": "http://evil.example"}
print(json.dumps({
    "page": [page.status_code, page.text],
    "files": [client.get("/gradio_api/file=" + file).status_code for file in files],
    "proxy": client.get("/gradio_api/proxy=https://example.org/").status_code,
    "upload": upload.json(),
    "foreign": [client.post("/gradio_api/upload", files={"files": ("a", b"b")}, headers=foreign).status_code,
                client.post("/gradio_api/queue/join", json={}, headers=foreign).status_code],
}))
"""


@pytest.mark.slow
def test_the_page_of_a_run_shows_names_as_text_and_serves_no_file(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(runs[0])],
        env={**os.environ, **quiet}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["page"][0] == 200
    assert "<script>alert" not in found["page"][1]
    assert all(status in (403, 404) for status in found["files"])
    assert found["proxy"] in (400, 403, 404)
    assert Path(found["upload"][0]).resolve().is_relative_to(tmp_path.resolve())
    assert found["foreign"] == [403, 403]
