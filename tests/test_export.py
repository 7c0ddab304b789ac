"""`vaekit export`: files that run without vaekit give what the model gives, for every recipe, and are there whole."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ONE_MODALITY, SEVERAL_MODALITIES, call, tiny
from test_recipes import SMALL
from torch import Tensor
from torch.distributions import Distribution, Independent

import vaekit as vk
from vaekit.errors import VaekitError
from vaekit.exporting import writing
from vaekit.exporting.formats import convert
from vaekit.exporting.graphs import Graph, Network, graphs_of
from vaekit.exporting.laws import law_of
from vaekit.observed import Observed
from vaekit.registry import likelihoods

ort = pytest.importorskip("onnxruntime", reason="the export extra is not installed")

QUICK = ("vae", "joint")
PAIRED = {"m0": (3, 28, 28), "m1": (3, 28, 28)}


def marked(names: list[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def untrained(name: str, shape: Any = (1, 8, 8), **overrides: Any) -> vk.Run:
    """Return a run that needs no data, with weights and statistics that are nowhere zero or one."""
    changed = {key: value for key, value in SMALL.get(name, {}).items() if key not in overrides}
    config = tiny(name, **changed, **overrides)
    values = dict.fromkeys(shape, "image") if isinstance(shape, dict) else None
    run = vk.Run(config.model_copy(update={"data_shape": shape, "data_values": values}))
    with torch.no_grad():
        for tensor in (*run.model.parameters(), *run.model.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(0.9 + 0.2 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    run.model.eval()
    return run


def session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_file(path: Path, **inputs: Tensor) -> dict[str, Tensor]:
    """Run an ONNX file by the names of its inputs, as somebody without vaekit would."""
    opened = session(path)
    assert {each.name for each in opened.get_inputs()} == set(inputs)
    assert all(each.shape[0] == "batch" for each in (*opened.get_inputs(), *opened.get_outputs()))
    names = [each.name for each in opened.get_outputs()]
    values = opened.run(names, {name: value.numpy() for name, value in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)


def images(run: vk.Run, count: int, name: str | None = None) -> Tensor:
    model = run.model if name is None else run.model.parts[name].likelihood
    low, high = model.data_range
    return low + (high - low) * torch.rand(count, *model.data_shape)


# ---- every recipe ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_one(run: vk.Run, folder: Path) -> None:
    """Hold both files of a run of one modality against its model."""
    model = run.model
    out = run.export("onnx", out=folder)
    for count in (1, 5):
        x = images(run, count)
        found, q = run_file(out / "encoder.onnx", x=x), model.encode(x)
        close(found["mean"], q.mean)
        # What is to be decoded gives the reconstruction.
        decode = json.loads((out / "export.json").read_text())["files"]["encoder.onnx"]["decode"]
        close(run_file(out / "decoder.onnx", z=found[decode])["mean"], model.reconstruct(x))
        z = model.prior().sample((count,))
        close(run_file(out / "decoder.onnx", z=z)["mean"], model.decode(z).mean)
    assert (found["mean"][0] - found["mean"][1]).abs().max() > 1e-3, "the encoder gives the same for everything"


@pytest.mark.parametrize("name", marked(ONE_MODALITY))
def test_recipe(name: str, tmp_path: Path) -> None:
    shape = (3, 32, 32) if name == "gamix-author" else (1, 8, 8)
    check_one(untrained(name, shape), tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("name", marked(SEVERAL_MODALITIES))
def test_recipe_of_several_modalities(name: str, tmp_path: Path) -> None:
    run = untrained(name, PAIRED)
    model, out = run.model, run.export("onnx", out=tmp_path)
    for count in (1, 5):
        values = {part: images(run, count, part) for part in PAIRED}
        if model.shared:
            available = torch.ones(count, 2, dtype=torch.bool)
            available[0, 1] = False
            values["m1"][0] = torch.nan  # What is not there may be anything.
            found = run_file(out / "encoder.onnx", **values, available=available)
            x = Observed(values, available)
            close(found["mean"], model.encode(x).posterior().shared.mean)
        else:
            x = Observed(values)
            each = {part: run_file(out / f"encoder-{part}.onnx", x=values[part]) for part in PAIRED}
            close(torch.stack([part["mean"] for part in each.values()], 1), model.encode(x).experts.mean)
        for number, (part, expected) in enumerate(model.reconstruct(x).items()):
            latents = {"z": found["mean"] if model.shared else each[part]["mean"]}
            if model.private is not None:
                latents["private"] = found["private_mean"][:, number]
            close(run_file(out / f"decoder-{part}.onnx", **latents)["mean"], expected)


# ---- what the recipes leave out --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", [name for name in likelihoods.names() if name != "one_hot"])
def test_likelihood(likelihood: str, tmp_path: Path) -> None:
    check_one(untrained("vae", likelihood=likelihood), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        ({"name": "full_gaussian", "rank": 2}, "standard_normal"),
        ({"name": "flow", "kind": "spline", "hidden": [16]}, "standard_normal"),
        ({"name": "gmm", "components": 3}, "gaussian_mixture"),
        ("power_spherical", "sphere_uniform"),
        ("epanechnikov", "uniform"),
    ],
    ids=str,
)
def test_posterior(posterior: Any, prior: str, tmp_path: Path) -> None:
    check_one(untrained("vae", posterior=posterior, prior=prior), tmp_path)


@torch.no_grad()
@pytest.mark.slow
def test_a_flow_after_a_fusion_and_modalities_that_are_no_images(tmp_path: Path) -> None:
    shapes, values = {"image": (1, 8, 8), "label": (4,), "sensor": (3,)}, ("image", "classes", "vector")
    flow = {"name": "flow", "hidden": [16], "transforms": 1}
    config = tiny("masked-multimodal", posterior=flow, fusion={"width": 16}, likelihood="bernoulli")
    config = config.model_copy(update={"data_shape": shapes, "data_values": dict(zip(shapes, values, strict=True))})
    run = vk.Run(config)
    out = run.export(out=tmp_path)
    x = {
        "image": torch.rand(5, 1, 8, 8),
        "label": torch.eye(4)[torch.tensor([0, 1, 2, 3, 0])],
        "sensor": torch.randn(5, 3),
    }
    available = torch.tensor([[True, True, True], [True, False, False], [False, True, True], [True, True, False]] * 2)[
        :5
    ]
    found = run_file(out / "encoder.onnx", **x, available=available)
    close(found["mean"], run.model.eval().encode(Observed(x, available)).posterior().shared.mean)
    files = json.loads((out / "export.json").read_text())["files"]
    meanings = {name: facts["meaning"] for name, facts in files["encoder.onnx"]["inputs"].items()}
    assert meanings["label"] == "classes in one-hot form"
    assert "range" not in files["encoder.onnx"]["inputs"]["sensor"]
    assert files["decoder-label.onnx"]["likelihood"] == "OneHot()"
    label = run_file(out / "decoder-label.onnx", z=found["mean"])["mean"]
    torch.testing.assert_close(label.sum(-1), torch.ones(5))


class Attending(Network):
    def law(self, *inputs: Tensor) -> Any:
        x, mask = inputs
        attend = torch.nn.functional.scaled_dot_product_attention
        three = attend(x, x, x, mask, scale=0.5) + attend(x, x, x, is_causal=True) + attend(x, x, x, mask[0])
        four = attend(*[x[:, None]] * 3, mask[:, None])
        # The last is called as the operator before it is.
        return {"three": (three, ""), "four": (four, ""), "mean": (x.hypot(x).mean(1).sin(), "")}


def test_what_onnx_has_no_operator_for() -> None:
    def draw(count: int) -> tuple[Tensor, ...]:
        return torch.randn(count, 3, 8), (torch.rand(count, 3, 3) < 0.5) | torch.eye(3, dtype=torch.bool)

    graph = Graph("attending", "encoder", Attending(), {"x": {}, "mask": {}}, draw)
    _, runs = convert(graph, "onnx")
    for count in (1, 5):
        inputs = draw(count)
        for name, value in graph.network(*inputs).items():
            close(runs(inputs)[name], value)


# ---- the posterior as tensors ----------------------------------------------------------------------------------------


def rebuilt(law: dict[str, Tensor], name: str) -> Distribution:
    """Build a posterior of nothing but what an encoder gives."""
    dist = torch.distributions
    if name == "full":
        return dist.MultivariateNormal(law["mean"], scale_tril=law["scale_tril"])
    if name == "low-rank":
        return dist.LowRankMultivariateNormal(law["mean"], law["factor"], law["diagonal"])
    if name == "mixture":
        each = Independent(dist.Normal(law["means"], law["scales"]), 1)
        return dist.MixtureSameFamily(dist.Categorical(law["weights"]), each)
    if name == "vmf":
        return vk.distributions.VonMisesFisher(law["point"], law["concentration"])
    if name == "epanechnikov":
        return Independent(vk.distributions.Epanechnikov(law["mean"], law["half_width"]), 1)
    return Independent({"gaussian": dist.Normal, "laplace": dist.Laplace}[name](law["mean"], law["scale"]), 1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "posterior", "prior"),
    [
        ("gaussian", "gaussian", "standard_normal"),
        ("laplace", "laplace", "standard_normal"),
        ("full", "full_gaussian", "standard_normal"),
        ("low-rank", {"name": "full_gaussian", "rank": 2}, "standard_normal"),
        ("mixture", "gmm", "standard_normal"),
        ("vmf", "vmf", "sphere_uniform"),
        ("epanechnikov", "epanechnikov", "standard_normal"),
    ],
)
def test_the_outputs_are_the_whole_posterior(name: str, posterior: Any, prior: str) -> None:
    """Densities of draws under what is rebuilt of the outputs are those of the posterior."""
    run = untrained("vae", posterior=posterior, prior=prior)
    x = images(run, 4)
    q = run.model.encode(x)
    (graph,) = graphs_of(run.model, "encoder")
    z = q.sample((3,))
    close(rebuilt(graph.network(x), name).log_prob(z), q.log_prob(z))


def test_a_mixture_of_laplace_experts_says_what_its_scales_are() -> None:
    from pyro.distributions import Laplace

    experts = Laplace(torch.zeros(5, 2, 3), torch.ones(5, 2, 3)).to_event(1)
    law = law_of(vk.distributions.expert_mixture.ExpertMixture(experts, torch.tensor([True, False])))
    assert {name: tuple(value.shape) for name, (value, _) in law.items()} == {
        "mean": (5, 3), "weights": (5, 2), "means": (5, 2, 3), "scales": (5, 2, 3),
    }  # fmt: skip
    assert "over the root of 2" in law["scales"][1]


# ---- the files -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_torch_export_runs_for_any_number_of_samples(tmp_path: Path) -> None:
    run = untrained("gamix")
    out = run.export("torch-export", out=tmp_path)
    # Files of our own: loading a stranger's would unpickle them.
    encoder, decoder = (torch.export.load(out / f"{name}.pt2").module() for name in ("encoder", "decoder"))
    for count in (1, 5):
        x = images(run, count)
        found, q = encoder(x), run.model.encode(x)
        for name, expected in (("mean", q.mean), ("weights", q.component_probs), ("means", q.loc), ("scales", q.scale)):
            close(found[name], expected)
        close(decoder(found["mean"])["mean"], run.model.reconstruct(x))


def test_an_encoder_does_not_carry_the_decoder(tmp_path: Path) -> None:
    run = untrained("vae")
    run.export("torch-export", out=tmp_path)
    weights = {name: set(torch.export.load(tmp_path / f"{name}.pt2").state_dict) for name in ("encoder", "decoder")}
    assert not any("decoder" in name for name in weights["encoder"])
    assert not any("encoder" in name or "posterior" in name for name in weights["decoder"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vae"
    config = tiny("vae", trainer={"max_steps": 2, "accelerator": "cpu"}, data={"limit": 100, "binarize": True})
    vk.Run(config, out).fit()
    return out


def test_description(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", str(trained)) == 0
    printed = capsys.readouterr().out
    out = trained / "export" / "onnx"
    assert f"{out / 'encoder.onnx'}: x -> mean, scale; the same as the model to" in printed
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    assert written.keys() == {"encoder.onnx", "decoder.onnx", "export.json"}
    told = json.loads(written["export.json"])
    for name, facts in told["files"].items():
        assert facts["sha256"] == hashlib.sha256(written[name]).hexdigest()
        assert facts["largest_difference"] < 1e-5
    encoder, decoder = told["files"]["encoder.onnx"], told["files"]["decoder.onnx"]
    assert encoder["inputs"]["x"] == {
        "shape": ["batch", 1, 8, 8],
        "dtype": "float32",
        "meaning": "images: 0 stands for the pixel 0 and 1 for 255, evenly between them",
        "range": [0.0, 1.0],
    }
    assert encoder["outputs"]["scale"]["meaning"] == "the standard deviation of each dimension"
    assert encoder["decode"] == "mean"
    assert (decoder["likelihood"], decoder["range"]) == ("Bernoulli()", [0.0, 1.0])
    assert decoder["outputs"]["mean"]["shape"] == ["batch", 1, 8, 8]
    source = told["source"]
    assert source["weights_sha256"] == hashlib.sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    assert (source["run"], source["recipe"], source["latent_dim"]) == ("vae", "vae", 4)
    assert source["notes"] == ["in training the grey values of images were drawn as black or white"]
    assert told["versions"].keys() == {"vaekit", "torch", "onnx", "onnxscript", "onnxruntime"}
    for content in written.values():
        for place in (Path(vk.__file__).parent, Path(torch.__file__).parent, trained):
            assert str(place).encode() not in content, "a file names a folder of this machine"


def test_the_range_in_the_description_is_that_of_the_data(trained: Path) -> None:
    """Pixels scaled as it says are what the run trains on."""
    run = vk.Run.load(trained)
    low, high = run.model.data_range
    config = run.config.model_copy(update={"data": {**run.config.data, "binarize": False}})
    pixels = vk.Run(config).data.valid.samples[:4]
    batch = next(iter(vk.Run(config)._batches("valid").epoch(0)))[:4]
    torch.testing.assert_close(low + (high - low) * pixels.float() / 255, batch)


def test_an_export_replaces_an_earlier_one(trained: Path, tmp_path: Path) -> None:
    run, mine = vk.Run.load(trained), tmp_path / "mine.pt2"
    mine.write_text("not of the export")
    run.export("torch-export", out=tmp_path)
    run.export("torch-export", "encoder", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.pt2", "export.json", "mine.pt2"}
    # Nothing beyond the folder is ever removed, whatever the description says.
    outside = tmp_path.parent / "outside.pt2"
    outside.write_text("not of the export")
    (tmp_path / "export.json").write_text(json.dumps({"files": {"../outside.pt2": {}, "export.json": {}}}))
    run.export("torch-export", "decoder", tmp_path)
    assert outside.is_file()
    (tmp_path / "export.json").write_text("[")
    run.export("torch-export", "decoder", tmp_path)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_file_that_differs_from_the_model_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, convert = vk.Run.load(trained), writing.convert
    run.export("torch-export", out=tmp_path / "there")
    before = {path: path.read_bytes() for path in (tmp_path / "there").iterdir()}

    def wrong(graph: Any, format: Any) -> Any:
        content, runs = convert(graph, format)
        return content, lambda inputs: {name: value + 0.001 * (len(value) == 5) for name, value in runs(inputs).items()}

    monkeypatch.setattr(writing, "convert", wrong)
    for name in ("there", "new"):
        with pytest.raises(
            VaekitError, match="for 5 sample.s. its output 'mean' differs .* by 0.001; nothing was written"
        ):
            run.export("torch-export", out=tmp_path / name)
    assert {path: path.read_bytes() for path in (tmp_path / "there").iterdir()} == before
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    with torch.no_grad():
        run.model.last_layer.fill_(torch.nan)
    with pytest.raises(VaekitError, match="decoder as torch-export is not what the model is: .* is not finite"):
        run.export("torch-export", out=tmp_path / "new")


def test_what_cannot_be_exported_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = untrained("vae")

    class NoMean(torch.distributions.Distribution):
        arg_constraints: dict[str, Any] = {}

    with pytest.raises(VaekitError, match="NoMean has no mean, .*: export the decoder alone"):
        law_of(NoMean(validate_args=False))

    class Branching(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :16] if float(x.sum()) > 0 else x.flatten(1)[:, -16:]

    with monkeypatch.context() as patch:
        patch.setitem(run.model._modules, "encoder", Branching())
        with pytest.raises(VaekitError, match="^the encoder cannot be exported as torch-export: .*data-dependent"):
            run.export("torch-export", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(VaekitError, match="has no directory to export into"):
        run.export()
    with pytest.raises(VaekitError, match="nothing called 'prior' to export"):
        run.export(what="prior", out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(VaekitError, match="no format 'tflite' to export to: valid: onnx, torch-export"):
        run.export("tflite", out=tmp_path)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(VaekitError, match="a file stands where a folder is needed"):
        run.export("torch-export", out=tmp_path / "file")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(VaekitError, match=rf'needs {package}: pip install "vaekit\[export\]", or choose'):
                run.export(out=tmp_path)


@pytest.mark.parametrize("name", ["available", "mean"])
def test_a_modality_cannot_have_the_name_of_another_tensor(name: str, tmp_path: Path) -> None:
    run = untrained("joint", {"m0": (3, 28, 28), name: (3, 28, 28)})
    with pytest.raises(VaekitError, match=f"a modality cannot be called '{name}' in an exported encoder"):
        run.export(out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stranger_cannot_name_a_file_beyond_the_folder(tmp_path: Path) -> None:
    run = untrained("mmvm", {"m0": (3, 28, 28), "../m1": (3, 28, 28)})
    with pytest.raises(VaekitError, match=r"'encoder-../m1' cannot be the name of a file"):
        run.export("torch-export", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_command_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", str(trained), "--format", "torch-export", "--what", "decoder", "--out", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"decoder.pt2", "export.json"}
    assert call("export", str(trained), "--format", "pickle") == 2
    assert call("export", str(tmp_path)) == 2
    assert "is not a run directory" in capsys.readouterr().err
