"""How close reconstructions are to their originals, pixel by pixel and to the eye, and how sharp samples are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.data import Dataset
from vaekit.errors import VaekitError
from vaekit.evaluation.blocks import blocks
from vaekit.evaluation.extractors import Extractor
from vaekit.evaluation.fidelity import sharpness
from vaekit.evaluation.image_features import generated_rows, images_of
from vaekit.evaluation.protocol import Options, Result
from vaekit.evaluation.subsets import estimate
from vaekit.files import sha256
from vaekit.models import VAE
from vaekit.reporting.images import to_uint8

__all__ = ["load_lpips", "reconstruction", "sample_sharpness", "similarity", "ssim_window"]

_WINDOW, _SIGMA = 11, 1.5
# AlexNet has no output below 31 pixels; LPIPS was fitted on patches of 64.
_SMALL, _PATCH = 32, 64

Perceptual = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def reconstruction(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Compare the samples of the split with their reconstructions at the posterior mean.

    Both are rounded to bytes first, as in picture files. The figures are means over images: those of `similarity`,
    LPIPS where its weights are at hand, and the sharpness of both with the ratio of its means. They are computed on the
    CPU, so that they do not depend on the arithmetic of a device. Where grey values are drawn as black or white, the
    originals are the draws.

    Arguments:
        model: The model, in evaluation mode.
        data: The data set.
        options: Which samples.

    Raises:
        VaekitError: The samples are no images of 3 x 3 pixels or more.
    """
    rows = images_of(data, options)
    channels, *sides = rows.shape
    window, sigma = ssim_window(sides)
    notes: list[str] = []
    perceptual: Perceptual | None = None
    try:
        perceptual = load_lpips(channels)
    except VaekitError as error:
        notes.append(f"LPIPS is left out: {error}")
    found: dict[str, list[Tensor]] = {}
    for x in blocks(model, data, options, rows, "reconstruction"):
        pair = [to_uint8(images, model.data_range) for images in (x, model.reconstruct(x))]
        figures = similarity(*pair)
        originals, reconstructions = (images / 255.0 for images in pair)
        if perceptual is not None:
            figures["lpips"] = perceptual(originals, reconstructions)
        figures["originals"], figures["reconstructions"] = sharpness(originals), sharpness(reconstructions)
        for name, values in figures.items():
            found.setdefault(name, []).append(values)
    table = {name: torch.cat(parts) for name, parts in found.items()}
    sharp = {name: estimate(table.pop(name)) for name in ("originals", "reconstructions")}
    if equal := int(table["psnr"].isinf().sum()):
        table["psnr"] = table["psnr"].masked_fill(table["psnr"].isinf(), math.nan)
        notes.append(
            f"the PSNR leaves out images that equal their reconstructions, for which it is infinite: {equal:,} of "
            f"{len(rows):,}"
        )
        if equal == len(table["psnr"]):
            del table["psnr"]
    yield Result(
        {
            **{name: estimate(values) for name, values in table.items()},
            "sharpness": {**sharp, "ratio": _ratio(sharp["reconstructions"].mean, sharp["originals"].mean)},
        },
        {
            "latent": "posterior mean",
            "pixels": "8 bits",
            "ssim": {"window": window, "sigma": sigma, "border": "left out"},
            "lpips": {"network": "alexnet 0.1", "size": _enlarged(sides)},
        },
        notes,
    )


