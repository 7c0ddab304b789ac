"""A knob that nothing reads is a defect: every option of every part changes something that can be seen."""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import MULTIMODAL, random_images, write_idx
from torch import Tensor, nn

import vaekit as vk
from vaekit.backbones.diffusers_folder import write_folder
from vaekit.config import LOADER_OPTIONS, read_recipe, resolve
from vaekit.data import Dataset, Split, paired
from vaekit.distributions import draw
from vaekit.files import save_tensors
from vaekit.latents import Latents
from vaekit.registry import (
    FAMILIES,
    adversarial_losses,
    backbones,
    datasets,
    discriminators,
    fusions,
    likelihoods,
    loggers,
    objectives,
    optimizers,
    options_of,
    posteriors,
    priors,
    private_fusions,
    regularizers,
    schedules,
)
from vaekit.schedules import with_steps
from vaekit.testing import small_multimodal_data, small_multimodal_vae
from vaekit.testing.contract import fixed
from vaekit.testing.data import parts
from vaekit.training import trainer as trainer_module


class To(NamedTuple):
    """An option's other value, and what must hold besides (both with and without it) for the option to matter."""

    value: Any
    given: Mapping[str, Any] = {}


# ---- what can be seen of a part, for each family ---------------------------------------------------------------------


def seen_in_module(module: nn.Module, loss: Tensor) -> list[Any]:
    """Everything about a module: its graph, its parameters, a value and its gradients."""
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True) if parameters else ()
    tensors = [*parameters.values(), *module.buffers(), loss, *(g for g in gradients if g is not None)]
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    return [shapes, [tensor.detach().flatten().tolist() for tensor in tensors]]


def see_posterior(spec: dict[str, Any]) -> Any:
    features = 6 if spec.get("head") == "split" else 8
    module = posteriors.build(spec, features, 3)
    prior = (*posteriors.info(spec["name"]).only_with.get("priors", ()), "standard_normal")[0]
    shared = {key: spec[key] for key in ("categories",) if key in spec}
    p = priors.build({"name": prior, **shared}, 3)()
    z, weights = draw(module(20 * fixed(5, features), p))
    return seen_in_module(module, (weights * z.square().sum(-1)).sum(0).mean())


def see_prior(spec: dict[str, Any]) -> Any:
    module = priors.build(spec, 3)
    encoder, likelihood = backbones.build("mlp").encoder((1, 4, 4)), likelihoods.build("bernoulli", (1, 4, 4))
    module.attach(encoder, posteriors.build("gaussian", encoder.features, 3), likelihood)
    return seen_in_module(module, module().log_prob(fixed(5, 3)).mean())


def see_likelihood(spec: dict[str, Any]) -> Any:
    module = likelihoods.build(spec, (2, 3))
    return seen_in_module(module, module(fixed(5, *module.parameters_shape)).log_prob(fixed(5, 2, 3).sigmoid()).mean())


@functools.cache
def saved_weights(name: str) -> str:
    """Write weights for a backbone of the cases, and return where they are."""
    place = tempfile.TemporaryDirectory()
    atexit.register(place.cleanup)
    torch.manual_seed(3)
    if name == "timm":
        import timm

        save_tensors(f"{place.name}/model.safetensors", timm.create_model("test_convnext").state_dict())
        return f"{place.name}/model.safetensors"
    backbone = backbones.build({"name": name, **SMALL_KL})
    shape, options = (1, 8, 8), {"in_channels": 1, "out_channels": 1}
    states = [part.layers.state_dict() for part in (backbone.encoder(shape), backbone.decoder(64, shape))]
    write_folder(place.name, backbone.options, options, *states)
    return place.name


def see_backbone(spec: dict[str, Any]) -> Any:
    name = spec["name"]
    spec = {**spec, "weights": saved_weights(name)} if "weights" in spec else spec
    shape = {"pvae": (1, 8, 8), "autoencoder_kl": (1, 8, 8), "timm": (1, 64, 32)}.get(name, (1, 9, 8))
    if name == "timm":
        pytest.importorskip("timm")
    backbone = backbones.build(spec)
    with mock.patch("vaekit.backbones.timm._download", side_effect=lambda *_: saved_weights(name)):
        encoder = backbone.encoder(shape)
    latent_dim = encoder.features // 2 if name == "autoencoder_kl" else 3
    module = nn.ModuleList([encoder, backbone.decoder(latent_dim, shape)])
    loss = module[0](fixed(4, *shape)).square().sum() + module[1](fixed(4, latent_dim)).square().sum()
    return seen_in_module(module, loss)


