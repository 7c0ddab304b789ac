"""Recipes, overlays and overrides: precedence, types, and a sentence for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import SEVERAL_MODALITIES

import vaekit as vk
from vaekit import build
from vaekit.config import apply_overrides, merge, read_recipe, recipe_names, resolve
from vaekit.errors import VaekitError


def test_precedence() -> None:
    recipe = {
        "latent_dim": 2, "backbone": "mlp", "likelihood": "bernoulli", "data": {"name": "digits", "batch_size": 5},
        "for_data": {"mnist": {"latent_dim": 3, "trainer": {"epochs": 4}}},
    }  # fmt: skip
    assert resolve(recipe).latent_dim == 2
    assert resolve(recipe, data="mnist").latent_dim == 3
    assert resolve(recipe, {"latent_dim": 7}, data="mnist").latent_dim == 7
    assert resolve(recipe, {"latent_dim": 7}, data="mnist", assignments=["latent_dim=9"]).latent_dim == 9
    assert resolve(recipe, assignments=["data.name=mnist"]).trainer == {"epochs": 4}
    assert resolve(recipe, data="mnist").data == {"name": "mnist", "batch_size": 5}


def test_only_known_data_options_travel_to_another_data_set() -> None:
    recipe = read_recipe("gamix-author")
    config = resolve(recipe, data="digits")  # digits has no crop
    assert config.data == {"name": "digits", "batch_size": 10, "flip": True, "image_size": 256, "antialias": False}
    assert resolve(recipe, data="some/folder").data["crop"] is None


def test_merge_rules() -> None:
    assert merge({"a": {"name": "x", "k": 1}}, {"a": {"k": 2}}) == {"a": {"name": "x", "k": 2}}
    assert merge({"a": {"name": "x", "k": 1}}, {"a": {"name": "y"}}) == {"a": {"name": "y"}}
    assert merge({"a": "x"}, {"a": {"k": 2}}) == {"a": {"name": "x", "k": 2}}
    assert merge({"a": {"b": 2, "c": 1}}, {"a": {"b": None}}) == {"a": {"b": None, "c": 1}}
    assert merge({"a": [1]}, {"a": [2]}) == {"a": [2]}


def test_null_takes_adversary_and_regularizers_away() -> None:
    assert resolve(read_recipe("gamix"), assignments=["adversary=null"]).adversary is None
    terms = resolve(read_recipe("gamix"), {"regularizers": {"population_kl": None, "kl": {}}}).regularizers
    assert set(terms) == {"kl", "variance_collapse"}


def test_values_are_yaml_and_scientific_numbers_are_numbers() -> None:
    values = apply_overrides({}, ["a.b=1e-4", "a.c=[1, 2]", "a.d=null", "a.e=true", "a.f=word"])
    assert values == {"a": {"b": 1e-4, "c": [1, 2], "d": None, "e": True, "f": "word"}}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_builds_and_cites_its_source(name: str) -> None:
    several = name in SEVERAL_MODALITIES
    config = resolve(read_recipe(name), data="polymnist" if several else "digits")
    shape = {"m0": (3, 28, 28), "m1": (3, 28, 28)} if several else (1, 8, 8)
    assert config.about
    assert config.source
    build.trainer(config)
    build.objective(config, shape)
    build.model(config, shape)


@pytest.mark.parametrize("name", recipe_names())
def test_config_yaml_resolves_to_itself(name: str) -> None:
    config = resolve(read_recipe(name))
    again = resolve(yaml.safe_load(config.to_yaml()))
    assert again == config


def test_author_preset_has_the_authors_parameter_counts() -> None:
    config = resolve(read_recipe("gamix-author"))
    model = build.model(config, (3, 256, 256))
    objective = build.objective(config, (3, 256, 256))

    def count(module: object) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    assert count(model) == 10_957_740
    assert count(objective.adversary.discriminator) == 411_075
    assert model.likelihood.log_scale.exp().item() == pytest.approx(39.3216)
    assert config.data["image_size"] == 256


MISTAKES = {
    "posterior.componets=4": "unknown option 'posterior.componets' of posterior 'gmm': did you mean 'components'",
    "posterior.components=four": "posterior.components = 'four' is not valid",
    "posterior=gm": "unknown posterior 'gm': did you mean 'gmm'",
    "postrior=gmm": "unknown key 'postrior' in the configuration: did you mean 'posterior'",
    "trainer.epoch=3": "unknown option 'trainer.epoch': did you mean 'epochs'",
    "trainer.epochs=0": "trainer.epochs must be 1 or more",
    "trainer.epochs=few": "trainer.epochs = 'few' is not valid",
    "trainer.precision=fp8": "trainer.precision = 'fp8' is not valid",
    "trainer.ema=1.5": "trainer.ema must lie between 0 and 1",
    "trainer.optimizer.lrr=0.1": "unknown option 'trainer.optimizer.lrr' of optimizer 'adam': did you mean 'lr'",
    "trainer.optimizer.name=adm": "unknown optimizer 'adm': did you mean 'adam'",
    "latent_dim=-3": "latent_dim = -3 is not valid",
    "latent_dim=null": "latent_dim = None is not valid",
    "backbone.width=wide": "backbone.width = 'wide' is not valid",
    "regularizers.kll={}": "unknown regularizer 'kll': did you mean 'kl'",
    "regularizers.population_kl.variance=none": "regularizers.population_kl.variance = 'none' is not valid",
    "adversary.wieght=3": "unknown option 'adversary.wieght': did you mean 'weight'",
    "adversary.discriminatr=patchgan": "unknown option 'adversary.discriminatr': did you mean 'discriminator'",
    "adversary.loss=wgan": "unknown adversarial loss 'wgan'",
    "prior=gaussian_mixture": "'population_kl' works with standard_normal only",
    "likelihood.scale=0.1": "takes 'scale' or 'error_weight', not both",
    "no-equals-sign": "--set takes KEY=VALUE",
    "a=[": "is not a value that YAML can read",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_mistakes_are_one_sentence(assignment: str) -> None:
    def everything() -> None:
        config = resolve(read_recipe("gamix"), assignments=[assignment])
        build.trainer(config)
        build.objective(config, (1, 8, 8))
        build.model(config, (1, 8, 8))

    with pytest.raises(VaekitError) as caught:
        everything()
    assert MISTAKES[assignment] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "is not readable YAML"), ("- 1", "must hold a YAML mapping"), ("\x80", "is not readable YAML")],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(VaekitError, match=message):
        read_recipe(path)


def test_unknown_recipe() -> None:
    with pytest.raises(VaekitError, match="unknown recipe 'gamx': did you mean 'gamix'"):
        read_recipe("gamx")
    with pytest.raises(VaekitError, match="there is no recipe file"):
        read_recipe("nowhere/mine.yaml")


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({"portion": 2.0}, "at most 1"),
        ({"portion": 0.5, "steps": 3}, "either steps or portion"),
        ({}, "either steps or portion"),
        ({"portion": "half"}, "valid number"),
    ],
)
def test_a_wrong_share_of_a_run_is_refused_before_anything_is_written(
    schedule: dict[str, Any], says: str, tmp_path: Path
) -> None:
    weight = {"name": "linear", **schedule}
    run = vk.recipe("vae", regularizers={"kl": {"weight": weight}}, out=tmp_path / "run")
    with pytest.raises(VaekitError, match=says):
        run.fit()
    assert not (tmp_path / "run").exists()


def test_a_share_of_a_run_becomes_steps(tmp_path: Path) -> None:
    weight = {"name": "linear", "portion": 0.5}
    run = vk.recipe("vae", regularizers={"kl": {"weight": weight}}, out=tmp_path / "run", trainer={"max_steps": 4})
    run.fit()
    assert run.config.regularizers["kl"]["weight"] == weight, "what is kept and resumed is the share"
    with pytest.raises(VaekitError, match="give 'steps' here"):
        vk.regularizers.KL(weight=weight).weight(0)
