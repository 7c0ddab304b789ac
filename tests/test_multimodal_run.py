"""Runs on several modalities: what is built of a recipe, what is refused, and the commands that use a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY_PAIRED, tiny
from PIL import Image

import vaekit as vk
from vaekit import build
from vaekit.cli.main import main
from vaekit.config import read_recipe, resolve
from vaekit.errors import VaekitError
from vaekit.fusions.base import Experts
from vaekit.multimodal_run import MultimodalRun
from vaekit.reporting.grids import Views, grids

LABELS = {"name": "mnist-labels", "digits": "digits", "limit": 60, "batch_size": 20}
SHAPES = {"image": (3, 28, 28), "sensor": (6,), "label": (10,), "flags": (4,)}
VALUES = {"image": "image", "sensor": "vector", "label": "classes", "flags": "binary"}


def likelihoods(model: vk.MultimodalVAE) -> list[str]:
    return [type(modality.likelihood).__name__ for modality in model.parts.values()]


def test_parts_suit_what_a_modality_holds() -> None:
    config = resolve(read_recipe("mvae"), {"backbone": {"width": 8}, "latent_dim": 4})
    model = build.model(config, SHAPES, VALUES)
    assert likelihoods(model) == ["Laplace", "Gaussian", "OneHot", "Bernoulli"]
    # Vectors alone are what the run's likelihood is for.
    alone = {name: shape for name, shape in SHAPES.items() if name != "image"}
    assert likelihoods(build.model(config, alone, VALUES | {"image": "vector"})) != likelihoods(model)[1:]
    assert likelihoods(build.model(config, {"sensor": (6,)}, {"sensor": "vector"})) == ["Laplace"]
    # What is said of a modality comes first.
    own = {"sensor": {"likelihood": {"name": "laplace", "scale": 0.1}, "backbone": {"name": "mlp", "hidden": [7]}}}
    model = build.model(resolve(read_recipe("mvae"), {"modalities": own, "latent_dim": 4}), SHAPES, VALUES)
    assert likelihoods(model)[1] == "Laplace"
    assert model.parts["sensor"].encoder.features == 7
    # An option alone changes the part that suits.
    config = resolve(read_recipe("mvae"), assignments=["latent_dim=4", "modalities.sensor.likelihood.scale=0.25"])
    assert build.model(config, SHAPES, VALUES).parts["sensor"].likelihood.log_scale.exp() == pytest.approx(0.25)


def test_a_recipe_may_change_its_fusion_and_take_private_latents() -> None:
    shapes = {"m0": (3, 28, 28), "m1": (3, 28, 28)}
    config = tiny("masked-multimodal", private={"name": "sum_pooling", "latent_dim": 3})
    model = build.model(config, shapes)
    assert model.parts["m0"].decoder(torch.zeros(1, 4 + 3)).shape == (1, 3, 28, 28)
    config = tiny("joint", fusion=None, objective="independent", modalities={"m1": {"posterior": "laplace"}})
    model = build.model(config, shapes)
    assert isinstance(model.fusion, Experts)
    with pytest.raises(VaekitError, match="must be of one family, not Laplace and Normal"):
        build.objective(config, shapes).prepare(model, 10)


@pytest.mark.parametrize(
    ("recipe", "changes", "says"),
    [
        ("vae", {"data": TINY_PAIRED}, "the data have the modalities m0, m1 and the recipe 'vae' is for one"),
        ("joint", {"data": {"name": "digits"}}, "the recipe 'joint' is for several modalities and the data have one"),
        ("joint", {"modalities": {"m7": {}}}, "the data have no modality 'm7': valid: m0, m1"),
        (
            "joint",
            {"modalities": {"m0": {"posterior": "gmm"}}},
            "modalities.m0.posterior is for models without a fusion",
        ),
        ("joint", {"modalities": {"m0": {"encoder": "mlp"}}}, "unknown key 'modalities.m0.encoder'"),
        ("joint", {"modalities": {"m0": 3}}, "modalities.m0 = 3 is not valid"),
        ("joint", {"fusion": "poo"}, "unknown fusion 'poo'"),
        ("joint", {"fusion": None}, "a latent for each modality and no fusion"),
        ("joint", {"posterior": "gmm"}, "the fusion 'poe' cannot be used with the posterior 'gmm'"),
        ("joint", {"prior": "vamp"}, "'vamp'"),
        ("masked-multimodal", {"prior": "vamp"}, "made of the posteriors of one modality"),
        ("joint", {"private": {"name": "independent"}}, "private.latent_dim must be a whole number of 1 or more"),
        ("mmvm", {"private": {"name": "independent", "latent_dim": 2}}, "private latents stand beside a shared one"),
        ("joint", {"objective": "elbo"}, "the objective Objective is for one modality"),
        ("vae", {"objective": "joint", "regularizers": {"kl": None}}, "the objective Joint is for several modalities"),
        ("joint", {"regularizers": {"kl": {}}}, "hold their KLs within themselves"),
        ("joint", {"adversary": {"discriminator": "patchgan"}}, "an adversary is for data of one modality"),
        (
            "masked-multimodal",
            {"private": {"name": "independent", "latent_dim": 2, "auxiliary": True}},
            "set it to false",
        ),
        ("joint", {"objective": {"weights": {"m9": 2.0}}}, "objective.weights names no modality 'm9'"),
        ("mvtcae", {"fusion": "sum_pooling"}, "has no posterior for each modality"),
        ("mmvae-plus", {"private": None}, "private"),
        ("mopoe", {"fusion": "poe"}, "mopoe"),
    ],
)
def test_what_does_not_fit_is_a_sentence(recipe: str, changes: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match=says):
        vk.Run(resolve(tiny(recipe).model_dump(), changes), tmp_path / "run").fit()
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "run"
    made = vk.Run(tiny("mvae", data=LABELS, trainer={"epochs": 2}), out)
    assert isinstance(made, MultimodalRun)
    made.fit()
    return out


def test_sample_and_generate_from_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    digit = tmp_path / "digit.png"
    Image.fromarray(np.full((28, 28), 99, np.uint8)).save(digit)
    np.save(tmp_path / "label.npy", np.eye(10)[3])
    for number, (arguments, says, rows) in enumerate(
        [
            ([], "12 samples from prior, a row for each of image, label", (2, 12)),
            (["--n", "3", "--from", "aggregate-gaussian"], "3 samples from aggregate-gaussian", (2, 3)),
            (["--n", "4", "--given", f"image={digit}"], "4 draws given image, a row for each of image, label", (2, 4)),
            (["--n", "4", "--given", "label=3"], "4 draws given label", (2, 4)),
            (["--n", "2", "--given", f"label={tmp_path / 'label.npy'}"], "2 draws given label", (2, 2)),
            (["--n", "2", "--given", f"image={digit}", "--given", "label=3"], "2 draws given image, label", (2, 2)),
        ]
    ):
        out = tmp_path / f"{number}.png"
        main_ok("sample", str(run), *arguments, "--out", str(out))
        assert says in capsys.readouterr().out
        with Image.open(out) as picture:
            width, height = picture.size
        assert (height - 2) // rows[0] == (width - 2) // rows[1]  # square tiles, in so many rows and columns
    main_ok("sample", str(run), "--n", "3", "--out", str(tmp_path / "draws.npz"))
    with np.load(tmp_path / "draws.npz") as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {"image": (3, 1, 28, 28), "label": (3, 10)}
    default = run / "sample-given-label.png"
    main_ok("sample", str(run), "--given", "label=1")
    assert default.is_file()


def main_ok(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert not ended.value.code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sample", "--given", "label"], "--given takes MODALITY=VALUE, for instance image=FILE, not 'label'"),
        (["sample", "--given", "sound=3"], "the run has no modality 'sound': valid: image, label"),
        (["sample", "--given", "label=10"], "the modality 'label' has the classes 0 to 9, not 10"),
        (["sample", "--given", "label=1.5"], "the modality 'label' has the classes 0 to 9, not 1.5"),
        (["sample", "--given", "label=1,2"], "the modality 'label' has the shape (10,), not (2,)"),
        (["sample", "--given", "label=seven"], "'seven' cannot be read as the modality 'label' of shape (10,)"),
        (["sample", "--given", "image=nothing.png"], "nothing.png cannot be read as an image"),
        (["sample", "--out", "draws.npy"], "these are several modalities: save them as .npz"),
        (["sample", "--n", "0"], "the number of samples must be 1 or more, not 0"),
        (["sample", "--n", "0", "--given", "label=1"], "one draw or more of each sample"),
        (["reconstruct", "x.png"], "use `vaekit sample RUN --given MODALITY=VALUE`"),
        (["interpolate"], "use `vaekit sample RUN --given MODALITY=VALUE`"),
    ],
)
def test_bad_commands_are_sentences(run: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    command, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        main([command, str(run), *rest])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_given_is_refused_for_one_modality(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    vk.Run(tiny("vae", trainer={"max_steps": 1}), tmp_path / "run").fit()
    with pytest.raises(SystemExit):
        main(["sample", str(tmp_path / "run"), "--given", "m0=1"])
    assert "--given is for runs of several modalities" in capsys.readouterr().err


def test_the_report_names_shapes_and_the_objective(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "image 1 × 28 × 28, label 10" in page
    assert "The loss is that of the objective" in page
    assert "Each modality generated from each" in page


def test_draws_around_training_samples_are_as_many_as_asked_for(tmp_path: Path) -> None:
    run = vk.Run(tiny("mmvm", data={**TINY_PAIRED, "missing": 0.2}, trainer={"max_steps": 1}), tmp_path / "run")
    run.fit()
    assert len(run.sample(5, "aggregate-mixture", seed=0)) == 5
    assert run.fit(resume=True).model is run.model


def test_vectors_alone_have_no_pictures(tmp_path: Path) -> None:
    config = tiny("mmvm", data={"name": "linear-gaussian", "samples": 60, "batch_size": 20}, trainer={"max_steps": 2})
    vk.Run(config, tmp_path / "run").fit()
    assert not (tmp_path / "run" / "samples").exists()
    assert "There are no pictures" in (tmp_path / "run" / "report.html").read_text()


def test_generated_modalities_follow_the_given_one() -> None:
    """With experts that copy and a decoder that copies, what is given comes out of every decoder."""
    config = tiny("joint", fusion=None, objective="independent", latent_dim=4, backbone={"hidden": []})
    model = build.model(config, {"left": (4,), "right": (4,)}, {"left": "vector", "right": "vector"}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, head in zip(model.names, model.fusion.heads, strict=True):
            head.loc.weight.copy_(torch.eye(4))
            head.log_variance.bias.fill_(-40.0)
            model.parts[name].decoder.linear.weight.copy_(torch.eye(4))
    x = vk.observed.Observed({"left": torch.randn(5, 4), "right": torch.randn(5, 4)})
    given = model.generate(x.only("left"))
    torch.testing.assert_close(given["right"], x.values["left"], atol=0.05, rtol=0)
    torch.testing.assert_close(model.generate(x)["right"], x.values["right"], atol=0.05, rtol=0)
    both = model.reconstruct(x.only())
    assert both["left"].abs().max() < 1e-6  # the prior's mean, for nothing given


def test_views_and_grids() -> None:
    views = Views({"image": torch.ones(3, 1, 8, 8), "label": torch.eye(3)}, {"image": (0.0, 1.0), "label": (0.0, 1.0)})
    assert views.tensor.shape == (6, 3, 8, 8)
    assert views.columns == len(views) == 3
    model = build.model(tiny("vae"), (1, 8, 8))
    assert set(grids(model, torch.zeros(4, 1, 8, 8))) == {"reconstructions", "prior"}
    assert grids(model, torch.zeros(4, 64)) == {}
