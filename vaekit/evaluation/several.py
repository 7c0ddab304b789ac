"""The metrics of models of several modalities."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vaekit.data import Dataset
from vaekit.distributions import LinearGaussian
from vaekit.errors import VaekitError
from vaekit.evaluation.blocks import blocks
from vaekit.evaluation.coherence import coherence
from vaekit.evaluation.linear import linear_report
from vaekit.evaluation.multimodal_likelihood import conditional_log_likelihood, multimodal_log_likelihood
from vaekit.evaluation.protocol import Metric, Options, Result
from vaekit.evaluation.rates import rates
from vaekit.evaluation.subset_probe import subset_probe
from vaekit.evaluation.subsets import estimate, list_subsets
from vaekit.models import MultimodalVAE

__all__ = ["METRICS_OF_SEVERAL"]

_FIT = 10_000  # Training samples that probes see.
_PRIOR_DRAWS = 10_000


def _likelihood(model: MultimodalVAE, data: Dataset, options: Options) -> Iterator[Result]:
    batches = blocks(model, data, options, options.rows(data), "likelihood")
    found = torch.cat([multimodal_log_likelihood(model, x, particles=options.particles).cpu() for x in batches])
    yield Result({"log_likelihood": estimate(found)}, _nats(options), model.notes())


def _conditional(model: MultimodalVAE, data: Dataset, options: Options) -> Iterator[Result]:
    batches = blocks(model, data, options, options.rows(data), "conditional")
    found = conditional_log_likelihood(model, batches, particles=options.particles, seed=options.seed)
    yield Result({"rest": found.rest, "targets": found.targets}, _nats(options), model.notes())


def _rates(model: MultimodalVAE, data: Dataset, options: Options) -> Iterator[Result]:
    found = rates(model, blocks(model, data, options, options.rows(data), "rates"), seed=options.seed)
    yield Result(vars(found), {"draws": 1, "unit": "nats per sample"}, model.notes())


def _probe(model: MultimodalVAE, data: Dataset, options: Options) -> Iterator[Result]:
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
        blocks(model, data, options, train, "probe: training samples"),
        targets[0],
        blocks(model, data, options, test, f"probe: {options.split} samples"),
        targets[1],
        subsets,
    )
    sizes = {len(subset) for subset in found}
    scores = {size: [value for subset, value in found.items() if len(subset) == size] for size in sorted(sizes)}
    by_size = {size: sum(values) / len(values) for size, values in scores.items()}
    features = "posterior mean of the shared latent" if model.shared else "mean of the modalities' posterior means"
    protocol = {"fitted_on": len(train), "features": features}
    yield Result({score: by_size, "subsets": found}, protocol)


def _attributes(split: Any, number: int) -> torch.Tensor:
    """Return the binary attributes of a split (N, A), NaN where they are missing."""
    values: torch.Tensor = list(split.modalities.values())[number].samples.flatten(1).float()
    if split.available is None:
        return values
    return torch.where(split.available[:, number : number + 1], values, torch.nan)


def _coherence(model: MultimodalVAE, data: Dataset, options: Options) -> Iterator[Result]:
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
        blocks(model, data, options, rows, "coherence"),
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
    yield Result(vars(found), {"prior_draws": _PRIOR_DRAWS, "classifiers": judged}, notes)


def _content(protocol: Mapping[str, Any]) -> Any:
    """Return what a data set's protocol says of single samples, as JSON gives it back."""
    return json.loads(json.dumps({key: value for key, value in protocol.items() if key not in ("limit", "samples")}))


def _linear(model: MultimodalVAE, data: Dataset, options: Options) -> Iterator[Result]:
    if data.protocol.get("data") != "linear-gaussian":
        raise VaekitError(f"the metric 'linear' is for the data set 'linear-gaussian', not for '{data.name}'")
    truth = LinearGaussian.benchmark(int(data.protocol["seed"]), sparse=bool(data.protocol["sparse"]))
    found = linear_report(model, data, truth)
    signal = {str(number + 1): value for number, value in enumerate(found.signal)}
    held = {"split": "test", "samples": len(data.splits["test"]), "unit": "nats per sample"}
    yield Result({**vars(found), "signal": signal}, held)


def _nats(options: Options) -> dict[str, Any]:
    return {"particles": options.particles, "unit": "nats per sample"}


METRICS_OF_SEVERAL: Mapping[str, Metric] = {
    "likelihood": Metric("log p(x) of all modalities, by importance sampling", _likelihood),
    "conditional": Metric("log p(rest | subset) and log p(modality | subset), by size of the subset", _conditional),
    "rates": Metric("rates and distortions by size of the subset", _rates),
    "probe": Metric("linear classification of posterior means of every subset", _probe),
    "coherence": Metric("whether what is generated has the right class; needs --classifiers", _coherence),
    "linear": Metric("what is exact on the data set linear-gaussian: gap to the truth, KL to the posterior", _linear),
}
