"""Shared fixtures: float64 by default in probability tests, a fixed seed everywhere, the optional real data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Workers share the cores, and so do the processes that tests start: each takes its part, before torch is imported.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import torch  # noqa: E402

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert torch.get_default_dtype() == torch.float32, "a test left another default dtype behind"


@pytest.fixture
def float64() -> Iterator[None]:
    """Make float64 the default dtype for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def real_data() -> Path:
    """The folder with real data sets beside the project, or a skip that says so."""
    if not DATA.is_dir():
        pytest.skip("the folder ../shared/data with real data sets is not here")
    return DATA
