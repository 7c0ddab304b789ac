"""The PatchGAN discriminator and the adversarial losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.discriminators.losses import BCE, AdversarialLoss, Hinge, LeastSquares
from vaekit.discriminators.patchgan import PatchGAN
from vaekit.errors import VaekitError
from vaekit.registry import adversarial_losses, discriminators

# For each option, values other than those of BASE.
BASE: dict[str, Any] = {"width": 8, "norm": "frozen_affine"}
CHANGES: dict[str, list[Any]] = {
    "width": [6, 1],
    "norm": ["batch", "spectral", "none"],
    "dropout": [0.5],
    "final_norm": [True],
    "slope": [0.1],
    "padding": ["symmetric"],
    "init": ["glorot"],
}
VARIANTS: list[dict[str, Any]] = [{}] + [{key: value} for key, values in CHANGES.items() for value in values]
VARIANTS.append({"norm": "batch", "final_norm": True})


def patchgan(shape: tuple[int, ...], **options: Any) -> PatchGAN:
    torch.manual_seed(1)
    return discriminators.build({"name": "patchgan", **BASE, **options}, shape)


# ---- PatchGAN --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "logits"),
    [
        ((4, 4), (2, 2)),
        ((8, 8), (4, 4)),
        ((9, 9), (5, 5)),
        ((28, 28), (4, 4)),
        ((32, 32), (4, 4)),
        ((50, 70), (7, 9)),
        ((64, 64), (8, 8)),
        ((178, 218), (23, 28)),
        ((256, 256), (32, 32)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_logits_are_a_map(size: tuple[int, int], logits: tuple[int, int], channels: int, padding: str) -> None:
    output = patchgan((channels, *size), padding=padding)(torch.randn(2, channels, *size))
    assert output.shape == (2, 1, *logits)


def test_parameter_count_of_the_author() -> None:
    with torch.device("meta"):
        network = PatchGAN((3, 256, 256), norm="frozen_affine", final_norm=True, init="glorot")
    assert sum(parameter.numel() for parameter in network.parameters()) == 411_075
    assert list(network.buffers()) == []


def test_receptive_field_is_63_pixels() -> None:
    network = patchgan((1, 128, 128), norm="none").double()
    x = torch.randn(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    network(x)[0, 0, 8, 8].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 63


def test_matches_a_plain_forward_pass(float64: None) -> None:
    """The author's equations, written out with functions and fed from the state dict in order."""
    network = PatchGAN((3, 16, 16), width=6, norm="frozen_affine", final_norm=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    take = iter(network.state_dict().values())
    x = h = torch.randn(2, 3, 16, 16)
    for strided in (True, True, False, False, False):
        weight, bias, gamma, beta = (next(take) for _ in range(4))
        h = F.conv2d(F.pad(h, (0, 1, 0, 1)), weight, bias, 2) if strided else F.conv2d(h, weight, bias, padding=1)
        h = gamma[:, None, None] * h / math.sqrt(1.001) + beta[:, None, None]
        if weight.shape[0] > 1:
            h = torch.where(h > 0, h, 0.3 * h)
    assert next(take, None) is None
    assert torch.allclose(network(x), h)


def test_no_norm_on_the_logits_by_default() -> None:
    layers = list(PatchGAN((3, 32, 32), width=8).layers)
    assert isinstance(layers[-1], nn.Conv2d)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 5
    assert isinstance(PatchGAN((3, 32, 32), width=8, final_norm=True).layers[-2], nn.BatchNorm2d)


def test_spectral_norm_holds_every_kernel_at_one() -> None:
    network = patchgan((3, 16, 16), norm="spectral")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for _ in range(200):
            network(x)  # each pass in training mode is one power iteration
    network.eval()
    kernels = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(kernels) == 5
    for kernel in kernels:
        assert torch.linalg.matrix_norm(kernel.flatten(1), 2).item() == pytest.approx(1.0, abs=1e-2)


def test_dropout_is_for_training_only() -> None:
    network = patchgan((1, 8, 8), dropout=0.5)
    x = torch.randn(4, 1, 8, 8)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize("shape", [(10,), (3, 3, 8), (1, 8, 2)])
def test_unsuitable_samples_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VaekitError, match="at least 4 x 4") as caught:
        PatchGAN(shape)
    assert str(shape) in str(caught.value)
    assert "train without an adversary" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 0}, "width = 0"),
        ({"norm": "group"}, "use one of batch, frozen_affine, spectral, none"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"dropout": -0.1}, "dropout = -0.1"),
        ({"final_norm": True, "norm": "none"}, "final_norm"),
        ({"final_norm": True, "norm": "spectral"}, "final_norm"),
        ({"padding": "valid"}, "use one of same, symmetric"),
        ({"init": "he"}, "use one of default, glorot"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(VaekitError, match=match):
        PatchGAN((1, 8, 8), **options)


def test_every_option_has_a_variant() -> None:
    assert set(CHANGES) == set(discriminators.options("patchgan"))


@pytest.mark.parametrize("options", [variant for variant in VARIANTS if variant], ids=str)
def test_each_option_changes_the_output(options: dict[str, Any]) -> None:
    def logits(**options: Any) -> Tensor:
        network = patchgan((3, 16, 16), **options)
        torch.manual_seed(2)
        return network(torch.randn(4, 3, 16, 16))

    assert not torch.allclose(logits(), logits(**options), atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    network = patchgan((3, 16, 18), **options)
    network(torch.randn(8, 3, 16, 18)).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert parameter.grad.isfinite().all(), f"{key} has a gradient that is not finite"
        # A constant before batch normalisation has no effect: its gradient is zero but for rounding.
        if parameter.dim() > 1 or options.get("norm") != "batch":
            assert parameter.grad.any(), f"{key} has a gradient of zero"


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_state_dict_round_trip(options: dict[str, Any]) -> None:
    network = patchgan((3, 9, 12), **options)
    x = torch.randn(4, 3, 9, 12)
    network(x)  # batch statistics and power iterations move
    copy = PatchGAN((3, 9, 12), **{**BASE, **options})
    copy.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(x), copy.eval()(x))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_autocast_stays_finite_in_half_precision(options: dict[str, Any]) -> None:
    network = patchgan((3, 16, 16), **options)
    loss = BCE()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(4, 3, 16, 16) * 2 - 1)
        total = loss.real(logits).mean()
    assert logits.dtype == torch.bfloat16
    assert total.dtype == torch.float32
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("norm", ["batch", "frozen_affine", "spectral", "none"])
def test_compiles_without_graph_breaks(norm: str) -> None:
    x = torch.randn(4, 3, 9, 16)
    expected = patchgan((3, 9, 16), norm=norm)(x)
    network = patchgan((3, 9, 16), norm=norm)
    logits = torch.compile(network, fullgraph=True, backend="aot_eager")(x)
    assert torch.allclose(logits, expected, atol=1e-5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("norm", ["batch", "frozen_affine", "spectral", "none"])
def test_channels_last_is_kept(norm: str) -> None:
    x = torch.randn(4, 3, 16, 18)
    expected = patchgan((3, 16, 18), norm=norm).to(memory_format=torch.contiguous_format)(x)
    maps = x
    for layer in patchgan((3, 16, 18), norm=norm).layers:
        maps = layer(maps)
        assert maps.is_contiguous(memory_format=torch.channels_last), f"{layer} changes the memory format"
    assert torch.allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "frozen_affine", "spectral", "none"])