def see_regularizer(spec: dict[str, Any]) -> Any:
    term = regularizers.build(spec)
    term.prepare(3, 1000)
    kind = regularizers.info(spec["name"]).only_with.get("posteriors", ("gaussian",))[0]
    posterior, p = posteriors.build(kind, 8, 3), priors.build("standard_normal", 3)()
    q = posterior(fixed(5, 8), p)
    return seen_in_module(posterior, term(Latents(q, p, *draw(q)))), [term.weight(step) for step in range(5)]


def see_discriminator(spec: dict[str, Any]) -> Any:
    module = discriminators.build(spec, (1, 9, 8))
    return seen_in_module(module, module(fixed(4, 1, 9, 8)).square().sum())


def see_adversarial_loss(spec: dict[str, Any]) -> Any:
    loss, logits = adversarial_losses.build(spec), fixed(4, 2)
    return [getattr(loss, which)(logits).tolist() for which in ("real", "fake", "generator")]


def see_fusion(spec: dict[str, Any]) -> Any:
    module = fusions.build(spec, (4, 3), 2, lambda features: posteriors.build("gaussian", features, 2))
    mask = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    q = module([fixed(4, 4), fixed(4, 3)], mask, priors.build("standard_normal", 2)())
    z, weights = draw(q)
    loss = (weights * z.square().sum(-1)).sum() + q.log_prob(fixed(4, 2)).sum()
    return seen_in_module(module, loss), weights.tolist()


def see_optimizer(spec: dict[str, Any]) -> Any:
    parameter = nn.Parameter(fixed(3))
    optimizer = optimizers.build(spec, [parameter])
    places = []
    for step in range(3):
        optimizer.set_rate(step)
        optimizer.inner.zero_grad()
        (parameter - 1).square().sum().backward()
        optimizer.inner.step()
        places.append(parameter.tolist())
    # Whether the kernel is fused is between torch and the device: what it was told is all that can be seen.
    return places, optimizer.inner.defaults.get("fused")


def see_logger(spec: dict[str, Any]) -> Any:
    """What a tracker is called with, by name; the trackers themselves are left out."""
    name = spec["name"]
    pytest.importorskip(name)
    begins = {"wandb": "wandb.init", "mlflow": "mlflow.MlflowClient", "trackio": "trackio.init"}[name]
    with mock.patch(begins) as begin, tempfile.TemporaryDirectory() as out:
        loggers.build(spec).start(Path(out), "the run" if name == "trackio" else None, {}, [])
    calls = [call for call in begin.mock_calls if call[0] in ("", "().create_experiment")]
    own = ("id", "name", "dir", "settings", "tracking_uri" if "uri" not in spec else "", "artifact_location")
    return [(call.args, {key: value for key, value in call.kwargs.items() if key not in own}) for call in calls]


def see_schedule(spec: dict[str, Any]) -> Any:
    schedule = schedules.build(with_steps(spec, 12))
    return [schedule(step) for step in range(20)]


def small_vae() -> vk.VAE:
    torch.manual_seed(1)
    # A linear decoder and a Gaussian likelihood: what an exact expectation needs.
    backbone, likelihood = backbones.build({"name": "mlp", "hidden": []}), likelihoods.build("gaussian", (1, 8, 8))
    encoder = backbone.encoder((1, 8, 8))
    posterior, prior = posteriors.build("gaussian", encoder.features, 3), priors.build("standard_normal", 3)
    return vk.VAE(encoder, posterior, prior, backbone.decoder(3, likelihood.parameters_shape), likelihood)


def phases(objective: vk.Objective) -> Any:
    """What an objective asks of the trainer in three steps."""
    model, x = small_vae(), fixed(4, 1, 8, 8).sigmoid()
    torch.manual_seed(2)
    found = []
    for step in range(3):
        for phase in objective.phases(model, x, step, objective.modules_by_phase(model)):
            module = objective.modules_by_phase(model)[phase.name]
            gradients = torch.autograd.grad(phase.loss, list(module.parameters()), retain_graph=True)
            found.append((phase.name, phase.loss.item(), [gradient.sum().item() for gradient in gradients]))
    return found


def see_multimodal(spec: dict[str, Any]) -> Any:
    """What an objective for several modalities gives in three steps, and its graph."""
    torch.manual_seed(1)
    model = small_multimodal_vae(**MULTIMODAL.get(spec["name"], {}))
    objective, x = objectives.build(spec), small_multimodal_data(16)
    torch.manual_seed(2)
    found = []
    for step in range(3):
        reconstruction, regularization, terms = objective.evaluate(objective.run(model, x, step), x, step)
        found.append([{name: term.item() for name, term in terms.items()}])
        found.append(seen_in_module(model, reconstruction + regularization))
    return found


