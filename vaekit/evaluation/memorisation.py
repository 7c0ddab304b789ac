"""Whether generated images are copies of training images: how near they lie to them, and how near unseen images do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaekit.data import Dataset
from vaekit.errors import VaekitError
from vaekit.evaluation.extractors import Extractor
from vaekit.evaluation.image_features import generated_rows, images_of, real_rows
from vaekit.evaluation.protocol import Options, Result
from vaekit.evaluation.subsets import estimate
from vaekit.models import VAE
from vaekit.reporting.images import to_uint8

__all__ = ["memorisation", "nearest", "suspects"]

_QUANTILE = 0.01
_BLOCK = 500
# Numbers of training images that are compared at a time: 32 MiB of float64.
_NUMBERS = 2**22

_PIXELS = Extractor("pixels", "", lambda images: images.flatten(1))


def nearest(queries: Tensor, training: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distance of every query to the nearest training row, and that row's number, (Q,) each.

    The search is exact. In float64 the squared distances of bytes are whole numbers without rounding, and 0 for copies.

    Arguments:
        queries: Rows (Q, D).
        training: The training rows in parts (n, D), on the device that is to compute; read once.

    Raises:
        VaekitError: There is no training row.

    Examples:
        >>> nearest(torch.tensor([[0.0, 0.0], [5.0, 5.0]]), [torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 5.0]])])
        (tensor([5., 0.], dtype=torch.float64), tensor([0, 1]))
    """
    best = torch.full((len(queries),), torch.inf, dtype=torch.float64)
    number, seen = torch.zeros(len(queries), dtype=torch.long), 0
    for part in training:
        rows = part.double()
        squares = rows.square().sum(1)
        for start in range(0, len(queries), _BLOCK):
            chosen = slice(start, start + _BLOCK)
            block = queries[chosen].to(rows)
            least = torch.addmm(squares, block, rows.T, alpha=-2.0).min(1)
            found, place = (least.values + block.square().sum(1)).cpu(), least.indices.cpu()
            nearer = found < best[chosen]
            best[chosen] = torch.where(nearer, found, best[chosen])
            number[chosen] = torch.where(nearer, place + seen, number[chosen])
        seen += len(rows)
    if not seen:
        raise VaekitError("there is no training sample to look for neighbours in")
    return best.clamp_min(0.0).sqrt(), number


