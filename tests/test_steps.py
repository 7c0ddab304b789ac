"""A step in parts, with few activations, and left out where it is not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import built, call, random_images, tiny
from safetensors import safe_open
from torch import nn

import vaekit as vk
from vaekit.backbones.resnetv2 import ResNetV2
from vaekit.regularizers import Regularizer
from vaekit.training.activations import checkpoint_activations
from vaekit.training.checkpoint import load
from vaekit.training.meter import NotFiniteError


def weights_after(steps: int, batch_size: int, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model, objective = built(tiny("rae"))  # Nothing in it is random.
    trainer = vk.Trainer(
        max_steps=steps, sample_every=0, accelerator="cpu", optimizer={"name": "sgd", "lr": 1e-3}, **options
    )
    trainer.fit(model, objective, random_images(64), batch_size=batch_size)
    return [parameter.detach() for parameter in model.parameters()]


class Recorder(vk.training.Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, note: str) -> None:
        self.notes.append(note)


# ---- in parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"clip": 0.5}, {"not_finite": "skip"}])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(options: dict[str, Any]) -> None:
    whole, parts = (weights_after(4, 24, accumulate=n, **options) for n in (1, 3))
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_parts_work_with_an_adversary() -> None:
    model, objective = built(tiny("gamix"))
    trainer = vk.Trainer(max_steps=3, log_every=1, sample_every=0, accumulate=2, accelerator="cpu")
    fit = trainer.fit(model, objective, random_images(64), batch_size=16)
    assert fit.metrics[0].keys() >= {"loss", "population_kl", "generator", "discriminator", "logits_fake"}


def test_parts_of_several_modalities() -> None:
    run = vk.Run(tiny("masked-multimodal", trainer={"accumulate": 2, "max_steps": 2, "sample_every": 0}))
    trainer, model, objective = run.prepare()
    assert trainer.fit(model, objective, run.data, batch_size=20).steps == 2


def test_parts_must_be_equal_and_large_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--data", "digits", "--out", str(tmp_path / "run"))
    assert call("run", "vae", *place, "--set", "data.batch_size=50", "--set", "trainer.accumulate=4") == 2
    assert "in trainer.accumulate = 4 parts each" in capsys.readouterr().err
    assert call("run", "gamix", *place, "--set", "data.batch_size=8", "--set", "trainer.accumulate=8") == 2
    assert "set data.batch_size to 16 or more" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---- few activations -----------------------------------------------------------------------------------------------


def held_for_the_gradient(network: nn.Module, x: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return the bytes that a forward pass keeps for its gradient, weights not counted, and the output."""
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(x)
    return sum(kept.values()), output


def test_checkpointed_activations_give_the_same_gradients_and_statistics(float64: None) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return ResNetV2(width=8, latent_channels=4).encoder((3, 32, 32))

    plain, lean = make(), make()
    checkpoint_activations([lean])
    x = torch.randn(6, 3, 32, 32)
    (most, expected), (least, found) = held_for_the_gradient(plain, x), held_for_the_gradient(lean, x)
    assert least < 0.4 * most
    assert torch.equal(found, expected)
    for output in (found, expected):
        output.square().sum().backward()
    for ours, theirs in zip(lean.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)
    assert list(lean.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():  # The running means and the number of batches.
        assert torch.equal(lean.state_dict()[name], value), name


@pytest.mark.parametrize("adaptive", [False, True])  # With it, gradients go through the networks twice.
def test_checkpointed_activations_train_the_same_run(adaptive: bool) -> None:
    fits = []
    for lean in (False, True):
        model, objective = built(tiny("gamix", adversary={"adaptive": adaptive, "weight": 0.5}))
        trainer = vk.Trainer(
            max_steps=3, sample_every=0, ema=0.9, activation_checkpointing=lean, accelerator="cpu", log_every=1
        )
        fits.append(trainer.fit(model, objective, random_images(64), batch_size=16))
    plain, lean_fit = fits
    for line, other in zip(plain.metrics, lean_fit.metrics, strict=True):
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-5)


def test_nothing_to_checkpoint_is_a_sentence() -> None:
    with pytest.raises(vk.VaekitError, match="no chain of four layers"):
        checkpoint_activations([nn.Linear(2, 2)])