def see_private_fusion(spec: dict[str, Any]) -> Any:
    module = private_fusions.build(spec, (5, 4), 3, 2)
    mask = torch.tensor([[True, True], [True, False]])
    q = module([fixed(2, 5), fixed(2, 4)], fixed(6, 2, 3), mask)
    return seen_in_module(module, (q.mean.square() + q.variance).sum() + module.auxiliary().variance.sum())


def see_objective(spec: dict[str, Any]) -> Any:
    if "several modalities" in objectives.info(spec["name"]).needs:
        return see_multimodal(spec)
    terms = {} if spec["name"] == "iwae" else {"kl": regularizers.build("kl")}  # `dreg` takes no terms beside the bound
    return phases(objectives.build(spec, terms, None))


def see_adversary(options: dict[str, Any]) -> Any:
    discriminator = discriminators.build({"name": "patchgan", "width": 4}, (1, 8, 8))
    return phases(vk.Objective({}, vk.Adversary(discriminator, adversarial_losses.build("bce"), **options)))


def see_dataset(spec: dict[str, Any], folder: Path) -> Any:
    from PIL import Image

    spec = dict(spec)
    random, place, name = np.random.RandomState(0), folder / "data", spec.pop("name")
    if name == "folder" and not place.exists():
        place.mkdir()
        for number in range(20):
            Image.fromarray(random.randint(0, 256, (12, 9, 3), dtype=np.uint8)).save(place / f"{number}.png")
    if name == "arrays":
        place = folder / "data.npy"
        np.save(place, random.randint(0, 256, (20, 3, 12, 3), dtype=np.uint8))
    if name == "paired-arrays":
        place = folder / "data.npz"
        images, vectors = random.randint(0, 256, (20, 12, 9), dtype=np.uint8), random.standard_normal((20, 3))
        np.savez(place, image=images, vector=vectors)
    if name == "table":
        see_dataset({"name": "folder"}, folder)
        lines = [f"data/{number}.png,{random.standard_normal()}" for number in range(20)]
        (place := folder / "data.csv").write_text("\n".join(["photo,size", *lines]) + "\n")
    if name in ("polymnist", "translated-polymnist", "mnist-labels") and not place.exists():
        write_idx(SimpleNamespace(name="mnist"), place)
        (place / "grounds").mkdir()
        for number in range(5):
            Image.fromarray(random.randint(0, 256, (40, 40, 3), dtype=np.uint8)).save(place / f"grounds/{number}.png")
    data = datasets.get(name)(place, None, True, **datasets.check(name, spec))
    return [
        (part.shape, part.samples.flatten().tolist(), getattr(split, "available", torch.empty(0)))
        for split in data.splits.values()
        for part in parts(split).values()
    ]


# ---- the table -------------------------------------------------------------------------------------------------------

