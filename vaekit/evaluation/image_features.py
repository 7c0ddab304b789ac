"""Features of the images of a split, and of as many that a model makes: what metrics of fidelity are computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from vaekit.data import Dataset, Split, make_batches
from vaekit.errors import VaekitError
from vaekit.evaluation.features import Blocks, FeatureStore, reference_store
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.samplers import BLOCK, Sampler
from vaekit.models import VAE
from vaekit.reporting.images import to_uint8

__all__ = ["generated_rows", "image_protocol", "images_of", "real_rows"]


def images_of(data: Dataset, options: Options) -> Split:
    """Return the chosen samples of the split, which are images.

    Raises:
        VaekitError: They are not.
    """
    rows = options.rows(data)
    if not isinstance(rows, Split) or rows.samples.ndim != 4:
        raise VaekitError(f"this metric compares images, and samples of '{data.name}' have shape {data.shape}")
    return rows


def real_rows(model: VAE, images: Split, options: Options) -> Tensor:
    """Return the extractor's rows for images of a data set, shape (N, F + L), memory-mapped.

    They are kept in the user's cache, under the content of the images: files may change under one name.

    Arguments:
        model: The model, whose range float images lie in.
        images: The images.
        options: The extractor, the number of images at a time and the report.
    """
    samples = images.samples
    key = {"content": _content(samples), "range": model.data_range if samples.is_floating_point() else None}

    def blocks(start: int) -> Iterator[Iterable[Tensor]]:
        for block in samples.split(BLOCK)[start:]:
            yield (_bytes(part, model.data_range, "the data") for part in block.split(options.batch_size))

    return _rows(reference_store(), key, blocks, len(images), options, "the data")


def generated_rows(model: VAE, data: Dataset, options: Options, images: Split) -> Iterator[tuple[str, Tensor]]:
    """Yield each sampler of the options with the extractor's rows for as many images as are given, (N, F + L).

    They are kept in `options.store`, where there is one and the hash of the weights is known.

    Arguments:
        model: The model, in evaluation mode.
        data: The data set.
        options: Extractor, samplers, sampler, seed, store, and the number of images at a time.
        images: The images of the split, which the sampler `"reconstructions"` reconstructs.

    Raises:
        VaekitError: A sampler cannot draw, or the model's images are not finite.
    """
    store = FeatureStore(options.store if options.weights_sha256 else None)
    for sampler in options.samplers:
        if sampler == "reconstructions":
            blocks = _reconstructions(model, data, options, images)
            source: dict[str, Any] = {"content": _content(images.samples)}
        else:
            blocks = _samples(model, options, sampler, len(images))
            # What a sampler draws may follow from training data, and from densities that were fitted to it.
            source = {"data": data.protocol or {"data": data.name}, "fits": _drawn_by(options).seed}
        made = {"weights": options.weights_sha256, "sampler": sampler, "seed": options.seed}
        key = {**made, "binarize": options.binarize, **source}
        yield sampler, _rows(store, key, blocks, len(images), options, sampler)


def image_protocol(data: Dataset, options: Options, sampler: str) -> dict[str, Any]:
    """Return what figures of generated images must have in common: sampler, images and extractor."""
    return {
        "sampler": sampler,
        "images": "means of the decoder, scaled to 0 to 255, rounded and clipped",
        "image_size": list(data.shape[1:]),
        "channels": data.shape[0],
        "generated": options.count(data),
        "extractor": options.require_extractor().protocol(),
    }


def _samples(model: VAE, options: Options, sampler: str, count: int) -> Blocks:
    source = _drawn_by(options)

    def blocks(start: int) -> Iterator[Iterable[Tensor]]:
        for first in range(start * BLOCK, count, BLOCK):
            z = source.draw(sampler, min(BLOCK, count - first), options.seed, block=first // BLOCK)
            yield (_bytes(model.decode(part).mean, model.data_range, sampler) for part in z.split(options.batch_size))

    return blocks


def _drawn_by(options: Options) -> Sampler:
    if options.sampler is None:
        raise VaekitError("this metric draws latents: give the options a sampler")
    return options.sampler


def _reconstructions(model: VAE, data: Dataset, options: Options, images: Split) -> Blocks:
    # Binary draws go by batch: a batch is a block, whatever the number of samples at a time.
    batches = make_batches(
        data,
        images,
        BLOCK,
        model.data_range,
        device=model.last_layer.device,
        shuffle=False,
        binarize=options.binarize,
        seed=options.seed,
        drop_last=False,
    )

    def blocks(start: int) -> Iterator[Iterable[Tensor]]:
        for x in batches.epoch(0, start):
            parts = x.split(options.batch_size)
            yield (_bytes(model.reconstruct(part), model.data_range, "reconstructions") for part in parts)

    return blocks


def _rows(store: FeatureStore, key: Any, blocks: Blocks, count: int, options: Options, what: str) -> Tensor:
    extractor = options.require_extractor()
    return store.rows(key, blocks, count, extractor, progress=options.progress, what=f"features of {what}")


def _bytes(images: Tensor, data_range: tuple[float, float], what: str) -> Tensor:
    if not images.is_floating_point():
        return images
    if not images.isfinite().all():
        raise VaekitError(f"images of '{what}' hold values that are not finite: has training gone astray?")
    return to_uint8(images, data_range)


def _content(samples: Tensor) -> str:
    """Return the SHA-256 of samples."""
    found = hashlib.sha256(repr((tuple(samples.shape), samples.dtype)).encode())
    for part in samples.split(BLOCK):
        found.update(part.flatten().numpy())
    return found.hexdigest()
