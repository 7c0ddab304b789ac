"""Points and weights with which densities are integrated or summed, wherever they live."""

from __future__ import annotations

from typing import Any

import torch
from distribution_cases import Case
from torch import Tensor
from torch.distributions import Distribution


def nodes(case: Case, q: Distribution) -> tuple[Tensor, Tensor]:
    """Return points (N, D) and weights (N,) such that sums over them are integrals: D = 1, or 2 and 3 on the sphere."""
    if case.space == "sphere":
        return sphere_nodes(q.event_shape[0])
    if case.space == "counts":
        points = torch.arange(300.0)
    elif case.space == "levels":
        points = q.base_dist.levels.values(torch.arange(float(q.base_dist.levels.count)))
    elif case.space == "one-hot":
        return torch.eye(q.event_shape[0]), torch.ones(q.event_shape[0])
    else:
        low, high = ends(q)
        points = torch.linspace(low, high, 20001)
        weights = torch.full_like(points, (high - low) / 20000)
        weights[[0, -1]] *= 0.5
        return points.unsqueeze(-1), weights
    return points.unsqueeze(-1), torch.ones(len(points))


def ends(q: Distribution) -> tuple[float, float]:
    """Where a density on the line begins and ends: its support, or 30 standard deviations around the mean."""
    support: Any = q.support
    while isinstance(support, torch.distributions.constraints.independent):
        support = support.base_constraint
    if isinstance(support, torch.distributions.constraints.interval):
        low, high = (float(torch.as_tensor(end).detach()) for end in (support.lower_bound, support.upper_bound))
        return low, high
    reach = 30 * q.variance.detach().sqrt()
    return (q.mean.detach() - reach).item(), (q.mean.detach() + reach).item()


def sphere_nodes(dimensions: int) -> tuple[Tensor, Tensor]:
    """Points and weights on the circle, or on the sphere in rings of rising height."""
    count = 20_000 if dimensions == 2 else 200
    angles = torch.arange(count) * (2 * torch.pi / count)
    circle, weights = torch.stack([angles.cos(), angles.sin()], -1), torch.full((count,), 2 * torch.pi / count)
    if dimensions == 2:
        return circle, weights
    height = (torch.arange(1000) + 0.5) / 500 - 1
    ring = (1 - height.square()).sqrt()[:, None, None] * circle
    points = torch.cat([ring, height[:, None, None].expand(-1, count, 1)], -1)
    return points.flatten(0, 1), weights.repeat(1000) / 500
