"""Coherence, classifiers and probes on models whose answers are known."""

from __future__ import annotations

from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vaekit as vk
from vaekit.backbones.base import Decoder, Encoder
from vaekit.data import Dataset, PairedSplit, Split
from vaekit.errors import VaekitError
from vaekit.evaluation.classifiers import Classifier, Classifiers, train_classifiers
from vaekit.evaluation.coherence import coherence
from vaekit.evaluation.metrics import METRICS_OF_SEVERAL, evaluate
from vaekit.evaluation.protocol import Options
from vaekit.evaluation.subset_probe import linear_probe, subset_means, subset_probe
from vaekit.files import sha256
from vaekit.fusions.base import Experts
from vaekit.models import Modality, MultimodalVAE
from vaekit.observed import Observed

CLASSES, NAMES = 4, ("a", "b", "c")


class OneHotEncoder(Encoder):
    """Features that are the one-hot code within an image (1, 4, 4): column k is white for class k."""

    features = CLASSES

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


class OneHotDecoder(Decoder):
    """Column k white for the largest of the latent's entries, or always column 0."""

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self, z: Tensor) -> Tensor:
        number = torch.zeros(len(z), dtype=torch.long) if self.blind else z.argmax(1)
        column = nn.functional.one_hot(number, CLASSES).to(z.dtype)
        return (2.0 * column - 1.0)[:, None, None, :].expand(-1, 1, 4, -1)


class Sharp(nn.Module):
    """A posterior of tiny variance around the features."""

    def forward(self, features: Tensor, prior: dist.Distribution) -> dist.Distribution:
        return dist.Normal(features, torch.full_like(features, 1e-4)).to_event(1)


def model(blind: bool = False, shared: bool = True) -> MultimodalVAE:
    modalities = {
        name: Modality(OneHotEncoder(), OneHotDecoder(blind), vk.likelihoods.Gaussian((1, 4, 4))) for name in NAMES
    }
    features = [CLASSES] * len(NAMES)
    fusion = (
        vk.fusions.ProductOfExperts(features, CLASSES, lambda _: Sharp())
        if shared
        else Experts([Sharp() for _ in NAMES])
    )
    return MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(CLASSES)).eval()


def judges() -> Classifiers:
    """Classifiers that read the white column: exact, without training."""
    networks = {}
    for name in NAMES:
        networks[name] = Classifier("conv", (1, 4, 4), CLASSES)
        networks[name].net = Columns()
    return Classifiers(networks, dict.fromkeys(NAMES, 1.0), {})


class Columns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.min() >= 0.0, "images come from 0 to 1"
        return x.mean((1, 2))


def samples(count: int, seed: int = 0, available: Tensor | None = None) -> tuple[Observed, Tensor]:
    labels = torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(seed))
    images = 2.0 * nn.functional.one_hot(labels, CLASSES).float()[:, None, None, :].expand(-1, 1, 4, -1) - 1.0
    return Observed(dict.fromkeys(NAMES, images), available), labels


def dataset(count: int = 400, noise: float = 0.0) -> Dataset:
    """Striped images, noisy vectors of very different scales, and the class itself."""

    def split(seed: int) -> PairedSplit:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(CLASSES, (count,), generator=generator).sort().values
        hot = nn.functional.one_hot(labels, CLASSES).float()
        images = torch.randint(0, 60, (count, 3, 8, 8), generator=generator)
        images[torch.arange(count), :, :, 2 * labels] += 190
        vectors = 1000.0 * (hot @ torch.eye(CLASSES, 6) + 0.1 * torch.randn(count, 6, generator=generator)) + 5000.0
        if noise:
            vectors = torch.randn(count, 6, generator=generator)
        parts = {
            "image": Split(images.to(torch.uint8)),
            "vector": Split(vectors),
            "label": Split(hot, values="classes"),
        }
        return PairedSplit(parts, labels)

    return Dataset("stripes", split(1), split(2), split(3), is_image=False)