POLYMNIST = {
    "digits": To("digits", {"limit": 3}),
    "modalities": To(3, {"limit": 3}),
    "backgrounds": To("grounds", {"limit": 3}),
    "missing": To(0.5, {"limit": 3}),
    "missing_in": To("all", {"limit": 3, "missing": 0.5}),
    "seed": To(1, {"limit": 3}),
    "limit": To(2, {"limit": 3}),
}
SMALL_RESNET = {"width": 8, "latent_channels": 4}
SMALL_KL = {"widths": [4, 8], "groups": 2}
SMALL_TIMM = {"model": "test_convnext", "decoder_backbone": {"name": "mlp", "hidden": [4]}}
LINEAR = {"name": "linear", "steps": 4}

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "posteriors": {
        "categorical": {
            "categories": To(3, {"categories": 1}),
            "temperature": To(2.0, {"categories": 3}),
            "straight_through": To(True, {"categories": 3}),
        },
        "poisson": {
            "temperature": 0.5,
            "indicator": "cubic",
            "estimator": "straight_through",
            "events": 1,
            "max_log_rate": 1.0,
            "bias": False,
            "init_std": 0.1,
        },
        "gaussian": {"log_variance_range": (-1.0, 1.0), "init": "glorot", "head": "split"},
        "epanechnikov": {},
        "evae": {"bandwidth": 1.0, "radius": 2.0},
        "delta": {},
        "flow": {
            "kind": "spline",
            "transforms": 1,
            "hidden": [8],
            "bins": To(4, {"kind": "spline"}),
            "log_variance_range": (-1.0, 1.0),
        },
        "full_gaussian": {"rank": 2, "log_variance_range": (-1.0, 1.0), "init": "glorot"},
        "laplace": {"log_variance_range": (-1.0, 1.0), "init": "glorot"},
        "power_spherical": {"init": "glorot"},
        "vmf": {"init": "glorot"},
        "gmm": {
            "components": 2,
            "estimator": "score",
            "temperature": To({"name": "linear", "start": 5.0, "steps": 4}, {"estimator": "gumbel"}),
            "log_variance_range": None,
            "init": "glorot",
        },
    },
    "priors": {
        "categorical": {"categories": To(3, {"categories": 1}), "learned": To(True, {"categories": 3})},
        "poisson": {"low": -8.0, "high": -1.0},
        "standard_normal": {},
        "gaussian": {"scale": 2.0, "learned": True},
        "uniform": {"length": To(40.0, {"length": 20.0})},
        "epanechnikov": {"scale": To(20.0, {"scale": 10.0})},
        "flow": {"kind": "maf", "transforms": 1, "hidden": [8], "bins": 4},
        "gaussian_mixture": {"components": 3, "spread": 0.5, "scale": 2.0},
        "vamp": {"components": 3, "learned_weights": True},
        "laplace": {"scale": 2.0},
        "sphere_uniform": {},
    },
    "likelihoods": {
        "sum_squared_error": {},
        "bernoulli": {},
        "categorical": {"levels": To(5, {"levels": 4})},
        "continuous_bernoulli": {},
        "discretized_logistic": {"levels": 5, "shared_scale": 0.5},
        "gaussian": {"scale": 0.5, "learned": True},
        "laplace": {"scale": 0.5, "error_weight": 2.0, "learned": True},
        "one_hot": {},
    },
    "backbones": {
        "pvae": {
            "width": To(6, {"width": 4}),
            "linear_decoder": To(False, {"width": 4}),
            "dropout": To(0.5, {"width": 4}),
        },
        "mlp": {
            "hidden": To([6], {"hidden": [8]}),
            "decoder_hidden": To([6], {"hidden": [8]}),
            "activation": To("tanh", {"hidden": [8]}),
            "bias": False,
        },
        "conv": {"width": To(8, {"width": 4}), "norm": To("batch", {"width": 4})},
        "autoencoder_kl": {
            "widths": To([8, 4], SMALL_KL),
            "blocks": To(2, SMALL_KL),
            "latent_channels": To(2, SMALL_KL),
            "groups": To(1, SMALL_KL),
            "attention": To(False, SMALL_KL),
            "quant_conv": To(False, SMALL_KL),
            "post_quant_conv": To(False, SMALL_KL),
            "weights": To("written by see_backbone", SMALL_KL),
        },
        "timm": {
            "model": To("test_convnext2", SMALL_TIMM),
            "pretrained": To(True, SMALL_TIMM),
            "weights": To("written by see_backbone", SMALL_TIMM),
            "pooled": To(False, SMALL_TIMM),
            "arguments": To({"conv_bias": False}, SMALL_TIMM),
            "decoder_backbone": To("mlp", SMALL_TIMM),
        },
        "resnetv2": {
            "width": To(12, SMALL_RESNET),
            "norm": To("group", SMALL_RESNET),
            "input_norm": To("instance_hw", SMALL_RESNET),
            "padding": To("symmetric", SMALL_RESNET),
            "output": To("tanh", SMALL_RESNET),
            "latent_channels": To(6, SMALL_RESNET),
            "encoder_blocks": To(1, SMALL_RESNET),
            "decoder_blocks": To(2, SMALL_RESNET),
            "init": To("glorot", SMALL_RESNET),
        },
    },
    "regularizers": {
        "kl": {"weight": LINEAR, "free_bits": 50.0, "estimator": "sampled"},
        "variance_collapse": {"weight": LINEAR},
        "population_kl": {"weight": LINEAR, "variance": "total", "eps": 0.1},
        "aggregate_kl": {"weight": LINEAR},
        "evae_penalty": {"weight": LINEAR, "length": 3.0, "samples": 7},
        "code_norm": {"weight": LINEAR},
        "mmd": {"weight": LINEAR, "kernel": "rbf", "scales": (1.0,), "bandwidth": 0.5},
        "mutual_information": {"weight": LINEAR, "estimator": "weighted"},
        "total_correlation": {"weight": LINEAR, "estimator": "weighted"},
        "dimension_kl": {"weight": LINEAR, "estimator": "weighted"},
        "factor": {
            "weight": To(LINEAR, {"hidden": 8}),
            "hidden": To(9, {"hidden": 8}),
            "depth": To(2, {"hidden": 8}),
        },
        "dip": {"weight": LINEAR, "kind": "i", "off_diagonal": 1.0, "diagonal": 1.0},
        "capacity": {"weight": LINEAR, "capacity": 5.0},
    },
    "fusions": {
        "sum_pooling": {
            "width": To(9, {"width": 8}),
            "pooled": To(9, {"width": 8}),
            "layers": To(1, {"width": 8}),
            "residual": To(True, {"width": 8}),
            "slope": To(0.1, {"width": 8}),
        },
        "self_attention": {
            "width": To(9, {"width": 8}),
            "pooled": To(9, {"width": 8}),
            "depth": To(2, {"width": 8}),
            "heads": To(2, {"width": 8}),
            "residual": To(True, {"width": 8}),
            "slope": To(0.1, {"width": 8}),
        },
        "poe": {"prior_expert": False},
        "moe": {"stratified": True},
        "mopoe": {"prior_expert": "all", "stratified": True},
        "average": {},
    },
    "discriminators": {
        "patchgan": {
            "width": To(8, {"width": 4}),
            "norm": To("frozen_affine", {"width": 4}),
            "dropout": To(0.5, {"width": 4}),
            "final_norm": To(True, {"width": 4}),
            "slope": To(0.1, {"width": 4}),
            "padding": To("symmetric", {"width": 4}),
            "init": To("glorot", {"width": 4}),
        },
    },
    "private_fusions": {
        "independent": {"auxiliary": True},
        "sum_pooling": {
            "width": To(9, {"width": 8}),
            "pooled": To(9, {"width": 8}),
            "layers": To(1, {"width": 8}),
            "slope": To(0.1, {"width": 8}),
        },
        "self_attention": {
            "width": To(9, {"width": 8}),
            "pooled": To(9, {"width": 8}),
            "depth": To(2, {"width": 8}),
            "heads": To(2, {"width": 8}),
            "slope": To(0.1, {"width": 8}),
        },
    },
    "adversarial_losses": {"bce": {}, "hinge": {}, "least_squares": {}},
    "objectives": {
        "elbo": {"draws": 3, "exact": True},
        "iwae": {"draws": 3, "estimator": "dreg"},
        "independent": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}},
        "mmvm": {
            "beta": LINEAR,
            "draws": 3,
            "weights": {"vector": 2.0},
            "divergence": "jensen_shannon",
            "alpha": 0.5,
            "estimator": "sampled",
        },
        "joint": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}, "estimator": "sampled"},
        **{
            name: {
                "beta": LINEAR,
                "draws": 3,
                "weights": {"vector": 2.0},
                "mask_law": "uniform_size",
                "estimator": "sampled",
            }
            for name in ("masked", "mixture")
        },
        "mmvae": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}, "estimator": "dreg"},
        "mmvae_plus": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}, "estimator": "dreg"},
        "mopoe": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}},
        "mvae": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}, "subsets": 2},
        "mvtcae": {"beta": LINEAR, "draws": 3, "weights": {"vector": 2.0}, "alpha": 0.5},
    },
    "optimizers": {
        "adam": {"lr": LINEAR, "betas": (0.5, 0.9), "eps": 0.1, "fused": False},
        "adamax": {"lr": LINEAR, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.5},
        "adamw": {"lr": LINEAR, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.5, "fused": False},
        "sgd": {"lr": LINEAR, "momentum": 0.9, "weight_decay": 0.5},
    },
    "loggers": {
        "tensorboard": {},
        "wandb": {"project": "mine", "entity": "me", "group": "series", "tags": ["first"]},
        "mlflow": {"experiment": "mine", "uri": "http://localhost:5000"},
        "trackio": {"project": "mine", "space": "me/runs"},
    },
    "schedules": {
        "constant": {"value": To(2.0, {"value": 1.0})},
        "linear": {
            "start": To(0.5, {"steps": 4}),
            "end": To(0.5, {"steps": 4}),
            "steps": To(5, {"steps": 4}),
            "delay": To(2, {"steps": 4}),
            "portion": To(0.5, {"steps": None, "portion": 0.25}),
        },
        "cosine": {
            "start": To(0.5, {"steps": 4}),
            "end": To(0.5, {"steps": 4}),
            "steps": To(5, {"steps": 4}),
            "delay": To(2, {"steps": 4}),
            "portion": To(0.5, {"steps": None, "portion": 0.25}),
            "warmup": To(3, {"steps": 4}),
        },
        "exponential": {
            "start": To(0.5, {"steps": 4}),
            "end": To(0.5, {"steps": 4}),
            "steps": To(5, {"steps": 4}),
            "delay": To(2, {"steps": 4}),
            "portion": To(0.5, {"steps": None, "portion": 0.25}),
        },
        "cyclic": {
            "start": To(0.5, {"period": 4}),
            "end": To(0.5, {"period": 4}),
            "period": To(5, {"period": 4}),
            "ramp": To(0.25, {"period": 4}),
        },
        "step": {
            "start": To(0.5, {"milestones": [2]}),
            "factor": To(0.5, {"milestones": [2]}),
            "milestones": To([3], {"milestones": [2]}),
        },
    },
    "datasets": {
        "digits": {"image_size": 6, "antialias": To(False, {"image_size": 5}), "channels": 3, "limit": 3},
        "linear-gaussian": {
            "seed": To(1, {"samples": 4}),
            "sparse": To(True, {"samples": 4}),
            "samples": To(5, {"samples": 4}),
            "limit": To(2, {"samples": 4}),
        },
        "folder": {
            "image_size": To(6, {"image_size": 8}),
            "crop": To(6, {"image_size": 6}),
            "antialias": To(False, {"image_size": 5}),
            "channels": To(1, {"image_size": 8}),
            "valid_fraction": To(0.3, {"image_size": 8}),
            "limit": To(1, {"image_size": 8}),
        },
        "arrays": {
            "layout": "nhwc",
            "image_size": 6,
            "antialias": To(False, {"layout": "nhwc", "image_size": 2}),
            "channels": 1,
            "valid_fraction": 0.3,
            "limit": 1,
        },
        "shapes": {
            "image_size": To(16, {"limit": 3}),
            "seed": To(1, {"image_size": 16, "limit": 3}),
            "limit": To(2, {"image_size": 16, "limit": 3}),
        },
        "paired-arrays": {"image_size": 6, "channels": 3, "valid_fraction": 0.3, "limit": 1},
        "table": {
            "image_size": To(6, {"image_size": 8}),
            "channels": To(1, {"image_size": 8}),
            "valid_fraction": To(0.3, {"image_size": 8}),
            "limit": To(1, {"image_size": 8}),
        },
        "polymnist": POLYMNIST,
        "translated-polymnist": POLYMNIST,
        "mnist-labels": {"digits": To("digits", {"limit": 3}), "image_size": 14, "limit": 1},
    },
}
# Their files are large and elsewhere; tests/test_data_sets.py and tests/test_paired_data.py read their options, and
# tests/test_streams.py and tests/test_hub_data.py those of streams.
ELSEWHERE = {"mnist", "fashion-mnist", "cifar10", "svhn", "celeba", "celeba-attributes", "webdataset", "hf"}

