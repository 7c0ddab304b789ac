"""The metrics that judge generated images by their features: one result for each sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from torch import Tensor

from vaekit.data import Dataset
from vaekit.errors import VaekitError
from vaekit.evaluation.extractors import Extractor
from vaekit.evaluation.fidelity import (
    ISC,
    KID,
    PRC,
    class_score,
    frechet_distance,
    kernel_distance,
    precision_and_recall,
)
from vaekit.evaluation.image_features import generated_rows, image_protocol, images_of, real_rows
from vaekit.evaluation.protocol import Options, Result
from vaekit.models import VAE

__all__ = ["Figure", "figure", "frechet", "inception_score", "kid", "precision_recall"]

#: A figure of two sets of features, or of one set of logits: `frechet`, `kid`, `precision_recall`, `inception_score`.
Figure: TypeAlias = Literal["frechet", "kid", "precision_recall", "inception_score"]

_SUBSET = 1000


def frechet(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the Fréchet distance of each sampler's images to the split: `fid`, or `frechet_distance`.

    It is called `fid` only where the extractor is the Inception network with the weights that define the FID. That of
    the sampler `"reconstructions"` is known as rFID.

    Arguments:
        model: The model, in evaluation mode.
        data: The data set.
        options: What it is computed from: split, samples, extractor, samplers, sampler and store.

    Raises:
        VaekitError: There is no extractor, the samples are no images, there are too few, or the model's images are not
            finite.
    """
    yield from _against_the_split(model, data, options, "frechet")


def kid(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the kernel distance of each sampler's images to the split: `kid`, or `kernel_distance`.

    Arguments and errors are those of `frechet`.
    """
    yield from _against_the_split(model, data, options, "kid")


def precision_recall(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield precision and recall of each sampler's images against the split.

    Arguments and errors are those of `frechet`.
    """
    yield from _against_the_split(model, data, options, "precision_recall")


def inception_score(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the inception score of each sampler's images: `isc`, or `class_score`.

    Arguments are those of `frechet`.

    Raises:
        VaekitError: As `frechet`, and where the extractor is no classifier.
    """
    extractor, images = options.require_extractor(), images_of(data, options)
    _require_classes(extractor)
    for sampler, rows in generated_rows(model, data, options, images):
        values, parameters = figure("inception_score", extractor, rows, rows)
        protocol = {**image_protocol(data, options, sampler), "torch_fidelity": parameters}
        yield Result(values, protocol, extractor.notes())


def figure(
    which: Figure, extractor: Extractor, generated: Tensor, real: Tensor
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return a figure under the name that it may go by, and torch-fidelity's parameters.

    Arguments:
        which: The figure.
        extractor: What made the rows.
        generated: Rows (N, F + L) of generated images.
        real: Rows (M, F + L) of real ones; of no account for the inception score.

    Raises:
        VaekitError: There are too few rows, or the inception score was asked of a network that is no classifier.
    """
    (features, logits), (others, _) = extractor.split(generated), extractor.split(real)
    if which == "frechet":
        return {"fid" if extractor.defines_fid else "frechet_distance": frechet_distance(features, others)}, {}
    if which == "precision_recall":
        return precision_and_recall(features, others), dict(PRC)
    if which == "kid":
        size = min(_SUBSET, len(features), len(others))
        name, found = "kid" if extractor.defines_fid else "kernel_distance", kernel_distance(features, others, size)
        parameters = {"kid_subset_size": size, **KID}
        if size == len(features) == len(others):  # All subsets are the whole: there is no spread to report.
            return {name: found["mean"]}, parameters
    else:
        _require_classes(extractor)
        name, found, parameters = "isc" if extractor.defines_fid else "class_score", class_score(logits), dict(ISC)
    return {name: found["mean"], f"{name}_std": found["std"]}, parameters


def _against_the_split(model: VAE, data: Dataset, options: Options, which: Figure) -> Iterator[Result]:
    extractor, images = options.require_extractor(), images_of(data, options)
    real = real_rows(model, images, options)
    for sampler, generated in generated_rows(model, data, options, images):
        values, parameters = figure(which, extractor, generated, real)
        protocol = {**image_protocol(data, options, sampler), "real": len(real), "torch_fidelity": parameters}
        yield Result(values, protocol, extractor.notes())


def _require_classes(extractor: Extractor) -> None:
    if not extractor.classes:
        raise VaekitError(
            f"the inception score needs the logits of a classifier, and the extractor '{extractor.name}' has none: "
            "take --extractor inception"
        )
