"""What is read from the latent of models of one modality: information, classes, sparseness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from vaekit.data import Dataset, Split
from vaekit.distributions import Flow, RelaxedPoisson, kl_method
from vaekit.errors import VaekitError
from vaekit.evaluation.blocks import blocks
from vaekit.evaluation.information import latent_information
from vaekit.evaluation.protocol import Options, Result
from vaekit.evaluation.representations import knn_accuracy, lifetime_sparsity, representation
from vaekit.evaluation.subset_probe import linear_probe
from vaekit.evaluation.subsets import estimate
from vaekit.models.vae import VAE

__all__ = ["Responses", "latent", "neighbours", "probe", "responses", "sparsity"]

_FIT = 10_000  # Training samples that a classifier sees.
_MOST = 10_000  # Posteriors in the aggregate.
_NEAR = 0.5  # Nats below its most at which the mutual information is called close to it.
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Responses:
    """How the latent dimensions respond to N samples.

    Arguments:
        values: Numbers that are not negative, shape (N, D): the mean counts, or the absolute posterior means.
        silence: The probability of the count 0 for each of them, shape (N, D); None where the latent holds no counts.
    """

    values: Tensor
    silence: Tensor | None


@torch.no_grad()
def responses(model: VAE, batches: Iterable[Tensor]) -> Responses:
    """Return how the latent dimensions respond: mean counts for a latent of counts, else absolute posterior means.

    Arguments:
        model: The model, in evaluation mode.
        batches: Batches (B, *X) on the model's device.

    Examples:
        >>> from vaekit import build, config
        >>> model = build.model(config.resolve(config.read_recipe("pvae")), (1, 8, 8)).eval()
        >>> found = responses(model, [torch.rand(4, 1, 8, 8)])
        >>> bool(torch.allclose(found.silence, (-found.values).exp()))
        True
    """
    values, silence = [], []
    for x in batches:
        q = model.encode(x)
        values.append(q.mean.abs())
        if isinstance(q, Independent) and isinstance(q.base_dist, RelaxedPoisson):
            silence.append(q.base_dist.log_prob(torch.zeros_like(q.mean)).exp())
    return Responses(torch.cat(values), torch.cat(silence) if silence else None)


def latent(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield what the latent says of up to 10,000 samples: information in nats, and what each dimension does."""
    rows = options.rows(data, at_most=min(options.count(data), _MOST))
    posteriors, draws = [], []
    with torch.no_grad():
        p = model.prior()
        for x in blocks(model, data, options, rows, "latent"):
            posteriors.append(model.encode(x))
            draws.append(posteriors[-1].sample())
    found = latent_information(posteriors, p, draws, options.progress)
    aggregate, cap = found.aggregate, math.log(len(rows))
    values: dict[str, Any] = {
        **found.estimates,
        "active_units": aggregate.active_units,
        **found.by_dimension,
        "variance_of_means": aggregate.variance_of_means.tolist(),
        "mean_variance": aggregate.mean_variance.tolist(),
    }
    notes = [*model.notes(), *found.left_out]
    if "rate" in found.estimates and kl_method(posteriors[0], p) == "sampled":
        notes.append("the rate is estimated from the draws: it has no closed form for these parts")
    information = found.estimates.get("mutual_information")
    if information is not None and information.mean > cap - _NEAR:
        notes.append(
            f"the mutual information is close to the most that {len(rows):,} samples can show, {cap:.2f} nats: it is "
            "at least what is given, and the marginal KL at most; take more samples"
        )
    if isinstance(posteriors[0], Flow):
        notes.append("means and variances of a flow's posteriors are estimates")
    yield Result(values, {"samples": len(rows), "active_above": 0.01, "unit": "nats per sample"}, notes)


def probe(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the accuracy of logistic regression on the standardised representation, with an L2 penalty of weight 1."""
    (x, y, x_test, y_test), notes = _features(model, data, options, "probe")
    accuracy = linear_probe(x, y, x_test, y_test)
    if accuracy is None:
        raise VaekitError(
            "the metric 'probe' needs training samples of two classes: take a data set with labels of more"
        )
    yield Result({"accuracy": accuracy}, {"fitted_on": len(x)}, notes)


def neighbours(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the accuracy of the five nearest training samples of the representation."""
    features, notes = _features(model, data, options, "neighbours")
    accuracy = knn_accuracy(*features, neighbours=_NEIGHBOURS)
    yield Result({"accuracy": accuracy}, {"fitted_on": len(features[0]), "neighbours": _NEIGHBOURS}, notes)


def sparsity(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield lifetime and population sparsity of the responses, and the share of zeros where they are counts."""
    found = responses(model, blocks(model, data, options, options.rows(data), "sparsity"))
    values: dict[str, Any] = {"lifetime": float(lifetime_sparsity(found.values).mean())}
    notes = []
    if found.values.shape[1] > 1:
        values["population"] = estimate(lifetime_sparsity(found.values.T).cpu())
    else:
        notes.append("population sparsity needs two latent dimensions or more")
    if found.silence is not None:
        values["zeros"] = estimate(found.silence.double().mean(1).cpu())
    kind = "absolute posterior means" if found.silence is None else "mean counts"
    yield Result(values, {"responses": kind}, notes)


def _features(
    model: VAE, data: Dataset, options: Options, metric: str
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[str]]:
    """Return features and classes of training samples and of those of the split, and what to say of them."""
    train, test = options.rows(data, "train", _FIT), options.rows(data)
    if train.labels is None or test.labels is None:
        raise VaekitError(f"the metric '{metric}' needs labels, and data set '{data.name}' has none")

    def features(rows: Split, what: str) -> Tensor:
        return representation(model, blocks(model, data, options, rows, f"{metric}: {what} samples")).cpu()

    same = "the classifier is judged on samples that it was fitted to: take another split"
    found = features(train, "training"), train.labels, features(test, options.split), test.labels
    return found, [same] if options.split == "train" else []