SEE: dict[str, Callable[..., Any]] = {
    "posteriors": see_posterior,
    "priors": see_prior,
    "likelihoods": see_likelihood,
    "backbones": see_backbone,
    "regularizers": see_regularizer,
    "discriminators": see_discriminator,
    "adversarial_losses": see_adversarial_loss,
    "fusions": see_fusion,
    "private_fusions": see_private_fusion,
    "objectives": see_objective,
    "optimizers": see_optimizer,
    "loggers": see_logger,
    "schedules": see_schedule,
    "datasets": see_dataset,
}
PARTS = [
    (family, part)
    for family, registry in FAMILIES.items()
    for part in registry.names()
    if not (family == "datasets" and part in ELSEWHERE)
]
KNOBS = [(*key, option) for key in PARTS for option in CASES.get(key[0], {}).get(key[1], {})]


def assert_complete(where: str, options: Mapping[str, Any], cases: Mapping[str, Any] | None) -> None:
    """Every option has a case, and every case an option."""
    assert cases is not None, f"tests/test_knobs.py has no cases for {where}: add an entry with its options to CASES"
    missing = sorted(set(options) - set(cases))
    assert not missing, (
        f"tests/test_knobs.py has no case for {missing} of {where}: add another valid value to its entry"
    )
    gone = sorted(set(cases) - set(options))
    assert not gone, f"tests/test_knobs.py has cases for {gone}, which {where} does not have: take them out"


