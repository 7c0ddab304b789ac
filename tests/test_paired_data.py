"""Data of several modalities: PolyMNIST and its like, labels and attributes, tables and arrays, and their loader."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_idx
from PIL import Image

from vaekit.cli.main import main
from vaekit.data import Dataset, PairedBatches, PairedReport, PairedSplit, Split, cache, check, load, make_batches
from vaekit.data.polymnist import missing_table, moved, pairing
from vaekit.data.standard import digits
from vaekit.data.textures import photographs, textures
from vaekit.errors import VaekitError

POLY = ("polymnist", "translated-polymnist")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("VAEKIT_DATA", str(tmp_path_factory.mktemp("data")))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Three photographs of one colour each: black, white and a light red."""
    place = tmp_path / "plain"
    place.mkdir()
    for number, colour in enumerate([(0, 0, 0), (255, 255, 255), (250, 20, 10)]):
        Image.new("RGB", (30 + number, 28), colour).save(place / f"{number}.png")
    return place


def source() -> Dataset:
    return digits(Path(), None, True, image_size=28)


def marks(data: Dataset, split: str, name: str, black: bool) -> torch.Tensor:
    """Where a digit stands on a ground of one colour."""
    samples = data.splits[split].modalities[name].samples[:, 0]
    return samples > 128 if black else samples < 128


# ---- PolyMNIST -------------------------------------------------------------------------------------------------------


def test_pixels_are_inverted_where_the_digit_is(plain: Path) -> None:
    data = load("polymnist", modalities=3, backgrounds=str(plain))
    red = data.train.modalities["m2"].samples
    there = red[:, 0] < 128
    for channel, value in enumerate((250, 20, 10)):
        assert (red[:, channel][there] == 255 - value).all()
        assert (red[:, channel][~there] == value).all()


def test_modalities_share_the_label_and_each_digit_occurs_once(plain: Path) -> None:
    data, digit = load("polymnist", modalities=3, backgrounds=str(plain)), source()
    for split in data.splits:
        known = digit.splits[split].samples[:, 0] > 128
        labels = data.splits[split].labels
        assert torch.equal(labels, digit.splits[split].labels)
        orders = []
        for name in ("m0", "m1", "m2"):
            seen = marks(data, split, name, black=name == "m0")
            # The same images, each as often as in the source, and in the place of a digit of the same class.
            for label in range(10):
                ours, theirs = (sorted(map(bytes, part[labels == label].numpy())) for part in (seen, known))
                assert ours == theirs
            orders.append([bytes(row) for row in seen.numpy()])
        same = np.mean([a == b for a, b in zip(orders[0], orders[1], strict=True)])
        assert same < 0.15, "the modalities show the same hand"


def test_pairing_is_a_permutation_within_each_class() -> None:
    labels = np.random.RandomState(0).randint(0, 10, 1000)
    rows = pairing(labels, np.random.RandomState(1))
    assert np.array_equal(np.sort(rows), np.arange(1000))
    assert np.array_equal(labels[rows], labels)
    assert (rows != np.arange(1000)).mean() > 0.9


def test_crops_are_parts_of_the_ground(tmp_path: Path) -> None:
    ground = np.random.RandomState(0).randint(0, 256, (31, 33, 3), dtype=np.uint8)
    for number in range(2):
        Image.fromarray(ground).save(tmp_path / f"{number}.png")
    data = load("polymnist", modalities=2, backgrounds=str(tmp_path), limit=400)
    windows = np.lib.stride_tricks.sliding_window_view(ground, (28, 28), (0, 1)).reshape(24, 3, 28, 28)
    found = set()
    for image in data.train.modalities["m0"].samples.numpy():
        fits = [(np.minimum(image ^ window, 255 - (image ^ window)) == 0).all() for window in windows]
        assert sum(fits) == 1
        found.add(fits.index(True))
    assert found == set(range(24)), "some parts of the ground are never taken"


