"""How close images are to others by their features: Fréchet and kernel distance, precision and recall; sharpness.

The figures are those of torch-fidelity; what is done here is to keep memory bounded, however many images there are:
features may be memory-mapped, and are read in parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.errors import VaekitError

__all__ = [
    "ISC",
    "KID",
    "PRC",
    "class_score",
    "frechet_distance",
    "kernel_distance",
    "precision_and_recall",
    "sharpness",
]

#: torch-fidelity's parameters of the kernel distance, beside the size of a subset.
KID: Mapping[str, Any] = {
    "kid_subsets": 100,
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_gamma": None,
    "kid_kernel_poly_coef0": 1,
    "rng_seed": 2020,
}

#: torch-fidelity's parameters of the inception score.
ISC: Mapping[str, Any] = {"isc_splits": 10, "samples_shuffle": True, "rng_seed": 2020}

#: torch-fidelity's parameter of precision and recall.
PRC: Mapping[str, Any] = {"prc_neighborhood": 3}

_PART = 1000  # rows at a time
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    r"""Return the Fréchet distance of the Gaussians that two sets of features (N, F) define, by torch-fidelity.

    $$\|\mu_1-\mu_2\|^2+\operatorname{tr}\bigl(\Sigma_1+\Sigma_2-2(\Sigma_1\Sigma_2)^{1/2}\bigr).$$

    It is the FID only with the Inception network that the FID is defined by; otherwise it goes by its extractor's name.
    It falls as N grows, so only figures of the same N compare. Means and covariances are summed up in float64.

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
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    _check("the Fréchet distance", 2, first, second)
    (distance,) = fid_statistics_to_metric(_statistics(first), _statistics(second), False).values()
    return float(distance)


def _statistics(features: Tensor) -> dict[str, np.ndarray]:
    """Return mean and covariance as torch-fidelity takes them, from two passes over parts."""
    mean = torch.zeros(features.shape[1], dtype=torch.float64)
    covariance = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    for part in features.split(_PART):
        mean += part.double().sum(0)
    mean /= len(features)
    for part in features.split(_PART):
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred)
    return {"mu": mean.numpy(), "sigma": (covariance / (len(features) - 1)).numpy()}


def kernel_distance(first: Tensor, second: Tensor, subset_size: int = 1000) -> dict[str, float]:
    r"""Return the squared maximum mean discrepancy of two sets of features under a cubic kernel, by torch-fidelity.

    The unbiased estimate with $k(x,y)=(x^\top y/F+1)^3$, averaged over 100 random subsets of each set. Its expectation
    does not depend on N; it may be a little below zero. `std` is the standard deviation over the subsets, which
    overlap: it is no standard error, and says nothing where a subset is the whole set.

    References:
        Demystifying MMD GANs, Bińkowski et al., 2018, arXiv 1801.01401.

    Arguments:
        first: Features (N, F) of one set.
        second: Features (M, F) of the other.
        subset_size: Rows of a subset; all rows of the smaller set where that has fewer.

    Raises:
        VaekitError: The numbers of features differ, or a set has fewer than two rows.

    Examples:
        >>> features = torch.randn(200, 3)
        >>> kernel_distance(features, features + 2.0)["mean"] > kernel_distance(features, features + 1.0)["mean"] > 0
        True
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    _check("the kernel distance", 2, first, second)
    size = min(subset_size, len(first), len(second))
    found = kid_features_to_metric(first, second, kid_subset_size=size, verbose=False, **KID)
    return {"mean": found[KEY_METRIC_KID_MEAN], "std": found[KEY_METRIC_KID_STD]}


def precision_and_recall(generated: Tensor, real: Tensor) -> dict[str, float]:
    """Return how many generated images lie among the real ones, and the reverse, as torch-fidelity defines it.

    `precision` is the share of generated features that lie within the reach of a real one, which is the distance to its
    third nearest neighbour among the real ones; `recall` is the same with the two exchanged; `f_score` is their
    harmonic mean.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models, Kynkäänniemi et al., 2019,
        arXiv 1904.06991.

    Arguments:
        generated: Features (N, F) of generated images.
        real: Features (M, F) of real ones.

    Raises:
        VaekitError: The numbers of features differ, or a set has fewer than four rows.

    Examples:
        >>> real, generated = torch.arange(10.0).view(10, 1), torch.tensor([[4.4], [4.45], [4.5], [4.55]])
        >>> found = precision_and_recall(generated, real)
        >>> found["precision"], found["recall"]
        (1.0, 0.0)
    """
    neighbours = PRC["prc_neighborhood"]
    _check("precision and recall", neighbours + 1, generated, real)
    precision = _share_within(generated, real, _reach(real, neighbours))
    recall = _share_within(real, generated, _reach(generated, neighbours))
    f_score = 2.0 * precision * recall / max(1e-5, precision + recall)
    return {"precision": precision, "recall": recall, "f_score": f_score}


# torch-fidelity's own function holds the distances of its rows to all others several times over, which is more memory
# the more images there are; of pairs of parts, only the nearest need to be kept.
def _reach(features: Tensor, neighbours: int) -> Tensor:
    """Return the distance of each row to its n-th nearest neighbour, itself not counted."""
    found = []
    for part in features.split(_PART):
        nearest = torch.full((len(part), neighbours + 1), torch.inf)
        for others in features.split(_PART):
            nearest = torch.cat([nearest, torch.cdist(part, others)], 1).topk(neighbours + 1, largest=False).values
        found.append(nearest[:, -1])
    return torch.cat(found)


def _share_within(points: Tensor, centres: Tensor, reach: Tensor) -> float:
    """Return the share of points that lie within reach of a centre or more."""
    count = 0
    for part in points.split(_PART):
        within = torch.zeros(len(part), dtype=torch.bool)
        for others, radius in zip(centres.split(_PART), reach.split(_PART), strict=True):
            within |= (torch.cdist(part, others) <= radius).any(1)
        count += int(within.sum())
    return count / len(points)


def class_score(logits: Tensor) -> dict[str, float]:
    r"""Return the inception score of logits (N, L), by torch-fidelity.

    $$\exp\mathbb E_x\operatorname{KL}\bigl(p(y\mid x)\,\|\,p(y)\bigr),$$

    mean and standard deviation (`std`) over ten parts of the shuffled set. It looks at generated images alone and knows
    no data: it tells how sure the classifier is of its classes, and how evenly they are used.

    References:
        Improved Techniques for Training GANs, Salimans et al., 2016, arXiv 1606.03498.

    Arguments:
        logits: The classifier's logits.

    Raises:
        VaekitError: There are fewer than ten rows.

    Examples:
        >>> class_score(100.0 * torch.eye(4).repeat(20, 1))["mean"] > 3.0
        True
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    splits = ISC["isc_splits"]
    _check("the inception score", splits, logits)
    # One split at a time, because torch-fidelity takes all logits to float64 at once.
    order = np.random.RandomState(ISC["rng_seed"]).permutation(len(logits))
    parts = [order[i * len(order) // splits : (i + 1) * len(order) // splits] for i in range(splits)]
    scores = [isc_features_to_metric(logits[part], splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN] for part in parts]
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores))}


def _check(what: str, least: int, *sets: Tensor) -> None:
    if min(map(len, sets)) < least or len({rows.shape[1:] for rows in sets}) > 1:
        shapes = " and ".join(str(tuple(rows.shape)) for rows in sets)
        raise VaekitError(
            f"for {what}, each set needs {least} or more rows of equally many features, not {shapes}: take more images"
        )


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