def assert_moves(see: Callable[[dict[str, Any]], Any], base: dict[str, Any], option: str, value: Any) -> None:
    """What is seen repeats itself, and the option's other value changes it."""
    views = []
    for spec in (base, base, {**base, option: value}):
        torch.manual_seed(0)
        views.append(see(spec))
    assert repr(views[0]) == repr(views[1]), "the test itself is not deterministic"
    assert repr(views[0]) != repr(views[2]), f"nothing reads '{option}': {value!r} changes nothing"


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_every_option_has_a_case(family: str, part: str) -> None:
    kind = f"{FAMILIES[family].kind} '{part}'"
    assert_complete(kind, FAMILIES[family].options(part), CASES.get(family, {}).get(part))


@pytest.mark.parametrize(("family", "part", "option"), KNOBS)
def test_option_of_a_part(family: str, part: str, option: str, tmp_path: Path) -> None:
    case = CASES[family][part][option]
    value, given = case if isinstance(case, To) else (case, {})
    see = SEE[family]
    if family == "datasets":
        see = lambda spec: see_dataset(spec, tmp_path)  # noqa: E731
    assert_moves(see, {"name": part, **given}, option, value)


# ---- the adversary ---------------------------------------------------------------------------------------------------

ADVERSARY = {"weight": 3.0, "start_step": 2, "adaptive": True, "r1": 5.0}


