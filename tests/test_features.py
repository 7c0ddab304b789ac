"""Features that are kept block by block: taken up again, never trusted when damaged, in bounded memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from fidelity_helpers import CLASSIFIER, SMALL

from vaekit import VaekitError
from vaekit.evaluation import Extractor, FeatureStore
from vaekit.evaluation.features import Blocks, reference_store
from vaekit.evaluation.samplers import BLOCK

HERE = Path(__file__).parent
COUNT = 2 * BLOCK + 130


def images_of_block(block: int, count: int = COUNT, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(block)
    shape = (min(BLOCK, count - block * BLOCK), 3, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


class Source:
    """Blocks of images, and which of them were asked for."""

    def __init__(self, batch_size: int = 64, count: int = COUNT) -> None:
        self.batch_size, self.count = batch_size, count
        self.made: list[int] = []

    def __call__(self, start: int) -> Iterator[Iterable[torch.Tensor]]:
        for block in range(start, -(-self.count // BLOCK)):
            self.made.append(block)
            yield images_of_block(block, self.count).split(self.batch_size)


def expected(extractor: Extractor = SMALL, count: int = COUNT) -> torch.Tensor:
    return torch.cat([extractor.rows(images_of_block(block, count)) for block in range(-(-count // BLOCK))])


def rows(folder: Path | None, source: Blocks, count: int = COUNT, extractor: Extractor = SMALL) -> torch.Tensor:
    return FeatureStore(folder).rows({"images": "random"}, source, count, extractor)


def test_rows_do_not_depend_on_the_parts() -> None:
    for batch_size in (1000, 64, 7):
        torch.testing.assert_close(rows(None, Source(batch_size)), expected())


def test_rows_are_made_once(tmp_path: Path) -> None:
    source = Source()
    torch.testing.assert_close(rows(tmp_path, source), expected())
    torch.testing.assert_close(rows(tmp_path, source), expected())
    assert source.made == [0, 1, 2]
    # Another number of images, extractor or key is another file.
    rows(tmp_path, other := Source(count=BLOCK), count=BLOCK)
    assert other.made == [0]
    assert rows(tmp_path, source, extractor=CLASSIFIER).shape == (COUNT, 8)
    assert source.made == [0, 1, 2] * 2
    FeatureStore(tmp_path).rows({"images": "others"}, source, COUNT, SMALL)
    assert source.made == [0, 1, 2] * 3


@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1])
def test_whole_and_torn_last_blocks(tmp_path: Path, count: int) -> None:
    for _ in range(2):
        torch.testing.assert_close(rows(tmp_path, Source(count=count), count), expected(count=count))


def files(folder: Path) -> tuple[Path, Path]:
    (data,), (about,) = folder.glob("*.f32"), folder.glob("*.json")
    return data, about


@pytest.mark.parametrize(
    ("damage", "made"),
    [
        ("torn", [2]),
        ("middle", [1, 2]),
        ("first", [0, 1, 2]),
        ("no data", [0, 1, 2]),
        ("no json", [0, 1, 2]),
        ("json", [0, 1, 2]),
        ("foreign json", [0, 1, 2]),
        ("foreign key", [0, 1, 2]),
        ("longer", []),
    ],
)
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: str, made: list[int]) -> None:
    rows(tmp_path, Source())
    data, about = files(tmp_path)
    content = bytearray(data.read_bytes())
    if damage == "torn":
        data.write_bytes(content[:-5])
    elif damage in ("middle", "first"):
        content[32 * BLOCK + 7 if damage == "middle" else 7] ^= 1
        data.write_bytes(content)
    elif damage == "longer":
        data.write_bytes(content + b"more")
    elif damage == "no data":
        data.unlink()
    elif damage == "no json":
        about.unlink()
    elif damage == "json":
        about.write_text("{")
    elif damage == "foreign json":
        about.write_text("[]")
    else:
        about.write_text(json.dumps({**json.loads(about.read_text()), "key": "another"}))
    source = Source()
    torch.testing.assert_close(rows(tmp_path, source), expected())
    assert source.made == made
    torch.testing.assert_close(rows(tmp_path, source), expected())
    assert source.made == made


def test_progress_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def cut(start: int) -> Iterator[Iterable[torch.Tensor]]:
        for block, parts in enumerate(Source()(start), start):
            if block == 2:
                raise KeyboardInterrupt
            yield parts

    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, cut)
    said: list[tuple[int, int, str]] = []
    FeatureStore(tmp_path).rows(
        {"images": "random"}, Source(), COUNT, SMALL, progress=lambda *report: said.append(report), what="rows"
    )
    assert said == [(1064, COUNT, "rows"), (1128, COUNT, "rows"), (COUNT, COUNT, "rows")]


def test_blocks_of_a_wrong_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match=r"block 2 has rows of shape \(130, 8\) instead of \(200, 8\)"):
        rows(tmp_path, Source(), count=COUNT + 70)


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaekitError, match="a file stands where a folder is needed"):
        FeatureStore(tmp_path / "file")


def test_temporary_stores_leave_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = rows(None, Source())
    assert not list(tmp_path.iterdir())
    torch.testing.assert_close(found, expected())


def test_references_lie_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    assert reference_store().folder == tmp_path / "cache" / "features"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "file"))
    assert tmp_path not in reference_store().folder.parents


# ---- in other processes ----------------------------------------------------------------------------------------------

KILLED = """
import sys, time
from pathlib import Path
from test_features import SMALL, Source, COUNT
from vaekit.evaluation import FeatureStore

class Slow(Source):
    def __call__(self, start):
        for block, parts in enumerate(super().__call__(start), start):
            yield self.wait(parts) if block == 1 else parts
    def wait(self, parts):
        for number, part in enumerate(parts):
            if number == 4:
                print("in block 1", flush=True)
                time.sleep(60)
            yield part

FeatureStore(Path(sys.argv[1])).rows({"images": "random"}, Slow(), COUNT, SMALL)
"""

PEAK = """
import sys
from pathlib import Path
from fidelity_helpers import CLASSIFIER
from test_features import BLOCK, images_of_block
from vaekit.evaluation import FeatureStore
from vaekit.evaluation.fidelity import class_score, frechet_distance, kernel_distance, precision_and_recall

count = int(sys.argv[1])

def blocks(start):
    for block in range(start, count // BLOCK):
        yield (images_of_block(block, count, 96)[i : i + 50] for i in range(0, BLOCK, 50))

store = FeatureStore()
features, logits = CLASSIFIER.split(store.rows({}, blocks, count, CLASSIFIER))
others = features.roll(1, 1)
frechet_distance(features, others)
kernel_distance(features, others)
precision_and_recall(features, others)
class_score(logits)
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_killed_in_the_middle_of_a_block(tmp_path: Path) -> None:
    process = run(KILLED, str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "in block 1\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    source = Source()
    torch.testing.assert_close(rows(tmp_path, source), expected())
    assert source.made == [1, 2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """9,000 images of 96 x 96 pixels more would be 250 MB."""
    peaks = []
    for count in (1000, 10_000):
        process = run(PEAK, str(count))
        peaks.append(int(process.communicate()[0]))
        assert process.returncode == 0
    print(f"peak memory at 1,000 and 10,000 images: {peaks} MB")
    assert peaks[1] - peaks[0] < 100
