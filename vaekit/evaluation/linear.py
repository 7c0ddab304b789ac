"""Multimodal models with linear decoders: the exact likelihood, the exact posterior, and how far a model is from them.

A decoder without hidden layers and a Gaussian likelihood make a `LinearGaussian`, of which everything is known. What is
estimated elsewhere is exact here, so that an objective can be judged without a doubt about the ruler.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from vaekit.data.dataset import Dataset, PairedSplit
from vaekit.distributions import Draws, LinearGaussian, kl_divergence
from vaekit.errors import VaekitError
from vaekit.evaluation.subsets import Estimate, by_size, estimate, list_subsets, require_shared, subset_mask
from vaekit.likelihoods.location_scale import Gaussian
from vaekit.models.multimodal import MultimodalVAE
from vaekit.observed import Observed

__all__ = [
    "LinearReport",
    "exact_log_likelihood",
    "exact_posterior_kl",
    "learned_linear_gaussian",
    "linear_report",
    "mixture_gap",
    "mixture_optimum",
]


def learned_linear_gaussian(model: MultimodalVAE) -> LinearGaussian:
    """Return the generative half of a model with linear decoders, exactly, in float64.

    Private latents of all modalities come first and the shared ones last, as in `LinearGaussian.benchmark`.

    Arguments:
        model: A model with a standard normal prior, linear decoders and Gaussian likelihoods of one scale.

    Raises:
        VaekitError: The model is another one.
    """
    require_shared(model, "the linear-Gaussian evaluation")
    if type(model.prior).__name__ != "StandardNormal":
        raise VaekitError("the linear-Gaussian evaluation needs the prior 'standard_normal'")
    weights, biases, scales = [], [], set()
    count, private_dim = len(model.names), 0 if model.private is None else model.private.private_dim
    for number, (name, modality) in enumerate(model.parts.items()):
        layer, likelihood = modality.decoder.linear, modality.likelihood
        if layer is None or not isinstance(likelihood, Gaussian):
            raise VaekitError(
                f"the modality '{name}' has no linear decoder with a Gaussian likelihood: give it the backbone "
                "{name: mlp, decoder_hidden: []} and the likelihood gaussian"
            )
        weight = layer.weight.detach().double().cpu()
        own = weight.new_zeros(len(weight), count, private_dim)
        own[:, number] = weight[:, model.latent_dim :]
        weights.append(torch.cat([own.flatten(1), weight[:, : model.latent_dim]], 1))
        biases.append(weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu())
        scales.add(round(float(likelihood.log_scale.detach().double().exp()), 6))
    if len(scales) > 1:
        raise VaekitError("the linear-Gaussian evaluation needs one scale for all modalities: do not learn the scales")
    return LinearGaussian(weights, biases, scales.pop())


def exact_log_likelihood(model: MultimodalVAE, split: PairedSplit) -> Tensor:
    """Return log p(x) of every sample under a model with linear decoders, exactly, in nats, shape (N,).

    Arguments:
        model: See `learned_linear_gaussian`.
        split: Samples with all modalities there.

    Raises:
        VaekitError: Another model, or modalities are missing.
    """
    return learned_linear_gaussian(model).log_prob(_complete(split).values)


@torch.no_grad()
def exact_posterior_kl(model: MultimodalVAE, split: PairedSplit, draws: int = 10) -> dict[int, Estimate]:
    r"""Return the mean of $\mathrm{KL}(q(z\mid x_S)\,\|\,p(z\mid x_S))$ in nats for each size of S.

    $p(z\mid x_S)$ is the exact posterior of the model's own decoders. The KL of a Gaussian is in closed form; that of a
    mixture, and of shared and private latents together, is a mean over draws.

    Arguments:
        model: See `learned_linear_gaussian`.
        split: Samples with all modalities there.
        draws: Draws per sample where there is no closed form.

    Raises:
        VaekitError: Another model, or modalities are missing.
    """
    p, x = learned_linear_gaussian(model), _complete(split)
    encoded = copy.deepcopy(model).cpu().double().eval().encode(x)
    subsets, columns = list_subsets(x.names), []
    for subset, mask in zip(subsets, subset_mask(subsets, x), strict=True):
        q = encoded.posterior(mask.expand(len(x), -1))
        exact = p.posterior(x.values, [x.names.index(name) for name in subset])
        z = q.draw(draws)
        if z.private is None:
            columns.append(kl_divergence(q.shared, exact, Draws(z.z, z.weights)))
        else:
            joint = torch.cat([z.private.flatten(-2), z.z], -1)
            columns.append(z.expect(q.log_prob(z) - exact.log_prob(joint)))
    return by_size(torch.stack(columns, 1), subsets)


@dataclass(frozen=True)
class LinearReport:
    """What is known of a trained model on the linear-Gaussian benchmark; nats per sample, on held-out data.

    Arguments:
        gap: The mean of log p(x) under the truth less that under the model.
        best_gap: The same for the model of greatest likelihood on the training data, with as many latents: what no
            objective can do much better than with so many samples.
        posterior_kl: Size of S to the mean of KL(q(z|x_S) || p(z|x_S)), p being the trained model.
        signal: The eigenvalues of the learned WW', the largest first; 0 where a latent direction is not used.
    """

    gap: Estimate
    best_gap: Estimate
    posterior_kl: dict[int, Estimate]
    signal: tuple[float, ...]


def linear_report(model: MultimodalVAE, data: Dataset, truth: LinearGaussian) -> LinearReport:
    """Judge a trained model with linear decoders against the truth, on the test split.

    Arguments:
        model: See `learned_linear_gaussian`.
        data: The data set `linear-gaussian`, or another one that `truth` describes.
        truth: What the data come from.

    Raises:
        VaekitError: Another model, modalities are missing, or there is no test split.
    """
    if not isinstance(data.train, PairedSplit) or not isinstance(data.test, PairedSplit):
        raise VaekitError("the linear-Gaussian evaluation needs a data set of several modalities with a test split")
    learned, held = learned_linear_gaussian(model), _complete(data.test).values
    best = LinearGaussian.maximum_likelihood(_complete(data.train).values, learned.latent_dim, learned.sigma)
    reached = truth.log_prob(held)
    return LinearReport(
        estimate(reached - learned.log_prob(held)),
        estimate(reached - best.log_prob(held)),
        exact_posterior_kl(model, data.test),
        tuple(learned.signal().tolist()),
    )


# ---- what the objective `mixture` converges to -----------------------------------------------------------------------


def mixture_gap(truth: LinearGaussian, sizes: Sequence[float]) -> float:
    r"""Return by how much the objective `mixture` lies above the entropy of the data at the true model, in nats.

    That is with the best posteriors: the mean over S of

    $$\tfrac1{2\sigma^2}\mathrm{tr}\bigl(W_{\setminus S}\Sigma_SW_{\setminus S}^\top\bigr).$$

    The best posterior is not $p(z\mid x_S)$: it has the mean of that and the covariance $\Sigma$ of $p(z\mid x)$ for
    every S, as if the rest had been seen.

    Arguments:
        truth: The model.
        sizes: The probabilities of 0, 1, ..., M modalities in S (`vaekit.objectives.masks.size_probabilities`); the
            subsets of one size are equally likely.

    Examples:
        >>> round(mixture_gap(LinearGaussian.benchmark(0), [0, 1, 0, 0, 0, 0]), 4)
        5.0
    """
    total = 0.0
    for subset, probability in _subsets(len(truth.sizes), sizes):
        rest = [number for number in range(len(truth.sizes)) if number not in subset]
        columns = torch.cat([truth.weights[number] for number in rest]) if rest else torch.zeros(1, truth.latent_dim)
        spread = truth.posterior(truth.biases, subset).covariance_matrix
        total += probability * float((columns.double() @ spread * columns).sum()) / (2.0 * truth.sigma**2)
    return total


def mixture_optimum(truth: LinearGaussian, sizes: Sequence[float]) -> LinearGaussian:
    r"""Return the model that the objective `mixture` converges to, with the best posteriors and endless data.

    The best posterior takes what S does not say to be its mean, $\hat x_{\setminus S}=\mathbb E[x_{\setminus S}\mid
    x_S]$, so that the best model is that of greatest likelihood for $(x_S,\hat x_{\setminus S})$, whose covariance is

    $$\bar A=C-\mathbb E_S\bigl[\mathrm{blockdiag}(0_S,\;C_{\setminus S\mid S})\bigr],\qquad C=WW^\top+\sigma^2I.$$

    It falls short of C where the other modalities cannot tell a part of one: private latents vanish.

    Arguments:
        truth: The model that the data come from.
        sizes: As in `mixture_gap`.

    Examples:
        >>> p = mixture_optimum(LinearGaussian.benchmark(0, sparse=True), [1 / 6] * 6)
        >>> [round(value, 2) for value in p.signal()[4:6].tolist()]
        [3.26, 0.0]
    """
    joint = truth.marginal()
    covariance = joint.covariance_matrix
    blocks = torch.arange(len(covariance)).split(truth.sizes)
    filled = covariance.clone()
    for subset, probability in _subsets(len(truth.sizes), sizes):
        if len(subset) == len(truth.sizes):
            continue
        rest = torch.cat([block for number, block in enumerate(blocks) if number not in subset])
        columns = torch.cat([truth.weights[number] for number in range(len(blocks)) if number not in subset])
        spread = truth.posterior(truth.biases, subset).covariance_matrix
        unknown = columns @ spread @ columns.T + truth.sigma**2 * torch.eye(len(rest), dtype=torch.float64)
        filled[rest[:, None], rest] -= probability * unknown
    return LinearGaussian.from_moments(joint.mean, filled, truth.sizes, truth.latent_dim, truth.sigma)


def _subsets(count: int, sizes: Sequence[float]) -> list[tuple[tuple[int, ...], float]]:
    """Return all subsets of `count` modalities with their probabilities."""
    grouped = [list(combinations(range(count), size)) for size in range(count + 1)]
    return [(subset, float(p) / len(group)) for group, p in zip(grouped, sizes, strict=True) for subset in group]


def _complete(split: PairedSplit) -> Observed:
    """Return a split as one batch in float64.

    Raises:
        VaekitError: Modalities are missing.
    """
    if split.available is not None and not split.available.all():
        raise VaekitError("the linear-Gaussian evaluation needs samples with all modalities there")
    return Observed({name: part.samples.double() for name, part in split.modalities.items()})