def test_every_option_of_the_adversary_has_a_case() -> None:
    assert_complete("the adversary", options_of(vk.Adversary), ADVERSARY)


@pytest.mark.parametrize("option", ADVERSARY)
def test_option_of_the_adversary(option: str) -> None:
    assert_moves(see_adversary, {}, option, ADVERSARY[option])


# ---- the trainer -----------------------------------------------------------------------------------------------------


def see_training(options: dict[str, Any], out: Path, adversarial: bool = False) -> Any:
    """Train for a few steps: the metrics, the weights and what lies in the run directory."""
    torch.manual_seed(1)
    adversary = None
    if adversarial:
        discriminator = discriminators.build({"name": "patchgan", "width": 4}, (1, 8, 8))
        adversary = vk.Adversary(discriminator, adversarial_losses.build("bce"))
    objective = vk.Objective({"kl": regularizers.build("kl")}, adversary)
    checked = vk.registry.check_options(
        vk.Trainer, {"epochs": 2, "log_every": 2, "accelerator": "cpu", **options}, "trainer"
    )
    fit = vk.Trainer(**checked).fit(small_vae(), objective, random_images(32), batch_size=8, out=out)
    weights = [parameter.sum().item() for parameter in fit.model.parameters()]
    files = sorted(str(file.relative_to(out)).split("tfevents")[0] for file in out.rglob("*") if file.is_file())
    return fit.steps, fit.metrics, weights, files


TRAINED: dict[str, Any] = {
    "epochs": 3,
    "max_steps": 2,
    "optimizer": {"name": "sgd", "lr": 0.01},
    "discriminator_optimizer": {"name": "sgd", "lr": 0.01},
    "ema": 0.5,
    "clip": 0.01,
    "accumulate": 2,
    "precision": "bf16",
    "log_every": 1,
    "sample_every": 0,
    "loggers": ["tensorboard"],
    "seed": 1,
}


@pytest.mark.parametrize("option", TRAINED)
def test_option_of_the_trainer_changes_a_run(option: str, tmp_path: Path) -> None:
    runs = iter("abc")

    def see(options: dict[str, Any]) -> Any:
        return see_training(options, tmp_path / next(runs), adversarial=option == "discriminator_optimizer")

    assert_moves(see, {}, option, TRAINED[option])


# What the engine, and not a single CPU, does with an option: that it is handed on is what can be seen.
LAUNCHED: dict[str, tuple[Any, str]] = {
    "accelerator": ("cpu", "accelerator"),
    "devices": (2, "devices"),
    "nodes": (2, "num_nodes"),
    "strategy": ("ddp", "strategy"),
}


