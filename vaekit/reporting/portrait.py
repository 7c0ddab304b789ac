"""What a report shows of a latent space: computed once with the model, and kept as numbers and one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data import PairedSplit, Split
from vaekit.distributions.kl import space_of
from vaekit.documents import read_json
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.samplers import Sampler
from vaekit.files import save_json, sha256
from vaekit.models import Model, MultimodalVAE
from vaekit.reporting.plots import principal_components
from vaekit.reporting.traversals import traversal_grid, traverse
from vaekit.reporting.units import as_units, histogram, kl_by_unit, marginals

__all__ = ["is_current", "portray"]

FORMAT = 1
_SAMPLES = 2000
_HISTOGRAMS = 8
_ROWS = 16
_THRESHOLD = 0.01
_COLUMNS = {
    "continuous": "from -3 to +3 standard deviations around the mean of the aggregate posterior",
    "counting": "the counts 0 to 8, the others at their means over the data",
    "one-hot": "its categories in turn, the others at their most frequent ones",
}


def is_current(out: str | Path) -> bool:
    """Whether a run directory has a portrait that was made with the weights that lie there."""
    out = Path(out)
    try:
        portrait = read_json(out / "latent.json")
        return bool(portrait["format"] == FORMAT and portrait["weights_sha256"] == sha256(out / "model.safetensors"))
    except (OSError, ValueError, TypeError, KeyError):
        return False


@torch.no_grad()
def portray(sampler: Sampler, out: str | Path) -> None:
    r"""Write `latent.json`, and `samples/traversals.png` where the data have images, into a run directory.

    A *unit* is a dimension of the latent, or a variable of several categories. From up to 2,000 validation samples:

    - `kl`: for each unit j the mean of $\mathrm{KL}(q(z_j\mid x)\,\|\,p(z_j))$ in nats;
    - `histograms`: the most active units of $q(z)$, one draw a sample, beside the prior;
    - `map`: posterior means on their first two principal components, with the labels;
    - `order`: the units, the most active first: of the largest KL, or of the largest variance of the means where no KL
      of single units is known.

    A unit is active where its posterior means vary by more than 0.01 over the training samples; of counts and
    categories, where its KL is above 0.01 nats. On a sphere, where the variance of a coordinate depends on how many
    there are, neither says anything.

    References:
        Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519 (active units).
        Poisson Variational Autoencoder, Vafaii, Galor and Yates, 2024, arXiv 2405.14473 (the threshold on the KL).

    Arguments:
        sampler: The model, in evaluation mode, with its data and the moments of its aggregate posterior.
        out: The run directory; its weights are those of the model.
    """
    out, options = Path(out), Options(split="valid", binarize=sampler.binarize)
    model, data, aggregate = sampler.model, sampler.data, sampler.aggregate
    rows, prior = options.rows(data, at_most=_SAMPLES), model.prior()
    space = space_of(prior)
    means, drawn, kls, exact = [], [], [], True
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for x in options.batches(model, data, rows, "latent space"):
            q = sampler.encode(x)
            each, exact = kl_by_unit(q, prior)
            means.append(q.mean)
            drawn.append(as_units(q, q.sample()))
            kls.append(each)
        others = as_units(prior, prior.sample((_SAMPLES,)))
        mean, z = torch.cat(means), torch.cat(drawn)
        portrait = {
            "format": FORMAT,
            "weights_sha256": sha256(out / "model.safetensors"),
            "samples": len(rows),
            "training_samples": aggregate.count,
            "unit": "variable" if space == "one-hot" else "dimension",
            "notes": _notes(model, space),
        }
        if not mean.isfinite().all() or not z.isfinite().all():
            portrait["notes"] = ["Some posteriors are not finite: there is nothing to show of the latent space."]
            save_json(out / "latent.json", portrait)
            return
        kl = torch.cat([each for each in kls if each is not None]).double().mean(0).cpu() if None not in kls else None
        variance = None if space == "one-hot" else aggregate.variance_of_means
        order: list[int] = (aggregate.variance_of_means if kl is None else kl).argsort(descending=True).tolist()
        discrete = space in ("counting", "one-hot")
        beside = [histogram(z, others, marginals(prior), unit, discrete) for unit in order[:_HISTOGRAMS]]
        portrait |= {
            "kl": kl,
            "exact": exact,
            "variance_of_means": variance,
            "order": order,
            "activity": _activity(kl, variance, space),
            "map": _map(mean, rows),
            "histograms": beside,
            "traversal": None,
        }
        if _has_images(model) and space != "sphere":
            latents = traverse(aggregate, space, order[:_ROWS], getattr(prior, "categories", 1))
            traversal_grid(model, latents).save(out / "samples" / "traversals.png")
            portrait["traversal"] = {
                "units": order[:_ROWS],
                "rows": list(model.names) if isinstance(model, MultimodalVAE) else [],
                "columns": _COLUMNS.get(space, _COLUMNS["continuous"]),
            }
    save_json(out / "latent.json", _short(portrait))


def _activity(kl: Tensor | None, variance: Tensor | None, space: str) -> dict[str, Any] | None:
    """Return which units are dead, and by which measure; `None` where there is none."""
    measured = kl if space in ("counting", "one-hot") else variance
    if space == "sphere" or measured is None:
        return None
    dead = (measured <= _THRESHOLD).nonzero().flatten().tolist()
    return {"by": "kl" if measured is kl else "variance_of_means", "threshold": _THRESHOLD, "dead": dead}


def _map(mean: Tensor, rows: Split | PairedSplit) -> dict[str, Any] | None:
    if mean.shape[1] < 2 or len(mean) < 2:
        return None
    points, shares = principal_components(mean.double().cpu())
    labels = rows.labels
    if isinstance(rows, PairedSplit) and labels is not None and len(labels) != len(mean):
        # Without a shared latent a sample has a posterior for each modality that is there.
        there = torch.full((len(rows), len(rows.modalities)), True) if rows.available is None else rows.available
        labels = labels.repeat_interleave(there.sum(1))
    return {"points": points, "shares": shares, "labels": labels}


def _notes(model: Model, space: str) -> list[str]:
    """Say what is not there, and why."""
    notes = []
    if space == "sphere":
        notes.append("On a sphere no coordinate moves alone: there are no traversals, and no count of active units.")
    elif not _has_images(model):
        notes.append("There are no traversals: the samples are no images.")
    if isinstance(model, MultimodalVAE):
        if model.private is not None:
            notes.append("Shown is the shared latent; in the traversals the private ones stay at their prior's mean.")
        elif not model.shared:
            notes.append("Each modality has a latent of its own: shown are the posteriors of all of them together.")
    return notes


def _has_images(model: Model) -> bool:
    shapes = model.data_shape.values() if isinstance(model, MultimodalVAE) else [model.data_shape]
    return any(len(shape) == 3 for shape in shapes)


def _short(value: Any) -> Any:
    """Return tensors, arrays and numbers as JSON has them, with as many digits as a picture shows."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_short(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
