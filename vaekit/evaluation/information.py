"""What the latent says of the data: KL per dimension, active units, mutual information, total correlation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaekit.data.dataset import Progress
from vaekit.distributions import (
    Draws,
    kl_divergence,
    pairwise_log_prob,
    pairwise_log_prob_by_dimension,
)
from vaekit.errors import VaekitError
from vaekit.evaluation.aggregate import Aggregate, aggregate_posterior
from vaekit.evaluation.subsets import Estimate, estimate

__all__ = ["LatentInformation", "kl_by_dimension", "latent_information", "log_aggregate"]

_NUMBERS = 2**18  # Numbers of a piece of the table of all pairs: they should stay in a processor's cache.
_ESTIMATES = ("rate", "mutual_information", "marginal_kl", "total_correlation")
_BY_DIMENSION = ("kl_by_dimension", "marginal_kl_by_dimension")


@torch.no_grad()
def log_aggregate(
    posteriors: Sequence[Distribution], z: Tensor, progress: Progress | None = None
) -> tuple[Tensor, Tensor | None]:
    r"""Return log-densities of the aggregate posterior $\hat q(z)=\frac1N\sum_jq(z\mid x_j)$, in nats, in float64.

    The table of all pairs is made in pieces and summed up as it comes.

    Arguments:
        posteriors: Distributions of `batch_shape (B_i,)`, N members in all.
        z: Points, shape (M, D).
        progress: Called as `progress(done, total, what)` after each distribution.

    Returns:
        $\log\hat q(z)$, shape (M,), and $\log\hat q(z_d)$ of each dimension, shape (M, D); None in its place where
        the dimensions of the posteriors are not independent.

    Raises:
        VaekitError: The posteriors are points without a density.

    Examples:
        >>> q = Independent(torch.distributions.Normal(torch.tensor([[-1.0], [1.0]]), 1.0), 1)
        >>> log_aggregate([q, q], torch.zeros(1, 1))
        (tensor([-1.4189], dtype=torch.float64), tensor([[-1.4189]], dtype=torch.float64))
    """
    whole = apart = torch.tensor(-math.inf, dtype=torch.float64, device=z.device)
    for number, q in enumerate(posteriors):
        pieces = z.split(max(1, _NUMBERS // (q.batch_shape[0] * z.shape[1])))
        found = [[table.logsumexp(1).double() for table in _tables(q, piece)] for piece in pieces]
        joint, *each = (torch.cat(parts) for parts in zip(*found, strict=True))
        whole = torch.logaddexp(whole, joint)
        if each:
            apart = torch.logaddexp(apart, each[0])
        if progress is not None:
            progress(number + 1, len(posteriors), "aggregate posterior")
    count = math.log(sum(q.batch_shape[0] for q in posteriors))
    return whole - count, apart - count if _factorised(posteriors[0]) else None


def _tables(q: Distribution, z: Tensor) -> list[Tensor]:
    """Return log q(z_i|x_j) of all pairs (M, B) and, where dimensions are independent, of each of them (M, B, D)."""
    if isinstance(q, Delta):
        raise VaekitError("a point has no density, and neither has a mixture of points")
    if not _factorised(q):
        return [pairwise_log_prob(q, z.unsqueeze(0))[0]]
    each = pairwise_log_prob_by_dimension(q, z.unsqueeze(0))[0]
    return [each.sum(-1, dtype=torch.float64), each]


def kl_by_dimension(q: Distribution, p: Distribution, z: Tensor | None = None) -> Tensor:
    """Return the KL of each dimension in nats, shape (B, D), in float64.

    Arguments:
        q: Posteriors of independent dimensions, `batch_shape (B,)`.
        p: A prior of independent dimensions.
        z: A draw of each posterior (B, D), to estimate from where there is no closed form.

    Raises:
        VaekitError: The dimensions are not independent, or there is neither a closed form nor a draw.

    Examples:
        >>> p = Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
        >>> kl_by_dimension(Independent(torch.distributions.Normal(torch.tensor([[0.0, 2.0]]), 1.0), 1), p)
        tensor([[0., 2.]], dtype=torch.float64)
    """
    of_q, of_p = _each(q, "posterior"), _each(p, "prior")
    try:
        return torch.distributions.kl_divergence(of_q, of_p).double()
    except NotImplementedError as error:
        if z is None:
            raise VaekitError("the KL of these parts has no closed form: estimate it from draws") from error
        return (of_q.log_prob(z) - of_p.log_prob(z)).double()


@dataclass(frozen=True)
class LatentInformation:
    """What the latent says of N samples; figures that cannot be computed are missing.

    Arguments:
        aggregate: Moments of the aggregate posterior by dimension, and the active units.
        estimates: Means over the samples by name, in nats per sample: see `latent_information`.
        by_dimension: Name to D figures in nats per sample.
        left_out: Sentences that say which figures are missing, and why.
    """

    aggregate: Aggregate
    estimates: dict[str, Estimate]
    by_dimension: dict[str, list[float]]
    left_out: list[str]


@torch.no_grad()
def latent_information(
    posteriors: Sequence[Distribution], p: Distribution, draws: Sequence[Tensor], progress: Progress | None = None
) -> LatentInformation:
    r"""Return what the latent says of N samples, from one draw of each posterior.

    With $\hat q(z)=\frac1N\sum_nq(z\mid x_n)$ it gives

    | name | figure, in nats |
    |---|---|
    | `rate` | the mean of $\mathrm{KL}(q(z\mid x_n)\,\|\,p(z))$ |
    | `mutual_information` | $I(n;z)=\frac1N\sum_n\mathbb E_{q(z\mid x_n)}[\log q(z\mid x_n)-\log\hat q(z)]$ |
    | `marginal_kl` | $\mathrm{KL}(\hat q(z)\,\|\,p(z))$, which is the rate less the mutual information |
    | `total_correlation` | $\mathrm{KL}(\hat q(z)\,\|\,\prod_d\hat q(z_d))$ |
    | `kl_by_dimension` | D values: the rate of each dimension |
    | `marginal_kl_by_dimension` | D values: $\mathrm{KL}(\hat q(z_d)\,\|\,p(z_d))$ |

    The mixture holds the draw's own posterior, so that the mutual information is at most $\log N$. For the
    distribution that the samples come from it is a lower bound in expectation, and the marginal KL an upper one: near
    $\log N$ both tell little. The total correlation of N posteriors that are far apart grows with $\log N$ as well. All
    draws share one mixture, which the standard errors do not count.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound, Hoffman and Johnson, 2016.
        On Variational Bounds of Mutual Information, Poole et al., 2019, arXiv 1905.06922 (the cap and the bound).
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen et al., 2018, arXiv 1802.04942.

    Arguments:
        posteriors: The posteriors in batches, `batch_shape (B_i,)` each, N in all.
        p: The prior.
        draws: A draw of each posterior, shape (B_i, D) each.
        progress: Called as `progress(done, total, what)`.

    Examples:
        >>> q = Independent(torch.distributions.Normal(torch.tensor([[-50.0], [50.0]]), 1.0), 1)
        >>> p = Independent(torch.distributions.Normal(torch.zeros(1), 1.0), 1)
        >>> found = latent_information([q], p, [q.sample()])
        >>> round(found.estimates["mutual_information"].mean, 3), found.estimates["rate"].mean  # log 2, 50^2 / 2
        (0.693, 1250.0)
    """
    pairs, z = list(zip(posteriors, draws, strict=True)), torch.cat(list(draws))
    figures: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}

    def attempt(name: str, title: str, compute: Callable[[], Tensor]) -> None:
        try:
            figures[name] = _finite(compute())
        except VaekitError as error:
            left_out.setdefault(str(error), []).append(title)

    attempt("rate", "the rate and the marginal KL", lambda: torch.cat([_rate(q, p, drawn) for q, drawn in pairs]))
    attempt(
        "kl_by_dimension",
        "the KL of each dimension",
        lambda: torch.cat([kl_by_dimension(q, p, drawn) for q, drawn in pairs]),
    )
    # The posterior's own density comes from the table of pairs as well: what is equal is so to the last digit.
    attempt(
        "own",
        "the mutual information",
        lambda: torch.cat([_tables(q, drawn)[0].diagonal().double() for q, drawn in pairs]),
    )
    if "own" in figures:
        joint, marginals = log_aggregate(posteriors, z, progress)
        figures["mutual_information"] = figures["own"] - joint
        if "rate" in figures:
            figures["marginal_kl"] = figures["rate"] - figures["mutual_information"]
        if marginals is None:
            titles = ["the total correlation", "the marginal KL of each dimension"]
            left_out.setdefault(_dependent(posteriors[0], "posterior"), []).extend(titles)
        else:
            each = marginals
            figures["total_correlation"] = joint - each.sum(1)
            attempt(
                "marginal_kl_by_dimension",
                "the marginal KL of each dimension",
                lambda: each - _each(p, "prior").log_prob(z),
            )
    return LatentInformation(
        aggregate_posterior(lambda q: q, posteriors),
        {name: estimate(figures[name].cpu()) for name in _ESTIMATES if name in figures},
        {name: figures[name].mean(0).tolist() for name in _BY_DIMENSION if name in figures},
        [f"there is no figure of {', '.join(titles)}: {why}" for why, titles in left_out.items()],
    )


def _rate(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    """Return KL(q || p) in closed form, or from one draw of each posterior."""
    return kl_divergence(q, p, Draws(z.unsqueeze(0), z.new_ones(1, len(z)))).double()


def _factorised(d: Distribution) -> bool:
    return isinstance(d, Independent) and d.reinterpreted_batch_ndims == 1 and not d.base_dist.event_shape


def _dependent(d: Distribution, what: str) -> str:
    return f"the dimensions of this {what} ({type(d).__name__}) are not independent"


def _each(d: Distribution, what: str) -> Any:
    """Return the distributions of single dimensions."""
    if not _factorised(d):
        raise VaekitError(_dependent(d, what))
    return d.base_dist  # type: ignore[attr-defined]


def _finite(figures: Tensor) -> Tensor:
    if not figures.isfinite().all():
        raise VaekitError("the posterior reaches beyond the prior, so that it is infinite")
    return figures
