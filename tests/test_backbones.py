"""Backbones: sizes, published parameter counts, TensorFlow's padding, every option and every parameter in use."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.conv import Conv
from vaekit.backbones.layers import FrozenAffine, norm_layer
from vaekit.backbones.mlp import MLP
from vaekit.backbones.resampling import Downsample, Pointwise, Upsample, image_sizes
from vaekit.backbones.resnetv2 import ResNetV2
from vaekit.errors import VaekitError
from vaekit.registry import backbones

SIZES = [(8, 8), (9, 9), (28, 28), (32, 32), (50, 70), (64, 64), (178, 218)]
AUTHOR = {"width": 128, "norm": "frozen_affine", "input_norm": "instance_hw", "init": "glorot"}
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [12, 7]},
    "conv": {"width": 4},
    "resnetv2": {"width": 8, "latent_channels": 4},
}
# For each option of each backbone, a value other than the one in SMALL.
CHANGES: dict[str, dict[str, list[Any]]] = {
    "mlp": {
        "hidden": [[12], [5, 5, 5], []],
        "decoder_hidden": [[], [5]],
        "activation": ["gelu", "silu", "tanh"],
        "bias": [False],
    },
    "conv": {"width": [5], "norm": ["batch", "frozen_affine", "none"]},
    "resnetv2": {
        "width": [12],
        "norm": ["frozen_affine", "group", "none"],
        "input_norm": ["instance_hw"],
        "padding": ["symmetric"],
        "output": ["tanh"],
        "latent_channels": [6],
        "encoder_blocks": [0, 1],
        "decoder_blocks": [0, 2],
        "init": ["glorot"],
    },
}
VARIANTS = [(name, {}) for name in SMALL] + [
    (name, {option: value})
    for name, options in CHANGES.items()
    for option, values in options.items()
    for value in values
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pair(name: str, shape: tuple[int, ...], **options: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    backbone = backbones.build({"name": name, **SMALL[name], **options})
    return backbone.encoder(shape), backbone.decoder(5, shape)


def roundtrip(name: str, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    encoder, decoder = pair(name, tuple(x.shape[1:]), **options)
    torch.manual_seed(2)
    return encoder(x), decoder(torch.randn(len(x), 5))


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "last", "stages"),
    [
        ((8, 8), (4, 4), 1),
        ((9, 9), (5, 5), 1),
        ((28, 28), (4, 4), 3),
        ((32, 32), (4, 4), 3),
        ((50, 70), (4, 5), 4),
        ((64, 64), (4, 4), 4),
        ((256, 256), (4, 4), 6),
        ((4, 4), (2, 2), 1),
    ],
)
def test_number_of_stages(size: tuple[int, int], last: tuple[int, int], stages: int) -> None:
    sizes = image_sizes((3, *size), "conv")
    assert sizes[0] == size
    assert sizes[-1] == last
    assert len(sizes) == stages + 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("name", ["conv", "mlp", "resnetv2"])
def test_shapes(name: str, size: tuple[int, int], channels: int) -> None:
    encoder, decoder = pair(name, (channels, *size))
    assert encoder(torch.randn(2, channels, *size)).shape == (2, encoder.features)
    assert decoder(torch.randn(2, 5)).shape == (2, channels, *size)
    # A likelihood with a scale for each pixel asks for twice the channels.
    wide = backbones.build({"name": name, **SMALL[name]}).decoder(5, (2 * channels, *size))
    assert wide(torch.randn(2, 5)).shape == (2, 2 * channels, *size)


@pytest.mark.parametrize("norm", ["batch", "frozen_affine", "group", "none"])
@pytest.mark.parametrize("name", ["conv", "resnetv2"])
def test_smallest_image_and_a_batch_of_one(name: str, norm: str) -> None:
    features, decoded = roundtrip(name, torch.randn(1, 1, 4, 4), norm=norm)
    assert features.isfinite().all()
    assert decoded.shape == (1, 1, 4, 4)
    assert decoded.isfinite().all()


@pytest.mark.parametrize("shape", [(10,), (4, 3, 2), (2, 3, 4, 5)])
def test_mlp_takes_any_shape(shape: tuple[int, ...]) -> None:
    features, decoded = roundtrip("mlp", torch.randn(3, *shape))
    assert features.shape == (3, 7)
    assert decoded.shape == (3, *shape)


def test_mlp_without_hidden_layers_is_linear() -> None:
    encoder, decoder = pair("mlp", (2, 3), hidden=[])
    x = torch.randn(4, 2, 3)
    assert torch.equal(encoder(x), x.reshape(4, 6))
    z = torch.randn(4, 5)
    assert torch.allclose(decoder(2 * z) - decoder(z), decoder(z) - decoder(0 * z), atol=1e-6)


@pytest.mark.parametrize("shape", [(10,), (3, 3, 64), (1, 64, 2), (8, 8)])
@pytest.mark.parametrize("name", ["conv", "resnetv2"])
def test_unsuitable_samples_are_refused(name: str, shape: tuple[int, ...]) -> None:
    backbone = backbones.build({"name": name, **SMALL[name]})
    for build in (lambda: backbone.encoder(shape), lambda: backbone.decoder(5, shape)):
        with pytest.raises(VaekitError, match="at least 4 x 4") as caught:
            build()
        sentence = str(caught.value)
        assert str(shape) in sentence
        assert "`backbone: mlp`" in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("part", "options", "match"),
    [
        (MLP, {"hidden": [8, 0]}, "hidden = 0"),
        (MLP, {"activation": "swish"}, "use one of relu, gelu, silu, tanh"),
        (Conv, {"width": 0}, "width = 0"),
        (Conv, {"norm": "layer"}, "norm = 'layer'"),
        (ResNetV2, {"width": -1}, "width = -1"),
        (ResNetV2, {"latent_channels": 0}, "latent_channels = 0"),
        (ResNetV2, {"encoder_blocks": -1}, "encoder_blocks = -1"),
        (ResNetV2, {"decoder_blocks": -1}, "decoder_blocks = -1"),
        (ResNetV2, {"norm": "spectral"}, "use one of batch, frozen_affine, group, none"),
        (ResNetV2, {"input_norm": "layer"}, "use one of none, instance_hw"),
        (ResNetV2, {"padding": "valid"}, "use one of same, symmetric"),
        (ResNetV2, {"output": "sigmoid"}, "use one of linear, tanh"),
        (ResNetV2, {"init": "he"}, "use one of default, glorot"),
    ],
)
def test_wrong_options_are_refused(part: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(VaekitError, match=match):
        part(**options)


# ---- the published network -----------------------------------------------------------------------------------------


def test_parameter_counts_of_the_author() -> None:
    with torch.device("meta"):
        backbone = ResNetV2(**AUTHOR)
        encoder, decoder = backbone.encoder((3, 256, 256)), backbone.decoder(512, (3, 256, 256))
        heads = nn.ModuleList([nn.Linear(encoder.features, 512) for _ in range(2)])
    assert encoder.features == 1024
    assert count(encoder) == 5_867_584
    assert count(decoder) == 4_040_556
    assert count(heads) == 1_049_600
    assert count(encoder) + count(decoder) + count(heads) == 10_957_740
    assert decoder.last_layer.shape == (3, 3, 1, 1)


def frozen(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (weight[:, None, None] * x / math.sqrt(1.001) + bias[:, None, None]).relu()


def test_encoder_and_decoder_match_a_plain_forward_pass(float64: None) -> None:
    """The author's equations on 8 x 8, written out with functions and fed from the state dict in order."""
    backbone = ResNetV2(width=6, latent_channels=4, norm="frozen_affine", input_norm="instance_hw", encoder_blocks=1)
    encoder, decoder = backbone.encoder((3, 8, 8)), backbone.decoder(5, (3, 8, 8))
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        nn.init.normal_(parameter, std=0.5)

    take = iter(encoder.state_dict().values())

    def two() -> tuple[Tensor, Tensor]:
        return next(take), next(take)

    def tri(h: Tensor, stride: int = 1) -> Tensor:
        h = F.conv2d(frozen(h, *two()), *two(), padding=1)
        h = F.conv2d(frozen(h, *two()), *two(), padding=1)
        return F.conv2d(frozen(h, *two()), *two(), stride=stride)

    x = torch.randn(2, 3, 8, 8)
    gamma, beta = two()
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    h = F.conv2d((x - mean) / (variance + 1e-3).sqrt() * gamma + beta, *two(), padding=1)
    h = h + tri(h)
    h = tri(h, stride=2) + F.conv2d(frozen(h, *two()), *two())[:, :, ::2, ::2]
    h = F.conv2d(h, *two())
    assert next(take, None) is None
    assert torch.allclose(encoder(x), h.movedim(1, -1).flatten(1))

    take = iter(decoder.state_dict().values())
    z = torch.randn(2, 5)
    h = F.conv2d(F.linear(z, *two()).reshape(2, 4, 4, 4).movedim(-1, 1), *two(), padding=1)
    h = h + tri(h)
    body = F.conv2d(frozen(h, *two()), *two())
    body = F.conv_transpose2d(frozen(body, *two()), *two(), stride=2)
    shortcut = F.conv_transpose2d(frozen(h, *two()), *two(), stride=2)
    h = F.conv2d((body + shortcut)[..., :-1, :-1], *two())
    assert next(take, None) is None
    assert torch.allclose(decoder(z), h)


