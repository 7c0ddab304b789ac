"""Samples in blocks of one size, whose draws depend on nothing but the seed and the block's number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from vaekit.data import Dataset, PairedSplit, Split
from vaekit.data.batches import mixed_seed
from vaekit.evaluation.protocol import Options
from vaekit.models import Model

__all__ = ["blocks"]

_BLOCK = 64  # Samples in a block.


def blocks(model: Model, data: Dataset, options: Options, rows: Split | PairedSplit, what: str) -> Iterator[Any]:
    """Yield samples 64 at a time on the model's device, each time with torch's random state set anew.

    It is set from the seed and the number of the block: what is drawn for a sample (a latent, or black and white for
    a grey value) is the same whatever `options.batch_size` is, and whatever was drawn before.

    Arguments:
        model: The model.
        data: The data set.
        options: What the metric is computed from.
        rows: The samples, as `options.rows` gives them.
        what: What is being computed, for the report.
    """
    for number, x in enumerate(replace(options, batch_size=_BLOCK).batches(model, data, rows, what)):
        torch.manual_seed(mixed_seed(options.seed, number))
        yield x
