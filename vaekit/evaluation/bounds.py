"""Bounds on the likelihood of models of one modality: the terms of the ELBO, and the importance-sampled bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaekit.data import Dataset
from vaekit.distributions import Draws, draw, kl_divergence, kl_method
from vaekit.errors import VaekitError
from vaekit.evaluation.blocks import blocks
from vaekit.evaluation.likelihood import importance_sampling
from vaekit.evaluation.protocol import Options, Result
from vaekit.evaluation.subsets import Estimate, estimate
from vaekit.likelihoods.base import Likelihood
from vaekit.models.vae import VAE

__all__ = ["elbo", "elbo_terms", "likelihood", "on_levels", "why_no_bound"]

_DRAWS = 16
_PASSES = 8  # Decoder passes of one block at a time.
_BEYOND = "the posterior reaches beyond the prior, so that the KL is infinite"
_POOR = 0.02  # The share of effective particles below which the likelihood is a poor estimate.


# ---- what stands alone -----------------------------------------------------------------------------------------------


@torch.no_grad()
def elbo_terms(model: VAE, x: Tensor, draws: int = _DRAWS, chunk: int = _PASSES) -> tuple[Tensor, Tensor]:
    r"""Return distortion and rate of every sample in nats, the two terms of the negative ELBO:

    $$-\log p(x)\le\underbrace{\mathbb E_q[-\log p(x\mid z)]}_{\text{distortion}}
    +\underbrace{\mathrm{KL}(q(z\mid x)\,\|\,p(z))}_{\text{rate}}.$$

    The distortion is a mean over draws. The rate is in closed form where there is one, otherwise estimated from the
    same draws, and infinite where the posterior reaches beyond the prior or has no density. Both have weight 1,
    whatever the model was trained with. Their sum is a bound unless `why_no_bound` says why not.

    References:
        Auto-Encoding Variational Bayes, Kingma and Welling, 2013, arXiv 1312.6114.
        Fixing a Broken ELBO, Alemi et al., 2017, arXiv 1711.00464 (rate and distortion).

    Arguments:
        model: The model, in evaluation mode.
        x: A batch (B, *X) on the model's device.
        draws: Draws per sample; a posterior whose draws are weighted (a mixture) gives as many of its rounds.
        chunk: Draws that are decoded at a time.

    Returns:
        The distortions and the rates, shape (B,) each, in float64.

    Raises:
        VaekitError: `draws` or `chunk` is below 1.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("vae")), (1, 8, 8)).eval()
        >>> distortion, rate = elbo_terms(model, torch.rand(4, 1, 8, 8))
        >>> distortion.shape, bool((rate >= 0).all())
        (torch.Size([4]), True)
    """
    if draws < 1 or chunk < 1:
        raise VaekitError(f"draws and chunk must be 1 or more, not {draws} and {chunk}")
    q, p = model.encode(x), model.prior()
    distortion = rate = x.new_zeros(len(x), dtype=torch.float64)
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        z, weights = draw(q, count)
        share = count / draws
        distortion = distortion - share * (weights * model.decode(z).log_prob(x)).double().sum(0)
        try:
            rate = rate + share * kl_divergence(q, p, Draws(z, weights)).double()
        except VaekitError:
            rate = torch.full_like(rate, math.inf)
    return distortion, rate


@torch.no_grad()
def why_no_bound(model: VAE, x: Tensor) -> str:
    """Return why the ELBO and the importance-sampled likelihood of a model are no bounds, empty if they are.

    They are bounds on the log-likelihood where p(x|z) is normalised and the KL is finite. Cross-entropies of grey
    values count as such: they lie above those of the continuous Bernoulli, which is.

    Arguments:
        model: The model, in evaluation mode.
        x: A few samples (B, *X) on the model's device.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("pvae")), (1, 8, 8)).eval()
        >>> why_no_bound(model, torch.rand(4, 1, 8, 8))
        'the SumSquaredError likelihood leaves out its constant'
    """
    if not model.likelihood.normalised:
        return f"the {type(model.likelihood).__name__} likelihood leaves out its constant"
    try:
        rate = kl_divergence(model.encode(x), model.prior())
    except VaekitError as error:
        return str(error)
    return "" if rate.isfinite().all() else _BEYOND


def on_levels(likelihood: Likelihood, x: Tensor) -> bool:
    """Return whether all values of a batch are among those that a likelihood gives a probability.

    Arguments:
        likelihood: A likelihood; one with a density takes any value.
        x: A batch (B, *X).

    Examples:
        >>> from vaekit.likelihoods import Bernoulli
        >>> likelihood = Bernoulli((2,))
        >>> on_levels(likelihood, torch.tensor([[0.0, 1.0]])), on_levels(likelihood, torch.tensor([[0.5, 1.0]]))
        (True, False)
    """
    if likelihood.continuous:
        return True
    low, high = likelihood.data_range
    level = (x.double() - low) * ((likelihood.levels - 1) / (high - low))
    return bool(((level - level.round()).abs() < 1e-3).all())


# ---- the metrics -----------------------------------------------------------------------------------------------------


def elbo(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield distortion, rate and their sum, which is called `negative_elbo` where it is a bound."""
    described, why, first = _Described(model, data, options), "", None
    parts: list[Tensor] = []
    for x in blocks(model, data, options, options.rows(data), "elbo"):
        if first is None:
            first, why = x, why_no_bound(model, x)
        described.look(x)
        parts.append(torch.stack(elbo_terms(model, x, chunk=_chunk(model))).cpu())
    distortion, rate = torch.cat(parts, 1)
    values: dict[str, Any] = {"distortion": estimate(distortion)}
    notes = model.notes()
    if rate.isfinite().all():
        total = estimate(distortion + rate)
        values |= {"rate": estimate(rate), "distortion_plus_rate" if why else "negative_elbo": total}
        if not why:
            values |= described.bits(total)
        if first is not None and kl_method(model.encode(first), model.prior()) == "sampled":
            notes.append("the rate is estimated from the draws: it has no closed form for these parts")
    else:
        why = why or _BEYOND
    if why:
        notes.append(f"distortion and rate do not add up to a negative ELBO: {why}")
    yield Result(values, {"draws": _DRAWS, **described.protocol}, notes + described.notes(not why))