def test_input_norm_removes_the_level_and_contrast_of_each_channel() -> None:
    encoder, _ = pair("resnetv2", (3, 16, 16), input_norm="instance_hw", norm="frozen_affine")
    x = torch.randn(2, 3, 16, 16)
    level, contrast = torch.randn(2, 3, 1, 1), torch.rand(2, 3, 1, 1) + 0.5
    assert torch.allclose(encoder(x), encoder(contrast * x + level), atol=1e-2)
    plain, _ = pair("resnetv2", (3, 16, 16), norm="frozen_affine")
    assert not torch.allclose(plain(x), plain(contrast * x + level), atol=1e-2)


def test_glorot_bounds_kernels_and_zeroes_biases() -> None:
    for network in pair("resnetv2", (3, 16, 16), init="glorot"):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                area = math.prod(layer.kernel_size)
                bound = math.sqrt(6 / (area * (layer.in_channels + layer.out_channels)))
                assert layer.weight.abs().max() <= bound
                assert layer.weight.std() > 0.3 * bound
                assert not layer.bias.any()


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_downsampling_follows_tensorflow() -> None:
    layer = Downsample(3, 4)
    even, odd = torch.randn(2, 3, 8, 6), torch.randn(2, 3, 9, 7)
    weight, bias = layer.conv.weight, layer.conv.bias
    assert torch.equal(layer(even), F.conv2d(F.pad(even, (0, 1, 0, 1)), weight, bias, stride=2))
    assert torch.allclose(layer(odd), F.conv2d(odd, weight, bias, stride=2, padding=1), atol=1e-6)
    symmetric = Downsample(3, 4, padding="symmetric")
    symmetric.load_state_dict(layer.state_dict())
    assert torch.equal(symmetric(even), F.conv2d(even, weight, bias, stride=2, padding=1))
    assert not torch.allclose(symmetric(even), layer(even), atol=1e-3)


