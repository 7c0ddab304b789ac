"""The metrics by name, for models of several modalities and of one, and what computes those that are asked for."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vaekit import __version__
from vaekit.data import Dataset
from vaekit.distributions import LinearGaussian
from vaekit.errors import VaekitError, suggest
from vaekit.evaluation.coherence import coherence
from vaekit.evaluation.likelihood import importance_sampled_nll
from vaekit.evaluation.linear import linear_report
from vaekit.evaluation.multimodal_likelihood import conditional_log_likelihood, multimodal_log_likelihood
from vaekit.evaluation.protocol import Metric, Options, Result, plain
from vaekit.evaluation.rates import rates
from vaekit.evaluation.representation import knn_accuracy, representation
from vaekit.evaluation.subset_probe import subset_probe
from vaekit.evaluation.subsets import estimate, list_subsets
from vaekit.models import VAE, Model, MultimodalVAE

__all__ = ["METRICS_OF_ONE", "METRICS_OF_SEVERAL", "evaluate", "metrics_of"]

_FIT = 10_000  # Training samples that probes and neighbours see.
_PRIOR_DRAWS = 10_000


def evaluate(model: Model, data: Dataset, names: Sequence[str] | None = None, options: Options | None = None) -> Any:
    """Compute metrics of a model, each with its protocol, ready to be kept as JSON.

    Each metric starts from the seed: its figures do not depend on which others are asked for.

    Arguments:
        model: The model.
        data: The data set.
        names: The metrics; all that suit the model and the data if not given.
        options: What they are computed from.

    Returns:
        Name to `values`, `protocol` and `notes`. Where no names are given, a metric that cannot be computed has only
        `notes`, which say why.

    Raises:
        VaekitError: There is no such metric for this model, or one that was asked for by name cannot be computed.
    """
    options, table = options or Options(), metrics_of(model)
    for name in names or ():
        if name not in table:
            raise VaekitError(f"there is no metric '{name}' for this model: {suggest(name, table)}")
    found, mode, device = {}, model.training, model.last_layer.device
    model.eval()
    try:
        for name in names or table:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(options.seed)
                try:
                    result = table[name].compute(model, data, options)
                except VaekitError as error:
                    if names:
                        raise
                    found[name] = {"notes": [f"left out: {error}"]}
                    continue
            found[name] = _record(result, data, options)
    finally:
        model.train(mode)
    return found


def metrics_of(model: Model) -> Mapping[str, Metric]:
    """Return the metrics that there are for a kind of model."""
    return METRICS_OF_ONE if isinstance(model, VAE) else METRICS_OF_SEVERAL


def _record(result: Result, data: Dataset, options: Options) -> dict[str, Any]:
    shared = {
        "split": options.split,
        "samples": min(options.samples, len(data.splits[options.split])),
        "seed": options.seed,
        "batch_size": options.batch_size,
        "binarize": options.binarize,
    }
    versions = {"vaekit": __version__, "torch": torch.__version__, "python": platform.python_version()}
    protocol = {**shared, **result.protocol, "data": data.protocol or {"data": data.name}, "versions": versions}
    return {"values": plain(result.values), "protocol": plain(protocol), "notes": result.notes}


# ---- several modalities ----------------------------------------------------------------------------------------------


def _likelihood(model: MultimodalVAE, data: Dataset, options: Options) -> Result:
    batches = options.batches(model, data, options.rows(data), "likelihood")
    found = torch.cat([multimodal_log_likelihood(model, x, particles=options.particles).cpu() for x in batches])
    return Result({"log_likelihood": estimate(found)}, _nats(options), model.notes())


def _conditional(model: MultimodalVAE, data: Dataset, options: Options) -> Result:
    batches = options.batches(model, data, options.rows(data), "conditional")
    found = conditional_log_likelihood(model, batches, particles=options.particles, seed=options.seed)
    return Result({"rest": found.rest, "targets": found.targets}, _nats(options), model.notes())


def _rates(model: MultimodalVAE, data: Dataset, options: Options) -> Result:
    found = rates(model, options.batches(model, data, options.rows(data), "rates"), seed=options.seed)
    return Result(vars(found), {"draws": 1, "unit": "nats per sample"}, model.notes())


def _probe(model: MultimodalVAE, data: Dataset, options: Options) -> Result:
    train, test = options.rows(data, "train", _FIT), options.rows(data)
    names, score = model.names, "accuracy"
    if train.labels is not None and test.labels is not None:
        targets = train.labels, test.labels
    else:
        binary = [name for name, kind in (data.values or {}).items() if kind == "binary"]
        if not binary:
            raise VaekitError(f"a probe needs labels or a modality of binary attributes; '{data.name}' has neither")
        number, score = names.index(binary[0]), f"average_precision_of_{binary[0]}"
        # What is to be predicted must not be given.
        names = tuple(name for name in names if name != binary[0])
        targets = _attributes(train, number), _attributes(test, number)
    subsets = [subset for subset in list_subsets(names, seed=options.seed) if subset]
    found = subset_probe(
        model,
        options.batches(model, data, train, "probe: training samples"),
        targets[0],
        options.batches(model, data, test, f"probe: {options.split} samples"),
        targets[1],
        subsets,
    )
    sizes = {len(subset) for subset in found}
    scores = {size: [value for subset, value in found.items() if len(subset) == size] for size in sorted(sizes)}
    by_size = {size: sum(values) / len(values) for size, values in scores.items()}
    features = "posterior mean of the shared latent" if model.shared else "mean of the modalities' posterior means"
    protocol = {"fitted_on": len(train), "features": features}
    return Result({score: by_size, "subsets": found}, protocol)


def _attributes(split: Any, number: int) -> torch.Tensor:
    """Return the binary attributes of a split (N, A), NaN where they are missing."""
    values: torch.Tensor = list(split.modalities.values())[number].samples.flatten(1).float()
    if split.available is None:
        return values
    return torch.where(split.available[:, number : number + 1], values, torch.nan)


def _coherence(model: MultimodalVAE, data: Dataset, options: Options) -> Result:
    classifiers, rows = options.classifiers, options.rows(data)
    if classifiers is None:
        raise VaekitError(
            f"the metric 'coherence' needs classifiers: train them with `{options.classifiers_command}` and give the "
            "file with --classifiers"
        )
    if rows.labels is None:
        raise VaekitError(f"the metric 'coherence' needs labels, and data set '{data.name}' has none")
    found = coherence(
        model,
        classifiers.to(model.last_layer.device),
        options.batches(model, data, rows, "coherence"),
        rows.labels,
        prior_draws=_PRIOR_DRAWS,
        seed=options.seed,
    )
    judged = {"accuracy": classifiers.accuracy, **classifiers.protocol}
    notes = list(classifiers.notes)
    if _content(classifiers.protocol.get("data", {})) != _content(data.protocol or {"data": data.name}):
        notes.append("the classifiers were trained on other data than the run's, or on data with other options")
    if not model.shared:
        notes.append(
            "each modality of this model has a latent of its own: its joint coherence is that of decoders given one "
            "draw from the prior, which nothing taught them to agree on"
        )
    return Result(vars(found), {"prior_draws": _PRIOR_DRAWS, "classifiers": judged}, notes)


def _content(protocol: Mapping[str, Any]) -> Any:
    """Return what a data set's protocol says of single samples, as JSON gives it back."""
    return json.loads(json.dumps({key: value for key, value in protocol.items() if key not in ("limit", "samples")}))


