"""Each example runs as a reader would run it, with small arguments."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
PLUGIN = EXAMPLES / "plugin_posterior"

pytestmark = pytest.mark.slow


def run(command: list[str], cwd: Path, *python_path: Path) -> str:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "VAEKIT_CACHE": str(cwd / "cache"),
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def picture(path: Path) -> None:
    with Image.open(path) as image:
        assert len(set(np.asarray(image.convert("L")).ravel().tolist())) > 2, f"{path} shows nothing"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for number in range(20):
        pixels = generator.integers(0, 256, (24 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.rglob("*.py"):
        assert script.name in source, f"{script} has no test"


@pytest.mark.parametrize("script", [*sorted(EXAMPLES.glob("*.py"))], ids=lambda script: script.name)
def test_scripts_are_short_and_explain_themselves(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    assert "usage:" in run([str(script), "--help"], EXAMPLES.parent)


def test_compose_by_hand(tmp_path: Path) -> None:
    printed = run([str(EXAMPLES / "compose_by_hand.py"), "--epochs", "1", "--components", "2"], tmp_path)
    assert "negative ELBO" in printed
    picture(tmp_path / "by-hand" / "samples.png")


def test_train_on_photographs(tmp_path: Path, photographs: Path) -> None:
    arguments = ["--recipe", "gamix-small", "--image-size", "8", "--batch-size", "8", "--epochs", "1", "--out", "run"]
    run([str(EXAMPLES / "train_on_photographs.py"), str(photographs), *arguments], tmp_path)
    for name in ("prior", "aggregate-gaussian", "aggregate-mixture"):
        picture(tmp_path / "run" / f"{name}.png")
    arguments[-3] = "2"
    run([str(EXAMPLES / "train_on_photographs.py"), str(photographs), *arguments, "--resume"], tmp_path)
    assert len(list((tmp_path / "run" / "samples").glob("epoch-*-prior.png"))) == 2


@pytest.mark.parametrize("objective", ["elbo", "gamix"])
def test_svi_with_pyro(tmp_path: Path, objective: str) -> None:
    printed = run([str(EXAMPLES / "svi_with_pyro.py"), "--epochs", "2", "--objective", objective], tmp_path)
    losses = [float(line.split(": ")[1].split()[0]) for line in printed.splitlines() if line.startswith("epoch")]
    assert losses[1] < losses[0]


def test_gallery(tmp_path: Path) -> None:
    recipes = ["vae", "gamix-small"]
    out = run(
        [str(EXAMPLES / "gallery.py"), "--recipes", *recipes, "--epochs", "1", "--steps", "3", "--out", "pictures"],
        tmp_path,
    )
    for name in recipes:
        assert f"`{name}`" in out
        picture(tmp_path / "pictures" / f"{name}.png")
    assert (tmp_path / "pictures" / "table.md").read_text().count("png") == 2


def test_two_modalities_from_csv(tmp_path: Path) -> None:
    printed = run([str(EXAMPLES / "two_modalities_from_csv.py"), "--epochs", "1"], tmp_path)
    for term in ("partial_rate", "cross_rate", "reconstruction_photo", "reconstruction_sensor"):
        assert f"'{term}'" in printed
    picture(tmp_path / "two-modalities" / "from-sensor.png")
    assert (tmp_path / "two-modalities" / "run" / "report.html").is_file()


def test_latent_space(tmp_path: Path) -> None:
    script = str(EXAMPLES / "latent_space.py")
    run([script, "--epochs", "1"], tmp_path)
    run([script, "latent-space/run", "--out", "again"], tmp_path)
    for name in ("prior", "aggregate-gaussian", "interpolations", "map"):
        picture(tmp_path / "latent-space" / f"{name}.png")
        assert (tmp_path / "again" / f"{name}.png").is_file()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the metadata that installing the plug-in would leave, so that no installer is needed."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_plugin_is_listed_shown_and_trains(installed: Path, tmp_path: Path) -> None:
    path = (installed, PLUGIN)
    main = ["-c", "import sys; from vaekit.cli.main import main; main(sys.argv[1:])"]
    assert "student_t" in run([*main, "list", "posteriors"], tmp_path, *path)
    assert "degrees: float = 5.0" in run([*main, "show", "posteriors/student_t"], tmp_path, *path)
    arguments = ["run", "vae", "--set", "posterior={name: student_t, degrees: 4}", "--set", "trainer.max_steps=3"]
    run([*main, *arguments, "--out", "run"], tmp_path, *path)
    assert "student_t" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_plugin_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    # student_t_posterior.py is what test_student_t_posterior.py looks at.
    printed = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGIN)], tmp_path, installed, PLUGIN)
    assert "passed" in printed
