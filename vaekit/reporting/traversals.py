"""Traversals: one unit of the latent moves, the others stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekit.evaluation.aggregate import Aggregate
from vaekit.models import VAE, Model
from vaekit.reporting.grids import Views
from vaekit.reporting.images import Images

__all__ = ["traversal_grid", "traverse"]

_STEPS = 9


def traverse(aggregate: Aggregate, space: str, units: Sequence[int], categories: int = 1) -> Tensor:
    r"""Return latents in which one unit at a time moves away from the mean of the aggregate posterior.

    - numbers: $\mu_j+t\sigma_j$ for t from -3 to 3, with the moments of the aggregate posterior;
    - `"counting"`: from 0 to 8, the others at the nearest whole numbers to their means;
    - `"one-hot"`: every category in turn, the other variables at their most frequent ones.

    Arguments:
        aggregate: The moments of the aggregate posterior (D,).
        space: Where the latent lives, as `vaekit.distributions.kl.space_of` says.
        units: Which dimensions, or variables, move.
        categories: The number of categories of a variable.

    Returns:
        Latents of shape (units, steps, D), in float32.

    Examples:
        >>> moments = Aggregate(torch.zeros(3), torch.ones(3), torch.zeros(3), 10)
        >>> traverse(moments, "continuous", [2])[0, :, 2].tolist()
        [-3.0, -2.25, -1.5, -0.75, 0.0, 0.75, 1.5, 2.25, 3.0]
    """
    mean, scale = aggregate.mean.float(), aggregate.variance.sqrt().float()
    if space == "one-hot":
        grouped = mean.unflatten(-1, (-1, categories))
        usual = torch.nn.functional.one_hot(grouped.argmax(-1), categories).to(mean)
        rows = usual.repeat(len(units), categories, 1, 1)
        for row, unit in zip(rows, units, strict=True):
            row[:, unit] = torch.eye(categories)
        return rows.flatten(-2)
    steps = torch.arange(_STEPS) if space == "counting" else torch.linspace(-3.0, 3.0, _STEPS)
    rows = (mean.round() if space == "counting" else mean).repeat(len(units), _STEPS, 1)
    for row, unit in zip(rows, units, strict=True):
        row[:, unit] = steps if space == "counting" else mean[unit] + steps * scale[unit]
    return rows


@torch.no_grad()
def traversal_grid(model: Model, z: Tensor) -> Images:
    """Return what latents (units, steps, D) decode to, a row for each unit; with several modalities a row for each.

    Private latents stay at the mean of their prior.

    Arguments:
        model: The model, in evaluation mode, with images.
        z: The latents.
    """
    flat = z.flatten(0, 1).to(model.last_layer.device)
    if isinstance(model, VAE):
        return Images(model.decode(flat).mean, model.data_range, columns=z.shape[1])
    each = flat.unsqueeze(-2).expand(-1, len(model.names), -1)
    if model.private is not None:
        each = torch.cat([each, model.private_prior(flat).mean], -1)
    decoded = {name: p.mean.unflatten(0, z.shape[:2]) for name, p in model.decode(each).items()}
    rows = [Views({name: x[unit] for name, x in decoded.items()}, model.data_range).tensor for unit in range(len(z))]
    white = torch.ones_like(rows[0][: z.shape[1]])  # A white row parts the units.
    parted = [part for row in rows for part in (row, white)][:-1]
    return Images(torch.cat(parted), (0.0, 1.0), columns=z.shape[1])
