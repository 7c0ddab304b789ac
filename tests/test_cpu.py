"""Training on a CPU: freed memory stays with the process, and no step looks for GPUs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from helpers import built, random_images

import vaekit as vk
from vaekit.config import read_recipe, resolve

CODE = """
import os, torch
from vaekit.training.cpu import keep_freed_memory
page = os.sysconf("SC_PAGE_SIZE")
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * page
print(keep_freed_memory())
before = resident()
tensor = torch.ones(2**24)
held = resident()
del tensor
print(held - before, resident() - before)
"""
SIZE = 4 * 2**24


def left(environment: dict[str, str]) -> tuple[str, int, int]:
    """Run in a process of its own; return what the function said, and what the process held of a tensor and after."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=environment)
    said, sizes = ran.stdout.strip().splitlines()
    held, kept = map(int, sizes.split())
    return said, held, kept


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_freed_memory_is_kept() -> None:
    """64 MiB stay resident after their tensor is gone."""
    said, held, kept = left({})
    if said == "False":
        pytest.skip("this C library has no mallopt")
    assert held > 0.9 * SIZE
    assert kept > 0.9 * SIZE


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_users_choice_stands() -> None:
    """With glibc's own environment variables nothing is changed, and the memory goes back."""
    said, held, kept = left({"MALLOC_TRIM_THRESHOLD_": "131072"})
    assert said == "False"
    assert held > 0.9 * SIZE
    assert kept < 0.1 * SIZE


def test_steps_do_not_look_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of steps, the driver's library is asked as often: each time costs 0.2 ms."""
    asked: list[int] = []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: asked.append(1) or 0)

    def asked_in(steps: int) -> int:
        monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # As importing Fabric does.
        asked.clear()
        model, objective = built(resolve(read_recipe("vae"), {"backbone": {"hidden": [8]}}), (1, 4, 4))
        trainer = vk.Trainer(epochs=10, max_steps=steps, sample_every=0, accelerator="cpu")
        trainer.fit(model, objective, random_images(32, (1, 4, 4)), batch_size=8)
        return len(asked)

    assert asked_in(3) == asked_in(12)
