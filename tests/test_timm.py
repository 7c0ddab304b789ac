"""The backbone `timm`: features as timm gives them, decoders of other backbones, weights from safetensors alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from safetensors.torch import save_file
from torch import Tensor

import vaekit as vk
from vaekit.backbones.pretrained import pretrained_weights
from vaekit.backbones.timm import Timm
from vaekit.testing.contract import fixed

timm = pytest.importorskip("timm")

DECODER = {"name": "conv", "width": 4}


def backbone(model: str = "test_convnext", **options: Any) -> Timm:
    return Timm(model=model, decoder_backbone=DECODER, **options)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The weights of a model with its classifier, as timm publishes them."""
    torch.manual_seed(7)
    model = timm.create_model("test_convnext")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def published(weights: Path, **arguments: Any) -> Any:
    """Return timm's own model with the weights."""
    overlay = {"file": str(weights), "custom_load": False}
    return timm.create_model("test_convnext", pretrained=True, pretrained_cfg_overlay=overlay, **arguments).eval()


# ---- features --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_features_are_those_of_timm(weights: Path) -> None:
    x, model = fixed(4, 3, 64, 48), published(weights)
    pooled = backbone(weights=str(weights)).encoder((3, 64, 48)).eval()
    torch.testing.assert_close(pooled(x), model.forward_head(model.forward_features(x), pre_logits=True))
    whole = backbone(weights=str(weights), pooled=False).encoder((3, 64, 48)).eval()
    maps = model.forward_features(x)
    assert maps.shape[2:] == (2, 1)
    assert whole.features == maps[0].numel() == 2 * pooled.features
    model.reset_classifier(0, "")
    torch.testing.assert_close(whole(x), model(x).flatten(1))


@torch.no_grad()
def test_first_layer_takes_the_channels_of_the_data(weights: Path) -> None:
    encoder = backbone(weights=str(weights)).encoder((1, 32, 32)).eval()
    grey = fixed(2, 1, 32, 32)
    expected = published(weights, num_classes=0)(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(grey), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "shape", "arguments"),
    [
        ("test_resnet", (1, 28, 28), None),
        ("test_vit", (3, 48, 32), None),
        ("test_vit", (1, 28, 28), {"patch_size": 4}),
        ("test_efficientnet", (3, 33, 50), None),
        ("test_maxvit", (3, 64, 64), None),
    ],
)
def test_a_model_of_any_family_in_a_vae(model: str, shape: tuple[int, ...], arguments: dict[str, Any] | None) -> None:
    part, likelihood = backbone(model, arguments=arguments), vk.likelihoods.Gaussian(shape)
    encoder = part.encoder(shape)
    vae = vk.VAE(
        encoder,
        vk.posteriors.Gaussian(encoder.features, 3),
        vk.priors.StandardNormal(3),
        part.decoder(3, shape),
        likelihood,
    )
    reconstruction, regularization, _ = vk.Objective({"kl": vk.regularizers.KL()}).evaluate(
        vae(x := fixed(4, *shape)), x
    )
    gradients = torch.autograd.grad(reconstruction + regularization, list(vae.parameters()), allow_unused=True)
    unused = [name for (name, _), g in zip(vae.named_parameters(), gradients, strict=True) if g is None]
    assert not unused, "data-parallel training would wait for them"


