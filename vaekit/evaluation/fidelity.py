"""How close images are to data: Fréchet distance under any feature extractor, and sharpness."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = ["Extractor", "features_of", "frechet_distance", "load_extractor", "sharpness"]

Extractor: TypeAlias = Callable[[Tensor], Tensor]

_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def load_extractor(path: str | Path) -> Extractor:
    """Load a feature extractor from a TorchScript file: uint8 images (N, C, H, W) to features (N, F).

    Raises:
        VaekitError: The file is missing, or no TorchScript module.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript files are what people have.
            module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise VaekitError(
            f"{path} is not a TorchScript file that can be loaded: give another feature extractor"
        ) from error
    extractor: Extractor = module.eval()
    return extractor


@torch.no_grad()
def features_of(extractor: Extractor, batches: Iterable[Tensor]) -> Tensor:
    """Return the features of batches of uint8 images (B, C, H, W), shape (N, F) on the CPU.

    Raises:
        VaekitError: The extractor does not give one row per image.
    """
    rows = []
    for images in batches:
        found = extractor(images)
        if found.ndim != 2 or len(found) != len(images):
            raise VaekitError(
                f"the feature extractor gives shape {tuple(found.shape)} for {len(images)} images: one that gives "
                "(images, features) is needed"
            )
        rows.append(found.float().cpu())
    return torch.cat(rows)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    r"""Return the Fréchet distance of the Gaussians that two sets of features (N, F) define, by torch-fidelity.

    $$\|\mu_1-\mu_2\|^2+\operatorname{tr}\bigl(\Sigma_1+\Sigma_2-2(\Sigma_1\Sigma_2)^{1/2}\bigr).$$

    It is the FID only with the Inception network that the FID is defined by; otherwise it goes by its extractor's name.
    It falls as N grows, so only figures of the same N compare.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, Heusel et al., 2017,
        arXiv 1706.08500.

    Arguments:
        first: Features of one set.
        second: Features of the other.

    Raises:
        VaekitError: The numbers of features differ, or a set has fewer than two rows.

    Examples:
        >>> features = torch.randn(100, 3)
        >>> abs(frechet_distance(features, features)) < 1e-6, round(frechet_distance(features, features + 2.0), 4)
        (True, 12.0)
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    if first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise VaekitError(
            "the Fréchet distance needs two or more rows of equally many features in each set, not "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    statistics = [fid_features_to_statistics(features.double().cpu()) for features in (first, second)]
    (distance,) = fid_statistics_to_metric(*statistics, False).values()
    return float(distance)


def sharpness(images: Tensor) -> Tensor:
    r"""Return the sharpness of every image (N, C, H, W) in [0, 1], shape (N,): the variance of its discrete Laplacian.

    Colours are averaged; the Laplacian is the 3 x 3 one, without padding, and the variance is that of the population.
    Larger is sharper: data have more of it than the reconstructions of most autoencoders.

    References:
        Wasserstein Auto-Encoders, Tolstikhin et al., 2017, arXiv 1711.01558.

    Arguments:
        images: Images of at least 3 x 3 pixels.

    Examples:
        >>> impulse = torch.zeros(1, 1, 5, 5)
        >>> impulse[..., 2, 2] = 1.0
        >>> sharpness(impulse), sharpness(torch.ones(1, 3, 5, 5))
        (tensor([2.2222]), tensor([0.]))
    """
    kernel = torch.tensor(_LAPLACIAN, dtype=images.dtype, device=images.device)
    return F.conv2d(images.mean(1, keepdim=True), kernel[None, None]).flatten(1).var(1, correction=0)
