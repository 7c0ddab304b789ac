"""Where latents are drawn from, by name. What the command line offers stands here, apart from torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

__all__ = ["BY_FEATURES", "SOURCES", "Source"]

Source: TypeAlias = Literal["prior", "aggregate-gaussian", "aggregate-mixture", "expost-mixture", "expost-flow"]

#: Each source in a line.
SOURCES: Mapping[Source, str] = {
    "prior": "the prior",
    "aggregate-gaussian": "a diagonal Gaussian with the moments of the aggregate posterior",
    "aggregate-mixture": "the posterior of a training sample chosen at random",
    "expost-mixture": "a mixture of 10 Gaussians with full covariances, fitted to posterior draws of training samples",
    "expost-flow": "a normalising flow, fitted to posterior draws of training samples",
}

#: The metrics that compare generated images by the features of an extractor.
BY_FEATURES = ("frechet", "kid", "precision_recall", "inception_score")
