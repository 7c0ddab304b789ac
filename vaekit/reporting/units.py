"""The latent unit by unit: marginals, rates and histograms.

A unit is a dimension of the latent, or a variable of several categories where the latent is one-hot.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from vaekit.distributions import ExpertMixture, GaussianMixture, RelaxedOneHot
from vaekit.errors import VaekitError

__all__ = ["as_units", "histogram", "kl_by_unit", "marginals"]

_BINS = (10, 40)  # The fewest and the most; between them the root of the number of draws.
_POINTS = 80
_MOST = 30  # A histogram of counts ends here.


def marginals(d: Distribution) -> Distribution | None:
    r"""Return the distributions of the single units of a distribution over latents, `batch_shape (..., U)`.

    Those of a diagonal mixture are mixtures, those of a Gaussian are Gaussian. `None` where they are not known.

    Arguments:
        d: A distribution with `event_shape (D,)`.

    Examples:
        >>> q = GaussianMixture(torch.zeros(4, 2), torch.randn(4, 2, 3), torch.ones(4, 2, 3))
        >>> marginals(q).batch_shape
        torch.Size([4, 3])
    """
    unchecked: dict[str, Any] = {"validate_args": False}
    if isinstance(d, Independent) and not d.base_dist.event_shape:
        return d.base_dist
    if isinstance(d, GaussianMixture | ExpertMixture):
        family = d.family if isinstance(d, ExpertMixture) else Normal
        logits = d.mask.log() if isinstance(d, ExpertMixture) else d.log_probs
        weights = Categorical(logits=logits.unsqueeze(-2).expand(*d.batch_shape, *d.loc.mT.shape[-2:]), **unchecked)
        return MixtureSameFamily(weights, family(d.loc.mT, d.scale.mT, **unchecked), **unchecked)
    if isinstance(d, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(d.mean, d.stddev, **unchecked)
    if isinstance(d, RelaxedOneHot):
        return Categorical(logits=d.logits, **unchecked)
    return None


def as_units(d: Distribution, z: Tensor) -> Tensor:
    """Return draws (..., D) of a distribution as the values of its units (..., U): of one-hot groups the category."""
    return z.unflatten(-1, (-1, d.categories)).argmax(-1) if isinstance(d, RelaxedOneHot) else z


def kl_by_unit(q: Distribution, p: Distribution) -> tuple[Tensor | None, bool]:
    r"""Return $\mathrm{KL}(q(z_j\mid x)\,\|\,p(z_j))$ in nats for every sample and unit, and whether it is exact.

    Where there is no closed form it is the log-ratio at one draw. Units of a q of dependent dimensions add up to less
    than its whole KL.

    Arguments:
        q: The posteriors, `batch_shape (B,)`.
        p: The prior.

    Returns:
        The KLs (B, U), or `None` where the marginals of one are not known or a KL is infinite.

    Examples:
        >>> p = Independent(Normal(torch.zeros(2), 1.0), 1)
        >>> kl_by_unit(Independent(Normal(torch.tensor([[0.0, 2.0]]), 1.0), 1), p)
        (tensor([[0., 2.]]), True)
    """
    own, other = marginals(q), marginals(p)
    if own is None or other is None:
        return None, True
    try:
        kl, exact = torch.distributions.kl_divergence(own, other), True
    except NotImplementedError:
        z = as_units(q, q.sample())
        kl, exact = own.log_prob(z) - other.log_prob(z), False
    except VaekitError:  # It is infinite, whatever the draws say.
        return None, True
    return (kl, exact) if kl.isfinite().all() else (None, exact)


def histogram(drawn: Tensor, others: Tensor, prior: Distribution | None, unit: int, discrete: bool) -> dict[str, Any]:
    """Return a histogram of one unit beside the prior.

    Arguments:
        drawn: Draws of the aggregate posterior, by unit (N, U).
        others: Draws of the prior (M, U).
        prior: The prior's marginals where they are known: their density then, instead of a histogram of the draws.
        unit: The unit.
        discrete: Whether its values are whole numbers; densities are then probabilities.

    Returns:
        `unit` and `discrete`; `centres` and `width` of the bars and their heights `aggregate`; `points` at which the
        prior has the density `prior`.
    """
    own, other = drawn[:, unit].cpu().numpy(), others[:, unit].cpu().numpy()
    both = np.concatenate([own, other])
    if discrete:
        edges = np.arange(min(int(both.max()), _MOST) + 2) - 0.5
    else:
        low, high = np.quantile(both, [0.001, 0.999])
        bins = min(max(int(math.sqrt(len(own))), _BINS[0]), _BINS[1])
        edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    width = edges[1] - edges[0]
    centres = points = (edges[1:] + edges[:-1]) / 2
    if prior is None:
        density = np.histogram(other, edges)[0] / (len(other) * width)
    else:
        if not discrete:
            points = np.linspace(edges[0], edges[-1], _POINTS)
        density = prior.log_prob(others.new_tensor(points).unsqueeze(-1))[:, unit].exp().cpu().numpy()
    return {
        "unit": unit,
        "discrete": discrete,
        "centres": centres,
        "width": width,
        "aggregate": np.histogram(own, edges)[0] / (len(own) * width),
        "points": points,
        "prior": density,
    }
