"""Whether single latent dimensions stand for single factors that the data were made from."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vaekit.data import Dataset
from vaekit.errors import VaekitError
from vaekit.evaluation.disentanglement_scores import dci, mig, sap
from vaekit.evaluation.factor_votes import COLLAPSED, GROUP, VOTES, beta_vae_score, factor_vae_score
from vaekit.evaluation.protocol import Options, Result
from vaekit.evaluation.representations import representation
from vaekit.models import VAE

__all__ = ["disentanglement"]

_BINS = 20


def disentanglement(model: VAE, data: Dataset, options: Options) -> Iterator[Result]:
    """Yield the scores of the codes of a split whose generative factors are known.

    Codes are `representation`: one vector a sample, without a draw. A factor with one value in the samples is left out,
    and a note says so.

    Arguments:
        model: The model, in evaluation mode.
        data: A data set with factors.
        options: The split, how many of its samples, and the seed.

    Raises:
        VaekitError: The split has no factors, or fewer than two of them vary.

    Examples:
        >>> import vaekit as vk
        >>> run = vk.recipe("vae", data={"name": "shapes", "limit": 90}, trainer={"max_steps": 1})
        >>> found = next(disentanglement(run.model.eval(), run.data, Options(split="train")))
        >>> sorted(found.values)
        ['beta_vae', 'completeness', 'disentanglement', 'factor_vae', 'factors', 'informativeness', 'mig', 'sap']
    """
    rows = options.rows(data)
    if rows.factors is None:
        raise VaekitError(
            f"the metric 'disentanglement' needs the factors that samples were made from, and data set '{data.name}' "
            "has none: take 'shapes', or an .npz file that holds 'factors'"
        )
    varying = (rows.factors != rows.factors[:1]).any(0)
    names = [name for name, varies in zip(data.factor_names, varying.tolist(), strict=True) if varies]
    if len(names) < 2:
        raise VaekitError(
            f"the metric 'disentanglement' needs two factors that vary, and {len(names)} of those of '{data.name}' do: "
            "take more samples, or another split"
        )
    codes = representation(model, options.batches(model, data, rows, "disentanglement")).double().cpu()
    factors = rows.factors[:, varying]
    gaps, separated = mig(codes, factors, _BINS), sap(codes, factors)
    found = dci(codes, factors, seed=options.seed, progress=options.progress)
    of_factors = {
        "mig": gaps,
        "sap": separated,
        "completeness": found.completeness,
        "informativeness": found.informativeness,
    }
    values = {
        "disentanglement": found.disentanglement,
        "factor_vae": factor_vae_score(codes, factors, seed=options.seed),
        "beta_vae": beta_vae_score(codes, factors, seed=options.seed),
        **{score: float(each.mean()) for score, each in of_factors.items()},
        "factors": {name: {s: float(each[k]) for s, each in of_factors.items()} for k, name in enumerate(names)},
    }
    protocol = {
        "codes": "means of the posterior; log-rates of a Poisson posterior, logits of a categorical one",
        "factors": names,
        "mig": f"mutual information of counts, codes in {_BINS} bins of equal width",
        "sap": "balanced accuracy of a tree of as many leaves as values on one code, on the samples it was fitted to",
        "dci": "gradient-boosted trees with scikit-learn's defaults, fitted to two thirds; informativeness is accuracy",
        "votes": {"fitted_to": VOTES[0], "judged_on": VOTES[1], "samples": GROUP, "collapsed_below": COLLAPSED},
    }
    yield Result(values, protocol, _notes(data, names, codes))


def _notes(data: Dataset, varying: list[str], codes: torch.Tensor) -> list[str]:
    constant = [name for name in data.factor_names if name not in varying]
    notes = [f"left out, since it has one value in these samples: the factor {name}" for name in constant]
    if collapsed := int((codes.var(0, correction=0) < COLLAPSED).sum()):
        notes.append(
            f"{collapsed} of {codes.shape[1]} codes have a variance below {COLLAPSED} and take no part in factor_vae; "
            "the threshold is meant for a prior of unit variance"
        )
    return notes
