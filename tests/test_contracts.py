"""Every registered part under its family's contract: a new part is tested the moment it is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
import trackers
from helpers import MULTIMODAL, save_hub, write_idx, write_shards
from torch import Tensor, nn

from vaekit import testing
from vaekit.backbones.base import Backbone
from vaekit.backbones.layers import SequentialDecoder, SequentialEncoder
from vaekit.discriminators.losses import BCE
from vaekit.fusions import MixtureOfExperts, ProductOfExperts
from vaekit.latents import Latents
from vaekit.likelihoods.base import Likelihood
from vaekit.likelihoods.bernoulli import Bernoulli
from vaekit.posteriors.gaussian import Gaussian
from vaekit.priors.base import Prior
from vaekit.registry import FAMILIES
from vaekit.regularizers.base import Regularizer
from vaekit.testing import Contract

CONTRACTS: dict[str, type[Contract]] = {
    "posteriors": testing.PosteriorContract,
    "priors": testing.PriorContract,
    "likelihoods": testing.LikelihoodContract,
    "backbones": testing.BackboneContract,
    "regularizers": testing.RegularizerContract,
    "discriminators": testing.DiscriminatorContract,
    "adversarial_losses": testing.AdversarialLossContract,
    "fusions": testing.FusionContract,
    "private_fusions": testing.PrivateFusionContract,
    "objectives": testing.ObjectiveContract,
    "optimizers": testing.OptimizerContract,
    "loggers": testing.LoggerContract,
    "schedules": testing.ScheduleContract,
    "datasets": testing.DatasetContract,
}

# Options that a part cannot do without, small sizes, and further choices worth the whole contract. A part that is not
# here is tested as it is.
VARIANTS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("posteriors", "gaussian"): [{}, {"log_variance_range": None}],
    ("posteriors", "categorical"): [{}, {"straight_through": True}],
    ("posteriors", "poisson"): [{}, {"indicator": "cubic", "temperature": 1.0}, {"estimator": "straight_through"}],
    ("priors", "categorical"): [{}, {"learned": True}],
    ("posteriors", "gmm"): [
        {},
        *({"estimator": estimator} for estimator in ("pathwise", "score", "gumbel")),
        {"components": 1},
    ],
    # The full covariance is in tests/test_full_gaussian.py, at a smaller size.
    ("posteriors", "full_gaussian"): [{"rank": 8}],
    ("posteriors", "evae"): [{}, {"radius": 0.5}],
    ("posteriors", "flow"): [{}, {"kind": "spline"}],
    ("priors", "flow"): [{}, {"kind": "maf"}],
    ("priors", "vamp"): [{"components": 5}, {"components": 5, "learned_weights": True}],
    ("priors", "gaussian"): [{}, {"learned": True, "scale": 0.1}],
    ("priors", "uniform"): [{"length": 20.0}],  # the rule that integrates errs by a step where a density jumps
    ("likelihoods", "gaussian"): [{}, {"learned": True, "scale": 0.1}],
    ("likelihoods", "discretized_logistic"): [{}, {"levels": 5, "shared_scale": 0.1}],
    ("likelihoods", "categorical"): [{"levels": 8}],
    ("likelihoods", "laplace"): [{}, {"learned": True}, {"error_weight": 5.0}],
    ("backbones", "autoencoder_kl"): [
        {"widths": [4, 8], "groups": 2, "latent_channels": 2},
        {
            "widths": [8, 4],
            "groups": 4,
            "latent_channels": 1,
            "blocks": 2,
            "attention": False,
            "quant_conv": False,
            "post_quant_conv": False,
        },
    ],
    ("backbones", "timm"): [
        {"model": "test_convnext", "decoder_backbone": {"name": "conv", "width": 4}},
        {"model": "test_vit", "pooled": False, "decoder_backbone": {"name": "mlp", "hidden": [12]}},
    ],
    ("backbones", "mlp"): [{"hidden": [12, 7]}, {"hidden": [12], "decoder_hidden": []}],
    ("backbones", "conv"): [{"width": 4}, {"width": 4, "norm": "batch"}],
    ("backbones", "pvae"): [{"width": 8}, {"width": 4, "linear_decoder": False, "dropout": 0.0}],
    ("backbones", "resnetv2"): [
        {"width": 8, "latent_channels": 4},
        {"width": 8, "latent_channels": 4, "norm": "frozen_affine", "input_norm": "instance_hw", "init": "glorot"},
    ],
    ("discriminators", "patchgan"): [
        {"width": 8},
        {"width": 8, "norm": "spectral"},
        {"width": 8, "norm": "frozen_affine", "final_norm": True, "dropout": 0.3},
    ],
    ("regularizers", "population_kl"): [{}, {"variance": "total"}],
    ("fusions", "poe"): [{}, {"prior_expert": False}],
    ("fusions", "moe"): [{}, {"stratified": True}],
    ("fusions", "mopoe"): [{}, {"prior_expert": "full"}, {"prior_expert": "all", "stratified": True}],
    ("fusions", "sum_pooling"): [{}, {"residual": True}],
    ("fusions", "self_attention"): [{}, {"depth": 2, "width": 30, "pooled": 17, "residual": True}],
    ("private_fusions", "independent"): [{}, {"auxiliary": True}],
    ("private_fusions", "self_attention"): [{}, {"depth": 2, "width": 30, "pooled": 17}],
    ("objectives", "elbo"): [{}, {"draws": 3}],
    ("objectives", "masked"): [{}, {"mask_law": "uniform_size", "estimator": "sticking_the_landing"}],
    ("objectives", "mixture"): [{}, {"mask_law": "uniform_size", "estimator": "sampled"}],
    ("objectives", "mmvae"): [{}, {"draws": 3}, {"draws": 3, "estimator": "dreg"}],
    ("objectives", "mmvae_plus"): [{}, {"draws": 3, "estimator": "dreg"}],
    ("objectives", "mvae"): [{}, {"subsets": 0}, {"subsets": 3, "draws": 2}],
    ("objectives", "mvtcae"): [{}, {"alpha": 0.0}, {"alpha": 1.0}],
    ("objectives", "mmvm"): [{}, {"divergence": "jensen_shannon", "alpha": 0.25}, {"estimator": "sampled"}],
    ("schedules", "constant"): [{"value": 0.5}],
    ("datasets", "polymnist"): [{}, {"modalities": 2, "missing": 0.3, "missing_in": "all"}],
    ("datasets", "webdataset"): [
        {"urls": "train-{000..001}.tar", "image_size": 8},
        {"urls": "train-{000..001}.tar", "image_size": 8, "streaming": False},
    ],
    ("datasets", "hf"): [{"path": "saved", "image_size": 8}, {"path": "saved", "image_size": 8, "streaming": True}],
    ("schedules", "linear"): [{"steps": 5, "delay": 2}],
    ("schedules", "cosine"): [{"steps": 5}],
    ("schedules", "exponential"): [{"steps": 5, "delay": 2}],
    ("schedules", "cyclic"): [{"period": 4}],
    ("schedules", "step"): [{"milestones": [2, 10]}],
}


def write_arrays(_: Any, folder: Path) -> Path:
    """Put 20 small grey images into an array file."""
    images = np.random.RandomState(0).randint(0, 256, (20, 8, 8), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    return folder / "images.npy"


def write_celeba(_: Any, folder: Path) -> Path:
    """Put 12 photographs and their partition where CelebA lies."""
    from PIL import Image

    images = folder / "celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (12, 218, 178, 3), dtype=np.uint8)
    for number, photograph in enumerate(pixels):
        Image.fromarray(photograph).save(images / f"{number:06d}.jpg")
    lines = [f"{number:06d}.jpg {max(0, number - 9)}" for number in range(12)]
    (folder / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{number:06d}.jpg {1 if number % 2 else -1} -1" for number in range(12)]
    (folder / "celeba" / "list_attr_celeba.txt").write_text("\n".join(["12", "Bald Smiling", *lines]) + "\n")
    return folder


def write_cifar10(_: Any, folder: Path) -> Path:
    """Put a few images where CIFAR-10 lies."""
    random = np.random.RandomState(0)
    (folder / "cifar10").mkdir()
    for part in ("train", "test"):
        images = random.randint(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / "cifar10" / f"{part}.npz", images=images, labels=np.arange(20) % 10)
    return folder


def write_folder(_: Any, folder: Path) -> Path:
    """Put 20 small colour images into a folder."""
    from PIL import Image

    place = folder / "pictures"
    place.mkdir()
    for number, pixels in enumerate(np.random.RandomState(0).randint(0, 256, (20, 9, 12, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    return place


def write_paired_arrays(_: Any, folder: Path) -> Path:
    """Put images, vectors and bits of 20 samples into one file, with a part of them missing."""
    random = np.random.RandomState(0)
    available = np.ones((20, 3), bool)
    available[::2, 1] = False
    np.savez(
        folder / "paired.npz",
        image=random.randint(0, 256, (20, 8, 8), dtype=np.uint8),
        gene=random.standard_normal((20, 4)),
        bits=random.uniform(size=(20, 3)) > 0.5,
        available=available,
        labels=np.arange(20) % 3,
    )
    return folder / "paired.npz"


def write_tars(_: Any, folder: Path) -> Path:
    """Put 20 small images into two shards."""
    write_shards(folder, 9, 11)
    return folder


def write_hub(_: Any, folder: Path) -> Path:
    """Save 20 small images as a data set of the package `datasets`."""
    save_hub(folder / "saved", train=range(20))
    return folder


def write_table(suite: Any, folder: Path) -> Path:
    """Put a table of 20 photographs, vectors and words into a folder."""
    pictures = write_folder(suite, folder)
    lines = ["photo,size.x,size.y,kind,label"]
    for number in range(20):
        size = f"{number},{'' if number == 3 else number / 2}"
        lines.append(f"pictures/{number:02d}.png,{size},{'ab'[number % 2]},{number % 3}")
    (pictures.parent / "table.csv").write_text("\n".join(lines) + "\n")
    return pictures.parent / "table.csv"


def attached(self: Any, *context: Any, **options: Any) -> Any:
    """Build a prior that is made of a model's parts, and give it some, as modules of its own."""
    prior = testing.PriorContract.make(self, *context, **options)
    encoder, likelihood = FAMILIES["backbones"].build("mlp").encoder((1, 4, 4)), Bernoulli((1, 4, 4))
    prior.neighbours = nn.ModuleList([encoder, Gaussian(encoder.features, prior.latent_dim)])
    prior.attach(*prior.neighbours, likelihood)
    return prior


