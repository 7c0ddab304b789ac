"""Walks in the latent space."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.distributions import sphere
from vaekit.errors import VaekitError
from vaekit.models import VAE

__all__ = ["interpolate", "local_variants"]


@torch.no_grad()
def interpolate(model: VAE, first: Tensor, second: Tensor, steps: int = 6) -> Tensor:
    r"""Decode convex combinations of two posterior means, shape (steps, B, *X).

    $$z_k=(1-\alpha_k)\,\mu_1+\alpha_k\,\mu_2,\qquad\alpha_k=\tfrac{k}{n-1},$$

    each brought back to length 1 where the latent space is a sphere.

    Arguments:
        model: The model.
        first: Samples (B, *X) at the left end.
        second: Samples (B, *X) at the right end.
        steps: The number n of pictures in a row, both ends counted.

    Raises:
        VaekitError: Fewer than two steps.
    """
    if steps < 2:
        raise VaekitError(f"an interpolation needs 2 steps or more, not {steps}")
    start, end = (model.posterior.point(model.encode(x)) for x in (first, second))
    along = torch.linspace(0.0, 1.0, steps, device=start.device).view(-1, 1, 1)
    z = torch.lerp(start, end, along)
    if model.prior().support is sphere:
        z = torch.nn.functional.normalize(z, dim=-1)
    return model.decode(z).mean


@torch.no_grad()
def local_variants(
    model: VAE, x: Tensor, dimensions: tuple[int, int] = (0, 3), scale: float = 20.0, steps: int = 3
) -> Tensor:
    r"""Decode $\mu+t_1\sigma_ie_i+t_2\sigma_je_j$ on a grid, shape (steps * steps, B, *X).

    The figure of the GAMIX repository: two coordinates of one image's posterior mean, moved by multiples of its
    posterior standard deviation.

    References:
        How to train your VAE, Rivera, 2024, arXiv 2309.13160.

    Arguments:
        model: The model.
        x: Samples (B, *X).
        dimensions: The two coordinates i and j.
        scale: The largest multiple t.
        steps: Points along each coordinate.

    Raises:
        VaekitError: A coordinate is outside the latent space.
    """
    if not all(0 <= d < model.latent_dim for d in dimensions):
        raise VaekitError(f"latent dimensions {dimensions} must lie between 0 and {model.latent_dim - 1}")
    q = model.encode(x)
    multiples = torch.linspace(-scale, scale, steps, device=x.device)
    z = q.mean.repeat(steps * steps, 1, 1)
    for axis, dimension in enumerate(dimensions):
        t = multiples.repeat_interleave(steps) if axis == 0 else multiples.repeat(steps)
        z[:, :, dimension] += t[:, None] * q.stddev[:, dimension]
    return model.decode(z).mean