# ---- coherence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_decoders_that_copy_a_one_hot_latent_are_coherent(shared: bool) -> None:
    x, labels = samples(50)
    found = coherence(model(shared=shared), judges(), [x[:30], x[30:]], labels, prior_draws=300)
    assert {size: one.mean for size, one in found.conditional.items()} == {1: 1.0, 2: 1.0}
    assert all(one.mean == 1.0 for row in found.pairs.values() for one in row.values())
    assert found.joint.mean == 1.0
    assert found.joint.count == 300
    assert 3.5 < found.joint_classes <= 4.0


def test_decoders_that_ignore_the_latent_are_at_chance() -> None:
    x, labels = samples(4000)
    found = coherence(model(blind=True), judges(), [x], labels, prior_draws=100)
    chance = float((labels == 0).double().mean())
    assert found.conditional[1].mean == pytest.approx(chance)
    assert chance == pytest.approx(0.25, abs=0.03)
    # They agree with each other, which the number of classes gives away.
    assert found.joint.mean == 1.0
    assert found.joint_classes == pytest.approx(1.0)


def test_only_targets_that_are_not_given_count() -> None:
    """A model that decodes c at random from class 0 spoils c as a target and nothing else."""
    spoilt = model()
    spoilt.parts["c"].decoder = OneHotDecoder(blind=True)
    x, labels = samples(2000)
    found = coherence(spoilt, judges(), [x], labels, prior_draws=1000)
    chance = float((labels == 0).double().mean())
    assert found.pairs["a"]["b"].mean == 1.0
    assert found.pairs["a"]["c"].mean == found.pairs["c"]["c"].mean == pytest.approx(chance)
    # One given: from a and b half of the targets are spoilt, from c none. Two given: one in three has c as its target.
    assert found.conditional[1].mean == pytest.approx((2 * (1 + chance) / 2 + 1) / 3)
    assert found.conditional[2].mean == pytest.approx((chance + 2) / 3)
    assert found.joint.mean == pytest.approx(0.25, abs=0.06)


def test_reconstructions_do_not_count() -> None:
    """Where c speaks a code of its own, it is reconstructed and never generated, and generates nothing."""

    class RolledEncoder(OneHotEncoder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).roll(1, 1)

    class RolledDecoder(OneHotDecoder):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z.roll(-1, 1))

    apart = model(shared=False)
    apart.parts["c"].encoder, apart.parts["c"].decoder = RolledEncoder(), RolledDecoder(False)
    x, labels = samples(50)
    found = coherence(apart, judges(), [x], labels, prior_draws=10)
    assert [found.pairs[given][name].mean for given in "ac" for name in "ac"] == [1.0, 0.0, 0.0, 1.0]
    assert found.conditional[1].mean == pytest.approx(1 / 3)
    assert found.joint.mean == 0.0
    assert found.joint_classes == 0.0


def test_coherence_with_missing_modalities() -> None:
    """A subset counts for the samples that have all of it, a target whether it is there or not."""
    there = torch.tensor([[True, False, False], [True, True, False]])
    x, labels = samples(2, available=there)
    found = coherence(model(), judges(), [x], labels, prior_draws=10)
    assert found.conditional[1].count == 2
    assert found.conditional[2].count == 1
    assert found.pairs["a"]["c"].count == 2
    assert "c" not in found.pairs


def test_coherence_is_decided_by_the_seed() -> None:
    x, labels = samples(100)
    torch.manual_seed(5)
    wide = model()
    wide.fusion.experts.heads = nn.ModuleList([Wide() for _ in NAMES])
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(coherence(wide, judges(), [x], labels, prior_draws=50).conditional[1].mean)
    assert found[0] == found[1] != found[2]
    assert 0.3 < found[0] < 0.95


class Wide(nn.Module):
    def forward(self, features: Tensor, prior: dist.Distribution) -> dist.Distribution:
        return dist.Normal(features, torch.ones_like(features)).to_event(1)


