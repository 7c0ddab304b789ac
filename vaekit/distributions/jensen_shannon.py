"""How far several distributions over one space lie apart: each from their mean, and each from all the others.

Shapes: S draws, B samples, M distributions (one for each modality), D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.distributions.draws import Draws
from vaekit.distributions.expert_mixture import ExpertMixture
from vaekit.distributions.kl import kl_divergence
from vaekit.distributions.stacking import location_scale

__all__ = ["kl_to_each", "kl_to_mean"]


def kl_to_mean(q: Distribution, available: Tensor, draws: Draws) -> Tensor:
    r"""Return an estimate of the KL of each to the mean of those in O, in nats, shape (B, M).

    $$\mathrm{KL}\Bigl(q_m\,\Big\|\,\frac1{|O|}\sum_{n\in O}q_n\Bigr)$$

    The sum over O is |O| times the Jensen-Shannon divergence, from 0 where all agree to |O| ln |O| where none overlap.

    Source: J. Lin, Divergence Measures Based on the Shannon Entropy, IEEE Transactions on Information Theory 37, 1991.

    Arguments:
        q: Gaussian or Laplace dimensions, `batch_shape (B, M)`.
        available: Which are in O, bool of shape (B, M); where none is, all count.
        draws: Weighted draws of q: z (S, B, M, D).

    Raises:
        VaekitError: q is another distribution.

    Examples:
        >>> from torch.distributions import Independent, Normal
        >>> loc = torch.tensor([[[0.0], [100.0]]])
        >>> draws = Draws(loc.unsqueeze(0), torch.ones(1, 1, 2))
        >>> kl_to_mean(Independent(Normal(loc, 1.0), 1), torch.tensor([[True, True]]), draws)
        tensor([[0.6931, 0.6931]])
    """
    mean = ExpertMixture(q, available, validate_args=False)
    # Every draw under the mean of its own sample: the batch is the last of the draws' axes.
    of_mean = mean.log_prob(draws.z.transpose(1, 2)).transpose(1, 2)
    return (draws.weights * (q.log_prob(draws.z) - of_mean)).sum(0)


def kl_to_each(q: Distribution, available: Tensor, draws: Draws | None = None) -> Tensor:
    r"""Return the mean of the KLs of each to all in O, itself among them, in nats, shape (B, M).

    $$\frac1{|O|}\sum_{n\in O}\mathrm{KL}(q_m\,\|\,q_n)\ge
    \mathrm{KL}\Bigl(q_m\,\Big\|\,\frac1{|O|}\sum_{n\in O}q_n\Bigr)$$

    by convexity. It has no upper bound. All pairs at once, in memory B M M D.

    Arguments:
        q: Gaussian or Laplace dimensions, `batch_shape (B, M)`.
        available: Which are in O, bool of shape (B, M); where none is, all count.
        draws: Weighted draws of q, z (S, B, M, D), to estimate from; the closed form where `None`.

    Raises:
        VaekitError: q is another distribution.

    Examples:
        >>> from torch.distributions import Independent, Normal
        >>> q = Independent(Normal(torch.tensor([[[0.0], [4.0]]]), 1.0), 1)
        >>> kl_to_each(q, torch.tensor([[True, True]]))
        tensor([[4., 4.]])
    """
    family, loc, scale = location_scale(q)
    weights = ExpertMixture(q, available, validate_args=False).component_probs
    if draws is None:
        others = (part.movedim(1, 0).unsqueeze(2) for part in (loc, scale))
        pairs = kl_divergence(q, family(*others, validate_args=False).to_event(1))
        return torch.einsum("nbm,bn->bm", pairs, weights)
    of_each = q.log_prob(draws.z.transpose(1, 2).unsqueeze(-2))
    of_others = torch.einsum("smbn,bn->sbm", of_each, weights)
    return (draws.weights * (q.log_prob(draws.z) - of_others)).sum(0)
