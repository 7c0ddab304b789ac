"""The image encoders of timm, each with a decoder of vaekit's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.backbones.base import Backbone, Decoder, Encoder
from vaekit.backbones.pretrained import weights_from
from vaekit.errors import VaekitError
from vaekit.registry import backbones, check_spec

__all__ = ["Timm", "TimmEncoder"]

# What vaekit tells timm itself, and what would bring in weights by another way.
_OURS = {
    "cache_dir",
    "checkpoint_path",
    "features_only",
    "global_pool",
    "img_size",
    "in_chans",
    "model_name",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
}


class TimmEncoder(Encoder):
    """A network of timm without its classifier, flattened at the end.

    Arguments:
        network: The network.
        features: The number of features that it gives.
    """

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of images (B, C, H, W)."""
        return self.network(x).flatten(1)


@backbones.register(
    "timm",
    about="Any image encoder of timm, with the decoder of another backbone; pretrained weights if wanted",
    source="R. Wightman, PyTorch Image Models, 2019, github.com/huggingface/pytorch-image-models",
    needs=("images of a size that the model takes", "the extra vaekit[timm]"),
    supports=("images",),
)
@dataclass(frozen=True, kw_only=True)
class Timm(Backbone):
    """A model of timm as the encoder (`timm.list_models()` names more than a thousand), and a decoder from here.

    The classifier is taken away. What is left are timm's pooled features, or with `pooled: false` the last map or the
    last tokens whole, which tell where things are. The first layer takes as many channels as the data have. Models
    that are made for one size of image (most vision transformers) are made for that of the data.

    Pretrained weights are read from safetensors files alone, never from pickled ones. The classifier's weights have to
    be in the file too; they are compared and dropped. First layers for other than three channels are made of the
    pretrained ones, as timm does it. The images come in the range of the likelihood, and timm's own means and standard
    deviations are not applied.

    Source: R. Wightman, PyTorch Image Models, 2019, github.com/huggingface/pytorch-image-models.

    Arguments:
        model: A name of timm's, such as `"resnet18"` or `"convnext_tiny.in12k_ft_in1k"`; what follows the dot names the
            pretrained weights.
        pretrained: Whether to begin with the weights that timm publishes under that name. They are downloaded once.
        weights: A `.safetensors` file to begin with instead.
        pooled: Whether the features are pooled over the places of the image.
        arguments: What else to tell the model, such as `{drop_path_rate: 0.1}`, or `{patch_size: 4}` of a vision
            transformer.
        decoder_backbone: The backbone whose decoder is taken: a name, or a mapping with `name` and options.

    Raises:
        VaekitError: timm is not installed, has no such model or weights, or (in `encoder`) the model does not take the
            samples.

    Examples:
        >>> backbone = Timm(model="test_vit", arguments={"patch_size": 4}, decoder_backbone="mlp")
        >>> encoder = backbone.encoder((1, 28, 28))
        >>> encoder(torch.zeros(5, 1, 28, 28)).shape, encoder.features
        (torch.Size([5, 64]), 64)
        >>> backbone.decoder(2, (1, 28, 28))(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 28, 28])
    """

    model: str = "resnet18"
    pretrained: bool = False
    weights: str | None = None
    pooled: bool = True
    arguments: dict[str, Any] | None = None
    decoder_backbone: str | dict[str, Any] = "conv"

    def __post_init__(self) -> None:
        check_spec(backbones, self.decoder_backbone, "backbone.decoder_backbone")
        if self.pretrained and self.weights is not None:
            raise VaekitError("pretrained and weights of timm are two beginnings: give one of them")
        if self.weights is not None and Path(self.weights).suffix != ".safetensors":
            raise VaekitError(f"weights of timm must be a .safetensors file, not {self.weights}: save it as one")
        if taken := sorted(_OURS & set(self.arguments or ())):
            raise VaekitError(f"arguments of timm cannot have '{taken[0]}': the backbone's own options decide it")

    def encoder(self, data_shape: tuple[int, ...]) -> TimmEncoder:
        """Return a new encoder for images of shape `data_shape`, (C, H, W)."""
        if len(data_shape) != 3:
            raise VaekitError(
                f"timm needs images (channels, height, width), and these samples have the shape {tuple(data_shape)}: "
                "use `backbone: mlp`"
            )
        network = self._network(data_shape)
        remedy = "set data.image_size, or backbone.arguments such as patch_size"
        try:
            features, seen = _probe(network, data_shape)
        except Exception as error:  # Every family of models has its own way to refuse.
            raise VaekitError(
                f"{self.model} of timm does not take images of {data_shape[1]} x {data_shape[2]} pixels "
                f"({_words(error)}): {remedy}"
            ) from error
        if seen != tuple(data_shape[1:]):
            raise VaekitError(
                f"{self.model} of timm sees only {seen[0]} x {seen[1]} of the {data_shape[1]} x {data_shape[2]} "
                f"pixels: {remedy}"
            )
        return TimmEncoder(network, features)

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> Decoder:
        """Return a new decoder of `decoder_backbone` from `latent_dim` to `decoded_shape`."""
        backbone: Backbone = backbones.build(self.decoder_backbone, where="backbone.decoder_backbone")
        return backbone.decoder(latent_dim, decoded_shape)

    def _network(self, data_shape: tuple[int, ...]) -> nn.Module:
        """Return the model without its classifier, with its first weights."""
        timm = _timm()
        known = timm.list_models()
        if self.model.partition(".")[0] not in known:
            near = difflib.get_close_matches(self.model, known, n=1, cutoff=0.6)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise VaekitError(f"timm has no model '{self.model}': {hint}See timm.list_models() in Python")
        try:
            described = timm.get_pretrained_cfg(self.model, allow_unregistered=False)
        except RuntimeError as error:
            raise VaekitError(f"timm cannot make {self.model}: {_words(error)}") from error
        arguments = {"in_chans": data_shape[0], **(self.arguments or {})}
        if described.fixed_input_size:
            arguments["img_size"] = tuple(data_shape[1:])
        file = self._weights_file(described)
        if file is not None:
            arguments |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}
        try:
            # The classifier is made and then taken away: weights that lack a part are refused only of a whole model.
            network: nn.Module = timm.create_model(self.model, **arguments)
            network.reset_classifier(0, *([] if self.pooled else [""]))  # type: ignore[operator]
        except Exception as error:  # as above
            source = "" if file is None else f" with the weights of {file}"
            raise VaekitError(f"timm cannot make {self.model}{source}: {_words(error)}") from error
        return network

    def _weights_file(self, described: Any) -> Path | None:
        """Return the file of the first weights, downloaded if need be; None for random ones."""
        if weights_from() == "nowhere" or not (self.pretrained or self.weights):
            return None
        if self.weights is not None:
            if not Path(self.weights).is_file():
                raise VaekitError(f"the weights {self.weights} of timm's {self.model} are not there")
            return Path(self.weights)
        if not described.hf_hub_id:
            raise VaekitError(
                f"timm publishes no weights of {self.model}: name others after a dot, or set pretrained off"
            )
        return _download(self.model, *described.hf_hub_id.split("@"))