def test_coherence_refusals() -> None:
    x, labels = samples(10)
    with pytest.raises(VaekitError, match="one label a sample"):
        coherence(model(), judges(), [x], labels[:9])
    with pytest.raises(VaekitError, match="one label a sample"):
        coherence(model(), judges(), [x], torch.cat([labels, labels]))
    with pytest.raises(VaekitError, match="prior_draws"):
        coherence(model(), judges(), [x], labels, prior_draws=0)
    with pytest.raises(VaekitError, match="no classifier for the modality a"):
        coherence(model(), Classifiers({}, {}, {}), [x], labels)


# ---- classifiers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Classifiers:
    return train_classifiers(dataset(), epochs=8, batch_size=32, learning_rate=5e-3)


def test_classifiers_learn_images_vectors_and_classes(trained: Classifiers) -> None:
    assert {name: net.kind for name, net in trained.networks.items()} == {
        "image": "conv",
        "vector": "mlp",
        "label": "argmax",
    }
    assert trained.accuracy["label"] == 1.0
    assert min(trained.accuracy.values()) > 0.95, trained.accuracy
    assert trained.notes == []
    assert not any(net.training for net in trained.networks.values())


def test_classifiers_come_back_from_their_file(trained: Classifiers, tmp_path: Path) -> None:
    trained.save(tmp_path / "judges.safetensors")
    again = Classifiers.load(tmp_path / "judges.safetensors")
    assert again.accuracy == trained.accuracy
    assert again.protocol == {**trained.protocol, "sha256": sha256(tmp_path / "judges.safetensors")}
    assert again.protocol["samples"] == 400
    image = torch.rand(20, 3, 8, 8)
    torch.testing.assert_close(again.networks["image"](image), trained.networks["image"](image))
    vector = torch.randn(20, 6) * 1000
    torch.testing.assert_close(again.networks["vector"](vector), trained.networks["vector"](vector))
    # The same image in another range is of the same class.
    assert torch.equal(again.classify("image", image), again.classify("image", 2.0 * image - 1.0, (-1.0, 1.0)))