def with_timm(self: Any, *context: Any, **options: Any) -> Any:
    """Build the backbone, where timm is installed."""
    pytest.importorskip("timm")
    return testing.BackboneContract.make(self, *context, **options)


def tracked(name: str) -> dict[str, Any]:
    """What the contract of a logger needs: its package, and what reads the tracker's files."""

    def make(self: Any, *context: Any, **options: Any) -> Any:
        trackers.require(name)
        return testing.LoggerContract.make(self, *context, **options)

    return {
        "make": make,
        "told": lambda self, out, identity: trackers.READERS[name](out, identity),
        "pytestmark": pytest.mark.filterwarnings("ignore"),  # of the trackers and what they stand on
    }


def one_hot(_: Any, module: Likelihood, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return one-hot samples."""
    *rest, classes = module.data_shape
    numbers = torch.randint(classes, (count, *rest), generator=torch.Generator().manual_seed(6))
    return F.one_hot(numbers, classes).to(dtype)


# What a contract needs to know about one part beyond its options.
EXTRA: dict[tuple[str, str], dict[str, Any]] = {
    ("backbones", "pvae"): {"shapes": ((1, 8, 8), (1, 16, 16), (3, 28, 28), (3, 32, 32))},
    ("backbones", "mlp"): {"shapes": ((1, 8, 8), (3, 33, 50), (10,))},
    ("backbones", "autoencoder_kl"): {
        "shapes": ((1, 8, 8), (3, 28, 28), (3, 34, 50)),
        "latent_dim": lambda self, shape: self.make().encoder(shape).features // 2,  # the latent is a map
    },
    ("backbones", "timm"): {"make": with_timm, "shapes": ((1, 32, 32), (3, 64, 48))},
    ("posteriors", "flow"): {"latent": 64},  # the estimated moments take 64 passes
    ("priors", "vamp"): {"make": attached},
    ("likelihoods", "one_hot"): {
        "data": one_hot,
        "smallest": 4,
        "all_values": lambda self, module: torch.eye(4, dtype=torch.float64),
    },
    **{("loggers", name): tracked(name) for name in trackers.READERS},
    **{("objectives", objective): parts for objective, parts in MULTIMODAL.items()},
    ("datasets", "arrays"): {"place": write_arrays},
    ("datasets", "celeba"): {"place": write_celeba},
    ("datasets", "celeba-attributes"): {"place": write_celeba},
    ("datasets", "cifar10"): {"place": write_cifar10},
    ("datasets", "mnist"): {"place": write_idx},
    ("datasets", "fashion-mnist"): {"place": write_idx},
    ("datasets", "folder"): {"place": write_folder},
    ("datasets", "paired-arrays"): {"place": write_paired_arrays},
    ("datasets", "table"): {"place": write_table},
    ("datasets", "webdataset"): {"place": write_tars},
    ("datasets", "hf"): {"place": write_hub},
}


def contract_of(family: str, part: str) -> type[Contract]:
    """An objective for several modalities has a contract of its own."""
    several = "several modalities" in FAMILIES[family].info(part).needs
    return testing.MultimodalObjectiveContract if family == "objectives" and several else CONTRACTS[family]


def _suites() -> dict[str, type[Contract]]:
    suites = {}
    for family in CONTRACTS:
        for part in FAMILIES[family].names():
            for number, options in enumerate(VARIANTS.get((family, part), [{}])):
                label = "".join(word.capitalize() for word in f"{family}_{part}".replace("-", "_").split("_"))
                name = f"Test{label}{number or ''}"
                body = {"name": part, "options": options, **EXTRA.get((family, part), {})}
                suites[name] = type(name, (contract_of(family, part),), body)
    return suites


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    trackers.stay_here(monkeypatch, tmp_path_factory.mktemp("trackers"))


globals().update(_suites())


def test_every_family_has_a_contract() -> None:
    assert set(CONTRACTS) == set(FAMILIES), "a new registry needs a contract in vaekit.testing"


@pytest.mark.parametrize("key", [*VARIANTS, *EXTRA], ids="/".join)
def test_tables_name_registered_parts(key: tuple[str, str]) -> None:
    family, part = key
    assert part in FAMILIES[family].names()


def test_every_part_has_a_suite() -> None:
    covered = {(suite.registry.family, suite.name) for suite in _suites().values()}
    assert covered == {(family, part) for family, registry in FAMILIES.items() for part in registry.names()}


# ---- the contracts find what is wrong --------------------------------------------------------------------------------


class Idle(Gaussian):
    """Has a parameter that nothing reads."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim)
        self.idle = nn.Parameter(torch.zeros(3))


class Detached(Gaussian):
    """Cuts the gradient of its scale."""

    def forward(self, features: Tensor, prior: Any) -> Any:
        q = super().forward(features, prior).base_dist
        return dist.Normal(q.loc, q.scale.detach()).to_event(1)


class Batchwise(Gaussian):
    """Lets the samples of a batch see one another."""

    def forward(self, features: Tensor, prior: Any) -> Any:
        return super().forward(features - features.mean(0), prior)


class Flat(Gaussian):
    """Forgets that the latent is one event."""

    def forward(self, features: Tensor, prior: Any) -> Any:
        return super().forward(features, prior).base_dist


class Doubled(Prior):
    """Has a density that integrates to two."""

    def forward(self) -> Any:
        class Twice(dist.Normal):
            def log_prob(self, value: Tensor) -> Tensor:
                return super().log_prob(value) + 0.6931471805599453

        return Twice(torch.zeros(self.latent_dim), 1.0).to_event(1)


class Unnormalised(Likelihood):
    """Is the squared error, without the constant that makes it a density."""

    def forward(self, decoded: Tensor) -> Any:
        class Squared(dist.Normal):
            def log_prob(self, value: Tensor) -> Tensor:
                return -(value - self.loc).square()

        return Squared(decoded, 1.0).to_event(len(self.data_shape))


class Summed(Regularizer):
    """Sums over the batch."""

    def forward(self, latents: Latents) -> Tensor:
        return latents.q.mean.square().sum()


class Ordered(Regularizer):
    """Looks at one sample of the batch."""

    def forward(self, latents: Latents) -> Tensor:
        return latents.q.mean[0].square().sum()


class Backwards(BCE):
    """Has its generator flee from the data."""

    def generator(self, logits: Tensor) -> Tensor:
        return self.fake(logits)


class Square(Backbone):
    """Gives 8 x 8 images, whatever is asked for."""

    def encoder(self, data_shape: tuple[int, ...]) -> Any:
        return SequentialEncoder(nn.Flatten(), nn.LazyLinear(4), features=5)

    def decoder(self, latent_dim: int, decoded_shape: tuple[int, ...]) -> Any:
        return SequentialDecoder(nn.Linear(latent_dim, 64 * decoded_shape[0]), nn.Unflatten(1, (-1, 8, 8)))


class Peeking(MixtureOfExperts):
    """Lets what is masked out shift the mean."""

    def fuse(self, embedded: Any, mask: Tensor, prior: Any) -> Any:
        q = super().fuse(embedded, mask, prior)
        q.loc = q.loc + 1e-3 * embedded.mean.mean(-2, keepdim=True)
        return q


class Favouring(MixtureOfExperts):
    """Knows the first modality by its place."""

    def fuse(self, embedded: Any, mask: Tensor, prior: Any) -> Any:
        return super().fuse(embedded, torch.cat([mask[..., :1], mask[..., 1:] & ~mask[..., :1]], -1), prior)


class Careless(ProductOfExperts):
    """Has nothing to say where there is no modality."""

    def fuse(self, embedded: Any, mask: Tensor, prior: Any) -> Any:
        loc, scale = embedded.base_dist.loc, embedded.base_dist.scale
        weights = mask.unsqueeze(-1) / scale.square()
        total = weights.sum(-2)
        return dist.Normal((weights * loc).sum(-2) / total, total.rsqrt(), validate_args=False).to_event(1)


class Forgetful(nn.Module):
    """A discriminator that keeps a parameter out of its state."""

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(1, data_shape[0], 3, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel)


@pytest.mark.parametrize(
    ("contract", "broken", "test", "arguments"),
    [
        (testing.PosteriorContract, Idle, "test_every_parameter_gets_a_gradient", []),
        (testing.PosteriorContract, Detached, "test_every_parameter_gets_a_gradient", []),
        (testing.PosteriorContract, Batchwise, "test_batch_of_one", []),
        (testing.PriorContract, Doubled, "test_density_is_normalised", []),
        (testing.LikelihoodContract, Unnormalised, "test_density_is_normalised", []),
        (testing.RegularizerContract, Summed, "test_order_and_size_of_the_batch", []),
        (testing.RegularizerContract, Ordered, "test_order_and_size_of_the_batch", []),
        (testing.AdversarialLossContract, Backwards, "test_pulls_the_right_way", []),
        (testing.BackboneContract, Square, "test_every_shape", [(1, 8, 8)]),
        (testing.DiscriminatorContract, Forgetful, "test_state_dict_round_trip", []),
        (testing.FusionContract, Peeking, "test_what_is_masked_out_changes_nothing", []),
        (testing.FusionContract, Favouring, "test_order_of_the_modalities", []),
        (testing.FusionContract, Careless, "test_every_subset_at_a_real_size", []),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_broken_part_fails(contract: type[Contract], broken: Any, test: str, arguments: list[Any]) -> None:
    suite = type("Suite", (contract,), {"make": lambda self, *context: broken(*context)})()
    with pytest.raises(AssertionError):
        getattr(suite, test)(*arguments)


def test_a_posterior_without_an_event_dimension_fails() -> None:
    suite = type("Suite", (testing.PosteriorContract,), {"make": lambda self, *context: Flat(*context)})()
    q = suite.make(64, 512)(torch.randn(256, 64), suite.prior(512))
    with pytest.raises(AssertionError):
        suite.test_shapes(q)


def test_an_untyped_undocumented_part_fails() -> None:
    registry = type(FAMILIES["posteriors"])("posteriors", "posterior", "vaekit.posteriors")

    @registry.register("bare")
    def bare(features: int, latent_dim: int, *, size=3, **rest) -> None:
        """Bare."""

    suite = type("Suite", (testing.PosteriorContract,), {"registry": registry, "name": "bare"})()
    for test in ("test_metadata", "test_documentation", "test_options_are_typed_keywords"):
        with pytest.raises(AssertionError):
            getattr(suite, test)(bare)
