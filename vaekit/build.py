"""From names, mappings and shapes to built modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vaekit import compatibility
from vaekit.config import RunConfig, merge
from vaekit.errors import VaekitError, memory_errors, suggest
from vaekit.fusions.base import Experts, Fusion, PrivateFusion
from vaekit.models import VAE, Modality, Model, MultimodalVAE
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective
from vaekit.priors.base import Prior
from vaekit.registry import (
    FAMILIES,
    adversarial_losses,
    backbones,
    check_options,
    discriminators,
    fusions,
    likelihoods,
    objectives,
    options_of,
    posteriors,
    priors,
    private_fusions,
    regularizers,
)
from vaekit.training.trainer import Trainer

__all__ = ["model", "objective", "smaller", "trainer"]

# The likelihood of a modality that is not an image.
_SUITING = {"vector": "gaussian", "classes": "one_hot", "binary": "bernoulli"}

_ADVICE = "see `vaekit list pairs`"


def model(config: RunConfig, data_shape: Any, data_values: Mapping[str, str] | None = None) -> Model:
    """Build the model of a configuration for samples of one shape, or of one shape for each modality.

    The initial weights depend on `trainer.seed` alone.

    Arguments:
        config: The configuration.
        data_shape: The shape of one sample; modality to shape for several.
        data_values: For several modalities, what each of them holds: see `vaekit.data.PairedSplit.values`.

    Raises:
        VaekitError: An unknown part or option, a value of the wrong type, or parts that do not go together.

    Examples:
        >>> from vaekit.config import read_recipe, resolve
        >>> type(model(resolve(read_recipe("vae")), (1, 8, 8))).__name__
        'VAE'
    """
    _refuse_misfits(config)
    with memory_errors(smaller(config)):
        return _model(config, data_shape, data_values or {})


def _model(config: RunConfig, data_shape: Any, data_values: Mapping[str, str]) -> Model:
    if isinstance(data_shape, Mapping):
        return _multimodal(config, data_shape, data_values)
    if config.modalities is not None:
        raise VaekitError(
            f"the recipe '{config.recipe}' is for several modalities and the data have one: use data such as "
            "polymnist, or another recipe"
        )
    for key in ("fusion", "private"):
        if getattr(config, key) is not None:
            raise VaekitError(f"{key} is for models of several modalities: take it out, or set modalities to {{}}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(config.trainer.get("seed", 0)))
        likelihood = likelihoods.build(config.likelihood, data_shape, where="likelihood")
        backbone = backbones.build(config.backbone, where="backbone")
        encoder = backbone.encoder(data_shape)
        posterior = posteriors.build(config.posterior, encoder.features, config.latent_dim, where="posterior")
        prior = priors.build(config.prior, config.latent_dim, where="prior")
        decoder = backbone.decoder(config.latent_dim, likelihood.parameters_shape)
        return VAE(encoder, posterior, prior, decoder, likelihood)


def _multimodal(config: RunConfig, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, str]) -> MultimodalVAE:
    if config.modalities is None:
        raise VaekitError(
            f"the data have the modalities {', '.join(shapes)} and the recipe '{config.recipe}' is for one: use a "
            "recipe such as mmvm or masked-multimodal"
        )
    for name in config.modalities:
        if name not in shapes:
            raise VaekitError(f"the data have no modality '{name}': {suggest(name, shapes)}")
    parts = {name: _parts_of_modality(config, name, values) for name in shapes}
    latent_dim = config.latent_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(config.trainer.get("seed", 0)))
        private_spec, private_dim = _private_spec(config)
        modalities, heads = {}, []
        for name, shape in shapes.items():
            where = f"modalities.{name}"
            likelihood = likelihoods.build(parts[name]["likelihood"], shape, where=f"{where}.likelihood")
            backbone = backbones.build(parts[name]["backbone"], where=f"{where}.backbone")
            decoder = backbone.decoder(latent_dim + private_dim, likelihood.parameters_shape)
            modalities[name] = Modality(backbone.encoder(shape), decoder, likelihood)
            if config.fusion is None:
                features = modalities[name].encoder.features
                heads.append(posteriors.build(parts[name]["posterior"], features, latent_dim, where="posterior"))
        sizes = tuple(modality.encoder.features for modality in modalities.values())

        def posterior(features: int) -> torch.nn.Module:
            built: torch.nn.Module = posteriors.build(config.posterior, features, latent_dim, where="posterior")
            return built

        fusion: Fusion | Experts = (
            Experts(heads)
            if config.fusion is None
            else fusions.build(config.fusion, sizes, latent_dim, posterior, where="fusion")
        )
        private: PrivateFusion | None = (
            private_fusions.build(private_spec, sizes, latent_dim, private_dim, where="private")
            if private_spec
            else None
        )
        prior = priors.build(config.prior, latent_dim, where="prior")
        if type(prior).attach is not Prior.attach:
            raise VaekitError(
                f"the prior '{config.prior['name']}' is made of the posteriors of one modality: use gaussian_mixture"
            )
        return MultimodalVAE(modalities, fusion, prior, private)


def _parts_of_modality(config: RunConfig, name: str, values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return backbone, likelihood and posterior of a modality: its own, else the run's, else what suits its values.

    The run's backbone is for what it supports; its likelihood is for images where there are any, else for vectors.
    """
    own = (config.modalities or {}).get(name, {})
    if "posterior" in own and config.fusion is not None:
        raise VaekitError(
            f"modalities.{name}.posterior is for models without a fusion: set the posterior of the run, or set fusion "
            "to null"
        )
    parts = {"backbone": config.backbone, "likelihood": config.likelihood, "posterior": config.posterior}
    kind = values.get(name, "image")
    if kind != "image" and "vectors" not in backbones.info(config.backbone.get("name", "")).supports:
        parts["backbone"] = {"name": "mlp", "hidden": [256, 256]}
    if kind in ("classes", "binary") or (kind == "vector" and "image" in values.values()):
        parts["likelihood"] = {"name": _SUITING[kind]}
    return {key: merge(part, own.get(key, {})) for key, part in parts.items()}