def test_translated_digits_are_whole_and_everywhere(plain: Path) -> None:
    small = torch.nn.functional.interpolate(torch.full((1, 1, 28, 28), 255.0), size=21)
    assert (small > 128).all()
    full = torch.full((64, 1, 28, 28), 255, dtype=torch.uint8)
    offsets = np.stack(np.divmod(np.arange(64), 8), 1)
    for image, (down, right) in zip(moved(full, offsets), offsets, strict=True):
        rows, columns = np.nonzero(image[0])
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (down, down + 20, right, right + 20)
    data = load("translated-polymnist", modalities=3, backgrounds=str(plain))
    digit = source().train
    marked = torch.from_numpy(moved(digit.samples, np.zeros((len(digit), 2), np.int64))[:, 0, :21, :21] > 128)
    places = []
    for name in ("m0", "m1"):
        seen = marks(data, "train", name, black=name == "m0")
        # As many pixels in all as in the source: none is cut off.
        assert sorted(seen.sum((1, 2)).tolist()) == sorted(marked.sum((1, 2)).tolist())
        places.append(seen.any(2).float().argmax(1))
    assert len(set(places[0].tolist())) >= 8
    assert (places[0] != places[1]).float().mean() > 0.5, "the modalities are moved together"


@pytest.mark.parametrize("name", POLY)
def test_seed_decides_everything(name: str) -> None:
    options = {"modalities": 3, "missing": 0.4, "limit": 20}
    first, again, other = (load(name, seed=seed, **options) for seed in (3, 3, 4))
    assert torch.equal(first.train.available, again.train.available)
    assert not torch.equal(first.train.available, other.train.available)
    for modality, part in first.train.modalities.items():
        assert torch.equal(part.samples, again.train.modalities[modality].samples)
        assert not torch.equal(part.samples, other.train.modalities[modality].samples)
    # Further modalities leave the first ones as they are.
    more = load(name, seed=3, **{**options, "modalities": 4})
    assert torch.equal(more.train.modalities["m0"].samples, first.train.modalities["m0"].samples)


def test_another_process_makes_the_same() -> None:
    code = (
        "import hashlib, vaekit.data as d\n"
        "x = d.load('translated-polymnist', modalities=2, missing=0.3, limit=50, offline=True).train\n"
        "bytes = x.modalities['m1'].samples.numpy().tobytes() + x.available.numpy().tobytes()\n"
        "print(hashlib.sha256(bytes).hexdigest())"
    )
    made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    here = load("translated-polymnist", modalities=2, missing=0.3, limit=50, offline=True).train
    content = here.modalities["m1"].samples.numpy().tobytes() + here.available.numpy().tobytes()
    assert made.strip() == hashlib.sha256(content).hexdigest()


def test_the_cache_holds_what_memory_would(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"modalities": 2, "limit": 40, "missing": 0.2}
    whole = load("polymnist", **options)
    monkeypatch.setattr(cache, "available_memory", lambda: 10)
    for _ in range(2):
        mapped = load("polymnist", **options)
        assert mapped.train.modalities["m1"].mapped
        for split in whole.splits:
            for name, part in whole.splits[split].modalities.items():
                assert torch.equal(part.samples, mapped.splits[split].modalities[name].samples)


@pytest.mark.parametrize(("count", "modalities", "missing"), [(1000, 5, 0.3), (997, 3, 0.5), (10, 2, 0.5), (7, 4, 0.0)])
def test_missing_table(count: int, modalities: int, missing: float) -> None:
    table = missing_table(count, modalities, missing, np.random.RandomState(0))
    assert int((~table).sum()) == round(missing * count * modalities)
    assert table.any(1).all()
    if count > 500:
        assert (table.float().mean(0) - (1 - missing)).abs().max() < 0.06, "some modalities lack more often than others"


def test_missing_in_train_or_everywhere() -> None:
    some = load("polymnist", modalities=3, missing=0.3)
    assert int((~some.train.available).sum()) == round(0.3 * 1437 * 3)
    assert some.valid.available is None
    assert some.test.available is None
    everywhere = load("polymnist", modalities=3, missing=0.3, missing_in="all")
    assert int((~everywhere.test.available).sum()) == round(0.3 * 180 * 3)
    assert torch.equal(everywhere.train.available, some.train.available)


