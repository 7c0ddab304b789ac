"""The backbone `autoencoder_kl`: the same numbers as diffusers' AutoencoderKL, and its files to and fro."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import Tensor

import vaekit as vk
from vaekit import models
from vaekit.backbones.autoencoder_kl import AutoencoderKL
from vaekit.files import load_tensors, save_tensors
from vaekit.testing.contract import fixed

# diffusers leaves files open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {"widths": (8, 16), "latent_channels": 2, "groups": 4}


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The class of diffusers."""
    pytest.importorskip("diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderKL as Theirs
        from diffusers.utils import logging

        logging.set_verbosity_error()
    return Theirs


def their_model(theirs: Any, folder: Path, **config: Any) -> Any:
    """Make a small model of diffusers, with random weights everywhere, and save it."""
    widths = config.pop("block_out_channels", (8, 16, 16))
    options = {"norm_num_groups": 4, "latent_channels": 2, "sample_size": 24, "layers_per_block": 1, **config}
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    model = theirs(block_out_channels=widths, down_block_types=down, up_block_types=up, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def our_model(shape: tuple[int, ...] = (3, 8, 8), posterior: dict[str, Any] | None = None, **options: Any) -> vk.VAE:
    backbone, likelihood = AutoencoderKL(**{**SMALL, **options}), vk.likelihoods.Laplace(shape)
    encoder = backbone.encoder(shape)
    latent_dim = encoder.features // 2
    q = vk.posteriors.Gaussian(encoder.features, latent_dim, **(posterior or {"head": "split"}))
    return vk.VAE(encoder, q, vk.priors.StandardNormal(latent_dim), backbone.decoder(latent_dim, shape), likelihood)


def images(*shape: int) -> Tensor:
    return fixed(*shape).tanh()


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"layers_per_block": 2, "mid_block_add_attention": False, "latent_channels": 3},
        {"use_quant_conv": False, "use_post_quant_conv": False, "in_channels": 1, "out_channels": 1},
        {"block_out_channels": (16,), "norm_num_groups": 8, "use_quant_conv": False},
    ],
    ids=["default", "two layers, no attention", "no 1 x 1 convolutions, grey", "one level"],
)
@torch.no_grad()
def test_same_numbers_as_diffusers(theirs: Any, config: dict[str, Any], tmp_path: Path) -> None:
    expected = their_model(theirs, tmp_path / "theirs", **config)
    model = models.load_autoencoder_kl(tmp_path / "theirs")
    x = images(3, *model.data_shape)
    law, q = expected.encode(x).latent_dist, model.encode(x)
    assert law.logvar.abs().max() > 0.5
    assert law.mean.std() > 0.1
    torch.testing.assert_close(q.mean, law.mean.flatten(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(q.variance.log(), law.logvar.flatten(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.distributions.kl_divergence(q, model.prior()), law.kl(), rtol=1e-5, atol=1e-5)
    decoded = expected.decode(law.mean).sample
    assert decoded.std() > 0.1
    torch.testing.assert_close(model.decode(q.mean).mean, decoded, rtol=1e-5, atol=1e-5)
    # And back.
    models.save_autoencoder_kl(model, tmp_path / "ours")
    again = theirs.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False)
    first, second = (json.loads((tmp_path / place / "config.json").read_text()) for place in ("theirs", "ours"))
    assert {**second, "_diffusers_version": first["_diffusers_version"]} == first
    for name, tensor in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@torch.no_grad()
def test_a_model_of_ours_in_diffusers(theirs: Any, tmp_path: Path) -> None:
    model = our_model(posterior={"head": "split", "log_variance_range": None}).eval()
    models.save_autoencoder_kl(model, tmp_path)
    again = theirs.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    x = images(3, 3, 8, 8)
    law, q = again.encode(x).latent_dist, model.encode(x)
    torch.testing.assert_close(law.mean.flatten(1), q.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(law.std.flatten(1), q.stddev, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.decode(law.mean).sample, model.decode(q.mean).mean, rtol=1e-5, atol=1e-5)
    assert again.config.scaling_factor == 1.0  # not diffusers' own 0.18215, which is of other latents
    assert again.config.sample_size == 8


@torch.no_grad()
def test_log_variances_are_free_where_diffusers_clamps_them(theirs: Any, tmp_path: Path) -> None:
    expected = their_model(theirs, tmp_path)
    tensors = load_tensors(tmp_path / WEIGHTS)
    tensors["quant_conv.bias"][2:] += torch.tensor([-45.0, 15.0])
    save_tensors(tmp_path / WEIGHTS, tensors)
    expected = theirs.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    x, model = images(2, 3, 24, 24), models.load_autoencoder_kl(tmp_path)
    law = expected.encode(x).latent_dist.logvar
    # Scales of e^-22 square to variances below float32's smallest normal number.
    q = model.encode(x).stddev.log().mul(2).unflatten(1, law.shape[1:])
    torch.testing.assert_close(q.clamp(-30.0, 20.0), law, rtol=1e-5, atol=2e-5)
    assert (law[:, 0] == -30.0).all()
    assert (q[:, 0] < -40.0).all()


@torch.no_grad()
def test_former_names_of_the_attention(theirs: Any, tmp_path: Path) -> None:
    expected = their_model(theirs, tmp_path)
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_tensors(tmp_path / WEIGHTS)
    for now, then in former.items():
        tensors = {name.replace(f"attentions.0.{now}.", f"attentions.0.{then}."): t for name, t in tensors.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in tensors
    save_tensors(tmp_path / WEIGHTS, tensors)
    model, x = models.load_autoencoder_kl(tmp_path), images(2, 3, 24, 24)
    torch.testing.assert_close(
        model.encode(x).mean, expected.encode(x).latent_dist.mean.flatten(1), rtol=1e-5, atol=1e-5
    )


# ---- the files -------------------------------------------------------------------------------------------------------


def test_what_a_folder_says_besides_is_carried(tmp_path: Path) -> None:
    models.save_autoencoder_kl(our_model(), tmp_path / "a", scaling_factor=0.5, shift_factor=0.1)
    models.save_autoencoder_kl(models.load_autoencoder_kl(tmp_path / "a"), tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (config["scaling_factor"], config["shift_factor"]) == (0.5, 0.1)
    first, second = (load_tensors(tmp_path / place / WEIGHTS) for place in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_size_of_image(tmp_path: Path) -> None:
    models.save_autoencoder_kl(our_model(), tmp_path)
    model = models.load_autoencoder_kl(tmp_path, image_size=12, likelihood={"name": "gaussian", "learned": True})
    assert (model.data_shape, model.latent_dim) == ((3, 12, 12), 72)
    assert model(images(2, 3, 12, 12)).images.shape == (1, 2, 3, 12, 12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda config: config.update(_class_name="VQModel"), "speaks of VQModel, which autoencoder_kl does not have"),
        (
            lambda config: config.update(down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
            "speaks of AttnDownEncoderBlock2D",
        ),
        (lambda config: config.update(act_fn="relu"), "speaks of relu"),
        (lambda config: config.update(layers_per_block=2), "does not hold what config.json beside it says"),
    ],
)
def test_folders_that_do_not_suit(change: Any, sentence: str, tmp_path: Path) -> None:
    models.save_autoencoder_kl(our_model(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(vk.VaekitError, match=sentence):
        models.load_autoencoder_kl(tmp_path)


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(vk.VaekitError, match="is no folder of a diffusers AutoencoderKL"):
        models.load_autoencoder_kl(tmp_path)
    models.save_autoencoder_kl(our_model(), tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(vk.VaekitError, match="is damaged"):
        models.load_autoencoder_kl(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(vk.VaekitError, match=f"has no {WEIGHTS}: save it with diffusers, as safetensors"):
        models.load_autoencoder_kl(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(vk.VaekitError, match="is not readable JSON"):
        models.load_autoencoder_kl(tmp_path)


def test_models_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(vk.VaekitError, match=r"posterior \{name: gaussian, head: split\}"):
        models.save_autoencoder_kl(our_model(posterior={"head": "linear"}), tmp_path)
    with pytest.raises(vk.VaekitError, match="only a model with the backbone 'autoencoder_kl'"):
        models.save_autoencoder_kl(vk.recipe("vae").model, tmp_path)


def test_a_likelihood_of_another_range_is_refused(tmp_path: Path) -> None:
    models.save_autoencoder_kl(our_model(), tmp_path)
    with pytest.raises(vk.VaekitError, match=r"Bernoulli is of images in \(0.0, 1.0\)"):
        models.load_autoencoder_kl(tmp_path, likelihood="bernoulli")


# ---- the parts -------------------------------------------------------------------------------------------------------


def test_sizes_that_do_not_suit() -> None:
    backbone = AutoencoderKL(**SMALL)
    with pytest.raises(vk.VaekitError, match=r"multiples of 2, and these samples have the shape \(1, 7, 8\)"):
        backbone.encoder((1, 7, 8))
    with pytest.raises(vk.VaekitError, match=r"map of autoencoder_kl is 2 x 4 x 4, and latent_dim is 5: set .* to 32"):
        backbone.decoder(5, (1, 8, 8))
    with pytest.raises(vk.VaekitError, match=r"widths = \[6\] of autoencoder_kl cannot be split into 4 groups"):
        AutoencoderKL(widths=(6,), groups=4)
    with pytest.raises(vk.VaekitError, match="widths of autoencoder_kl is empty"):
        AutoencoderKL(widths=())


def test_the_split_head() -> None:
    posterior = vk.posteriors.Gaussian(6, 3, head="split", log_variance_range=None)
    assert not list(posterior.parameters())
    features = fixed(4, 6)
    q = posterior(features, vk.priors.StandardNormal(3)())
    torch.testing.assert_close(q.mean, features[:, :3])
    torch.testing.assert_close(q.variance.log(), features[:, 3:])
    with pytest.raises(vk.VaekitError, match="takes 8 features apart into two halves.* set latent_dim to 4"):
        vk.posteriors.Gaussian(8, 3, head="split")
    with pytest.raises(vk.VaekitError, match="init = 'glorot' of gaussian is for its linear layers"):
        vk.posteriors.Gaussian(6, 3, head="split", init="glorot")


# ---- runs ------------------------------------------------------------------------------------------------------------


def begun_from(folder: Path, out: Path, **trainer: Any) -> vk.Run:
    """A run whose networks begin with the weights of a folder; its steps are so small that they stay there."""
    optimizer = {"name": "sgd", "lr": 1e-12}
    config = tiny(
        "autoencoder-kl",
        latent_dim=32,
        backbone={**SMALL, "widths": [8, 16], "weights": str(folder)},
        trainer={"max_steps": 2, "accelerator": "cpu", "optimizer": optimizer, "sample_every": 0, **trainer},
        data={"limit": 100},
    )
    return vk.Run(config, out)


def test_a_run_begins_with_the_weights_and_then_does_without_them(tmp_path: Path) -> None:
    model = our_model((1, 8, 8))
    models.save_autoencoder_kl(model, tmp_path / "start")
    expected = model.encoder.layers.conv_out.weight
    run = begun_from(tmp_path / "start", tmp_path / "run")
    run.fit()
    torch.testing.assert_close(run.model.encoder.layers.conv_out.weight, expected, rtol=0.0, atol=1e-6)
    # What the run began from may go: its own weights are what counts from now on.
    shutil.rmtree(tmp_path / "start")
    loaded = vk.Run.load(tmp_path / "run")
    torch.testing.assert_close(loaded.model.state_dict(), run.model.state_dict())
    again = begun_from(tmp_path / "start", tmp_path / "run", max_steps=3)
    assert again.fit(resume=True).steps == 3
    torch.testing.assert_close(again.model.encoder.layers.conv_out.weight, expected, rtol=0.0, atol=1e-6)
    with pytest.raises(vk.VaekitError, match="is no folder of a diffusers AutoencoderKL"):
        begun_from(tmp_path / "start", tmp_path / "new").fit()
    assert not (tmp_path / "new").exists()
    models.save_autoencoder_kl(loaded.model, tmp_path / "written")
    torch.testing.assert_close(load_tensors(tmp_path / "written" / WEIGHTS)["encoder.conv_out.weight"], expected)


def test_options_other_than_those_of_the_weights(tmp_path: Path) -> None:
    models.save_autoencoder_kl(our_model((1, 8, 8), blocks=2, attention=False), tmp_path / "start")
    with pytest.raises(vk.VaekitError, match=r"set backbone to \{blocks: 2, attention: false\}$"):
        begun_from(tmp_path / "start", tmp_path / "run").fit()


def test_channels_other_than_those_of_the_weights(tmp_path: Path) -> None:
    models.save_autoencoder_kl(our_model((3, 8, 8)), tmp_path / "start")
    with pytest.raises(vk.VaekitError, match="is for 3 channels, and here there are 1: set data.channels to 3"):
        begun_from(tmp_path / "start", tmp_path / "run").fit()
