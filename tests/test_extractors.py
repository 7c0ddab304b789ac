"""Feature extractors: where they come from, what they refuse, and that nothing in a file of weights can run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fidelity_helpers import CLASSIFIER, SMALL, refuse_network
from safetensors.torch import save_file
from torch import nn

from vaekit import VaekitError
from vaekit.evaluation import Extractor, load_extractor
from vaekit.evaluation.extractors import FID_WEIGHTS
from vaekit.evaluation.weights import INCEPTION

MOBILENET = Path(__file__).parents[2] / "shared" / "nets" / "mobilenet_v1_075_features.ts"


class Means(nn.Module):
    """A feature for every channel: its mean."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


class Coloured(nn.Module):
    """Means of channels that must be three."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images.float()).mean(dim=(2, 3))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder where torch.hub looks for weights."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)


def script(module: nn.Module, path: Path) -> Path:
    with pytest.warns(FutureWarning):
        torch.jit.script(module).save(path)
    return path


def images(count: int = 5, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


# ---- files of TorchScript --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_is_given_the_channels_of_the_data(tmp_path: Path, channels: int) -> None:
    extractor, x = load_extractor(script(Means(), tmp_path / "means.ts")), images(channels=channels)
    torch.testing.assert_close(extractor.features(x), Means()(x))
    assert extractor.name == "means"
    assert len(extractor.sha256) == 64
    assert not extractor.defines_fid


def test_grey_images_are_coloured_where_a_file_wants_three_channels(tmp_path: Path) -> None:
    module, x = Coloured(), images(channels=1)
    extractor = load_extractor(script(module, tmp_path / "coloured.ts"))
    for _ in range(2):
        torch.testing.assert_close(extractor.features(x), module(x.expand(-1, 3, -1, -1)).detach())
    thrice = x.repeat(1, 3, 1, 1)
    torch.testing.assert_close(extractor.features(thrice), module(thrice).detach())


def test_a_file_that_takes_no_images_says_so(tmp_path: Path) -> None:
    extractor = load_extractor(script(nn.Linear(3, 3), tmp_path / "linear.ts"))
    with pytest.raises(VaekitError, match=r"linear\.ts does not take uint8 images .* with 1 or 3 channels"):
        extractor.features(images(channels=1))


@pytest.mark.parametrize("content", [b"no network", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_torchscript(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.ts").write_bytes(content)
    with pytest.raises(VaekitError, match=r"file\.ts is not a TorchScript file"):
        load_extractor(tmp_path / "file.ts")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match=r"there is no file .*file\.ts"):
        load_extractor(tmp_path / "file.ts")
    script(Means(), tmp_path / "file.ts")
    with pytest.raises(VaekitError, match="leave --weights out"):
        load_extractor(tmp_path / "file.ts", weights=tmp_path / "file.ts")


def test_a_real_network() -> None:
    if not MOBILENET.is_file():
        pytest.skip("the folder ../shared/nets with a TorchScript network is not here")
    extractor = load_extractor(MOBILENET)
    assert extractor.name == "mobilenet_v1_075_features"
    x = images(channels=1, size=28)
    found = extractor.features(x)
    assert found.shape == (5, 768)
    torch.testing.assert_close(extractor.features(x[:2]), found[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extractor.features(x.repeat(1, 3, 1, 1)), found, rtol=1e-4, atol=1e-5)


# ---- what an extractor gives -----------------------------------------------------------------------------------------


def test_features_and_logits_come_from_one_pass() -> None:
    x = images()
    rows = CLASSIFIER.rows(x)
    features, logits = CLASSIFIER.split(rows)
    assert rows.shape == (5, 8)
    torch.testing.assert_close(torch.cat([features, logits], 1), rows)
    torch.testing.assert_close(CLASSIFIER.features(x), features)
    assert SMALL.split(SMALL.rows(x))[1].shape == (5, 0)


def test_wrong_shapes_and_numbers_are_refused() -> None:
    def extractor(network: Callable[[torch.Tensor], Any]) -> Extractor:
        return Extractor("wrong", "0" * 64, network)

    with pytest.raises(VaekitError, match=r"gives shape \(5, 3, 8, 8\) for 5 images: one that gives \(images, feat"):
        extractor(lambda x: x.float()).features(images())
    with pytest.raises(VaekitError, match="gives a tuple for 5 images"):
        extractor(lambda x: (x, x)).features(images())
    with pytest.raises(VaekitError, match="not finite"):
        extractor(lambda x: x.float().mean((2, 3)) / 0).features(images())
    for wrong in (images().float(), images()[0], images(channels=2)):
        with pytest.raises(VaekitError, match="takes uint8 images"):
            SMALL.features(wrong)


# ---- named networks --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_weights_that_are_not_here(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(VaekitError) as caught:
        load_extractor("inception", offline=True)
    said = str(caught.value)
    for part in (str(hub), "weights-inception-2015-12-05-6726825d.pth", "--weights", "--extractor FILE.ts", "https://"):
        assert part in said
    with pytest.raises(VaekitError, match="vgg16-397923af"):
        load_extractor("vgg16", offline=True)
    with pytest.raises(VaekitError, match="--weights must name the weights of 'inception-v3-compat'"):
        load_extractor("inception", weights=tmp_path / "nothing.pth")
    assert not hub.exists()


def test_the_weights_are_downloaded_with_their_hash(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, place: str, prefix: str, progress: bool) -> None:
        asked.append((url, prefix))
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(VaekitError, match=r"cannot be downloaded from https://.*no route to host"):
        load_extractor("inception")
    ((url, prefix),) = asked
    assert url.endswith(f"-{prefix}.pth")
    assert FID_WEIGHTS.startswith(prefix)


class SmallCLIP(nn.Module):
    """The part of CLIP that sees, with one narrow layer."""

    def __init__(self) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_clip import CLIPVisual

        self.visual = CLIPVisual(16, 64, 1, 64, 32).visual
        self.text_projection = nn.Parameter(torch.randn(8, 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_weights_in_torchscript(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning):
        torch.jit.trace(SmallCLIP().eval(), torch.randn(1, 3, 64, 64)).save(tmp_path / "clip.pt")
    extractor = load_extractor("clip-vit-b-32", weights=tmp_path / "clip.pt")
    assert (extractor.name, extractor.classes) == ("clip-vit-b-32", 0)
    assert extractor.features(images(channels=1)).shape == (5, 16)


class Bomb:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("name", ["inception", "vgg16", "clip-vit-b-32"])
@pytest.mark.parametrize("kind", ["torch", "pickle", "legacy"])
def test_code_in_a_file_of_weights_does_not_run(tmp_path: Path, name: str, kind: str) -> None:
    bomb, path = Bomb(tmp_path / "went off"), tmp_path / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"fc.weight": bomb}, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(VaekitError, match="only tensors are read from it"):
        load_extractor(name, weights=path)
    assert not (tmp_path / "went off").exists()
    torch.load(path, weights_only=False) if kind != "pickle" else pickle.loads(path.read_bytes())
    assert (tmp_path / "went off").exists(), "the bomb of this test is none"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_damaged_and_foreign_weights(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights.{ending}"
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "small.pth")
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "small.safetensors")
    whole = (tmp_path / f"small.{ending}").read_bytes()
    for content in (b"", b"damaged", whole[: len(whole) // 2], whole):
        path.write_bytes(content)
        with pytest.raises(VaekitError, match="is damaged or does not hold the weights of 'inception-v3-compat'"):
            load_extractor("inception", weights=path)
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(VaekitError, match="is damaged or does not hold"):
        load_extractor("inception", weights=tmp_path / "list.pth")


def test_networks_that_come_as_code_and_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match="'dinov2-vit-s-14' has no file of weights, only code"):
        load_extractor("dinov2-vit-s-14")
    with pytest.raises(VaekitError, match="no feature extractor 'incepton'.*did you mean 'inception'"):
        load_extractor("incepton")
    bare = script(Means(), tmp_path / "network.ts").rename(tmp_path / "network")
    assert load_extractor(bare).name == "network"


def test_only_the_very_weights_define_the_fid() -> None:
    assert Extractor(INCEPTION, FID_WEIGHTS, SMALL.network).defines_fid
    assert not Extractor(INCEPTION, FID_WEIGHTS, SMALL.network).notes()
    assert not Extractor("mine", FID_WEIGHTS, SMALL.network).defines_fid
    assert not Extractor(INCEPTION, "0" * 64, SMALL.network).defines_fid
