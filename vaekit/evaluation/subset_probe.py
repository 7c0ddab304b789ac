"""Linear probes: what a linear classifier reads from the posterior means of every subset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.evaluation.subsets import Subset, covered, subset_mask
from vaekit.models.multimodal import MultimodalVAE
from vaekit.observed import Observed

__all__ = ["linear_probe", "subset_means", "subset_probe"]


@torch.no_grad()
def subset_means(model: MultimodalVAE, batches: Iterable[Observed], subsets: Sequence[Subset]) -> Tensor:
    """Return the posterior mean of the shared latent given each subset, shape (N, n, D).

    Without a shared latent it is the mean over the subset of the modalities' own posterior means: for a single
    modality its own. NaN where a subset is not all there.

    Arguments:
        model: The model, in evaluation mode.
        batches: The samples, on the model's device.
        subsets: The subsets, none of them empty.
    """
    rows = []
    for x in batches:
        encoded, masks = model.encode(x), subset_mask(subsets, x)
        if model.shared:
            means = encoded.fuse(masks.unsqueeze(1).expand(-1, len(x), -1)).mean.movedim(0, 1)
        else:
            own = encoded.experts.mean
            weights = masks.to(own.dtype) / masks.sum(1, keepdim=True)
            means = torch.einsum("nm,bmd->bnd", weights, own)
        rows.append(torch.where(covered(subsets, x).unsqueeze(-1), means, torch.nan).cpu())
    return torch.cat(rows)


def linear_probe(train: Tensor, train_targets: Tensor, test: Tensor, test_targets: Tensor) -> float | None:
    """Return how well logistic regression on standardised features does on test samples, between 0 and 1.

    For classes it is the accuracy. For binary attributes it is the average precision of the predicted probabilities
    (not of hard decisions, which are ranked worse than the classifier ranks them), averaged over the attributes that
    have both values in training and test.

    Arguments:
        train: Features (N, D); rows with NaN are left out, with their targets.
        train_targets: Classes (N,), or binary attributes (N, A).
        test: Features (M, D).
        test_targets: Their classes or attributes.

    Returns:
        The score, or None where training samples of two classes or test samples are missing.

    Examples:
        >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> linear_probe(x, y, 3 * x, y)
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def usable(features: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
        there = ~(features.isnan().any(1) | targets.isnan().reshape(len(targets), -1).any(1))
        return features[there].double().numpy(), targets[there].cpu().numpy()

    (x, y), (x_test, y_test) = usable(train, train_targets), usable(test, test_targets)
    if not len(x) or not len(x_test):
        return None
    columns = [(y, y_test)] if y.ndim == 1 else list(zip(y.T, y_test.T, strict=True))
    scores = []
    for fitted, judged in columns:
        if len(np.unique(fitted)) < 2 or (y.ndim == 2 and len(np.unique(judged)) < 2):
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000)).fit(x, fitted)
        scores.append(
            probe.score(x_test, judged)
            if y.ndim == 1
            else average_precision_score(judged, probe.predict_proba(x_test)[:, 1])
        )
    return float(np.mean(scores)) if scores else None


def subset_probe(
    model: MultimodalVAE,
    train: Iterable[Observed],
    train_targets: Tensor,
    test: Iterable[Observed],
    test_targets: Tensor,
    subsets: Sequence[Subset],
) -> dict[Subset, float]:
    """Return the score of a linear probe on the posterior means of each subset, fitted and judged on the same subset.

    Probes are fitted once the model is: on means of one model, in evaluation mode, without dropout. Subsets for which
    there are too few samples are left out.

    References:
        Unity by Diversity: Improved Representation Learning in Multimodal VAEs, Sutter et al., 2024, arXiv 2403.05300.

    Arguments:
        model: The model, in evaluation mode.
        train: Samples to fit the probes on.
        train_targets: Their classes (N,), or binary attributes (N, A).
        test: Samples to judge them on.
        test_targets: Their classes or attributes.
        subsets: The subsets, none of them empty.

    Raises:
        VaekitError: A subset is empty, or no subset has samples enough.
    """
    if not all(subsets):
        raise VaekitError("a probe needs at least one modality: leave the empty subset out")
    x, x_test = subset_means(model, train, subsets), subset_means(model, test, subsets)
    scores = {
        subset: linear_probe(x[:, number], train_targets, x_test[:, number], test_targets)
        for number, subset in enumerate(subsets)
    }
    found = {subset: score for subset, score in scores.items() if score is not None}
    if not found:
        raise VaekitError("a probe needs training samples of two classes and test samples: take more samples")
    return found
