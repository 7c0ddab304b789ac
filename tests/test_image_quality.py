"""Reconstructions against their originals: scikit-image's figures, known errors, and what LPIPS is loaded from."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fidelity_helpers import refuse_network
from torch import Tensor, nn
from torch.nn import functional as F

import vaekit as vk
from vaekit.data import Dataset, Split
from vaekit.errors import VaekitError
from vaekit.evaluation import image_quality
from vaekit.evaluation.image_quality import load_lpips, reconstruction, sample_sharpness, similarity, ssim_window
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.records import plain

FILE = "alexnet-owt-7be5be79.pth"


def pictures(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Draw discs and bars over ramps of grey, flat areas among them, as bytes."""
    generator = torch.Generator().manual_seed(1)
    channels, height, width = shape
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    drawn = []
    for _ in range(count):
        a, b, radius, *colours = torch.rand(3 + 2 * channels, generator=generator).tolist()
        disc = ((x - a).square() + (y - b).square() < (0.1 + 0.3 * radius) ** 2).float()
        bar = ((x * 7).int() % 3 == 0).float() * (y > a)
        ramp = (a * x + b * y).clamp(max=0.4)
        layers = [
            ramp * (1 - disc) + c * disc + 0.3 * d * bar for c, d in zip(colours[::2], colours[1::2], strict=True)
        ]
        drawn.append(torch.stack(layers))
    return (255 * torch.stack(drawn).clamp(0, 1)).round().to(torch.uint8)


def spoiled(images: Tensor) -> Tensor:
    """Blur pictures and add noise."""
    soft = F.avg_pool2d(images.float(), 3, stride=1, padding=1, count_include_pad=False)
    return (soft + 8 * torch.randn(soft.shape)).round().clamp(0, 255).to(torch.uint8)


class Echo(nn.Module):
    """A model of images in [-1, 1]: reconstructions are a function of the originals, and latents are images."""

    data_range = (-1.0, 1.0)

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.last_layer = nn.Parameter(torch.zeros(1))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.answer(x)

    def decode(self, z: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Normal(z, 1.0)


class Draws:
    """A sampler of a data set that draws what a function gives for a count."""

    seed, binarize = 0, False

    def __init__(self, data: Dataset, draw: Callable[[int], Tensor]) -> None:
        self.data = data
        self._draw = draw

    def draw(self, source: str, count: int, seed: int, block: int = 0) -> Tensor:
        torch.manual_seed(1000 * seed + block)
        return self._draw(count)


def echo(answer: Callable[[Tensor], Tensor], images: Tensor, **options: object) -> tuple[dict, list[str], dict]:
    data = Dataset("pictures", Split(images), Split(images), Split(images))
    (result,) = reconstruction(Echo(answer), data, Options(**options))  # type: ignore[arg-type]
    return plain(result.values), result.notes, plain(result.protocol)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 48, 64), (1, 8, 8), (3, 11, 10)])
def test_figures_are_those_of_scikit_image(shape: tuple[int, int, int]) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    originals = pictures(4, shape)
    reconstructions = spoiled(originals)
    found = similarity(originals, reconstructions)
    window, sigma = ssim_window(shape[1:])
    for index in range(4):
        first, second = (images[index].double().numpy() / 255 for images in (originals, reconstructions))
        ssim = metrics.structural_similarity(
            first,
            second,
            data_range=1.0,
            gaussian_weights=True,
            sigma=sigma,
            use_sample_covariance=False,
            channel_axis=0,
        )
        assert float(found["ssim"][index]) == pytest.approx(ssim, abs=1e-4)
        psnr = metrics.peak_signal_noise_ratio(first, second, data_range=1.0)
        assert float(found["psnr"][index]) == pytest.approx(psnr, abs=1e-4)
        error = np.abs(first - second)
        assert float(found["absolute_error"][index]) == pytest.approx(error.mean(), abs=1e-6)
        assert float(found["squared_error"][index]) == pytest.approx((error**2).mean(), abs=1e-6)
    assert window == min(11, *(side - 1 + side % 2 for side in shape[1:]))