def test_gradient_penalty_can_be_differentiated(norm: str) -> None:
    network = patchgan((1, 8, 8), norm=norm)
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    first = next(p for p in network.parameters() if p.dim() > 1)
    assert first.grad.any()


# ---- adversarial losses ----------------------------------------------------------------------------------------------

LOGITS = torch.tensor([[-2.0, 0.0], [0.5, 3.0]])


def mean(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).mean(1)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize(
    ("loss", "real", "fake", "generator"),
    [
        (
            BCE(),
            mean([[-log_sigmoid(v) for v in row] for row in LOGITS.tolist()]),
            mean([[-log_sigmoid(-v) for v in row] for row in LOGITS.tolist()]),
            mean([[-log_sigmoid(v) for v in row] for row in LOGITS.tolist()]),
        ),
        (Hinge(), mean([[3, 1], [0.5, 0]]), mean([[0, 1], [1.5, 4]]), mean([[2, 0], [-0.5, -3]])),
        (LeastSquares(), mean([[4.5, 0.5], [0.125, 2]]), mean([[2, 0], [0.125, 4.5]]), mean([[4.5, 0.5], [0.125, 2]])),
    ],
)
def test_losses_by_hand(loss: AdversarialLoss, real: Tensor, fake: Tensor, generator: Tensor) -> None:
    logits = LOGITS.double().reshape(2, 1, 1, 2)
    for found, expected in (
        (loss.real(logits), real),
        (loss.fake(logits), fake),
        (loss.generator(logits), generator),
    ):
        assert found.shape == (2,)
        assert torch.allclose(found, expected, rtol=1e-12)


def test_bce_is_binary_cross_entropy_with_logits() -> None:
    logits = torch.randn(5, 1, 3, 4)
    ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
    cross_entropy = F.binary_cross_entropy_with_logits
    assert torch.allclose(BCE().real(logits).mean(), cross_entropy(logits, ones))
    assert torch.allclose(BCE().fake(logits).mean(), cross_entropy(logits, zeros))
    assert torch.allclose(BCE().generator(logits).mean(), cross_entropy(logits, ones))


@pytest.mark.parametrize("name", adversarial_losses.names())
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 2, 5)])
def test_losses_take_logits_of_any_shape(name: str, shape: tuple[int, ...]) -> None:
    loss = adversarial_losses.build(name)
    logits = torch.randn(shape)
    for term in (loss.real, loss.fake, loss.generator):
        assert term(logits).shape == (3,)
        per_sample = torch.stack([term(logits[i : i + 1])[0] for i in range(3)])
        assert torch.allclose(term(logits), per_sample)


@pytest.mark.parametrize("name", adversarial_losses.names())
def test_losses_are_stable_and_in_float32(name: str) -> None:
    loss = adversarial_losses.build(name)
    logits = torch.tensor([[-1e4], [1e4]], dtype=torch.bfloat16, requires_grad=True)
    for term in (loss.real, loss.fake, loss.generator):
        values = term(logits)
        assert values.dtype == torch.float32
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert values.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", adversarial_losses.names())
def test_losses_pull_the_right_way(name: str) -> None:
    loss = adversarial_losses.build(name)
    logits = torch.zeros(2, 1, 2, 2, requires_grad=True)
    for term, sign in ((loss.real, -1), (loss.fake, 1), (loss.generator, -1)):
        (gradient,) = torch.autograd.grad(term(logits).sum(), logits)
        expected = 0.0 if name == "least_squares" and term == loss.fake else sign
        assert (gradient.sign() == expected).all()