def _linear(model: MultimodalVAE, data: Dataset, options: Options) -> Result:
    if data.protocol.get("data") != "linear-gaussian":
        raise VaekitError(f"the metric 'linear' is for the data set 'linear-gaussian', not for '{data.name}'")
    truth = LinearGaussian.benchmark(int(data.protocol["seed"]), sparse=bool(data.protocol["sparse"]))
    found = linear_report(model, data, truth)
    signal = {str(number + 1): value for number, value in enumerate(found.signal)}
    held = {"split": "test", "samples": len(data.splits["test"]), "unit": "nats per sample"}
    return Result({**vars(found), "signal": signal}, held)


def _nats(options: Options) -> dict[str, Any]:
    return {"particles": options.particles, "unit": "nats per sample"}


# ---- one modality ----------------------------------------------------------------------------------------------------


def _likelihood_of_one(model: VAE, data: Dataset, options: Options) -> Result:
    batches = options.batches(model, data, options.rows(data), "likelihood")
    found = -importance_sampled_nll(model, batches, draws=options.particles)
    return Result({"log_likelihood": estimate(found.cpu())}, _nats(options), model.notes())


def _neighbours(model: VAE, data: Dataset, options: Options) -> Result:
    train, test = options.rows(data, "train", _FIT), options.rows(data)
    if train.labels is None or test.labels is None:
        raise VaekitError(f"the metric 'neighbours' needs labels, and data set '{data.name}' has none")
    features = [
        representation(model, options.batches(model, data, rows, f"neighbours: {name} samples"))
        for name, rows in (("training", train), (options.split, test))
    ]
    accuracy = knn_accuracy(features[0], train.labels, features[1], test.labels)
    return Result({"accuracy": accuracy}, {"fitted_on": len(train), "neighbours": 5})


METRICS_OF_SEVERAL: Mapping[str, Metric] = {
    "likelihood": Metric("log p(x) of all modalities, by importance sampling", _likelihood),
    "conditional": Metric("log p(rest | subset) and log p(modality | subset), by size of the subset", _conditional),
    "rates": Metric("rates and distortions by size of the subset", _rates),
    "probe": Metric("linear classification of posterior means of every subset", _probe),
    "coherence": Metric("whether what is generated has the right class; needs --classifiers", _coherence),
    "linear": Metric("what is exact on the data set linear-gaussian: gap to the truth, KL to the posterior", _linear),
}

METRICS_OF_ONE: Mapping[str, Metric] = {
    "likelihood": Metric("log p(x), by importance sampling", _likelihood_of_one),
    "neighbours": Metric("accuracy of the five nearest neighbours in the latent space", _neighbours),
}
