"""The trainer against a hand-written plain PyTorch VAE-GAN loop, on one rank and on two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import free_port
from safetensors.torch import load_file

SCRIPTS = {"gamix": "parity_loop.py", "masked-multimodal": "parity_multimodal.py"}


def start(recipe: str, which: str, folder: Path, world: int, rank: int, port: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name(SCRIPTS[recipe])
    command = [sys.executable, str(script), which, str(folder), str(world), str(rank), port]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SCRIPTS)
@pytest.mark.parametrize("world", [1, 2])
def test_same_weights_as_a_plain_loop(tmp_path: Path, world: int, recipe: str) -> None:
    port = str(free_port())
    running = [start(recipe, "plain", tmp_path, world, rank, port) for rank in range(world)]
    running.append(start(recipe, "trainer", tmp_path, world, 0, port))
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    plain, ours = (load_file(tmp_path / f"{which}.safetensors") for which in ("plain", "trainer"))
    assert plain.keys() == ours.keys()
    for name, weight in plain.items():
        assert torch.allclose(weight, ours[name], rtol=1e-9, atol=1e-12), name
