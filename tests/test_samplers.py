"""Where latents are drawn from: densities that are fitted, blocks of draws, what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers import TINY_PAIRED, random_images, tiny
from PIL import Image
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

import vaekit as vk
from vaekit import build
from vaekit.cli.main import main
from vaekit.errors import VaekitError
from vaekit.evaluation import Sampler, list_sources
from vaekit.evaluation.expost import EXPOST, Expost, ExpostFlow, ExpostMixture
from vaekit.evaluation.samplers import BLOCK
from vaekit.sources import SOURCES, Source

FITTED = ["expost-mixture", "expost-flow"]


def clusters(count: int) -> Tensor:
    """Return codes in two clusters, in units that differ by much, far from the origin."""
    side = torch.randint(2, (count, 1)).float() * 4.0 - 2.0
    return torch.tensor([100.0, 0.0]) + torch.tensor([10.0, 0.01]) * (side + 0.5 * torch.randn(count, 2))


@pytest.fixture
def model() -> vk.VAE:
    return build.model(tiny("vae"), (1, 8, 8)).eval()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the fit of flows short, where it does not matter what is fitted."""
    monkeypatch.setattr("vaekit.evaluation.expost._STEPS", 100)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Replace the fit of mixtures by a quick one, and return what was fitted to."""
    seen: list[Tensor] = []

    def fit(self: Expost, z: Tensor, progress: Any = None) -> None:
        seen.append(z)
        self.loc.copy_(z.mean(0))

    monkeypatch.setattr(ExpostMixture, "fit", fit)
    return seen


# ---- densities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", FITTED)
def test_fitted_densities_tell_clusters_apart(source: str) -> None:
    codes, held = clusters(1000), clusters(1000)
    gaussian = Independent(Normal(codes.mean(0), codes.std(0)), 1)
    validated = vars(Distribution)["_validate_args"]  # torch.compile switches it off for the whole process, too.
    density = EXPOST[source](2)
    said: list[tuple[int, int, str]] = []
    density.fit(codes, lambda *words: said.append(words))
    with torch.no_grad():
        found, z = density(), density().sample((4000,))
        likelihood = float(found.log_prob(held).mean())
    # The entropy of what the codes are drawn from; the clusters are four standard deviations of the mean apart.
    entropy = np.log(2.0) + 2.0 * (0.5 * np.log(2.0 * np.pi * np.e) + np.log(0.5)) + np.log(10.0) + np.log(0.01)
    assert float(gaussian.log_prob(held).mean()) + 1.5 < likelihood < -entropy + 0.1
    assert likelihood > -entropy - 0.25
    torch.testing.assert_close(z.mean(0), codes.mean(0), rtol=0, atol=0.15 * float(codes.std(0)[0]))
    torch.testing.assert_close(z.std(0), codes.std(0), rtol=0.1, atol=0)
    torch.testing.assert_close(z.T.corrcoef(), codes.T.corrcoef(), rtol=0, atol=0.03)
    assert z.dtype == torch.float32
    assert vars(Distribution)["_validate_args"] is validated, "zuko switches the validation of arguments off"
    if source == "expost-flow":
        assert said[-1][:2] == (3000, 3000), "the progress ends"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("source", FITTED)
def test_a_dimension_that_says_nothing_stays_so(source: str) -> None:
    codes = torch.cat([torch.randn(100, 1), torch.full((100, 1), 7.0)], 1)
    density = EXPOST[source](2)
    density.fit(codes)
    z = density().sample((500,))
    assert z.isfinite().all()
    assert bool((z[:, 1] == 7.0).all())
    assert 0.7 < float(z[:, 0].std()) < 1.4


@pytest.mark.parametrize("source", FITTED)
def test_what_no_density_can_be_fitted_to(source: str) -> None:
    with pytest.raises(VaekitError, match="fitted to 9 latent"):
        EXPOST[source](2).fit(torch.randn(9, 2))
    with pytest.raises(VaekitError, match="not finite"):
        EXPOST[source](2).fit(torch.full((20, 2), torch.nan))


def test_what_is_kept_of_a_flow_was_the_best_for_what_is_held_out() -> None:
    codes = torch.randn(60, 2)  # so few that a flow soon knows them by heart
    density = ExpostFlow(2)
    said: list[int] = []
    density.fit(codes, lambda done, *_: said.append(done))
    assert len(said) < 20, "the fit ends long before the last step"
    with torch.no_grad():
        assert float(density().log_prob(torch.randn(2000, 2)).mean()) > -3.5  # -2.84 is the truth


# ---- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("source", SOURCES)
def test_draws_follow_from_seed_and_block(model: vk.VAE, source: str) -> None:
    sampler = Sampler(model, random_images())
    whole = sampler.draw(source, 2 * BLOCK + 7, seed=3)
    assert whole.shape == (2 * BLOCK + 7, 4)
    torch.rand(5)
    for block, size in ((2, 7), (0, BLOCK), (1, BLOCK)):
        assert torch.equal(sampler.draw(source, size, 3, block), whole[block * BLOCK : block * BLOCK + size])
    # Another sampler, which has fitted nothing yet and computes in other pieces, draws the same.
    again = Sampler(model, random_images(), batch_size=7).draw(source, BLOCK, 3)
    torch.testing.assert_close(again, whole[:BLOCK], rtol=1e-4, atol=1e-5)
    assert not torch.equal(sampler.draw(source, 9, 4), sampler.draw(source, 9, 3))
    assert not torch.equal(sampler.draw(source, 9), sampler.draw(source, 9)), "without a seed the state goes on"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("source", SOURCES)
def test_fits_leave_the_random_state_alone(model: vk.VAE, source: str) -> None:
    torch.manual_seed(5)
    fresh, known = Sampler(model, random_images()), Sampler(model, random_images())
    first = fresh.draw(source, 9)
    known.draw(source, 1, seed=0)
    torch.manual_seed(5)
    assert torch.equal(known.draw(source, 9), first)


@pytest.mark.parametrize("binarize", [False, True])
def test_draws_have_the_moments_of_the_aggregate_posterior(model: vk.VAE, binarize: bool) -> None:
    torch.nn.init.constant_(model.posterior.loc.bias, 2.0)
    sampler = Sampler(model, random_images(600), binarize=binarize)
    truth = sampler.aggregate
    for source in ("aggregate-gaussian", "aggregate-mixture", "expost-mixture"):
        z = sampler.draw(source, 6000, seed=0)
        scale = truth.variance.sqrt().float()
        torch.testing.assert_close((z.mean(0) - truth.mean.float()) / scale, torch.zeros(4), rtol=0, atol=0.12)
        torch.testing.assert_close(z.std(0) / scale, torch.ones(4), rtol=0, atol=0.1)
    assert bool((truth.mean > 1.0).all()), "else this would hold of the prior too"


def test_no_more_than_ten_thousand_training_samples_are_fitted_to(
    model: vk.VAE, fits: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaekit.evaluation.samplers._FITTED_TO", 30)
    said: list[tuple[int, int, str]] = []
    for seed in (0, 0, 1):
        Sampler(model, random_images(), seed=seed, progress=lambda *w: said.append(w)).density("expost-mixture")
    assert [z.shape for z in fits] == [(30, 4)] * 3
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert said[0] == (1, 1, "encoding for expost-mixture")


def test_data_are_loaded_where_they_are_needed(model: vk.VAE, fits: list[Tensor], tmp_path: Path) -> None:
    loads: list[int] = []

    def data() -> vk.data.Dataset:
        loads.append(1)
        return random_images()

    sampler = Sampler(model, data, folder=tmp_path)
    sampler.draw("prior", 3)
    assert not loads
    sampler.draw("expost-mixture", 3)
    sampler.draw("aggregate-mixture", 3)
    assert len(loads) == 1
    Sampler(model, data, folder=tmp_path).draw("expost-mixture", 3)
    assert len(loads) == 1, "what is kept needs no data"


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_fits_are_kept_until_something_changes(model: vk.VAE, fits: list[Tensor], tmp_path: Path) -> None:
    def draw(**options: Any) -> Tensor:
        return Sampler(model, random_images(), folder=tmp_path / "expost", **options).draw("expost-mixture", 5, seed=0)

    path = tmp_path / "expost" / "expost-mixture.safetensors"
    first = draw()
    assert torch.equal(draw(), first)
    assert len(fits) == 1
    sampler = Sampler(model, random_images(), folder=tmp_path / "expost")
    sampler.draw("expost-mixture", 5)
    sampler.draw("expost-mixture", 5)
    assert len(fits) == 1

    path.write_bytes(path.read_bytes()[:-50])
    assert torch.equal(draw(), first)
    assert len(fits) == 2, "a damaged file is made again"
    path.write_bytes(b"")
    draw()
    draw()
    assert len(fits) == 3
    draw(seed=1)
    draw(seed=1)
    assert len(fits) == 4
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    changed = draw(seed=1)
    assert len(fits) == 5, "other weights, another fit"
    assert torch.equal(draw(seed=1), changed)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("source", FITTED)
def test_what_is_kept_is_the_whole_density(model: vk.VAE, source: str, tmp_path: Path) -> None:
    first = Sampler(model, random_images(), folder=tmp_path)
    z = first.draw(source, 20, seed=0)
    again = Sampler(model, random_images(), folder=tmp_path, seed=0)
    assert torch.equal(again.draw(source, 20, seed=0), z)
    assert torch.equal(again.density(source).log_prob(z), first.density(source).log_prob(z))
    assert [path.name for path in tmp_path.iterdir()] == [f"{source}.safetensors"]


def test_a_run_that_may_only_be_read_can_be_drawn_from(model: vk.VAE, fits: list[Tensor], tmp_path: Path) -> None:
    (tmp_path / "expost").write_text("in the way")
    z = Sampler(model, random_images(), folder=tmp_path / "expost").draw("expost-mixture", 3)
    assert z.shape == (3, 4)


def test_moments_of_the_run_are_used(model: vk.VAE, tmp_path: Path) -> None:
    from vaekit.evaluation import Aggregate
    from vaekit.files import save_tensors

    kept = Aggregate(torch.full((4,), 50.0), torch.ones(4), torch.zeros(4), 10)
    save_tensors(tmp_path / "aggregate.safetensors", kept.tensors())
    sampler = Sampler(model, random_images(), aggregate=tmp_path / "aggregate.safetensors")
    assert float(sampler.draw("aggregate-gaussian", 100, seed=0).mean()) == pytest.approx(50.0, abs=0.5)
    assert Sampler(model, random_images(), aggregate=tmp_path / "none").aggregate.count == 48


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["pvae", "categorical-vae", "hyperspherical-vae"])
def test_no_gaussian_stands_for_counts_categories_or_directions(recipe: str) -> None:
    model = vk.recipe(recipe).model.eval()
    assert list_sources(model) == ("prior", "aggregate-mixture")
    sampler = Sampler(model, random_images())
    for source in ("aggregate-gaussian", *FITTED):
        with pytest.raises(VaekitError, match="no Gaussian draws: sample from 'prior' or 'aggregate-mixture'"):
            sampler.draw(source, 4)
        with pytest.raises(VaekitError, match="no Gaussian draws"):
            sampler.density(source)
    for source in ("prior", "aggregate-mixture"):
        assert sampler.draw(source, 4).shape == (4, model.latent_dim)


def test_mistakes_are_sentences(model: vk.VAE) -> None:
    sampler = Sampler(model, random_images())
    with pytest.raises(VaekitError, match="no source of latents 'expost-mix': did you mean 'expost-mixture'"):
        sampler.draw("expost-mix", 1)
    with pytest.raises(VaekitError, match="the number of samples must be 1 or more, not 0"):
        sampler.draw("prior", 0)
    with pytest.raises(VaekitError, match="seed must be 0 or more, not -1"):
        sampler.draw("prior", 1, seed=-1)
    with pytest.raises(VaekitError, match="has no density at hand"):
        sampler.density("aggregate-mixture")
    with pytest.raises(VaekitError, match="batch_size must be 1 or more"):
        Sampler(model, random_images(), batch_size=0)
    with pytest.raises(VaekitError, match="10 training samples or more"):
        Sampler(model, random_images(8)).draw("expost-mixture", 1)


def test_every_source_is_described() -> None:
    assert tuple(SOURCES) == get_args(Source)
    assert set(EXPOST) <= set(SOURCES)


# ---- several modalities, and the command line ------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["joint", "mmvm"])
def test_several_modalities(recipe: str, tmp_path: Path) -> None:
    run = vk.Run(tiny(recipe, data={**TINY_PAIRED, "missing": 0.2}, trainer={"max_steps": 1}), tmp_path / "run")
    run.fit()
    for source in ("aggregate-mixture", "expost-mixture"):
        views = run.sample(5, source, seed=0)
        assert len(views) == 5
        assert torch.equal(views.tensor, run.sample(5, source, seed=0).tensor)
    assert (tmp_path / "run" / "expost" / "expost-mixture.safetensors").is_file()


def test_a_new_fit_forgets_the_densities_of_the_last(tmp_path: Path) -> None:
    run = vk.Run(tiny("vae", trainer={"max_steps": 2}, data={"limit": 100}), tmp_path / "run")
    run.fit()
    first = run.sample(3, "expost-mixture", seed=0).tensor
    mean = run.aggregate.mean
    run.config = run.config.model_copy(update={"trainer": {**run.config.trainer, "max_steps": 30}})
    run.fit(resume=True)
    assert not torch.equal(run.sample(3, "expost-mixture", seed=0).tensor, first)
    assert not torch.equal(run.aggregate.mean, mean)


@pytest.mark.usefixtures("quick")
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    vk.Run(tiny("vae", trainer={"max_steps": 2}, data={"limit": 100}), out).fit()
    for source in FITTED:
        with pytest.raises(SystemExit) as ended:
            main(["sample", str(out), "--from", source, "--n", "6"])
        assert not ended.value.code
        assert f"6 samples from {source}: {out}/sample-{source}.png" in capsys.readouterr().out
        with Image.open(out / f"sample-{source}.png") as picture:
            assert np.asarray(picture).std() > 1.0
        assert (out / "expost" / f"{source}.safetensors").is_file()
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(out), "--from", "expost"])
    assert ended.value.code == 2
