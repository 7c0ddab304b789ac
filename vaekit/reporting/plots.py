"""Pictures of the latent space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.reporting.curves import save_figure

__all__ = ["latent_map"]

# Tol's muted scheme with a grey: ten colours that colour-blind readers can mostly tell apart.
_CLASSES = (
    "#332288",
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#888888",
)


def latent_map(means: Tensor, labels: Tensor | None = None) -> bytes:
    r"""Draw latents on their first two principal components, a PNG.

    The components are the eigenvectors of the covariance of the rows of `means`; each axis says how much of the
    variance it carries.

    Arguments:
        means: Latents (N, D), such as posterior means.
        labels: One number per row (N,): up to ten whole numbers colour classes, with each class written at its
            median; anything else is a continuous colour. `None` for one colour.

    Raises:
        VaekitError: The shapes do not fit, or a value is not finite.

    Examples:
        >>> latent_map(torch.randn(50, 8), torch.arange(50) % 5)[1:4]
        b'PNG'
    """
    if means.dim() != 2 or len(means) < 2 or means.shape[1] < 2:
        raise VaekitError(f"latent_map takes two or more latents (N, D) with D of 2 or more, not {tuple(means.shape)}")
    if labels is not None and labels.shape != means.shape[:1]:
        raise VaekitError(f"latent_map takes one label per latent, {len(means)} of them, not {tuple(labels.shape)}")
    x = means.detach().double().cpu()
    if not x.isfinite().all():
        raise VaekitError("latent_map takes finite latents, and some of these are NaN or infinite")
    points, shares = _principal(x)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    style: dict[str, Any] = {"s": min(30.0, max(3.0, 12000 / len(points))), "alpha": 0.7, "linewidths": 0}
    values = None if labels is None else labels.detach().cpu().numpy()
    classes = np.unique(values) if values is not None else np.array([])
    if values is None:
        axes.scatter(*points.T, color=_CLASSES[0], **style)
    elif len(classes) <= len(_CLASSES) and np.array_equal(classes, np.round(classes)):
        for colour, label in zip(_CLASSES, classes, strict=False):
            rows = points[values == label]
            axes.scatter(*rows.T, color=colour, **style)
            x0, y0 = np.median(rows, 0)
            box = {
                "boxstyle": "circle,pad=0.25",
                "facecolor": "white",
                "edgecolor": colour,
                "linewidth": 2,
                "alpha": 0.9,
            }
            axes.text(x0, y0, f"{label:g}", ha="center", va="center", fontweight="bold", color="#24292f", bbox=box)
    else:
        drawn = axes.scatter(points[:, 0], points[:, 1], c=values, cmap=colormaps["viridis"], **style)
        figure.colorbar(drawn, ax=axes)
    for name, axis, share in zip(("first", "second"), (axes.xaxis, axes.yaxis), shares, strict=True):
        axis.set_label_text(f"{name} principal component ({share:.0%} of the variance)")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, "png")


def _principal(x: Tensor) -> tuple[np.ndarray, list[float]]:
    """Return the rows on their first two principal components (N, 2), and the share of variance of each."""
    centred = x - x.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(x))
    top = directions[:, [-1, -2]]
    # An eigenvector's sign is arbitrary: its largest entry is made positive, so that the picture is always the same.
    largest = top.gather(0, top.abs().argmax(0, keepdim=True))
    top = top * torch.where(largest < 0, -1.0, 1.0)
    total = variances.clamp_min(0).sum().clamp_min(torch.finfo(torch.float64).tiny)
    return (centred @ top).numpy(), (variances[[-1, -2]].clamp_min(0) / total).tolist()