def test_upsampling_follows_tensorflow() -> None:
    x = torch.randn(2, 4, 5, 3)
    layer = Upsample(4, 3, (5, 3), (10, 6))
    weight, bias = layer.conv.weight, layer.conv.bias
    assert torch.equal(layer(x), F.conv_transpose2d(x, weight, bias, stride=2)[..., :-1, :-1])
    symmetric = Upsample(4, 3, (5, 3), (10, 6), padding="symmetric")
    symmetric.load_state_dict(layer.state_dict())
    expected = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    assert torch.allclose(symmetric(x), expected, atol=1e-6)
    assert not torch.allclose(symmetric(x), layer(x), atol=1e-3)


@pytest.mark.parametrize(("kernel", "padding"), [(3, "same"), (3, "symmetric"), (4, "same")])
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (9, 6), (6, 9), (5, 4)])
def test_upsampling_is_the_adjoint_of_downsampling(
    float64: None, kernel: int, padding: Any, size: tuple[int, int]
) -> None:
    half = (-(-size[0] // 2), -(-size[1] // 2))
    down = Downsample(3, 4, kernel, padding=padding, bias=False)
    up = Upsample(4, 3, half, size, kernel, padding=padding, bias=False)
    up.load_state_dict(down.state_dict())
    x, y = torch.randn(1, 3, *size), torch.randn(1, 4, *half)
    assert torch.allclose((down(x) * y).sum(), (x * up(y)).sum())


def test_frozen_affine_has_no_statistics() -> None:
    layer = FrozenAffine(3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = 5 + 3 * torch.randn(4, 3, 6, 6)
    expected = layer.weight[:, None, None] * x / math.sqrt(1.001) + layer.bias[:, None, None]
    assert list(layer.buffers()) == []
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert torch.equal(layer.train()(x), layer.eval()(x))
    # It is batch normalisation in evaluation mode, as first made.
    batch = norm_layer("batch", 3).eval()
    batch.load_state_dict(layer.state_dict(), strict=False)
    assert torch.allclose(layer(x), batch(x), atol=1e-5)


def test_batch_normalisation_has_the_constants_of_keras() -> None:
    encoder, decoder = pair("resnetv2", (1, 8, 8))
    layers = [m for net in (encoder, decoder) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert layers
    assert {(layer.eps, layer.momentum) for layer in layers} == {(1e-3, 0.01)}


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 8, 24, 48, 64, 100, 128, 1024])
def test_groups_divide_the_channels(channels: int) -> None:
    layer = norm_layer("group", channels)
    assert channels % layer.num_groups == 0
    assert layer.num_groups <= 32
    assert channels // layer.num_groups >= min(4, channels)
    assert layer(torch.randn(2, channels, 4, 4)).isfinite().all()


# ---- every option, every parameter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SMALL))
def test_every_option_has_a_variant(name: str) -> None:
    assert set(CHANGES[name]) == set(backbones.options(name))


@pytest.mark.parametrize(("name", "options"), [variant for variant in VARIANTS if variant[1]])
def test_each_option_changes_the_graph_or_the_output(name: str, options: dict[str, Any]) -> None:
    x = torch.randn(4, 3, 8, 8)

    def same(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)

    assert not all(map(same, roundtrip(name, x), roundtrip(name, x, **options)))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    encoder, decoder = pair(name, (3, 18, 16), **options)
    (encoder(torch.randn(4, 3, 18, 16)).square().sum() + decoder(torch.randn(4, 5)).square().sum()).backward()
    batch = any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    for network in (encoder, decoder):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, f"{key} has no gradient"
            assert parameter.grad.isfinite().all(), f"{key} has a gradient that is not finite"
            # A constant before batch normalisation has no effect: its gradient is zero but for rounding.
            if parameter.dim() > 1 or not batch:
                assert parameter.grad.any(), f"{key} has a gradient of zero"


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_state_dict_round_trip(name: str, options: dict[str, Any]) -> None:
    networks = pair(name, (3, 9, 12), **options)
    inputs = torch.randn(4, 3, 9, 12), torch.randn(4, 5)
    for network, x in zip(networks, inputs, strict=True):
        network(x)  # batch statistics move
    torch.manual_seed(9)
    backbone = backbones.build({"name": name, **SMALL[name], **options})
    for network, copy, x in zip(
        networks, (backbone.encoder((3, 9, 12)), backbone.decoder(5, (3, 9, 12))), inputs, strict=True
    ):
        copy.load_state_dict(network.state_dict())
        assert torch.equal(network.eval()(x), copy.eval()(x))


@pytest.mark.parametrize("options", [{}, {"output": "tanh"}])
def test_last_layer_is_where_the_output_comes_from(options: dict[str, Any]) -> None:
    _, decoder = pair("resnetv2", (3, 8, 8), **options)
    weights = [module.weight for module in decoder.modules() if isinstance(module, nn.Conv2d)]
    assert decoder.last_layer is weights[-1]
    assert decoder.last_layer.shape == (3, 3, 1, 1)


def test_tanh_bounds_the_output() -> None:
    z = 1e3 * torch.randn(4, 5)
    assert pair("resnetv2", (3, 8, 8), output="tanh", norm="none")[1](z).abs().max() <= 1
    assert pair("resnetv2", (3, 8, 8), norm="none")[1](z).abs().max() > 1


# ---- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_autocast_stays_finite_in_half_precision(name: str, options: dict[str, Any]) -> None:
    x = torch.rand(4, 3, 12, 12) * 2 - 1
    reference = roundtrip(name, x, **options)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = roundtrip(name, x, **options)
    for output, expected in zip(outputs, reference, strict=True):
        if name == "mlp" and options.get("hidden") == [] and output is outputs[0]:
            continue  # the flattened sample itself
        assert output.dtype == torch.bfloat16
        assert output.isfinite().all()
        scale = expected.square().mean().sqrt()
        assert (output.float() - expected).square().mean().sqrt() < 0.1 * scale + 1e-3
    encoder, decoder = pair(name, (3, 12, 12), **options)
    with torch.autocast("cpu", torch.bfloat16):
        loss = encoder(x).float().square().mean() + decoder(torch.randn(4, 5)).float().square().mean()
    loss.backward()
    for network in (encoder, decoder):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, f"{key} has no gradient"
            assert parameter.grad.dtype == torch.float32, f"the gradient of {key} is not float32"
            assert parameter.grad.isfinite().all(), f"{key} has a gradient that is not finite"


@pytest.mark.parametrize("norm", ["batch", "frozen_affine", "group", "none"])
@pytest.mark.parametrize("name", ["conv", "resnetv2"])
def test_channels_last_is_kept(name: str, norm: str) -> None:
    encoder, decoder = pair(name, (3, 18, 16), norm=norm)
    x, z = torch.randn(4, 3, 18, 16), torch.randn(4, 5)
    maps = x
    for layer in encoder.layers:
        maps = layer(maps)
        assert maps.is_contiguous(memory_format=torch.channels_last), f"{layer} changes the memory format"
    decoded = decoder(z)
    assert decoded.is_contiguous(memory_format=torch.channels_last)
    encoder, decoder = pair(name, (3, 18, 16), norm=norm)
    encoder.to(memory_format=torch.contiguous_format)
    decoder.to(memory_format=torch.contiguous_format)
    assert torch.allclose(maps.movedim(1, -1).flatten(1), encoder(x), atol=1e-4)
    assert torch.allclose(decoded, decoder(z), atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 9, 7), (1, 2, 4, 4), (5, 16, 16, 16)])
