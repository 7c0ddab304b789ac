"""Contract of data sets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vaekit.data import Dataset, PairedSplit, Split
from vaekit.errors import VaekitError
from vaekit.registry import Registry, datasets
from vaekit.testing.contract import Contract

__all__ = ["DatasetContract"]


class DatasetContract(Contract):
    """What a data set promises: splits of uint8 images or float32 samples, the same at every call, with a protocol.

    Override `place` to put small files where the data set looks for them. Where that is not done and there are none,
    the tests of its content are skipped, but the sentence about what is missing is tested.
    """

    registry: ClassVar[Registry] = datasets
    sourced: ClassVar[bool] = False

    def place(self, folder: Path) -> Path:
        """Return the data root, or the file or folder itself; `folder` is an empty one to write in."""
        return folder

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Where the data lie."""
        return self.place(tmp_path)

    def load(self, root: Path, **options: Any) -> Dataset:
        """Load the data set, or skip the test where it is not there."""
        try:
            return self.make(root, None, True, **options)
        except VaekitError as error:
            if list(root.iterdir() if root.is_dir() else [root]):
                raise  # there are files, and they should load
            pytest.skip(f"not here: {error}")

    def test_documentation(self, part: Any) -> None:
        """A docstring; `vaekit show` lists the options, which data sets share."""
        assert inspect.getdoc(part)

    def test_missing_data_is_one_sentence(self, tmp_path: Path) -> None:
        """Without its files and without a network it loads all the same, or says what is missing."""
        sentence = ""
        try:
            assert len(self.make(tmp_path / "nothing", None, True).train)
        except VaekitError as error:
            sentence = str(error)
        assert "\n" not in sentence

    def test_splits(self, root: Path) -> None:
        """Training and validation samples of one shape: uint8 images (N, C, H, W) or float32; factors as named."""
        data = self.load(root)
        assert {"train", "valid"} <= set(data.splits)
        for name, split in data.splits.items():
            assert len(split), f"the split {name} is empty"
            assert split.shape == data.shape
            assert split.labels is None or (split.labels.shape, split.labels.dtype) == ((len(split),), torch.int64)
            if data.factor_names:
                factors = split.factors
                assert factors is not None, f"the split {name} has no factors"
                assert (factors.shape, factors.dtype) == ((len(split), len(data.factor_names)), torch.int64)
            for part in parts(split).values():
                assert len(part) == len(split)
                self.check_samples(part)
        assert not data.is_image or (len(data.shape) == 3 and data.shape[0] in (1, 3))

    def test_modalities(self, root: Path) -> None:
        """The splits of several modalities agree about them, and each sample has one or more."""
        data = self.load(root)
        if not data.paired:
            pytest.skip("this data set has one modality")
        assert not data.is_image
        for name, split in data.splits.items():
            assert list(split.modalities) == list(data.shape), f"the modalities of {name} are others"
            assert split.values == data.values
            if split.available is not None:
                assert (split.available.shape, split.available.dtype) == ((len(split), len(data.shape)), torch.bool)
                assert split.available.any(1).all(), f"a sample of {name} has no modality"

    def check_samples(self, split: Split) -> None:
        """Check the type and the values of the samples of one modality."""
        samples = split.samples
        assert samples.dtype in (torch.uint8, torch.float32)
        assert samples.dtype == torch.uint8 or samples.isfinite().all()
        if split.values != "real":
            assert samples.dtype == torch.float32
            assert ((samples == 0) | (samples == 1)).all(), f"{split.values} are other numbers than 0 and 1"
        if split.values == "classes":
            assert (samples.sum(-1) <= 1).all(), "a sample is of several classes"

    def test_same_at_every_call(self, root: Path) -> None:
        """Loading twice gives the same samples in the same order."""
        first, second = self.load(root), self.load(root)
        for name, split in first.splits.items():
            assert same(split, second.splits[name]), f"the split {name} changes between calls"

    def test_protocol_and_notes(self, root: Path) -> None:
        """The protocol can be stored beside a figure, and notes are sentences."""
        data = self.load(root)
        assert data.protocol
        json.dumps(data.protocol)
        assert all(isinstance(note, str) and note for note in data.notes)

    def test_limit(self, root: Path) -> None:
        """`limit`, where there is one, keeps the first samples of each split and says so."""
        if self.name and "limit" not in self.registry.options(self.name):
            pytest.skip("this data set has no limit")
        whole, part = self.load(root), self.load(root, limit=2)
        assert len(part.train) == 2
        assert same(part.train, whole.train.rows(slice(2)))
        assert len(part.notes) > len(whole.notes)


def parts(split: Split | PairedSplit) -> Mapping[str, Split]:
    """Return the modalities of a split; one without a name where it is no `PairedSplit`."""
    return split.modalities if isinstance(split, PairedSplit) else {"": split}


def same(first: Split | PairedSplit, second: Split | PairedSplit) -> bool:
    """Return whether two splits hold the same samples, of which the same is available and known."""
    for name in ("available", "labels", "factors"):
        tables = [table for part in (first, second) if (table := getattr(part, name, None)) is not None]
        if len(tables) == 1 or (len(tables) == 2 and not torch.equal(*tables)):
            return False
    others = parts(second)
    return all(torch.equal(part.samples, others[name].samples) for name, part in parts(first).items())