def _probe(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """Return the number of features of an image, and how many of its rows and columns they depend on."""
    # Residual branches may begin at zero, which would hide what they see.
    zeros = [parameter for parameter in network.parameters() if not parameter.any()]
    x = torch.randn(1, *shape, requires_grad=True)
    try:
        _fill(zeros, 0.1)
        with torch.enable_grad():
            features = network.eval()(x)
            (slope,) = torch.autograd.grad((features * torch.randn_like(features)).sum(), x)
    finally:
        _fill(zeros, 0.0)
    network.train()
    seen = slope[0].any(0)
    return features.numel(), (int(seen.any(1).sum()), int(seen.any(0).sum()))


@torch.no_grad()
def _fill(parameters: list[nn.Parameter], value: float) -> None:
    for parameter in parameters:
        parameter.fill_(value)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise VaekitError('the backbone timm needs timm: pip install "vaekit[timm]"') from error
    return timm


def _download(model: str, repository: str, revision: str | None = None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason: Exception
    local, otherwise = weights_from() == "disk", "or give a .safetensors file as backbone.weights"
    try:
        return Path(hf_hub_download(repository, "model.safetensors", revision=revision, local_files_only=local))
    except LocalEntryNotFoundError as error:
        if local:
            raise VaekitError(
                f"the weights of timm's {model} are not on this disk, and downloads are forbidden: fetch them without "
                f"--offline, {otherwise}"
            ) from error
        reason = error
    except EntryNotFoundError as error:
        raise VaekitError(
            f"{repository} has no safetensors file of {model}: name other weights, {otherwise}"
        ) from error
    except Exception as error:  # network, proxies, rights: whatever the client raises
        reason = error
    raise VaekitError(
        f"cannot download the weights of timm's {model} ({_words(reason)}): try again, {otherwise}"
    ) from reason


def _words(error: Exception) -> str:
    """Return the first sentence or so of what an error says."""
    return " ".join(str(error).split())[:200] or type(error).__name__