def test_source_of_the_digits_is_announced(tmp_path: Path) -> None:
    embedded = load("polymnist", tmp_path, limit=2)
    assert embedded.protocol["digits"] == "digits"
    assert "MNIST is not under" in embedded.notes[0]
    write_idx(type("", (), {"name": "mnist"}), tmp_path)
    found = load("polymnist", tmp_path, limit=2, offline=True)
    assert found.protocol["digits"] == "mnist"
    assert found.notes[0] == "the digits are those of MNIST"
    asked = load("mnist-labels", tmp_path, digits="digits")
    assert asked.protocol["digits"] == "digits"
    assert "fetches" not in asked.notes[0]
    assert json.loads(json.dumps(found.protocol)) == found.protocol


def test_mnist_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match="'mnist' is missing or damaged and offline"):
        load("polymnist", tmp_path, digits="mnist", offline=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"modalities": 1}, "modalities must be 2 to 100, not 1"),
        ({"modalities": 4, "missing": 0.8}, r"missing must lie between 0 and 0.75, not 0.8"),
        ({"missing": -0.1}, "missing must lie between"),
        ({"seed": -1}, "seed must lie between"),
        ({"limit": 0}, "limit must be 1 or more"),
        ({"backgrounds": "nowhere"}, "there is no folder .*nowhere"),
    ],
)
def test_wrong_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VaekitError, match=sentence):
        load("polymnist", **options)


def test_backgrounds(plain: Path) -> None:
    with pytest.raises(VaekitError, match="holds 3 photographs, but 5 modalities"):
        load("polymnist", backgrounds=str(plain))
    Image.new("RGB", (100, 27)).save(plain / "00.png")
    with pytest.raises(VaekitError, match=r"00\.png has 100x27 pixels: 28x28 or more"):
        load("polymnist", modalities=2, backgrounds=str(plain))
    (plain / "00.png").write_text("no image")
    with pytest.raises(VaekitError, match=r"00\.png cannot be read"):
        load("polymnist", modalities=2, backgrounds=str(plain))
    (plain / "00.png").rename(plain / "notes.txt")
    names, pixels = photographs(plain, 3, 28)
    assert names == ["0.png", "1.png", "2.png"]
    assert [int(picture[0, 0, 0]) for picture in pixels] == [0, 255, 250]


def test_textures_show_a_digit_and_differ() -> None:
    names, pixels = textures(10)
    assert len(set(names)) == 5
    for texture in pixels:
        assert texture.shape == (3, 512, 512)
        assert (np.abs(texture / 255.0 - 0.5) > 0.15).mean() > 0.95
        assert (texture.std((1, 2)) > 5).all(), "a texture is flat"
    means = np.array([texture.mean((1, 2)) for texture in pixels[:5]])
    assert min(np.abs(a - b).max() for n, a in enumerate(means) for b in means[:n]) > 50


@pytest.mark.slow
def test_polymnist_of_mnist_and_photographs(real_data: Path) -> None:
    data = load("polymnist", real_data, offline=True, modalities=2, backgrounds="backgrounds")
    assert [len(split) for split in data.splits.values()] == [50_000, 10_000, 10_000]
    assert data.protocol["backgrounds"] == ["0.jpg", "1.jpg"]


# ---- labels and attributes -------------------------------------------------------------------------------------------


def test_mnist_labels() -> None:
    data, digit = load("mnist-labels", image_size=8), load("digits")
    assert data.values == {"image": "image", "label": "classes"}
    for name, split in data.splits.items():
        assert torch.equal(split.modalities["image"].samples, digit.splits[name].samples)
        assert torch.equal(split.modalities["label"].samples.argmax(1), split.labels)
        assert (split.modalities["label"].samples.sum(1) == 1).all()