@pytest.mark.parametrize("option", LAUNCHED)
def test_option_of_the_trainer_reaches_the_engine(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, keyword = LAUNCHED[option]
    asked: list[dict[str, Any]] = []

    def engine(**keywords: Any) -> Any:
        asked.append(keywords)
        return SimpleNamespace(launch=lambda: None)

    monkeypatch.setattr(trainer_module, "Fabric", engine)
    vk.Trainer().launch()
    vk.Trainer(**{option: value}).launch()
    assert asked[0][keyword] != asked[1][keyword] == value


def test_compile_compiles_every_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled: list[tuple[str, str | None]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: compiled.append((type(self).__name__, mode)))
    monkeypatch.setattr(torch.compiler, "reset", lambda: compiled.append(("reset", None)))
    see_training({"max_steps": 1}, tmp_path / "a", adversarial=True)
    assert not compiled
    for option, mode in ((True, None), ("reduce-overhead", "reduce-overhead")):
        compiled.clear()
        see_training({"max_steps": 1, "compile": option}, tmp_path / str(option), adversarial=True)
        parts = [(name, mode) for name in ("SequentialEncoder", "SequentialDecoder", "PatchGAN")]
        assert compiled == [("reset", None), *parts]


def test_checkpoint_every(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from vaekit.training import checkpoint

    saved: list[int] = []
    save = checkpoint.save

    def recorded(out: Path, name: str, state: dict[str, Any]) -> None:
        if name == "last":
            saved.append(state["step"])
        save(out, name, state)

    monkeypatch.setattr(checkpoint, "save", recorded)
    see_training({}, tmp_path / "a")
    assert saved == [0, 3, 6]  # one before the first step, so that any end can be resumed
    saved.clear()
    see_training({"checkpoint_every": 2}, tmp_path / "b")
    assert saved == [0, 2, 3, 4, 6]


def test_every_option_of_the_trainer_has_a_case() -> None:
    # What is not here is in tests/test_steps.py.
    cases = {
        **TRAINED,
        **LAUNCHED,
        **dict.fromkeys(("compile", "checkpoint_every", "activation_checkpointing", "not_finite")),
    }
    assert_complete("the trainer", options_of(vk.Trainer), cases)


# ---- the data loader -------------------------------------------------------------------------------------------------

LOADER: dict[str, Any] = {"batch_size": 4, "flip": True, "binarize": True, "resident": False, "root": "elsewhere"}


def test_every_option_of_the_loader_has_a_case() -> None:
    assert_complete("the data section", dict.fromkeys(LOADER_OPTIONS), LOADER)
    of_fit = {
        key
        for key, parameter in inspect.signature(vk.Trainer.fit).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert set(LOADER_OPTIONS) - {"root"} <= of_fit, "an option of the data section that Trainer.fit does not take"


@pytest.mark.parametrize("option", ["batch_size", "flip", "binarize"])
def test_option_of_the_loader_changes_the_training(option: str) -> None:
    def see(options: dict[str, Any]) -> Any:
        trainer = vk.Trainer(max_steps=3, accelerator="cpu")
        fit = trainer.fit(small_vae(), vk.Objective(), random_images(32), **{"batch_size": 8, **options})
        return fit.metrics

    assert_moves(see, {}, option, LOADER[option])


def test_resident_decides_where_the_rows_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    # A split in a file is copied into memory, or read batch by batch.
    noise = random_images(32)
    data = Dataset("noise", Split(noise.train.samples, mapped=True), noise.valid)
    made: list[Any] = []
    batches = paired.Batches
    monkeypatch.setattr(paired, "Batches", lambda *a, **k: made.append(batches(*a, **k)) or made[-1])
    for resident in (True, False):
        vk.Trainer(max_steps=1, accelerator="cpu").fit(
            small_vae(), vk.Objective(), data, batch_size=8, resident=resident
        )
        rows = made[-2]._rows
        assert (rows.data_ptr() == data.train.samples.data_ptr()) is not resident


def test_root_is_where_data_are_looked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros((4, 8, 8), dtype=np.uint8))
    recipe = read_recipe("vae")
    found = vk.Run(resolve(recipe, {"data": {"root": str(tmp_path)}}, data="mine.npy"))
    assert found.data.shape == (1, 8, 8)
    with pytest.raises(vk.VaekitError, match=r"mine\.npy"):
        vk.Run(resolve(recipe, {"data": {"root": str(tmp_path / "elsewhere")}}, data="mine.npy")).data  # noqa: B018


def test_loader_options_of_a_recipe_reach_the_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def fit(self: vk.Trainer, *parts: Any, **keywords: Any) -> None:
        asked.update(keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(vk.Trainer, "fit", fit)
    options = {key: value for key, value in LOADER.items() if key != "root"}
    with pytest.raises(KeyboardInterrupt):
        vk.Run(resolve(read_recipe("vae"), {"data": options}, data="digits"), tmp_path / "run").fit()
    assert {key: asked[key] for key in options} == options
    assert json.dumps(options)


# ---- these tests find what is wrong ----------------------------------------------------------------------------------


def test_an_option_that_nothing_reads_is_found() -> None:
    with pytest.raises(AssertionError, match="nothing reads 'dead'"):
        assert_moves(lambda spec: spec["name"], {"name": "part"}, "dead", 2)


def test_an_option_without_a_case_is_found() -> None:
    with pytest.raises(AssertionError, match=r"no case for \['new'\] of posterior 'x': add another valid value"):
        assert_complete("posterior 'x'", {"old": 1, "new": 2}, {"old": 3})
    with pytest.raises(AssertionError, match=r"no cases for posterior 'x': add an entry"):
        assert_complete("posterior 'x'", {}, None)
    with pytest.raises(AssertionError, match=r"cases for \['gone'\], which posterior 'x' does not have"):
        assert_complete("posterior 'x'", {}, {"gone": 1})
