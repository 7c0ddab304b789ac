"""The folder in which diffusers keeps an `AutoencoderKL`: `config.json` and `diffusion_pytorch_model.safetensors`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from vaekit.documents import read_json
from vaekit.errors import VaekitError
from vaekit.files import load_tensors, save_json, save_tensors

__all__ = ["load_part", "options_of_config", "read_config", "write_folder"]

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"

# Our options, and what diffusers calls them; and what an older config.json leaves out.
_NAMES = {
    "widths": "block_out_channels",
    "blocks": "layers_per_block",
    "latent_channels": "latent_channels",
    "groups": "norm_num_groups",
    "attention": "mid_block_add_attention",
    "quant_conv": "use_quant_conv",
    "post_quant_conv": "use_post_quant_conv",
}
_DEFAULTS = {
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "mid_block_add_attention": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": 32,
    "act_fn": "silu",
}
_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}

# What the layers of attention were called before diffusers 0.16; published weights still are.
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# The convolutions that stand beside encoder and decoder in the file, and within them here.
_BESIDE = {"encoder": "quant_conv.", "decoder": "post_quant_conv."}


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return `config.json` of a folder, with diffusers' defaults where it is silent.

    Raises:
        VaekitError: There is none, or it is of another class or has blocks that vaekit does not have.
    """
    path = Path(folder) / _CONFIG
    if not path.is_file():
        raise VaekitError(
            f"{folder} is no folder of a diffusers AutoencoderKL: it has no {_CONFIG} (of a whole pipeline take the "
            "folder vae within it)"
        )
    found = read_json(path)
    if not isinstance(found, dict):
        raise VaekitError(f"{path} must hold a JSON object, not {type(found).__name__}")
    config = {**_DEFAULTS, **found}
    if any(not isinstance(config.get(key, []), list) for key in (*_BLOCKS, "block_out_channels")):
        raise VaekitError(f"{path} is damaged: its blocks and their channels must be lists")
    others = [name for key, known in _BLOCKS.items() for name in config.get(key, []) if name != known]
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL" or others or config["act_fn"] not in ("silu", "swish"):
        what = next((word for word in (*others, kind) if word != "AutoencoderKL"), config["act_fn"])
        raise VaekitError(
            f"{path} speaks of {what}, which autoencoder_kl does not have: it takes an AutoencoderKL of "
            f"{' and '.join(_BLOCKS.values())} with silu"
        )
    return config


def options_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the backbone `autoencoder_kl` that a config describes.

    Examples:
        >>> options_of_config({**_DEFAULTS, "block_out_channels": [128, 256]})["widths"]
        (128, 256)
    """
    options = {ours: config[theirs] for ours, theirs in _NAMES.items()}
    return {**options, "widths": tuple(options["widths"])}


def load_part(
    network: nn.Module, part: Literal["encoder", "decoder"], folder: str, options: Mapping[str, Any], channels: int
) -> None:
    """Give an encoder or a decoder the weights of a folder.

    Arguments:
        network: The network; changed in place.
        part: Which of the two it is.
        folder: The folder.
        options: The options of the backbone.
        channels: The channels of its images.

    Raises:
        VaekitError: The folder has other options or channels, or its weights are missing or damaged.
    """
    config = read_config(folder)
    asked = options_of_config(config)
    differing = {name: value for name, value in asked.items() if value != options[name]}
    if differing:
        words = ", ".join(f"{name}: {json.dumps(value)}" for name, value in differing.items())
        raise VaekitError(f"the weights in {folder} are of other options: set backbone to {{{words}}}")
    key = {"encoder": "in_channels", "decoder": "out_channels"}[part]
    if config[key] != channels:
        raise VaekitError(
            f"the {part} in {folder} is for {config[key]} channels, and here there are {channels}: set data.channels "
            f"to {config[key]}, and take a likelihood with one decoded value for each of the data"
        )
    path = Path(folder) / _WEIGHTS
    if not path.is_file():
        raise VaekitError(f"{folder} has no {_WEIGHTS}: save it with diffusers, as safetensors")
    state = {}
    for name, tensor in load_tensors(path).items():
        name = re.sub(r"(?<=attentions\.0\.)\w+", lambda found: _FORMER.get(found[0], found[0]), name)
        if name.startswith((f"{part}.", _BESIDE[part])):
            state[name.removeprefix(f"{part}.")] = tensor
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise VaekitError(f"{path} does not hold what {_CONFIG} beside it says: restore one of them") from error


def write_folder(
    folder: str | Path,
    options: Mapping[str, Any],
    extras: Mapping[str, Any],
    encoder: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
) -> None:
    """Write a folder that diffusers reads.

    Arguments:
        folder: Where.
        options: The options of the backbone.
        extras: What else `config.json` says; the channels and the size of the images among it.
        encoder: The encoder's tensors.
        decoder: The decoder's tensors.

    Raises:
        VaekitError: The place may not be written.
    """
    tensors = {}
    for part, state in (("encoder", encoder), ("decoder", decoder)):
        for name, tensor in state.items():
            tensors[name if name.startswith(_BESIDE[part]) else f"{part}.{name}"] = tensor
    config = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        **extras,
        **{theirs: options[ours] for ours, theirs in _NAMES.items()},
        **{key: [name] * len(options["widths"]) for key, name in _BLOCKS.items()},
    }
    save_tensors(Path(folder) / _WEIGHTS, tensors, {"format": "pt"})
    save_json(Path(folder) / _CONFIG, dict(sorted(config.items())))
