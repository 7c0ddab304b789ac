"""From names, mappings and shapes to built modules."""

from __future__ import annotations

from typing import Any

import torch

from vaekit import compatibility
from vaekit.config import RunConfig
from vaekit.errors import VaekitError, suggest
from vaekit.models.vae import VAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective
from vaekit.registry import (
    FAMILIES,
    adversarial_losses,
    backbones,
    check_options,
    discriminators,
    likelihoods,
    objectives,
    options_of,
    posteriors,
    priors,
    regularizers,
)
from vaekit.training.trainer import Trainer

__all__ = ["model", "objective", "trainer"]

_ADVICE = "see `vaekit list pairs`"


def model(config: RunConfig, data_shape: tuple[int, ...]) -> VAE:
    """Build the model of a configuration for samples of one shape.

    The initial weights depend on `trainer.seed` alone.

    Raises:
        VaekitError: An unknown part or option, a value of the wrong type, or parts that do not go together.

    Examples:
        >>> from vaekit.config import read_recipe, resolve
        >>> type(model(resolve(read_recipe("vae")), (1, 8, 8))).__name__
        'VAE'
    """
    _refuse_misfits(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(config.trainer.get("seed", 0)))
        likelihood = likelihoods.build(config.likelihood, data_shape, where="likelihood")
        backbone = backbones.build(config.backbone, where="backbone")
        encoder = backbone.encoder(data_shape)
        posterior = posteriors.build(config.posterior, encoder.features, config.latent_dim, where="posterior")
        prior = priors.build(config.prior, config.latent_dim, where="prior")
        decoder = backbone.decoder(config.latent_dim, likelihood.parameters_shape)
        return VAE(encoder, posterior, prior, decoder, likelihood)


def objective(config: RunConfig, data_shape: tuple[int, ...]) -> Objective:
    """Build the objective of a configuration, its discriminator included.

    Raises:
        VaekitError: An unknown part or option, or a value of the wrong type.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(config.trainer.get("seed", 0)) + 1)
        terms = {
            name: regularizers.build({**options, "name": name}, where=f"regularizers.{name}")
            for name, options in config.regularizers.items()
        }
        adversary = _adversary(config.adversary, data_shape) if config.adversary else None
        return objectives.build(config.objective, terms, adversary, where="objective")


def _adversary(section: dict[str, Any], data_shape: tuple[int, ...]) -> Adversary:
    options = dict(section)
    spec, loss = options.pop("discriminator", "patchgan"), options.pop("loss", "bce")
    for key in options:
        if key not in (valid := [*options_of(Adversary), "discriminator", "loss"]):
            raise VaekitError(f"unknown option 'adversary.{key}': {suggest(key, valid)}")
    options = check_options(Adversary, options, "adversary")
    discriminator = discriminators.build(spec, data_shape, where="adversary.discriminator")
    return Adversary(discriminator, adversarial_losses.build(loss, where="adversary.loss"), **options)


def trainer(config: RunConfig) -> Trainer:
    """Build the trainer of a configuration.

    Raises:
        VaekitError: An unknown option or a value of the wrong type.
    """
    return Trainer(**check_options(Trainer, config.trainer, "trainer"))


def _refuse_misfits(config: RunConfig) -> None:
    """Refuse parts whose metadata say that they do not go together."""
    q, p = config.posterior.get("name", ""), config.prior.get("name", "")
    terms = [
        *(("regularizers", name) for name in config.regularizers),
        ("objectives", config.objective.get("name", "")),
    ]
    for family, name in (("posteriors", q), ("priors", p), *terms):
        FAMILIES[family].get(name)  # What a plug-in's part works with is known once it is imported.
    if (both := compatibility.pair(q, p)).kind == "impossible":
        raise VaekitError(f"the posterior '{q}' and the prior '{p}' do not go together: {both.reason}; {_ADVICE}")
    for family, name in terms:
        if reason := compatibility.missing(FAMILIES[family].info(name), q, p):
            raise VaekitError(
                f"the {FAMILIES[family].kind} '{name}' cannot be used with the posterior '{q}' and the prior '{p}': "
                f"{reason}; {_ADVICE}"
            )