def test_equal_images_have_ssim_1_and_a_psnr_that_is_left_out() -> None:
    images = pictures(6, (1, 16, 16))
    assert float((similarity(images, images)["ssim"] - 1).abs().max()) < 1e-5
    # Less than half a grey level is nothing in a picture file.
    values, notes, protocol = echo(lambda x: x + 0.9 / 255, images)
    assert "psnr" not in values
    assert notes[1].endswith("for which it is infinite: 6 of 6")
    assert values["ssim"]["mean"] == pytest.approx(1.0, abs=1e-5)
    assert values["squared_error"] == {"mean": 0.0, "standard_error": 0.0, "count": 6}
    assert values["sharpness"]["ratio"] == 1.0
    json.dumps([values, protocol], allow_nan=False)


def test_psnr_is_the_mean_of_images_that_differ() -> None:
    images = torch.full((5, 1, 12, 12), 100, dtype=torch.uint8)
    images[0] = 255  # brighter than white is white: this one stays as it is
    values, notes, _ = echo(lambda x: x + 2 * 51 / 255, images)
    assert values["psnr"]["count"] == 4
    assert values["psnr"]["mean"] == pytest.approx(-20 * math.log10(0.2), abs=1e-4)
    assert values["squared_error"]["mean"] == pytest.approx(0.8 * 0.04, abs=1e-6)
    assert values["sharpness"]["ratio"] is None
    assert notes[1].endswith("1 of 5")


def test_figures_do_not_depend_on_the_batch_size() -> None:
    run = vk.recipe("vae", data="digits", trainer={"max_steps": 1})
    model, data = run.model.eval(), run.data
    sampler = Draws(data, lambda count: model.prior().sample((count,)))
    options = Options(samples=100, binarize=True, seed=3, sampler=sampler, samplers=("prior", "reconstructions"))  # type: ignore[arg-type]
    for metric in (reconstruction, sample_sharpness):
        runs = (metric(model, data, replace(options, batch_size=size)) for size in (7, 64))
        for first, second in zip(*runs, strict=True):
            # Rounding within a batch may move a byte.
            assert numbers(first.values) == pytest.approx(numbers(second.values), rel=1e-3)


def numbers(values: Any) -> list[float]:
    """Return all figures in their order."""
    values = plain(values)
    return [each for part in values.values() for each in numbers(part)] if isinstance(values, dict) else [values]


def test_sharpness_of_samples_is_compared_with_that_of_the_split() -> None:
    images = pictures(20, (1, 16, 16))
    blurred = F.avg_pool2d(images.float() / 127.5 - 1, 3, stride=1, padding=1, count_include_pad=False)
    data = Dataset("pictures", Split(images), Split(images), Split(images))
    options = Options(sampler=Draws(data, lambda count: blurred[:count]))  # type: ignore[arg-type]
    (result,) = sample_sharpness(Echo(lambda x: x), data, options)  # type: ignore[arg-type]
    assert result.protocol["sampler"] == "prior"
    assert result.values["samples"].count == 20
    assert 0.0 < result.values["ratio"] < 0.5
    expected = vk.evaluation.sharpness(images / 255.0).double().mean()
    assert result.values["originals"].mean == pytest.approx(float(expected), rel=1e-5)


def test_what_are_no_images_is_refused() -> None:
    table = Dataset("table", Split(torch.rand(9, 4)), Split(torch.rand(9, 4)), is_image=False)
    tiny = Dataset("tiny", *[Split(torch.zeros(9, 1, 2, 2, dtype=torch.uint8)) for _ in range(2)])
    for metric in (reconstruction, sample_sharpness):
        with pytest.raises(VaekitError, match="compares images"):
            next(metric(Echo(lambda x: x), table, Options(split="valid")))  # type: ignore[arg-type]
        with pytest.raises(VaekitError, match="2 x 2 pixels are too small"):
            next(metric(Echo(lambda x: x), tiny, Options(split="valid")))  # type: ignore[arg-type]


