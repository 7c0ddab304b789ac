"""Which parts go together: the metadata tell the truth, what is possible trains, what is not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vaekit as vk
from vaekit import build
from vaekit.cli.catalogue import list_
from vaekit.compatibility import missing, pair
from vaekit.config import RunConfig
from vaekit.distributions import draw, kl_divergence, kl_method
from vaekit.registry import likelihoods, posteriors, priors, regularizers
from vaekit.testing.contract import fixed

PAIRS = [(q, p) for q in posteriors.names() for p in priors.names()]
# Small options where the defaults are large, and the latent dimensions that suit every part.
SMALL: dict[str, dict[str, Any]] = {
    "posterior": {
        "gmm": {"components": 2},
        "categorical": {"categories": 2},
        "flow": {"transforms": 1, "hidden": [8]},
    },
    "prior": {
        "gaussian_mixture": {"components": 2},
        "categorical": {"categories": 2},
        "vamp": {"components": 3},
        "flow": {"transforms": 1, "hidden": [8]},
    },
    "likelihood": {"categorical": {"levels": 4}},
}
LATENT, SHAPE = 4, (1, 3, 3)


def config(posterior: str, prior: str, likelihood: str = "gaussian", *terms: str) -> RunConfig:
    """Return the configuration of a tiny VAE of the named parts."""
    parts = {"posterior": posterior, "prior": prior, "likelihood": likelihood}
    named = {kind: {"name": name, **SMALL[kind].get(name, {})} for kind, name in parts.items()}
    return RunConfig(
        latent_dim=LATENT,
        backbone={"name": "mlp", "hidden": [8], "activation": "tanh"},
        regularizers={term: {} for term in terms},
        **named,
    )


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_the_table_tells_the_truth(posterior: str, prior: str) -> None:
    kind = pair(posterior, prior).kind
    if kind == "impossible":
        with pytest.raises(vk.VaekitError, match="do not go together"):
            build.model(config(posterior, prior), SHAPE)
        return
    model = build.model(config(posterior, prior), SHAPE).eval()
    q, p = model.encode(fixed(5, *SHAPE)), model.prior()
    if kind == "infinite":
        with pytest.raises(vk.VaekitError, match="infinite"):
            kl_divergence(q, p)
        return
    assert kl_method(q, p) == ("closed" if kind == "closed" else "sampled")
    assert kl_divergence(q, p, draw(q)).isfinite().all()
    assert (prior in posteriors.info(posterior).bounded_kl) == (kind == "bound")


def terms_for(posterior: str, prior: str) -> list[tuple[str, ...]]:
    """The regularizers that the table allows, each beside a KL where that is finite: learned priors need one."""
    fitting = [name for name in regularizers.names() if not missing(regularizers.info(name), posterior, prior)]
    return [("kl", name) if "kl" in fitting and name != "kl" else (name,) for name in fitting]


@pytest.mark.slow
@pytest.mark.parametrize(("posterior", "prior"), [both for both in PAIRS if pair(*both).kind != "impossible"])
def test_every_possible_combination_trains(posterior: str, prior: str) -> None:
    combinations = terms_for(posterior, prior)
    assert combinations, "no regularizer suits this pair, so that the table promises what nobody can use"
    for likelihood in likelihoods.names():
        for terms in combinations:
            settings = config(posterior, prior, likelihood, *terms)
            model, objective = build.model(settings, SHAPE).train(), build.objective(settings, SHAPE)
            two_steps(model, objective, (likelihood, *terms))


def two_steps(model: vk.VAE, objective: vk.Objective, what: tuple[str, ...]) -> None:
    """Train two steps; every loss is finite, and every parameter of the model gets a gradient that is."""
    low, high = model.data_range
    x = low + (high - low) * (fixed(6, *SHAPE) > 0).float()
    objective.prepare(model, 100)
    wrapped = objective.modules_by_phase(model)
    optimizers = {name: torch.optim.SGD(module.parameters(), lr=1e-3) for name, module in wrapped.items()}
    for step in range(2):
        for phase in objective.phases(model, x, step, wrapped):
            assert phase.loss.isfinite(), (*what, phase.name)
            optimizers[phase.name].zero_grad()
            phase.loss.backward()
            check_gradients(wrapped[phase.name], (*what, phase.name))
            optimizers[phase.name].step()


def check_gradients(module: nn.Module, what: tuple[str, ...]) -> None:
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, (*what, name, "no gradient")
        assert parameter.grad.isfinite().all(), (*what, name, "not finite")


@pytest.mark.parametrize("regularizer", regularizers.names())
def test_every_impossible_term_is_refused_with_its_reason(regularizer: str) -> None:
    info = regularizers.info(regularizer)
    for posterior, prior in PAIRS:
        if pair(posterior, prior).kind == "impossible":
            continue
        reason = missing(info, posterior, prior)
        if reason:
            with pytest.raises(vk.VaekitError, match=f"'{regularizer}' cannot be used with"):
                build.model(config(posterior, prior, "gaussian", regularizer), SHAPE)


def test_reasons_are_sentences_that_name_the_parts() -> None:
    with pytest.raises(vk.VaekitError, match=r"'aggregate_kl' cannot be used .* 'laplace' does not offer"):
        build.model(config("laplace", "standard_normal", "gaussian", "aggregate_kl"), SHAPE)
    with pytest.raises(vk.VaekitError, match=r"'vmf' .* sphere_uniform only"):
        build.model(config("vmf", "standard_normal"), SHAPE)
    with pytest.raises(vk.VaekitError, match="needs a finite KL"):
        build.model(config("gaussian", "uniform", "gaussian", "kl"), SHAPE)


def test_an_infinite_kl_of_modules_is_refused_before_training() -> None:
    model = build.model(config("gaussian", "uniform", "gaussian", "mmd"), SHAPE)
    with pytest.raises(vk.VaekitError, match="infinite"):
        vk.Objective({"kl": vk.regularizers.KL()}).prepare(model, 10)


def test_the_page_shows_the_table(capsys: pytest.CaptureFixture) -> None:
    list_("pairs")
    page = (Path(__file__).parents[1] / "docs" / "compatibility.md").read_text(encoding="utf-8")
    table = page.partition("```text\n")[2].partition("```")[0]
    assert table.strip("\n") == capsys.readouterr().out.strip("\n"), "put the output of `vaekit list pairs` on the page"