def test_celeba_attributes(real_data: Path) -> None:
    data = load("celeba-attributes", real_data, image_size=8, limit=30)
    faces = load("celeba", real_data, image_size=8, limit=30)
    assert data.values == {"image": "image", "attributes": "binary"}
    assert data.shape == {"image": (3, 8, 8), "attributes": (40,)}
    names = data.protocol["attributes"]
    assert (len(names), names[0]) == (40, "5_o_Clock_Shadow")
    lines = (real_data / "celeba/list_attr_celeba.txt").read_text().splitlines()[2:]
    signs = {line.split()[0]: [float(sign == "1") for sign in line.split()[1:]] for line in lines}
    partition = (real_data / "celeba/list_eval_partition.txt").read_text().splitlines()
    for number, split in enumerate(("train", "valid", "test")):
        files = [line.split()[0] for line in partition if line.endswith(f" {number}") and line.split()[0] in signs]
        assert data.splits[split].modalities["attributes"].samples.tolist() == [signs[file] for file in files[:30]]
        assert torch.equal(data.splits[split].modalities["image"].samples, faces.splits[split].samples)
    assert data.notes == faces.notes


def forge_faces(root: Path) -> Path:
    (root / "celeba/img_align_celeba").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (178, 218), (40 * number, 0, 0)).save(root / f"celeba/img_align_celeba/{number}.jpg")
    lines = [f"{number}.jpg {max(0, number - 3)}" for number in range(6)]
    (root / "celeba/list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return root / "celeba/list_attr_celeba.txt"


def test_attributes_find_their_faces(tmp_path: Path) -> None:
    attributes = forge_faces(tmp_path)
    with pytest.raises(VaekitError, match="attributes of CelebA have no automatic download"):
        load("celeba-attributes", tmp_path)
    attributes.write_text("5\nBald Smiling\n3.jpg 1 1\n0.jpg -1 1\n2.jpg -1 -1\n4.jpg 1 -1\n5.jpg 1 1\n")
    (tmp_path / "celeba/img_align_celeba/2.jpg").write_text("no image")
    data = load("celeba-attributes", tmp_path, image_size=4)
    assert data.train.modalities["attributes"].samples.tolist() == [[0, 1], [1, 1]]
    reds = data.train.modalities["image"].samples[:, 0, 0, 0]
    assert (reds.int() - torch.tensor([0, 120])).abs().max() < 4
    assert "1 images without attributes left out" in data.notes
    assert any("2.jpg (not an image)" in note for note in data.notes)
    for option, other in {"crop": None, "antialias": False, "channels": 1, "limit": 1}.items():
        load("celeba-attributes", tmp_path, image_size=4, **{option: other})
    assert load("celeba-attributes", tmp_path, image_size=4, channels=1, limit=1).train.shape["image"] == (1, 4, 4)
    attributes.write_text("5\nBald Smiling\n3.jpg 1 1\n0.jpg -1\n")
    with pytest.raises(VaekitError, match="line 4 of .* is not an image's name and 2 times 1 or -1"):
        load("celeba-attributes", tmp_path)


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with six pictures, told apart by their colour, and six vectors."""
    for number in range(6):
        mode, colour = ("RGB", (40 * number, 0, 0)) if number % 2 else ("L", 40 * number)
        Image.new(mode, (9 + number, 9), colour).save(tmp_path / f"{number}.png")
        np.save(tmp_path / f"{number}.npy", np.full(3, number, np.float64))
    return tmp_path


def write(place: Path, *lines: str) -> Path:
    (place / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place / "t.csv"


def rows(data: Dataset, name: str) -> list[Any]:
    """The samples of a modality, of all splits."""
    return torch.cat([split.modalities[name].samples for split in data.splits.values()]).tolist()


SPLITS = ("train", "train", "train", "valid", "test", "test")


def test_table(place: Path) -> None:
    lines = [
        f"{n}.png, {n}.npy ,{n},{10 * n},{-n},{'cat' if n % 2 else 'ant'},{'ab'[n % 2]},{split}"
        for n, split in enumerate(SPLITS)
    ]
    data = load(write(place, "photo,code,gene.x,gene.y,age,animal,label,split", *lines), image_size=4)
    assert data.shape == {"photo": (3, 4, 4), "code": (3,), "gene": (2,), "age": (1,), "animal": (2,)}
    assert data.values["animal"] == "classes"
    assert [len(split) for split in data.splits.values()] == [3, 1, 2]
    assert [row[0][0][0] for row in rows(data, "photo")] == [0, 40, 80, 120, 160, 200]
    assert rows(data, "code") == [[n] * 3 for n in range(6)]
    assert rows(data, "gene") == [[n, 10 * n] for n in range(6)]
    assert rows(data, "age") == [[-n] for n in range(6)]
    assert rows(data, "animal") == [[1, 0], [0, 1]] * 3
    assert data.train.labels.tolist() == [0, 1, 0]
    assert data.train.available is None
    assert data.protocol["classes"] == {"animal": ["ant", "cat"], "label": ["a", "b"]}
    assert data.protocol["split"] == "named in the table"
    part = load(place / "t.csv", image_size=4, channels=1, limit=1)
    assert part.shape["photo"] == (1, 4, 4)
    assert part.shape["animal"] == (2,), "the classes depend on the limit"
    assert [len(split) for split in part.splits.values()] == [1, 1, 1]


def test_empty_cells_are_missing_modalities(place: Path) -> None:
    lines = ["0.png,,1,2,,train", ",1.npy,3,,b,train", "2.png,2.npy,,,c,train", "3.png,3.npy,5,6,b,valid"]
    data = load(write(place, "photo,code,gene.x,gene.y,animal,split", *lines), image_size=4)
    assert data.train.available.tolist() == [
        [True, False, True, False],
        [False, True, False, True],
        [True, True, False, True],
    ]
    assert data.valid.available.all()
    assert data.notes == ["'gene' counts as missing in 1 rows, where some of its cells are empty"]
    assert rows(data, "gene") == [[1, 2], [0, 0], [0, 0], [5, 6]]
    assert rows(data, "animal") == [[0, 0], [1, 0], [0, 1], [1, 0]]
    assert not data.train.modalities["photo"].samples[1].any()
    assert int(data.train.modalities["photo"].samples[2, 0, 0, 0]) == 80
    assert rows(data, "code")[0] == [0, 0, 0]


def test_splits_of_a_table(place: Path) -> None:
    lines = [f"{n},{n}" for n in range(20)]
    seeded = load(write(place, "a,label", *lines), valid_fraction=0.25)
    assert [len(split) for split in seeded.splits.values()] == [15, 5]
    for split in seeded.splits.values():
        assert split.modalities["a"].samples[:, 0].tolist() == split.labels.tolist()
    named = load(write(place, "a,split", *(f"{n},{'test' if n < 4 else 'Train'}" for n in range(20))))
    assert [len(split) for split in named.splits.values()] == [14, 2, 4]
    assert named.protocol["split"] == "named in the table, seeded, 0.1 held out"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["label,split", "1,train"], "has no column beside label and split"),
        ([], "has no rows"),
        (["a,b"], "has no rows"),
        (["a,a", "1,2"], "two columns named 'a'"),
        (["a,,b", "1,2,3"], "has a column named ''"),
        (["a;b", "1;2"], "has a column named 'a;b': use letters, .* and commas"),
        (["a,b", "1,2", "1,2,3"], "line 3 of .* has 3 cells, but there are 2 columns"),
        (["a,b", "1"], "line 2 of .* has 1 cells"),
        (["a,b", "1,2", ",", "3,4", " , "], "2 rows of .* have no modality, the first on line 3"),
        (["a,b", "1,2", "2,2", "x,2"], "line 4 of .* has 'x' in the column 'a' of numbers"),
        (["a,b", "1,2", "nan,2"], "line 3 of .* has 'nan'"),
        (["a,b", "1,2", "1e99,2"], "line 3 of .* has '1e99'"),
        (["g.x,g.y", "1,cat", "2,dog"], "column 'g.y' of .* holds words: only numbers can share the vector 'g'"),
        (["a,b", "0.png,1", "7.png,1", "8.png,1"], r"2 files of column 'a' of .* are missing, the first is .*7\.png"),
        (["a,b", "0.png,1", "1.png,1", "cat,1"], "line 4 of .* has 'cat' in the column 'a' of images"),
        (["a,b", "bad.png,1", "0.png,1"], r"1 images in column 'a' .* cannot be read: bad\.png \(not an image\)"),
        (["a,b", "0.npy,1", "long.npy,1"], r"long.npy \(line 3 .* has shape \(5,\), but the first has \(3,\)"),
        (["a,b", "object.npy,1", "0.npy,1"], "object.npy holds Python objects"),
        (["a,b", "nan.npy,1", "0.npy,1"], "nan.npy .* must hold finite numbers"),
        (["a,b", ",1", ",2"], "column 'a' of .* is empty in every row"),
        (["a,label", "1,0", "2,"], "line 3 of .* has no label"),
        (["a,split", "1,train", "2,"], "line 3 of .* has no split"),
        (["a,split", "1,train", "2,late"], "line 3 of .* has the split 'late': use train, valid or test"),
        (["a,b", *(f"{n},name{n}" for n in range(30))], "column 'b' of .* holds 30 different words"),
        (["a", "1"], "1 sample.* cannot be split"),
    ],
)
def test_bad_tables(place: Path, lines: list[str], sentence: str) -> None:
    (place / "bad.png").write_text("no image")
    np.save(place / "long.npy", np.zeros(5))
    np.save(place / "nan.npy", np.full(3, np.nan))
    np.save(place / "object.npy", np.array([{}, 1, 2], dtype=object))
    with pytest.raises(VaekitError, match=sentence) as error:
        load(write(place, *lines), image_size=4)
    assert "\n" not in str(error.value)


def test_tables_that_are_no_text(place: Path) -> None:
    with pytest.raises(VaekitError, match="there is no file or folder"):
        load(place / "none.csv")
    (place / "t.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(VaekitError, match="cannot be read as comma-separated text"):
        load(place / "t.csv")
    (place / "t.csv").write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x, y"\r\n\r\n2,z\r\n')  # as Excel writes it
    assert load(place / "t.csv").protocol["classes"] == {"b": ["x, y", "z"]}


# ---- arrays ----------------------------------------------------------------------------------------------------------


def arrays(**changes: Any) -> dict[str, Any]:
    random = np.random.RandomState(0)
    made = {
        "photo": random.randint(0, 256, (10, 6, 5, 3), dtype=np.uint8),
        "gene": random.standard_normal((10, 4)),
        "age": np.arange(10),
        "bits": random.uniform(size=(10, 3)) > 0.5,
        "y": np.arange(10) % 3,
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def test_paired_arrays(tmp_path: Path) -> None:
    made = arrays()
    np.savez(tmp_path / "a.npz", **made)
    data = load(tmp_path / "a.npz", valid_fraction=0.3)
    assert data.shape == {"photo": (3, 6, 5), "gene": (4,), "age": (1,), "bits": (3,)}
    assert data.values == {"photo": "image", "gene": "vector", "age": "vector", "bits": "binary"}
    assert [len(split) for split in data.splits.values()] == [7, 3]
    for split in data.splits.values():
        index = split.modalities["age"].samples[:, 0].long().numpy()
        assert np.array_equal(split.modalities["photo"].samples.permute(0, 2, 3, 1).numpy(), made["photo"][index])
        assert np.array_equal(split.modalities["gene"].samples.numpy(), made["gene"][index].astype(np.float32))
        assert np.array_equal(split.labels.numpy(), made["y"][index])
        assert split.available is None
    small = load(tmp_path / "a.npz", image_size=4, channels=1, limit=2)
    assert small.shape["photo"] == (1, 4, 4)
    assert len(small.train) == 2


def test_paired_arrays_that_are_not_all_there(tmp_path: Path) -> None:
    made = arrays()
    there = np.ones((10, 4), bool)
    there[::2, 1] = False
    made["gene"][::2] = np.nan
    np.savez(tmp_path / "a.npz", **made, available=there)
    data = load(tmp_path / "a.npz")
    for split in data.splits.values():
        odd = split.modalities["age"].samples[:, 0] % 2 == 1
        assert torch.equal(split.available[:, 1], odd)
        assert split.available[:, [0, 2, 3]].all()
        assert not split.modalities["gene"].samples[~odd].any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gene": np.zeros((9, 4))}, "different numbers of samples .*gene 9"),
        ({"y": np.arange(9)}, "different numbers of samples .*labels 9"),
        ({"available": np.ones((9, 4), bool)}, "different numbers of samples .*availability 9"),
        ({"available": np.ones((10, 3), bool)}, r"'available' of shape \(10, 3\) .* use bool of shape \(N, 4\)"),
        ({"available": np.zeros((10, 4), bool)}, "10 samples have no modality at all"),
        ({"gene": np.full((10, 4), np.inf)}, "'gene' of .* has 40 non-finite values"),
        ({"gene": np.array([b"a"] * 10)}, "'gene' of .* holds values of type"),
        ({"gene": np.array([None] * 10)}, "holds Python objects"),
        ({"age": np.array(3.0)}, r"'age' of .* has shape \(\)"),
        ({"y": np.zeros((10, 2))}, "has labels of shape"),
        ({"photo": np.zeros((10, 6, 5, 4), np.uint8)}, "'photo' of .* images need 1 or 3 channels"),
        ({"gene.x": np.zeros(10)}, "has an array named 'gene.x': use letters"),
    ],
)
def test_bad_paired_arrays(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(VaekitError, match=sentence) as error:
        load(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_which_arrays_are_modalities(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((10, 2)), extra=np.zeros((10, 2)))
    assert not load(tmp_path / "one.npz").paired
    np.savez(tmp_path / "one.npz", gene=np.zeros((10, 2)), y=np.arange(10))
    with pytest.raises(VaekitError, match="name the samples images"):
        load(tmp_path / "one.npz")
    (tmp_path / "one.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(VaekitError, match="cannot be read"):
        load(tmp_path / "one.npz")
    with pytest.raises(VaekitError, match="'paired-arrays' needs a path: name the file itself"):
        load("paired-arrays")


# ---- batches ---------------------------------------------------------------------------------------------------------


def numbered(count: int = 23, masked: bool = True) -> PairedSplit:
    """Every modality of sample i says i; sample i lacks the vector where i is divisible by three."""
    index = torch.arange(count)
    images = index.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    images[..., 1] += 100  # so that a mirrored image can be told
    available = torch.stack([torch.ones(count, dtype=torch.bool), index % 3 > 0, index % 2 == 0], 1)
    vector, code = (Split(index.float().view(-1, 1).repeat(1, size)) for size in (2, 3))
    return PairedSplit({"image": Split(images), "vector": vector, "code": code}, None, available if masked else None)


def batches(split: PairedSplit, size: int = 4, **options: Any) -> PairedBatches:
    return PairedBatches(split, size, data_range={"image": (0.0, 255.0)}, **options)


def test_modalities_and_mask_stay_together() -> None:
    order = []
    for x in batches(numbered(), drop_last=False, seed=2).epoch(1):
        index = x.values["image"][:, 0, 0, 0]
        assert torch.equal(x.available[:, 1], index % 3 > 0)
        assert torch.equal(x.available[:, 2], index % 2 == 0)
        for number, name in ((1, "vector"), (2, "code")):
            there = x.available[:, number]
            assert (x.values[name][there] == index[there, None]).all()
            assert not x.values[name][~there].any()
        order += index.tolist()
    assert sorted(order) == list(range(23))
    assert order != sorted(order)


def test_batches_without_a_mask_are_complete() -> None:
    x = next(batches(numbered(masked=False)).epoch(0))
    assert x.complete
    assert torch.equal(x.values["vector"][:, 0], x.values["code"][:, 0])


def test_resume_goes_on_where_it_stopped() -> None:
    loader = batches(numbered(), flip=True, seed=1)
    whole = list(loader.epoch(2))
    assert len(whole) == len(loader) == 5
    for start in range(6):
        for ours, theirs in zip(loader.epoch(2, start), whole[start:], strict=True):
            assert torch.equal(ours.available, theirs.available)
            assert all(torch.equal(ours.values[name], theirs.values[name]) for name in ours.names)


def test_ranks_share_the_global_batch() -> None:
    options = {"drop_last": False, "flip": True}
    whole = list(batches(numbered(), 6, **options).epoch(0))
    parts = zip(*(batches(numbered(), 2, rank=rank, world=3, **options).epoch(0) for rank in range(3)), strict=True)
    for x, ranks in zip(whole, parts, strict=True):
        assert torch.equal(x.available, torch.cat([part.available for part in ranks]))
        for name in x.names:
            assert torch.equal(x.values[name], torch.cat([part.values[name] for part in ranks]))


def test_flip_mirrors_images_alone_and_together() -> None:
    split = numbered(masked=False)
    both = PairedSplit({**split.modalities, "twin": split.modalities["image"]})
    loader = PairedBatches(both, 23, data_range={"image": (0.0, 255.0), "twin": (0.0, 255.0)}, flip=True)
    x = next(loader.epoch(0))
    mirrored = x.values["image"][:, 0, 0, 0] >= 100
    assert 0 < int(mirrored.sum()) < 23
    assert torch.equal(x.values["image"], x.values["twin"])
    assert torch.equal(x.values["vector"][:, 0], x.values["image"][:, 0, 0].min(1).values)


def test_scaling_is_for_each_modality() -> None:
    data = load("mnist-labels", image_size=8, limit=20)
    x = next(make_batches(data, data.train, 20, {"image": (-1.0, 1.0)}, shuffle=False).epoch(0))
    assert (x.values["image"].min(), x.values["image"].max()) == (-1.0, 1.0)
    assert torch.equal(x.values["label"], data.train.modalities["label"].samples)
    with pytest.raises(VaekitError, match="none of the modalities holds images"):
        PairedBatches(PairedSplit({"a": Split(torch.zeros(5, 3))}), 2, data_range={}, flip=True)


# ---- looking -------------------------------------------------------------------------------------------------------


def test_check_counts_what_is_available(tmp_path: Path) -> None:
    lines = ["3,1,train", ",2,train", "5,3,train", "7,,train", "1,1,valid", "5,3,valid"]
    report = check(write(tmp_path, "a,b,split", *lines))
    assert isinstance(report, PairedReport)
    assert report.counts == {"train": 4, "valid": 2}
    assert report.available == {"train": {"a": 3, "b": 3}, "valid": {"a": 2, "b": 2}}
    assert report.patterns["train"] == {("a", "b"): 2, ("b",): 1, ("a",): 1}
    assert report.modalities["a"].mean == (5.0,), "what is missing counts as zero"
    assert (report.modalities["a"].low, report.modalities["a"].high) == (3.0, 7.0)
    assert report.duplicates == {"valid": 1}
    text = "\n".join(report.lines())
    assert "available in train: a 3, b 3; together: a+b 2, b 1, a 1" in text
    assert "available in valid: all modalities of all samples" in text
    assert "\nmodality a: shape (1,), float32, values 3 to 7, mean 5" in text


def test_check_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "grid.png"
    options = ["--set", "modalities=3", "--set", "limit=9", "--set", "missing=0.4", "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        main(["data", "check", "polymnist", *options])
    assert not end.value.code
    said = capsys.readouterr().out
    assert "modality m2: shape (3, 28, 28), uint8" in said
    assert "the first samples, one row for each modality" in said
    with Image.open(out) as image:
        assert image.size == (9 * (2 * 28 + 2) + 2, 3 * (2 * 28 + 2) + 2)
    np.savez(tmp_path / "a.npz", a=np.zeros((10, 2)), b=np.zeros((10, 3)))
    with pytest.raises(SystemExit):
        main(["data", "check", str(tmp_path / "a.npz"), "--out", str(out)])
    assert "these samples are not images" in capsys.readouterr().err
