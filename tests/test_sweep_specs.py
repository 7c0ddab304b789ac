"""What a sweep goes over, and what is refused in one sentence before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import call
from sweep_helpers import TINY

from vaekit.config import read_recipe, resolve
from vaekit.errors import VaekitError
from vaekit.files import save_text
from vaekit.run import Run
from vaekit.series import SharedData
from vaekit.sweeping.checks import check
from vaekit.sweeping.definition import Definition
from vaekit.sweeping.space import Choices, Span, read_option, read_space, written


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna", reason="the sweep extra is not installed")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Callable[..., None]:
    def refuse(*arguments: str, says: str) -> None:
        assert call("sweep", *arguments) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("vaekit: ")
        assert says in error
        assert "\n" not in error

    return refuse


def test_specs() -> None:
    assert read_option("a", "2,4,8") == Choices("a", {"2": 2, "4": 4, "8": 8})
    assert read_option("a", "gaussian, gmm").ends == ["gaussian", "gmm"]
    assert read_option("a", "[64],[128, 64]").ends == [[64], [128, 64]]
    assert read_option("a", "1e-4,null,true").ends == [1e-4, None, True]
    assert read_option("a", ["gmm", 2]).ends == ["gmm", 2]
    assert read_option("a", "0.1..4") == Span("a", 0.1, 4.0)
    assert read_option("a", "1..4.5") == Span("a", 1.0, 4.5)
    assert read_option("a", "-3..4").whole
    assert not read_option("a", "1.0..4").whole
    assert read_option("a", "8..128:log") == Span("a", 8, 128, True)
    assert read_option("a", "2..5").grid == [2, 3, 4, 5]


def test_what_is_written_is_read_again() -> None:
    values = ("gmm", "null", "a: b", 3, 1e-5, 0.1, None, True, [64, 64], {"name": "gmm", "components": 2})
    for value in values:
        assert read_option("a", [value, "other"]).ends[0] == value
        laid = resolve(read_recipe("vae"), assignments=[f"prior={written(value)}"]) if isinstance(value, dict) else None
        assert laid is None or laid.prior == value


@pytest.mark.parametrize(
    ("key", "spec", "says"),
    [
        ("latent_dim", "8..x", "'8..x' is no range of numbers"),
        ("latent_dim", "8..16:lin", "is no range of numbers"),
        ("latent_dim", "..", "is no range of numbers"),
        ("latent_dim", "16..8", "the first number must be the lower one"),
        ("lr", "0..1:log", "must begin above 0"),
        ("lr", "0..inf", "is no range of numbers"),
        ("latent_dim", "8", "is not two or more different values"),
        ("latent_dim", "8,8", "is not two or more different values"),
        ("latent_dim", "[8", "is not YAML"),
        ("trainer.seed", "0,1", "--seeds trains every trial with several seeds"),
        ("data", "digits,mnist", "a sweep is on one data set"),
    ],
)
def test_bad_specs_are_sentences(key: str, spec: str, says: str) -> None:
    with pytest.raises(VaekitError, match="cannot sweep over") as caught:
        read_option(key, spec)
    assert says in str(caught.value)
    assert key in str(caught.value)


def test_a_part_is_laid_down_before_its_options() -> None:
    space = read_space({"posterior.components": "2,4", "posterior": "gaussian,gmm"})
    assert [option.key for option in space] == ["posterior", "posterior.components"]
    definition = Definition.start(resolve(read_recipe("vae")), {"posterior.components": "2,4"}, [], evaluation={})
    assert definition.laid({"posterior": "gmm", "posterior.components": 4}, 7).posterior == {
        "name": "gmm",
        "components": 4,
    }
    assert definition.laid({}, 7).trainer["seed"] == 7


def test_without_optuna(monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused("vae", "--over", "latent_dim=2..4", says='a sweep needs optuna: pip install "vaekit[sweep]"')


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vae"], "for instance --over latent_dim=8..128"),
        (["vae", "--over", "latent_dim"], "--over takes KEY=CHOICES or KEY=LOW..HIGH"),
        (["vae", "--over", "latent_dim=2,4", "--over", "latent_dim=8,9"], "is given twice"),
        (["vae", "--over", "latnt_dim=2,4"], "did you mean 'latent_dim'?"),
        (["vae", "--over", "posterior=gmm,gausian"], "unknown posterior 'gausian': did you mean 'gaussian'"),
        (["vae", "--set=posterior=gmm", "--over", "posterior.componets=2,4"], "did you mean 'components'?"),
        (["vae", "--over", "posterior=gmm,laplace", "--over", "posterior.components=2,4"], "with posterior=laplace"),
        (["vae", "--over", "latent_dim=0..4"], "no trial with latent_dim=0 can be trained: "),
        (["vae", "--over", "latent_dim=2,4", "--set=data.batch_size=9999"], "vaekit: data.batch_size 9,999 is larger"),
        (["vae", "--over", "regularizers.kl.weight=0.1..4"], "regularizers.kl.weight changes what the loss means"),
        (["vae", "--over", "objective=elbo,iwae"], "objective changes what the loss means"),
        (["vae", "--set=likelihood=gaussian", "--over", "likelihood.scale=0.1..1"], "likelihood.scale changes what"),
        (["beta-vae", "--over", "data.batch_size=32,64"], "data.batch_size changes what the loss means"),
        (["pvae", "--over", "latent_dim=2,4"], "since regularizers.kl.weight is a schedule: say with --metric"),
        (["vae", "--over", "latent_dim=2,4", "--metric", "likelihood"], "takes a metric and one of its figures"),
        (["vae", "--over", "latent_dim=2,4", "--metric", "likelyhood.x"], "did you mean 'likelihood'?"),
        (["vae", "--over", "latent_dim=2,4", "--metric", "likelihood.x"], "say --direction lower or higher"),
        (["vae", "--over", "latent_dim=2,4", "--metric", "elbo.x", "--direction", "up"], "not 'up'"),
        (["vae", "--over", "latent_dim=2,4", "--direction", "higher"], "is the better the lower it is"),
        (["vae", "--over", "latent_dim=2,4", "--n", "10"], "has no options"),
        (["vae", "--over", "latent_dim=2,4", "--prune", "--metric", "probe.accuracy"], "compares validation losses"),
        (["vae", "--over", "latent_dim=2,4", "--sampler", "gird"], "did you mean 'grid'?"),
        (["vae", "--over", "latent_dim=2,4", "--trials", "0"], "--trials must be 1 or more"),
        (["vae", "--over", "latent_dim=2,4", "--seeds", "0"], "--seeds must be 1 or more"),
        (["vae", "--over", "latent_dim=2,4", "--set=trainer.devices=2"], "a trial is trained on one device"),
        (["vae", "--over", "trainer.optimizer.lr=0.1..1", "--sampler", "grid"], "a grid cannot go through the range"),
        (["vae", "--over", "latent_dim=2,4", "--resume"], "holds no sweep; leave out --resume"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_written(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., None],
    optuna: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*arguments, says=says)
    assert not list(tmp_path.iterdir())


def test_options_that_leave_the_loss_alone_need_no_metric(optuna: Any) -> None:
    over = {"posterior": "gaussian,gmm", "trainer.optimizer.lr": "1e-4..1e-2:log", "data.batch_size": "20,30"}
    config = resolve(read_recipe("vae"), TINY)
    check(Definition.start(config, over, [], evaluation={}), Run(config), SharedData())


def test_a_damaged_definition_is_a_sentence(tmp_path: Path) -> None:
    save_text(tmp_path / "sweep.yaml", "format: 1\nover: {}\n")
    with pytest.raises(VaekitError, match="is not the definition of a sweep"):
        Definition.load(tmp_path)
    save_text(tmp_path / "sweep.yaml", "format: 9\n")
    with pytest.raises(VaekitError, match="has format 9"):
        Definition.load(tmp_path)
