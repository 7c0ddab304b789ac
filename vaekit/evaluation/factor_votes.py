"""Whether one can tell which factor is fixed: the scores of FactorVAE and of beta-VAE.

Both hold one factor fixed, let all others vary, and ask a simple classifier which one it was. Groups of samples that
share the value of a factor are drawn from the samples that there are, with replacement.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.evaluation.disentanglement_scores import as_tables
from vaekit.evaluation.subset_probe import linear_probe

__all__ = ["COLLAPSED", "GROUP", "VOTES", "beta_vae_score", "factor_vae_score"]

GROUP = 64
VOTES = (10_000, 5_000)
COLLAPSED = 0.05

_BLOCK = 500  # groups at a time


def factor_vae_score(codes: Tensor, factors: Tensor, *, collapsed: float = COLLAPSED, seed: int = 0) -> float:
    r"""Return the accuracy, from 0 to 1, of a majority vote on the code that varies least while a factor is fixed.

    A vote draws a factor k, a sample, and 64 samples with the sample's value of that factor. It is the pair of k and of
    the code $\arg\min_d\mathrm{Var}_{\rm group}(z_d)/\mathrm{Var}(z_d)$. 10,000 votes decide which factor each code
    stands for (the most frequent), and 5,000 others are judged by it. Guessing has 1/K.

    As published, collapsed codes take no part: those whose variance over all samples is below 0.05. The threshold is
    meant for codes under a prior of unit variance. Without any other code the score is 0. Votes on a value that a
    single sample has would say nothing, and are not counted.

    References:
        Disentangling by Factorising, Kim and Mnih, 2018, arXiv 1802.05983. Numbers of votes and samples: Challenging
        Common Assumptions in the Unsupervised Learning of Disentangled Representations, Locatello et al., 2018,
        arXiv 1811.12359.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K), K of two or more.
        collapsed: The least variance of a code that takes part; a constant one never does.
        seed: Seed of the votes.

    Raises:
        VaekitError: As `as_tables`, there is one factor alone, or no two samples share the value of one.

    Examples:
        >>> v = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        >>> factor_vae_score(v, v), factor_vae_score(0.1 * v, v)
        (1.0, 0.0)
    """
    groups = _Groups(codes, factors, seed)
    variance = groups.codes.var(0, correction=0)
    kept = (variance >= collapsed) & (variance > 0)
    if not kept.any():
        return 0.0
    z = groups.codes[:, kept] / variance[kept].sqrt()
    votes = []
    for count in VOTES:
        factor, sample = groups.draw(count, 1)
        shared = groups.count[sample, factor].squeeze(1) > 1
        if not shared.any():
            raise VaekitError("no two samples share the value of a factor: take more samples")
        factor, sample = factor[shared], sample[shared]
        rows = groups.partners(sample.expand(-1, GROUP), factor)
        votes.append((torch.cat([z[part].var(1).argmin(1) for part in rows.split(_BLOCK)]), factor.squeeze(1)))
    (winner, factor), (judged, truth) = votes
    tally = torch.bincount(winner * groups.factors + factor, minlength=z.shape[1] * groups.factors)
    return float((tally.view(-1, groups.factors).argmax(1)[judged] == truth).double().mean())


def beta_vae_score(codes: Tensor, factors: Tensor, *, seed: int = 0) -> float:
    r"""Return the accuracy, from 0 to 1, of a linear classifier that is told how codes differ while a factor is fixed.

    A vote draws a factor k and 64 pairs of samples, those of a pair with the same value of the factor. Its features are
    $\frac1{64}\sum_l|z_l-z_l'|$, its class is k. Logistic regression on standardised features is fitted to 10,000 votes
    and judged on 5,000. Guessing has 1/K. Codes of all factors but one have 1 already: the missing factor is told by
    the others' changing. FactorVAE's score was made because of that.

    References:
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, Higgins et al., 2017, ICLR.
        Numbers of votes and samples: Challenging Common Assumptions in the Unsupervised Learning of Disentangled
        Representations, Locatello et al., 2018, arXiv 1811.12359.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K), K of two or more.
        seed: Seed of the votes.

    Raises:
        VaekitError: As `as_tables`, or there is one factor alone.

    Examples:
        >>> v = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        >>> beta_vae_score(v, v)
        1.0
    """
    groups = _Groups(codes, factors, seed)
    z, votes = groups.codes, []
    for count in VOTES:
        factor, first = groups.draw(count, GROUP)
        pairs = zip(first.split(_BLOCK), groups.partners(first, factor).split(_BLOCK), strict=True)
        votes += [torch.cat([(z[left] - z[right]).abs().mean(1) for left, right in pairs]), factor.squeeze(1)]
    return linear_probe(*votes) or 0.0


class _Groups:
    """Draws samples that share the value of a factor, by tables of where the samples of each value stand.

    Arguments:
        codes: Codes (N, D).
        factors: Factors (N, K).
        seed: Seed of the draws.

    Raises:
        VaekitError: As `as_tables`, or there is one factor alone.
    """

    def __init__(self, codes: Tensor, factors: Tensor, seed: int) -> None:
        self.codes, values = as_tables(codes, factors)
        self.factors = values.shape[1]
        if self.factors < 2:
            raise VaekitError("which of the factors is fixed cannot be asked of one alone: give two factors or more")
        self.order = values.argsort(dim=0, stable=True)
        counts = [column.bincount() for column in values.unbind(1)]
        pairs = list(zip(values.unbind(1), counts, strict=True))
        self.count = torch.stack([number[column] for column, number in pairs], 1)
        self.start = torch.stack([(number.cumsum(0) - number)[column] for column, number in pairs], 1)
        self.random = torch.Generator().manual_seed(seed)

    def draw(self, votes: int, samples: int) -> tuple[Tensor, Tensor]:
        """Return a factor (votes, 1) and samples (votes, samples) for each vote."""
        factor = torch.randint(self.factors, (votes, 1), generator=self.random)
        return factor, torch.randint(len(self.codes), (votes, samples), generator=self.random)

    def partners(self, samples: Tensor, factor: Tensor) -> Tensor:
        """Return for each sample (votes, n) another with its value of the vote's factor (votes, 1)."""
        place = torch.rand(samples.shape, generator=self.random, dtype=torch.float64) * self.count[samples, factor]
        return self.order[self.start[samples, factor] + place.long(), factor]