def test_a_chain_with_a_forward_of_its_own_is_left_alone() -> None:
    class Reversed(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in reversed(list(self)):
                x = layer(x)
            return x

    with pytest.raises(vk.VaekitError, match="no chain of four layers"):
        checkpoint_activations([Reversed(*(nn.Linear(2, 2) for _ in range(5)))])


# ---- not finite ----------------------------------------------------------------------------------------------------


class Spike(Regularizer):
    """Infinite at some steps of training, in its value or in its gradient only."""

    def __init__(self, step: int, gradient: bool = False, last: int | None = None) -> None:
        super().__init__()
        self.at, self.gradient = range(step, (step if last is None else last) + 1), gradient

    def forward(self, latents: Any) -> torch.Tensor:
        if not self.training or latents.step not in self.at:
            return latents.z.sum() * 0.0
        if self.gradient:
            return (latents.z * 0.0).sum().sqrt()  # 0, with an infinite slope
        return latents.z.sum() * float("inf")


def spiked(step: int, gradient: bool = False) -> tuple[vk.VAE, vk.Objective]:
    model, objective = built(tiny("gamix"))
    objective.regularizers["spike"] = Spike(step, gradient)
    return model, objective


def fit_spiked(out: Path, step: int, gradient: bool = False, steps: int = 6, **options: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    options = {"log_every": 2, "sample_every": 0, "not_finite": "skip", **options}
    trainer = vk.Trainer(max_steps=steps, accelerator="cpu", **options)
    resume = (out / "metrics.jsonl").exists()
    fit = trainer.fit(
        *spiked(step, gradient), random_images(64), batch_size=12, out=out, listeners=[recorder], resume=resume
    )
    return fit, recorder


@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_is_not_finite_is_left_out_and_named(tmp_path: Path, gradient: bool) -> None:
    fit, recorder = fit_spiked(tmp_path, 3, gradient)
    assert fit.skipped == 1
    (note,) = recorder.notes
    assert note.startswith("step 3 is left out: the ")
    assert ("the gradient of" in note) if gradient else ("the term 'spike' is not finite" in note)
    assert all(value.isfinite().all() for value in fit.model.state_dict().values())
    assert [line.get("skipped_steps") for line in fit.metrics if line["split"] == "train"] == [None, 1.0, 1.0]
    path = tmp_path / "not_finite" / "step-00000003.safetensors"
    assert str(path) in note
    with safe_open(path, "pt") as file:
        assert file.get_tensor("x").shape == (12, 1, 8, 8)
        assert json.loads(file.metadata()["vaekit"])["step"] == 3


def test_a_step_that_is_left_out_changes_nothing(tmp_path: Path) -> None:
    kept: list[dict[str, Any]] = []
    for steps in (3, 4):
        fit_spiked(tmp_path / str(steps), 3, steps=steps)
        kept.append(load(tmp_path / str(steps)))
    before, after = kept
    for part in ("model", "objective"):
        for name, value in before[part].items():
            assert torch.equal(after[part][name], value), name
    for name in ("vae", "discriminator"):
        for ours, theirs in zip(
            after["optimizers"][name]["state"].values(), before["optimizers"][name]["state"].values(), strict=True
        ):
            assert torch.equal(ours["exp_avg"], theirs["exp_avg"])
            assert torch.equal(ours["step"], theirs["step"])


def test_a_run_that_left_out_a_step_resumes_exactly(tmp_path: Path) -> None:
    fit_spiked(tmp_path / "whole", 2, steps=8)
    for steps in (4, 8):
        fit_spiked(tmp_path / "halves", 2, steps=steps)
    whole, halves = (
        [line for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
        for name in ("whole", "halves")
    )
    assert halves == whole


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    model, objective = built(tiny("vae"))
    objective.regularizers["spike"] = Spike(2, last=60)
    trainer = vk.Trainer(max_steps=60, sample_every=0, not_finite="skip", accelerator="cpu")
    with pytest.raises(
        NotFiniteError, match="20 steps in a row were not finite, the last for the term 'spike' at step 22"
    ):
        trainer.fit(model, objective, random_images(64), batch_size=12, out=tmp_path)
    assert len(list((tmp_path / "not_finite").iterdir())) == 10


def test_a_run_that_stops_says_what_the_last_good_weights_do_with_the_batch(tmp_path: Path) -> None:
    said = "at step 2: .*with the weights of step 0 the term 'spike' is not finite; its batch is kept in"
    with pytest.raises(NotFiniteError, match=said):
        fit_spiked(tmp_path, 2, not_finite="stop")
    assert (tmp_path / "not_finite" / "step-00000002.safetensors").is_file()


def test_weights_that_a_gradient_spoilt_are_never_kept(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="became NaN or infinite before step 4, though no term did"):
        fit_spiked(tmp_path, 3, gradient=True, not_finite="stop")
    state = load(tmp_path)
    assert state["step"] == 0
    assert all(value.isfinite().all() for value in state["model"].values())


# ---- what the best checkpoint is the best at -----------------------------------------------------------------------


def test_validation_weighs_terms_as_the_last_step_does() -> None:
    """A warm-up from 0 to 2: every validation loss has the weight 2, every training loss its own."""
    weight = {"name": "linear", "start": 0.0, "end": 2.0, "portion": 1.0}
    overlay = {"regularizers": {"kl": {"weight": weight}}, "data": {"batch_size": 256}}
    run = vk.Run(tiny("vae", **overlay, trainer={"epochs": 3, "max_steps": None, "log_every": 1}))
    trainer, model, objective = run.prepare()
    fit = trainer.fit(model, objective, run.data, batch_size=256)
    ratio: dict[str, list[float]] = {"train": [], "valid": []}
    for line in fit.metrics:
        ratio[line["split"]].append((line["loss"] - line["reconstruction"]) / line["kl"])
    assert len(ratio["valid"]) == 3
    assert ratio["valid"] == pytest.approx([2.0] * 3, abs=1e-4)
    assert ratio["train"] == sorted(ratio["train"])
    assert ratio["train"][0] == 0.0
