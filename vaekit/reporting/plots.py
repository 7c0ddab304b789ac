"""Pictures of the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.reporting.canvas import INK, PAPER, new_figure, save_figure, style

__all__ = ["draw_map", "latent_map", "principal_components"]

# Tol's muted scheme with a grey, lighter on a dark ground: ten colours that colour-blind readers can mostly tell apart.
_CLASSES = {
    False: [
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
    ],
    True: [
        "#9d92f5",
        "#88ccee",
        "#44aa99",
        "#3fb364",
        "#b5b54a",
        "#ddcc77",
        "#e07a8b",
        "#d4679b",
        "#c77bbb",
        "#a0a0a0",
    ],
}


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
    points, shares = principal_components(x)
    return draw_map(points, shares, None if labels is None else labels.detach().cpu().numpy())


def draw_map(
    points: np.ndarray, shares: Sequence[float], labels: np.ndarray | None = None, *, dark: bool = False
) -> bytes:
    """Draw points that `principal_components` gave, a PNG; see `latent_map`.

    Arguments:
        points: The points (N, 2).
        shares: The share of the variance that each component carries.
        labels: One number per point (N,), or `None`.
        dark: Whether it will stand on a dark ground.
    """
    figure, colours = new_figure(6.4, 5.6, dark), _CLASSES[dark]
    axes = figure.add_subplot()
    first, second = (
        f"{name} principal component ({share:.0%} of the variance)"
        for name, share in zip(("first", "second"), shares, strict=True)
    )
    style(axes, dark, x=first, y=second)
    dots: dict[str, Any] = {"s": min(30.0, max(3.0, 12000 / len(points))), "alpha": 0.7, "linewidths": 0}
    classes = np.unique(labels) if labels is not None else np.array([])
    if labels is None:
        axes.scatter(*points.T, color=colours[0], **dots)
    elif len(classes) <= len(colours) and np.array_equal(classes, np.round(classes)):
        for colour, label in zip(colours, classes, strict=False):
            rows = points[labels == label]
            axes.scatter(*rows.T, color=colour, **dots)
            x, y = np.median(rows, 0)
            box = {"boxstyle": "circle,pad=0.25", "facecolor": PAPER[dark], "edgecolor": colour, "linewidth": 2}
            axes.text(x, y, f"{label:g}", ha="center", va="center", fontweight="bold", color=INK[dark], bbox=box)
    else:
        drawn = axes.scatter(points[:, 0], points[:, 1], c=labels, cmap=colormaps["viridis"], **dots)
        figure.colorbar(drawn, ax=axes).ax.tick_params(colors=INK[dark])
    axes.set_aspect("equal", adjustable="datalim")
    return save_figure(figure, "png")


def principal_components(x: Tensor) -> tuple[np.ndarray, list[float]]:
    """Return latents (N, D) on their first two principal components (N, 2), and the share of variance of each."""
    centred = x - x.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(x))
    top = directions[:, [-1, -2]]
    # An eigenvector's sign is arbitrary: its largest entry is made positive, so that the picture is always the same.
    largest = top.gather(0, top.abs().argmax(0, keepdim=True))
    top = top * torch.where(largest < 0, -1.0, 1.0)
    total = variances.clamp_min(0).sum().clamp_min(torch.finfo(torch.float64).tiny)
    return (centred @ top).numpy(), (variances[[-1, -2]].clamp_min(0) / total).tolist()
