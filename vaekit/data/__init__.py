"""Data: named data sets, folders of images and arrays, decoded once to uint8; the loader of a training run.

data = vaekit.data.load("digits")
batches = vaekit.data.Batches(data.train, 64, data_range=(0.0, 1.0), device="cpu", shuffle=True, flip=False, seed=0)
"""

from vaekit.data.batches import Batches
from vaekit.data.checking import PairedReport, Report, check
from vaekit.data.dataset import Dataset, PairedSplit, Split
from vaekit.data.loading import load
from vaekit.data.paired import PairedBatches, make_batches
from vaekit.data.stream import Stream
from vaekit.data.stream_batches import StreamedBatches

__all__ = [
    "Batches",
    "Dataset",
    "PairedBatches",
    "PairedReport",
    "PairedSplit",
    "Report",
    "Split",
    "Stream",
    "StreamedBatches",
    "check",
    "load",
    "make_batches",
]
