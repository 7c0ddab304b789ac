"""A posterior as named tensors: what an exported encoder gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from vaekit.distributions import Epanechnikov, EpanechnikovConvolution, Flow, GaussianMixture
from vaekit.distributions.expert_mixture import ExpertMixture
from vaekit.distributions.rotational import Rotational
from vaekit.errors import VaekitError

__all__ = ["Law", "law_of"]

#: Name to a tensor (B, ...) and to what it is, in words.
Law: TypeAlias = Mapping[str, tuple[Tensor, str]]

_DEVIATION, _LAPLACE = "standard deviation", "scale (the standard deviation over the root of 2)"


def law_of(q: Distribution, points: Tensor | None = None, name: str = "q(z|x)") -> Law:
    """Return the mean of a posterior and, where its family has them, the parameters that say the rest of it.

    | family | besides `mean` (B, D) |
    |---|---|
    | Gaussian, Laplace | `scale` (B, D) |
    | Epanechnikov, alone or with the prior's noise | `half_width` (B, D) |
    | Gaussian with correlations | `scale_tril` (B, D, D), or `factor` (B, D, R) and `diagonal` (B, D) of low rank |
    | mixtures | `weights` (B, K), `means` (B, K, D) and `scales` (B, K, D) |
    | directions | `concentration` (B,) |
    | anything else | nothing: counts and categories have their rates and probabilities as the mean |

    Arguments:
        q: The posterior, `batch_shape (B,)`, `event_shape (D,)`.
        points: For a flow, `Flow.points` as a constant.
        name: What the posterior is called in the words.

    Raises:
        VaekitError: The posterior has no mean.

    Examples:
        >>> import torch
        >>> {name: tuple(value.shape) for name, (value, _) in law_of(Normal(torch.zeros(5, 2), 1.0)).items()}
        {'mean': (5, 2), 'scale': (5, 2)}
    """
    base = q.base_dist if isinstance(q, Independent) else q
    if isinstance(base, Flow) and points is not None:
        mean = base.transform(points).mean(0)
        return {"mean": (mean, f"the mean of {name}, estimated from {len(points)} points")}
    try:
        mean = q.mean
    except NotImplementedError as error:
        raise VaekitError(
            f"{type(base).__name__} has no mean, which is what an exported encoder gives: export the decoder alone"
        ) from error
    return {"mean": (mean, f"the mean of {name}"), **_besides(base)}


def _besides(q: Distribution) -> Law:
    """Return what a family has besides its mean."""
    if isinstance(q, Normal | Laplace):
        return {"scale": (q.scale, f"the {_DEVIATION if isinstance(q, Normal) else _LAPLACE} of each dimension")}
    if isinstance(q, Epanechnikov):
        return {"half_width": (q.scale, "the half-width of each dimension's density")}
    if isinstance(q, EpanechnikovConvolution):
        return {"half_width": (q.kernel.scale, "the half-width of each dimension's kernel; the prior's noise is added")}
    if isinstance(q, LowRankMultivariateNormal):
        return {
            "factor": (q.cov_factor, "F of the covariance F F^T + diag(diagonal)"),
            "diagonal": (q.cov_diag, "the diagonal matrix of the covariance F F^T + diag(diagonal)"),
        }
    if isinstance(q, MultivariateNormal):
        return {"scale_tril": (q.scale_tril, "the lower Cholesky factor of the covariance")}
    if isinstance(q, GaussianMixture | ExpertMixture):
        loc, scale = (part.expand(*q.batch_shape, -1, -1) for part in (q.loc, q.scale))
        words = _LAPLACE if isinstance(q, ExpertMixture) and issubclass(q.family, Laplace) else _DEVIATION
        return {
            "weights": (q.component_probs, "the weights of the components"),
            "means": (loc, "the means of the components"),
            "scales": (scale, f"the {words} of each dimension of the components"),
        }
    if isinstance(q, Rotational):
        return {"concentration": (q.concentration, "the concentration around the mode")}
    return {}