def likelihood(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield log p(x) by importance sampling, with the effective number of particles; of true bounds only."""
    described, particles = _Described(model, data, options), options.particles
    parts: list[Tensor] = []
    for x in blocks(model, data, options, options.rows(data), "likelihood"):
        if not parts and (why := why_no_bound(model, x)):
            raise VaekitError(f"the metric 'likelihood' is for true bounds only: {why}")
        described.look(x)
        parts.append(torch.stack(importance_sampling(model, x, particles, _chunk(model))).cpu())
    found, effective = (estimate(part) for part in torch.cat(parts, 1))
    notes = [*model.notes(), *described.notes()]
    if effective.mean < max(2.0, _POOR * particles) <= particles:
        notes.append(
            f"of {particles} particles {effective.mean:.1f} count in effect, the mean over samples: log p(x) is "
            "underestimated; take more particles to see by how much"
        )
    negated = Estimate(-found.mean, found.standard_error, found.count)
    values = {"log_likelihood": found, "effective_sample_size": effective, **described.bits(negated)}
    yield Result(values, {"particles": particles, **described.protocol}, notes)


class _Described:
    """What log p(x|z) is a logarithm of, as far as the samples seen tell."""

    def __init__(self, model: VAE, data: Dataset, options: Options) -> None:
        self.likelihood, self.is_image = model.likelihood, data.is_image
        self.grey, self.exact = data.is_image and not options.binarize, True

    def look(self, x: Tensor) -> None:
        """Take in a batch."""
        self.exact = self.exact and on_levels(self.likelihood, x)

    @property
    def protocol(self) -> dict[str, Any]:
        """What figures must share to be compared: densities in units of the data, or probabilities of levels."""
        low, high = self.likelihood.data_range
        kind = f"probability of {self.likelihood.levels} levels"
        if self.likelihood.continuous:
            kind = f"density on [{low:g}, {high:g}]" if self.is_image else "density"
        elif not self.exact:
            kind = f"values between {self.likelihood.levels} levels"
        if not self.likelihood.normalised:
            kind += " without its constant"
        return {"unit": "nats per sample", "log_p_of": kind}

    @property
    def _has_bits(self) -> bool:
        return self.grey if self.likelihood.continuous else self.exact

    def notes(self, bound: bool = True) -> list[str]:
        """Return what a reader should know of these logarithms, and of what `bits` makes of a bound."""
        if not self.exact:
            return [
                f"the data have values between the {self.likelihood.levels} levels of the likelihood: what it gives is "
                "no log-probability of them, compares only with the same likelihood on the same data, and makes no "
                "bits per dimension"
            ]
        if bound and self.likelihood.continuous and self._has_bits:
            return [
                "bits per dimension take the density times the width of a grey level for the probability of a level: "
                "compare them with those of other densities only"
            ]
        return []

    def bits(self, nats: Estimate) -> dict[str, Estimate]:
        """Return a bound of -log p(x) in bits per dimension, by name, where that means something."""
        if not self._has_bits:
            return {}
        error = nats.standard_error / (math.prod(self.likelihood.data_shape) * math.log(2.0))
        return {"bits_per_dim": Estimate(self.likelihood.bits_per_dim(nats.mean), error, nats.count)}


def _chunk(model: VAE) -> int:
    return max(1, _PASSES // model.posterior.passes)