@torch.no_grad()
def sample_sharpness(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the sharpness of each sampler's images, that of the split's, and the ratio of the two means.

    It is `vaekit.evaluation.sharpness` of images rounded to bytes; the split's are as in `reconstruction`.

    References:
        Wasserstein Auto-Encoders, Tolstikhin et al., 2017, arXiv 1711.01558.

    Arguments:
        model: The model, in evaluation mode.
        data: The data set.
        options: Which samples, and which samplers; as many images are generated as there are samples.

    Raises:
        VaekitError: The samples are no images of 3 x 3 pixels or more, or a sampler cannot draw.
    """
    rows = images_of(data, options)
    ssim_window(rows.shape[1:])
    measured = Extractor("sharpness", "", lambda images: sharpness(images / 255.0).unsqueeze(1))
    originals = [
        measured.rows(to_uint8(x, model.data_range)) for x in blocks(model, data, options, rows, "sharpness: data")
    ]
    own = estimate(torch.cat(originals).flatten())
    drawn = replace(options, extractor=measured, store=None)
    for sampler, figures in generated_rows(model, data, drawn, rows):
        found = estimate(figures.flatten())
        yield Result(
            {"samples": found, "originals": own, "ratio": _ratio(found.mean, own.mean)},
            {"sampler": sampler, "pixels": "8 bits"},
        )


def similarity(originals: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
    r"""Compare byte images (N, C, H, W) pair by pair, their values taken to [0, 1]; each figure has shape (N,).

    - `absolute_error`, `squared_error`: the means over the values of an image;
    - `psnr`: $-10\log_{10}$ of the squared error, infinite where that is 0;
    - `ssim`: the structural similarity, its mean over colours and over the windows that lie within the image. The
      window is that of `ssim_window`, the constants are $0.01^2$ and $0.03^2$. Libraries that pad the border, as
      torchmetrics does by default, give other figures.

    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity, Wang, Bovik, Sheikh and Simoncelli,
        2004, IEEE Transactions on Image Processing 13(4).

    Arguments:
        originals: uint8 images of at least 3 x 3 pixels.
        reconstructions: As many of the same shape.

    Examples:
        >>> images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
        >>> found = similarity(images, 255 - images)
        >>> {name: round(float(values), 3) for name, values in found.items()}
        {'psnr': 4.737, 'ssim': -0.826, 'absolute_error': 0.502, 'squared_error': 0.336}
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    first, second = originals / 255.0, reconstructions / 255.0
    window, sigma = ssim_window(first.shape[-2:])
    # The window follows from sigma. Versions differ in whether the mean has the padded border, the full image has it.
    _, full = structural_similarity_index_measure(
        second, first, sigma=sigma, data_range=1.0, reduction="none", return_full_image=True
    )
    border = window // 2
    difference = (second - first).flatten(1)
    return {
        "psnr": peak_signal_noise_ratio(second, first, data_range=1.0, reduction="none", dim=(1, 2, 3)),
        "ssim": full[..., border:-border, border:-border].flatten(1).mean(1),
        "absolute_error": difference.abs().mean(1),
        "squared_error": difference.square().mean(1),
    }


def ssim_window(sides: Sequence[int]) -> tuple[int, float]:
    """Return side and standard deviation of the Gaussian window of the structural similarity.

    They are 11 and 1.5 pixels, as in its paper. Where an image is smaller, the side is the largest odd number that fits
    and the deviation shrinks with it.

    Arguments:
        sides: Height and width of the images.

    Raises:
        VaekitError: A side is below 3 pixels.

    Examples:
        >>> ssim_window((28, 28)), ssim_window((8, 8))
        ((11, 1.5), (7, 0.9545))
    """
    if min(sides) < 3:
        raise VaekitError(f"images of {sides[0]} x {sides[1]} pixels are too small for this metric: it needs 3 x 3")
    window = min(_WINDOW, (min(sides) - 1) // 2 * 2 + 1)
    return window, round(_SIGMA * window / _WINDOW, 4)


def load_lpips(channels: int = 3) -> Perceptual:
    """Return what gives the LPIPS distance of images (N, C, H, W) in [0, 1], shape (N,): AlexNet, version 0.1.

    Grey images are repeated to three colours. Images below 32 pixels, for which AlexNet has no output, are enlarged to
    64 first (bilinear), the size of the patches that LPIPS was fitted to.

    AlexNet's weights are torchvision's file of ImageNet weights. It is looked for in PyTorch's cache, and never
    downloaded here.

    References:
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, Zhang, Isola, Efros, Shechtman and Wang,
        2018, arXiv 1801.03924.

    Arguments:
        channels: The number of colours.

    Raises:
        VaekitError: The file is not there or is another one, or images have neither one nor three colours.
    """
    import torch.hub
    from torchvision.models import AlexNet_Weights

    if channels not in (1, 3):
        raise VaekitError(f"it is for images of one or three colours, not {channels}")
    url = AlexNet_Weights.DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        raise VaekitError(f"{path.name} is not in {path.parent}: download {url} and put it there")
    try:
        if not sha256(path).startswith(path.stem.rpartition("-")[2]):
            raise ValueError
        # torchvision itself would unpickle whatever the file holds.
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise VaekitError(f"{path} is damaged or another file: download {url} again") from error
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    net = LearnedPerceptualImagePatchSimilarity("alex").net

    def distance(first: Tensor, second: Tensor) -> Tensor:
        prepared = []
        for images in (first, second):
            if (size := _enlarged(images.shape[-2:])) != list(images.shape[-2:]):
                images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
            prepared.append(images.expand(-1, 3, -1, -1))
        found: Tensor = net(*prepared, normalize=True).flatten()
        return found

    return distance


def _enlarged(sides: Sequence[int]) -> list[int]:
    """Return height and width at which LPIPS sees images."""
    least = min(sides)
    return [round(side * _PATCH / least) if least < _SMALL else side for side in sides]


def _ratio(first: float, second: float) -> float:
    """Return the ratio of two figures, NaN where the second is 0."""
    return first / second if second else math.nan