@torch.no_grad()
def memorisation(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    r"""Compare the distances of samples to the training set with those of unseen images, for every sampler.

    With $d(x)$ the Euclidean distance of x to the nearest of all training images:

    - `median_distance`: the median of d;
    - `ratio`: that median divided by the one of unseen images, those of the split;
    - `near`: the share with d no larger than the 1 % quantile of d over unseen images. It is about 0.01 where nothing
      is memorised, and close to 1 where training images are given out again.

    A decoder's means are smooth, and smooth images lie nearer to everything than real ones do. Reconstructions of
    unseen images, which nothing can have memorised, are therefore compared in the same way: samples that are as near as
    those are no sign of copying.

    Distances are those of pixels in [0, 1], from bytes, and then those of features where there is an extractor.
    Training and unseen images are compared as they are stored: grey values are not drawn as black or white. Pixels tell
    nothing of copies that are shifted or mirrored. Neither tells of a model that gives single training images a higher
    likelihood than it would without them, which van den Burg and Williams measure.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models, Meehan, Chaudhuri and Dasgupta, 2020,
        arXiv 2004.05675 (which compares the same two sets of distances by their ranks).
        On Memorization in Probabilistic Deep Generative Models, van den Burg and Williams, 2021, arXiv 2106.03216.

    Arguments:
        model: The model, in evaluation mode.
        data: The data set.
        options: Which unseen images, samplers and extractor; as many images are generated as there are unseen ones.

    Raises:
        VaekitError: The samples are not images, or the split is the training split.
    """
    images = images_of(data, options)
    if options.split == "train":
        raise VaekitError("memorisation is judged by unseen images: take the split 'test' or 'valid', not 'train'")
    notes = []
    if len(images) * _QUANTILE < 1:
        notes.append(f"the 1 % quantile of {len(images)} distances is about their smallest: take 100 samples or more")
    names = tuple(dict.fromkeys(("unseen", "reconstructions", *options.samplers)))
    for extractor in (_PIXELS, options.extractor):
        if extractor is None:
            continue
        distances = {found.name: found.distances for found in _neighbours(model, data, options, extractor, names)}
        figures = {name: _figures(values, distances["unseen"]) for name, values in distances.items()}
        for sampler in options.samplers:
            shown = {"samples": sampler, "reconstructions": "reconstructions", "unseen": "unseen"}
            yield Result(
                {name: figures[key] for name, key in shown.items()},
                {
                    "sampler": sampler,
                    "space": "pixels of 8 bits" if extractor is _PIXELS else extractor.protocol(),
                    "training": len(_training(data, options)),
                    "quantile": _QUANTILE,
                },
                [*notes, *extractor.notes()],
            )


def suspects(model: VAE, data: Dataset, options: Options, count: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Return the samples that lie nearest to a training image, that image, and the distances, in rising order.

    They are those of the first sampler of the options: the very samples of `memorisation`, compared by pixels.

    Arguments:
        model: The model, in evaluation mode.
        data: The data set.
        options: As for `memorisation`.
        count: How many, or all where there are fewer.

    Returns:
        uint8 images (count, C, H, W), as many training images, and distances (count,).

    Raises:
        VaekitError: The samples are not images.
    """
    (found,) = _neighbours(model, data, options, _PIXELS, options.samplers[:1])
    least = found.distances.topk(min(count, len(found.distances)), largest=False)
    neighbours = _bytes(_training(data, options).samples[found.numbers[least.indices]], model)
    return found.rows[least.indices].to(torch.uint8).view_as(neighbours), neighbours, least.values


class _Found(NamedTuple):
    name: str
    rows: Tensor
    distances: Tensor
    numbers: Tensor


@torch.no_grad()
def _neighbours(
    model: VAE, data: Dataset, options: Options, extractor: Extractor, names: Sequence[str]
) -> Iterator[_Found]:
    """Yield the nearest training images of the unseen images and of samplers' images, by pixels or features."""
    images, train, in_pixels = images_of(data, options), _training(data, options), extractor is _PIXELS
    space = replace(options, extractor=extractor, store=None if in_pixels else options.store)
    training = train.samples if in_pixels else real_rows(model, train, space)

    def features(rows: Tensor) -> Tensor:
        return _bytes(rows, model).flatten(1) if rows.ndim == 4 else extractor.split(rows)[0]

    def parts(what: str) -> Iterator[Tensor]:
        step = max(1, _NUMBERS // training[0].numel())
        for start in range(0, len(training), step):
            yield features(training[start : start + step]).to(model.last_layer.device)
            if options.progress is not None:
                options.progress(min(start + step, len(training)), len(training), f"nearest training images: {what}")

    for name in names:
        if name == "unseen":
            rows = images.samples if in_pixels else real_rows(model, images, space)
        else:
            ((_, rows),) = generated_rows(model, data, replace(space, samplers=(name,)), images)
        distances, numbers = nearest(features(rows), parts(name))
        yield _Found(name, rows, distances / 255.0 if in_pixels else distances, numbers)


def _training(data: Dataset, options: Options) -> Any:
    """Return what the model was trained on, which may be other data than it is evaluated on."""
    return (data if options.sampler is None else options.sampler.data).splits["train"]


def _bytes(images: Tensor, model: VAE) -> Tensor:
    return to_uint8(images, model.data_range) if images.is_floating_point() else images


def _figures(distances: Tensor, unseen: Tensor) -> dict[str, Any]:
    median, usual = float(distances.median()), float(unseen.median())
    near = estimate((distances <= unseen.quantile(_QUANTILE)).double())
    return {"median_distance": median, "ratio": median / usual if usual else math.nan, "near": near}