def test_classifiers_are_decided_by_their_seed_alone() -> None:
    data = dataset(64)
    state = torch.get_rng_state()
    first = train_classifiers(data, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second, third = train_classifiers(data, epochs=1), train_classifiers(data, epochs=1, seed=1)
    weights = [net.networks["vector"].net[1].weight for net in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_weak_classifier_is_announced() -> None:
    weak = train_classifiers(dataset(200, noise=1.0), epochs=1)
    assert weak.accuracy["vector"] < 0.6
    assert any("vector" in note and "below 90%" in note for note in weak.notes)


def test_classifiers_see_only_what_is_there() -> None:
    """A modality that is missing is zero; training on those zeros would teach that zero is a class."""
    data = dataset(200)
    for split in data.splits.values():
        missing = split.labels == 0
        object.__setattr__(split, "available", torch.stack([~missing, ~missing, torch.ones(200) > 0], 1))
        split.modalities["vector"].samples[missing] = 0.0
    seen = train_classifiers(data, epochs=8, batch_size=32, learning_rate=5e-3)
    assert seen.accuracy["vector"] > 0.95
    assert seen.networks["vector"].loc.min() > 4900.0


@pytest.mark.parametrize("kind", ["conv", "mlp"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (2, 5, 7), (3, 32, 48)])
def test_classifiers_take_any_image(kind: str, shape: tuple[int, ...]) -> None:
    assert Classifier(kind, shape, 7)(torch.rand(2, *shape)).shape == (2, 7)


def test_classifier_refusals(tmp_path: Path) -> None:
    with pytest.raises(VaekitError, match="too small"):
        Classifier("conv", (1, 3, 8), 2)
    with pytest.raises(VaekitError, match="several modalities"):
        train_classifiers(vk.data.load("digits"))
    data = dataset(20)
    with pytest.raises(VaekitError, match="epochs"):
        train_classifiers(data, epochs=0)
    unlabelled = Dataset("plain", PairedSplit(data.train.modalities), PairedSplit(data.valid.modalities))
    with pytest.raises(VaekitError, match="need labels"):
        train_classifiers(unlabelled)
    with pytest.raises(VaekitError, match="vaekit classifiers"):
        Classifiers.load(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(VaekitError, match="holds no classifiers"):
        Classifiers.load(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(VaekitError, match="damaged"):
        Classifiers.load(tmp_path / "broken.safetensors")
    with pytest.raises(VaekitError, match="a classifier for shape"):
        judges().check({"a": (3, 4, 4)})


# ---- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_separable_latents_are_probed_perfectly(shared: bool) -> None:
    (x, y), (x_test, y_test) = samples(60), samples(40, seed=1)
    subsets = [("a",), ("b", "c"), NAMES]
    found = subset_probe(model(shared=shared), [x[:32], x[32:]], y, [x_test], y_test, subsets)
    assert found == dict.fromkeys(subsets, 1.0)


def test_latents_that_say_nothing_are_probed_at_chance() -> None:
    y, y_test = torch.arange(400) % 2, torch.arange(300) % 2
    score = linear_probe(torch.randn(400, 3), y, torch.randn(300, 3), y_test)
    assert score == pytest.approx(0.5, abs=0.1)


def test_attributes_are_scored_by_the_ranking_of_probabilities() -> None:
    """Where no probability passes one half, hard decisions rank nothing and probabilities rank all."""
    x = torch.cat([torch.zeros(90, 1), torch.ones(10, 1)])
    y = torch.cat([torch.zeros(97), torch.ones(3)])
    both = torch.stack([y, torch.zeros(100)], 1)
    score = linear_probe(x, both, x, both)
    # The last ten share one probability: precision 3/10 at full recall. The constant attribute is left out.
    assert score == pytest.approx(0.3)


def test_means_of_subsets() -> None:
    x, labels = samples(5, available=torch.tensor([[True, True, True]] * 4 + [[True, False, True]]))
    code = 2.0 * nn.functional.one_hot(labels, CLASSES).float() - 1.0
    apart = subset_means(model(shared=False), [x], [("a",), ("a", "b")])
    torch.testing.assert_close(apart[:, 0], code)
    torch.testing.assert_close(apart[:4, 1], code[:4])
    assert apart[4, 1].isnan().all()
    together = subset_means(model(), [x[:2], x[2:]], [("a",), ("a", "b")])
    torch.testing.assert_close(together[:, 0], code, rtol=1e-4, atol=1e-4)
    assert together[4, 1].isnan().all()


def test_probe_leaves_out_what_cannot_be_fitted() -> None:
    there = torch.tensor([[True, False, False]] * 9 + [[True, True, False]])
    x, y = samples(10, available=there)
    found = subset_probe(model(), [x], y, [x], y, [("a",), ("a", "b"), ("c",)])
    assert set(found) == {("a",)}
    with pytest.raises(VaekitError, match="two classes"):
        subset_probe(model(), [x], y, [x], y, [("c",)])
    with pytest.raises(VaekitError, match="empty subset"):
        subset_probe(model(), [x], y, [x], y, [()])


# ---- metrics by name -------------------------------------------------------------------------------------------------


def paired(count: int = 60, labels: bool = True) -> Dataset:
    def split(seed: int) -> PairedSplit:
        x, y = samples(count, seed)
        return PairedSplit(
            {name: Split(((x.values[name] + 1) * 127.5).to(torch.uint8)) for name in NAMES}, y if labels else None
        )

    return Dataset("columns", split(1), split(2), split(3), is_image=False)


def test_every_metric_gives_figures_and_its_protocol() -> None:
    options = Options(samples=20, particles=3, classifiers=judges(), batch_size=16)
    found = evaluate(model(), paired(), None, options)
    assert {record.metric for record in found} == METRICS_OF_SEVERAL.keys() - {"linear"}
    assert set(found.left_out) == {"linear"}
    for record in found:
        assert (record.protocol["split"], record.protocol["samples"]) == ("test", 20), record.metric
        assert (record.made["seed"], record.made["vaekit"]) == (0, vk.__version__)
    assert found["coherence"].values["conditional"]["1"]["mean"] == 1.0
    assert found["coherence"].protocol["classifiers"]["accuracy"] == dict.fromkeys(NAMES, 1.0)
    assert found["coherence"].notes == [
        "the classifiers were trained on other data than the run's, or on data with other options"
    ]
    assert found["probe"].values["accuracy"] == {"1": 1.0, "2": 1.0, "3": 1.0}
    assert found["probe"].values["subsets"]["a+c"] == 1.0
    assert found["likelihood"].protocol["particles"] == 3
    assert set(found["rates"].values["partial_rate"]) == {"0", "1", "2", "3"}


def test_figures_do_not_depend_on_what_else_is_asked_for() -> None:
    blurred = model()
    blurred.fusion.experts.heads = nn.ModuleList([Wide() for _ in NAMES])
    options = Options(samples=20, particles=3)
    alone = evaluate(blurred, paired(), ["rates"], options)["rates"]
    torch.rand(5)
    beside = evaluate(blurred, paired(), ["likelihood", "rates"], options)["rates"]
    other = evaluate(blurred, paired(), ["rates"], Options(samples=20, particles=3, seed=1))["rates"]
    assert alone == beside
    assert alone.values != other.values
    assert alone.digest == other.digest


def test_samples_are_not_the_first_ones() -> None:
    """Data sets may be sorted by class."""
    data = dataset(100)
    rows = Options(samples=40).rows(data)
    assert len(rows.labels.unique()) == CLASSES
    assert torch.equal(rows.labels, rows.labels.sort().values)
    assert torch.equal(rows.labels, Options(samples=40).rows(data).labels)
    assert len(Options().rows(data)) == 100
    with pytest.raises(VaekitError, match="1,000 samples were asked for, and the split 'test' of 'stripes' has 100"):
        Options(samples=1000).rows(data)


def test_what_cannot_be_computed_is_said_or_refused() -> None:
    apart, data = model(shared=False), paired()
    found = evaluate(apart, data, None, Options(samples=20))
    assert [record.metric for record in found] == ["probe"]
    assert set(found.left_out) == {"likelihood", "conditional", "rates", "coherence", "linear"}
    with pytest.raises(VaekitError, match="there is no p\\(x\\)"):
        evaluate(apart, data, ["likelihood"])
    with pytest.raises(VaekitError, match="train them with `vaekit classifiers DATA --out"):
        evaluate(apart, data, ["coherence"])
    with pytest.raises(VaekitError, match="did you mean 'rates'"):
        evaluate(apart, data, ["rate"])
    with pytest.raises(VaekitError, match="did you mean 'test'"):
        evaluate(apart, data, ["probe"], Options(split="tset"))
    with pytest.raises(VaekitError, match="neither"):
        evaluate(apart, paired(labels=False), ["probe"])
    with pytest.raises(VaekitError, match="has none"):
        evaluate(apart, paired(labels=False), ["coherence"], Options(classifiers=judges()))
    for wrong in ({"samples": 0}, {"particles": 0}, {"batch_size": 0}, {"seed": -1}):
        with pytest.raises(VaekitError, match=next(iter(wrong))):
            Options(**wrong)


def test_modality_of_binary_attributes_is_probed_from_the_others() -> None:
    data = paired(labels=False)
    splits = {}
    for name, split in data.splits.items():
        columns = split.modalities["a"].samples[:, 0, 0, :].float() / 255.0
        parts = {"a": split.modalities["a"], "b": split.modalities["b"], "c": Split(columns, values="binary")}
        splits[name] = PairedSplit(parts)
    attributes = Dataset("attributes", splits["train"], splits["valid"], splits["test"], is_image=False)

    class Direct(Encoder):
        features = CLASSES

        def forward(self, x: Tensor) -> Tensor:
            return x

    modalities = model().parts
    modalities["c"] = Modality(Direct(), OneHotDecoder(True), vk.likelihoods.Gaussian((CLASSES,)))
    fusion = vk.fusions.ProductOfExperts([CLASSES] * 3, CLASSES, lambda _: Sharp())
    several = MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(CLASSES)).eval()
    values = evaluate(several, attributes, ["probe"])["probe"].values
    assert set(values["subsets"]) == {"a", "b", "a+b"}
    assert values["average_precision_of_c"]["1"] == pytest.approx(1.0)
