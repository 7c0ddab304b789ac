"""Every recipe trains, leaves a complete run, can be stopped, resumed and loaded, and draws finite pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import ONE_MODALITY, SEVERAL_MODALITIES, TINY_PAIRED, tiny

import vaekit as vk
from vaekit.config import RunConfig
from vaekit.files import load_tensors

pytestmark = pytest.mark.slow

# The author's configuration is for 256 x 256 photographs.
RECIPES = [name for name in ONE_MODALITY if name != "gamix-author"]
RESUMED = [
    "factor-vae",
    "pvae",
    "vampprior",
    "flow-prior",
    "wae-mmd",
    "hyperspherical-vae",
    "masked-multimodal",
    "mmvae-plus",
]
SMALL = {
    "flow-prior": {"prior": {"hidden": [16], "transforms": 1}},
    "iaf-vae": {"posterior": {"hidden": [16], "transforms": 1}},
    "vampprior": {"prior": {"components": 5}},
    **{name: {"fusion": {"width": 16}} for name in ("masked-multimodal", "masked-multimodal-attention")},
    "mmvae-plus": {"private": {"latent_dim": 3}},
    "categorical-vae": {"posterior": {"categories": 2}, "prior": {"categories": 2}},
    "factor-vae": {"regularizers": {"factor": {"hidden": 16, "depth": 2}}},
    # Linear networks: what they are about.
    "pvae": {"backbone": {"hidden": []}},
    "pvae-exact": {"backbone": {"hidden": []}},
    "pvae-straight-through": {"backbone": {"hidden": []}},
}


def small(name: str, steps: int) -> RunConfig:
    trainer = {"max_steps": steps, "accelerator": "cpu", "checkpoint_every": 2, "log_every": 1}
    data = {} if name in SEVERAL_MODALITIES else {"limit": 200}
    return tiny(name, **SMALL.get(name, {}), trainer=trainer, data=data)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, tmp_path: Path) -> None:
    whole = vk.Run(small(name, 4), tmp_path / "whole")
    fit = whole.fit()
    assert fit.steps == 4
    assert (tmp_path / "whole" / "report.html").is_file()
    assert all(torch.tensor(list(line.values())[3:]).isfinite().all() for line in fit.metrics)
    loaded = vk.Run.load(tmp_path / "whole")
    assert loaded.model.state_dict().keys() == fit.model.state_dict().keys()
    images = loaded.sample(8, seed=0).tensor
    torch.testing.assert_close(images, whole.sample(8, seed=0).tensor)
    assert images.isfinite().all()
    assert len(loaded.reconstruct(images)) == 8


@pytest.mark.parametrize("name", SEVERAL_MODALITIES)
def test_recipe_of_several_modalities(name: str, tmp_path: Path) -> None:
    """Trained with modalities missing, loaded, and made to draw and to generate one modality from the other."""
    whole = vk.Run(small(name, 4).model_copy(update={"data": {**TINY_PAIRED, "missing": 0.3}}), tmp_path / "whole")
    fit = whole.fit()
    assert fit.steps == 4
    assert (tmp_path / "whole" / "report.html").is_file()
    assert {"prior.png", "epoch-0002-every-to-every.png"} <= {p.name for p in (tmp_path / "whole/samples").iterdir()}
    assert all(torch.tensor(list(line.values())[3:]).isfinite().all() for line in fit.metrics)
    loaded = vk.Run.load(tmp_path / "whole")
    torch.testing.assert_close(loaded.sample(8, seed=0).modalities, whole.sample(8, seed=0).modalities)
    given = {"m0": torch.zeros(2, 3, 28, 28)}
    generated = loaded.generate(given, 3, seed=0).modalities
    torch.testing.assert_close(generated, whole.generate(given, 3, seed=0).modalities)
    assert generated["m1"].shape == (6, 3, 28, 28)
    assert generated["m1"].isfinite().all()


@pytest.mark.parametrize("name", RESUMED)
def test_resume_is_exact(name: str, tmp_path: Path) -> None:
    """Critics, numbers of events, pseudo-inputs, flows, prior draws and random subsets go on where they were."""
    vk.Run(small(name, 6), tmp_path / "whole").fit()

    class Stop(vk.training.Listener):
        def on_step(self, step: int) -> None:
            if step == 3:
                raise KeyboardInterrupt

    run = vk.Run(small(name, 6), tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        run.fit(listeners=[Stop()])
    vk.Run(small(name, 6), tmp_path / "parts").fit(resume=True)
    first, second = ((tmp_path / part / "metrics.jsonl").read_text() for part in ("whole", "parts"))
    assert first == second
    states = [load_tensors(tmp_path / part / "model.safetensors") for part in ("whole", "parts")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