def test_a_pointwise_convolution_is_that_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours = Pointwise(shape[1], 6, stride=2).double()
    theirs = torch.nn.Conv2d(shape[1], 6, 1, stride=2).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = ours(inputs[0]), theirs(inputs[1])
    for output in outputs:
        output.square().sum().backward()
    assert torch.allclose(*outputs, rtol=1e-12)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=1e-12)
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp", {}), ("conv", {}), ("resnetv2", {}), ("resnetv2", {"norm": "frozen_affine", "input_norm": "instance_hw"})],
)
def test_compiles_without_graph_breaks(name: str, options: dict[str, Any]) -> None:
    x, z = torch.randn(4, 3, 9, 8), torch.randn(4, 5)
    for index, value in ((0, x), (1, z)):
        expected = pair(name, (3, 9, 8), **options)[index](value)
        network = pair(name, (3, 9, 8), **options)[index]
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        output = compiled(value)
        assert torch.allclose(output, expected, atol=1e-5)
        output.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("part", [MLP(), Conv(), ResNetV2()])
def test_a_backbone_makes_new_networks_each_time(part: Any) -> None:
    first, second = part.decoder(2, (1, 8, 8)), part.decoder(2, (1, 8, 8))
    assert first.last_layer is not second.last_layer
    assert not torch.equal(first.last_layer, second.last_layer)
    assert repr(part).startswith(type(part).__name__ + "(")