def test_building_does_not_change_what_begins_at_zero() -> None:
    # Residual branches of a ResNet begin at zero; the look at what the model sees must leave them so.
    torch.manual_seed(0)
    encoder = backbone("test_resnet").encoder((3, 32, 32))
    assert encoder.training
    zeros = [name for name, parameter in encoder.named_parameters() if not parameter.any()]
    assert "network.layer1.0.bn3.weight" in zeros or "network.layer1.0.bn2.weight" in zeros
    assert all(parameter.grad is None for parameter in encoder.parameters())


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shape", "sentence"),
    [
        ({"model": "test_convnet"}, (3, 32, 32), r"has no model 'test_convnet': did you mean 'test_convnext'\? See"),
        ({"model": "hf-hub:timm/test_vit"}, (3, 32, 32), "timm has no model 'hf-hub:timm/test_vit'"),
        (
            {"model": "test_vit.no_such_weights"},
            (3, 32, 32),
            "cannot make test_vit.no_such_weights: Invalid pretrained",
        ),
        (
            {"arguments": {"no_such": 1}},
            (3, 32, 32),
            "cannot make test_convnext: .*unexpected keyword argument 'no_such'",
        ),
        ({}, (3, 4, 4), "test_convnext of timm does not take images of 4 x 4 pixels"),
        (
            {"model": "vit_tiny_patch16_224"},
            (1, 28, 28),
            "sees only 16 x 16 of the 28 x 28 pixels: set data.image_size",
        ),
        ({}, (7,), r"needs images .* shape \(7,\): use `backbone: mlp`"),
    ],
)
def test_what_timm_cannot_do(options: dict[str, Any], shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(vk.VaekitError, match=sentence):
        backbone(**options).encoder(shape)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weights": "model.bin"}, r"must be a .safetensors file, not model.bin"),
        ({"weights": "model.pth"}, r"must be a .safetensors file, not model.pth"),
        ({"weights": "a.safetensors", "pretrained": True}, "two beginnings: give one of them"),
        ({"arguments": {"checkpoint_path": "x"}}, "arguments of timm cannot have 'checkpoint_path'"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(vk.VaekitError, match=sentence):
        backbone(**options)


def test_a_decoder_that_does_not_exist() -> None:
    with pytest.raises(vk.VaekitError, match="unknown option 'backbone.decoder_backbone.witdh'.*did you mean 'width'"):
        Timm(decoder_backbone={"name": "conv", "witdh": 3})


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(vk.VaekitError, match=r'the backbone timm needs timm: pip install "vaekit\[timm\]"'):
        backbone().encoder((3, 32, 32))


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_weights_of_another_model_are_refused(weights: Path, tmp_path: Path) -> None:
    # timm itself would leave what is missing at random.
    state = timm.create_model("test_convnext").state_dict()
    state.pop("stages.0.blocks.0.conv_dw.weight")
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(vk.VaekitError, match="part.safetensors: .*Missing key.*conv_dw"):
        backbone(weights=str(tmp_path / "part.safetensors")).encoder((3, 32, 32))
    with pytest.raises(vk.VaekitError, match="cannot make test_convnext2 with the weights of"):
        backbone("test_convnext2", weights=str(weights)).encoder((3, 32, 32))
    with pytest.raises(vk.VaekitError, match="are not there"):
        backbone(weights="nowhere.safetensors").encoder((3, 32, 32))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "model.safetensors")  # only called so
    with pytest.raises(vk.VaekitError, match="with the weights of"):
        backbone(weights=str(tmp_path / "model.safetensors")).encoder((3, 32, 32))


def test_pretrained_weights_come_as_safetensors(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repository: str, file: str, **options: Any) -> str:
        asked.append((repository, file, options["local_files_only"]))
        return str(weights)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    encoder = backbone("test_convnext.r160_in1k", pretrained=True).encoder((3, 32, 32)).eval()
    with pretrained_weights("disk"):
        backbone("test_convnext.r160_in1k", pretrained=True).encoder((3, 32, 32))
    with pretrained_weights("nowhere"):
        backbone("test_convnext.r160_in1k", pretrained=True).encoder((3, 32, 32))
    assert asked == [("timm/test_convnext.r160_in1k", "model.safetensors", local) for local in (False, True)]
    x: Tensor = fixed(2, 3, 32, 32)
    torch.testing.assert_close(encoder(x), published(weights, num_classes=0)(x))


def offline(tmp_path: Path, **options: Any) -> vk.Run:
    part = {"name": "timm", "model": "test_convnext", "decoder_backbone": DECODER, **options}
    trainer = {"max_steps": 2, "accelerator": "cpu", "sample_every": 0, "optimizer": {"name": "sgd", "lr": 1e-12}}
    config = tiny("vae", backbone=part, trainer=trainer, data={"image_size": 32, "limit": 100})
    return vk.Run(config, tmp_path / "run", offline=True)


def test_downloads_are_refused_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(vk.VaekitError, match="not on this disk, and downloads are forbidden: fetch them without --off"):
        offline(tmp_path, pretrained=True).fit()
    assert not (tmp_path / "run").exists()


def test_a_network_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\n  to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(vk.VaekitError, match=r"cannot download the weights of timm's test_vit \(no route to host\)"):
        backbone("test_vit", pretrained=True).encoder((3, 32, 32))


def test_a_run_begins_with_the_weights_and_then_does_without_them(weights: Path, tmp_path: Path) -> None:
    run = offline(tmp_path, weights=str(weights))
    run.fit()
    layer = "encoder.network.stages.3.blocks.0.mlp.fc1.weight"
    expected = published(weights).state_dict()[layer.removeprefix("encoder.network.")]
    torch.testing.assert_close(run.model.state_dict()[layer], expected, rtol=0.0, atol=1e-6)
    shutil.move(weights, tmp_path / "gone")
    loaded = vk.Run.load(tmp_path / "run")
    torch.testing.assert_close(loaded.model.state_dict(), run.model.state_dict())
    again = offline(tmp_path, weights=str(weights))
    again.config.trainer["max_steps"] = 3
    assert again.fit(resume=True).steps == 3
    torch.testing.assert_close(again.model.state_dict()[layer], expected, rtol=0.0, atol=1e-6)