# ---- LPIPS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of PyTorch's, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refuse_network(monkeypatch)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def weights(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of AlexNet at random, taken for the published ones."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = alexnet().state_dict()
    # What LPIPS does not use is one number, repeated.
    state = {
        name: 0.05 * torch.randn(value.shape) if name.startswith("features") else torch.zeros(1).expand(value.shape)
        for name, value in shapes.items()
    }
    torch.save(state, hub / FILE)
    monkeypatch.setattr(image_quality, "sha256", lambda _: "7be5be79" + "0" * 56)
    return hub / FILE


def test_without_weights_lpips_is_left_out_and_nothing_downloaded(hub: Path) -> None:
    values, notes, protocol = echo(lambda x: -x, pictures(3, (1, 12, 12)))
    assert "lpips" not in values
    assert f"{FILE} is not in {hub}: download https://download.pytorch.org/models/{FILE}" in notes[0]
    assert protocol["lpips"] == {"network": "alexnet 0.1", "size": [64, 64]}
    assert not list(hub.iterdir())


def test_another_file_under_the_name_is_refused(hub: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, hub / FILE)
    with pytest.raises(VaekitError, match="damaged or another file"):
        load_lpips()


class Code:
    """What leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


def test_code_in_the_file_is_not_run(weights: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for save in (
        lambda what: torch.save(what, weights),
        lambda what: weights.write_bytes(pickle.dumps(what, protocol=2)),
    ):
        save({"features.0.weight": Code(trace)})
        with pytest.raises(VaekitError, match="damaged or another file"):
            load_lpips()
        assert not trace.exists()


def test_lpips(weights: Path) -> None:
    distance = load_lpips()
    first, second = (images / 255.0 for images in (pictures(3, (3, 40, 36)), spoiled(pictures(3, (3, 40, 36)))))
    found = distance(first, second)
    assert found.shape == (3,)
    assert (found > 0.001).all()
    assert (distance(first, first) == 0).all()
    torch.testing.assert_close(distance(first[:1], second[:1]), found[:1])

    # By its definition: normalised features of five layers, weighted by the heads that torchmetrics ships.
    from torchmetrics.functional.image import lpips
    from torchvision.models import alexnet

    network = alexnet()
    network.load_state_dict(torch.load(weights, weights_only=True))
    heads = torch.load(Path(lpips.__file__).with_name("lpips_models") / "alex.pth", "cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    layers = []
    for images in (first, second):
        h, own = ((2 * images - 1) - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), []
        for layer in network.features[:12]:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                own.append(h / (h.square().sum(1, keepdim=True) + 1e-8).sqrt())
        layers.append(own)
    weighted = [
        ((a - b).square() * heads[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
        for i, (a, b) in enumerate(zip(*layers, strict=True))
    ]
    torch.testing.assert_close(found, sum(weighted), rtol=1e-4, atol=1e-6)


def test_lpips_of_small_and_grey_images(weights: Path) -> None:
    distance = load_lpips(1)
    first, second = pictures(2, (1, 8, 8)) / 255.0, torch.rand(2, 1, 8, 8)
    large = [F.interpolate(x, size=(64, 64), mode="bilinear").repeat(1, 3, 1, 1) for x in (first, second)]
    torch.testing.assert_close(distance(first, second), distance(*large))
    values, notes, _ = echo(lambda x: -x, pictures(3, (1, 8, 8)))
    assert values["lpips"]["count"] == 3
    assert values["lpips"]["mean"] > 0.01
    assert not notes
    with pytest.raises(VaekitError, match="one or three colours, not 4"):
        load_lpips(4)