def smaller(config: RunConfig) -> str:
    """Return what to make smaller where a model does not fit in memory: it names the largest number.

    Arguments:
        config: The configuration.

    Examples:
        >>> from vaekit.config import read_recipe, resolve
        >>> smaller(resolve(read_recipe("vae"), {"latent_dim": 10**9}))
        'make the images or the networks smaller; the largest number of the configuration is latent_dim = 1,000,000,000'
    """

    def numbers(value: Any, where: str) -> Iterator[tuple[int, str]]:
        if isinstance(value, Mapping):
            for key, part in value.items():
                yield from numbers(part, f"{where}.{key}" if where else str(key))
        elif isinstance(value, list | tuple):
            for part in value:
                yield from numbers(part, where)
        elif isinstance(value, int):
            yield value, where

    kept = {"latent_dim", "backbone", "posterior", "prior", "likelihood", "modalities", "fusion", "private"}
    content = config.model_dump(include={*kept, "objective", "regularizers", "adversary"})
    value, where = max(numbers(content, ""))
    return f"make the images or the networks smaller; the largest number of the configuration is {where} = {value:,}"


def _private_spec(config: RunConfig) -> tuple[dict[str, Any] | None, int]:
    """Return the private fusion's name and options, and the dimensions of a private latent."""
    if config.private is None:
        return None, 0
    spec = dict(config.private)
    size = spec.pop("latent_dim", None)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise VaekitError(f"private.latent_dim must be a whole number of 1 or more, not {size!r}")
    return spec, size


def objective(config: RunConfig, data_shape: Any) -> Objective:
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
        if config.adversary and not isinstance(data_shape, tuple):
            raise VaekitError("an adversary is for data of one modality: set adversary to null")
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
        *([("fusions", config.fusion.get("name", ""))] if config.fusion else []),
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
