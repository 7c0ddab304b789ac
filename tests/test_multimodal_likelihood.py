"""Likelihoods of several modalities against Gaussian algebra, and rates and distortions against closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import vaekit as vk
from vaekit.backbones.base import Decoder, Encoder
from vaekit.errors import VaekitError
from vaekit.evaluation.multimodal_likelihood import (
    conditional_log_likelihood,
    multimodal_log_likelihood,
    subset_log_likelihood,
)
from vaekit.evaluation.rates import rates
from vaekit.evaluation.subsets import by_size, covered, estimate, list_subsets
from vaekit.fusions.base import Fusion, PrivateFusion
from vaekit.models import Modality, MultimodalVAE
from vaekit.observed import Observed
from vaekit.testing.multimodal import small_multimodal_data, small_multimodal_vae

pytestmark = pytest.mark.usefixtures("float64")

LATENT, SHAPES = 2, {"left": (5,), "middle": (4,), "right": (6,)}


class Linear(Decoder):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.T + self.bias


class Same(Encoder):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class ExactFusion(Fusion):
    """The posterior by Gaussian algebra, made worse on purpose by `blur`."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], blur: float) -> None:
        super().__init__([len(w) for w in weights], LATENT, nn.Identity)
        self.weights, self.biases, self.blur = list(weights), list(biases), blur

    def embed(self, features: Sequence[Tensor], prior: dist.Distribution) -> Tensor:
        return torch.stack(
            [(x - b) @ w for x, w, b in zip(features, self.weights, self.biases, strict=True)], 1
        )  # (B, M, D)

    def fuse(self, embedded: Tensor, mask: Tensor, prior: dist.Distribution) -> dist.Distribution:
        precision = 1.0 + mask.sum(-1, keepdim=True).double()
        mean = torch.einsum("...bm,bmd->...bd", mask.double(), embedded) / precision
        return dist.Normal(mean + 0.2 * self.blur, (1.0 + self.blur) * precision.rsqrt().expand_as(mean)).to_event(1)


class BlurredPrivate(PrivateFusion):
    """Some Gaussian that sees the modality: any proposal will do."""

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        return torch.stack([0.1 * x[:, : self.private_dim] for x in features], 1)

    def fuse(self, embedded: Tensor, z: Tensor, mask: Tensor) -> dist.Distribution:
        return dist.Normal(embedded.expand(*z.shape[:-1], -1, -1) + 0.1 * z.mean(-1)[..., None, None], 1.0).to_event(1)


def matrices(private: int = 0) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights of the shared latent and of the private one (together orthonormal), and biases."""
    generator = torch.Generator().manual_seed(4)
    both = [torch.linalg.qr(torch.randn(size, LATENT + private, generator=generator))[0] for (size,) in SHAPES.values()]
    biases = [torch.randn(size, generator=generator) for (size,) in SHAPES.values()]
    return [w[:, :LATENT] for w in both], [w[:, LATENT:] for w in both], biases


def linear_model(blur: float = 0.0, private: int = 0) -> MultimodalVAE:
    shared, own, biases = matrices(private)
    modalities = {
        name: Modality(Same(len(b)), Linear(torch.cat([w, v], 1), b), vk.likelihoods.Gaussian(shape, scale=1.0))
        for (name, shape), w, v, b in zip(SHAPES.items(), shared, own, biases, strict=True)
    }
    fusion = ExactFusion(shared, biases, blur)
    others = BlurredPrivate(fusion.features, LATENT, private) if private else None
    return MultimodalVAE(modalities, fusion, vk.priors.StandardNormal(LATENT), others).double().eval()


def samples(count: int, private: int = 0) -> Observed:
    shared, own, biases = matrices(private)
    z = torch.randn(count, LATENT)
    return Observed(
        {
            name: z @ w.T + torch.randn(count, private) @ v.T + b + torch.randn(count, len(b))
            for name, w, v, b in zip(SHAPES, shared, own, biases, strict=True)
        }
    )


def analytic(x: Observed, subset: Sequence[str], private: int = 0) -> Tensor:
    """log N(x_S; b_S, W_S W_S' + blockdiag(V_m V_m') + I)."""
    shared, own, biases = matrices(private)
    chosen = [number for number, name in enumerate(x.names) if name in subset]
    if not chosen:
        return torch.zeros(len(x))
    w = torch.cat([shared[m] for m in chosen])
    covariance = w @ w.T + torch.block_diag(*[own[m] @ own[m].T for m in chosen]) + torch.eye(len(w))
    values = torch.cat([x.values[x.names[m]] for m in chosen], 1)
    mean = torch.cat([biases[m] for m in chosen])
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(values)


# ---- likelihood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", list_subsets(list(SHAPES)), ids="+".join)
def test_an_exact_proposal_gives_the_likelihood_with_one_particle(subset: tuple[str, ...]) -> None:
    x = samples(20)
    found = multimodal_log_likelihood(linear_model(), x.only(*subset), particles=1)
    torch.testing.assert_close(found, analytic(x, subset), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("private", [0, 1])
@pytest.mark.parametrize("subset", [("left",), ("left", "right"), tuple(SHAPES)], ids="+".join)
def test_a_blurred_proposal_agrees_within_three_standard_errors(subset: tuple[str, ...], private: int) -> None:
    x = samples(200, private)
    found = multimodal_log_likelihood(linear_model(0.3, private), x.only(*subset), particles=500, chunk=250)
    errors = found - analytic(x, subset, private)
    assert abs(errors.mean()) < 3.0 * errors.std() / math.sqrt(len(x)) + 1e-3
    assert errors.std() < 0.5


def test_few_particles_err_downwards() -> None:
    x, model = samples(2000), linear_model(0.8)
    gaps = [
        (multimodal_log_likelihood(model, x, particles=k) - analytic(x, SHAPES.keys())).mean() for k in (1, 10, 100)
    ]
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[0] < -0.1
    assert gaps[2] > -0.05


def test_the_mean_over_particles_never_mixes_samples() -> None:
    """Two samples whose likelihoods differ by thousands of nats keep their own, in either order and apart."""
    x = samples(2)
    for value in x.values.values():
        value[1] += 100.0
    truth = analytic(x, x.names)
    assert truth[0] - truth[1] > 1e4
    model = linear_model(0.1)
    together = multimodal_log_likelihood(model, x, particles=3000, chunk=700)
    turned = multimodal_log_likelihood(model, x[torch.tensor([1, 0])], particles=3000, chunk=700)
    torch.testing.assert_close(together, truth, rtol=0.0, atol=0.2)
    torch.testing.assert_close(turned.flip(0), truth, rtol=0.0, atol=0.2)


def test_missing_modalities_are_integrated_out() -> None:
    x = samples(4)
    there = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    found = multimodal_log_likelihood(linear_model(), Observed(x.values, there), particles=2)
    names = (x.names, ("left", "right"), ("middle",), ())
    truth = torch.stack([analytic(x, subset)[row] for row, subset in enumerate(names)])
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)
    assert found[3] == 0.0


def test_chunks_and_seeds() -> None:
    x, model = samples(5), linear_model(0.5)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(multimodal_log_likelihood(model, x, particles=7, chunk=3))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("fusion", ["moe", {"name": "moe", "stratified": True}, "mopoe", "sum_pooling"])
def test_any_fusion_agrees_with_draws_from_the_prior(fusion: object) -> None:
    model, x = small_multimodal_vae(fusion).double().eval(), small_multimodal_data(3, dtype=torch.float64)
    found = multimodal_log_likelihood(model, x, particles=5000, chunk=1000)
    z = model.prior().sample((40_000,))
    latents = z[:, None, None].expand(-1, 1, 3, -1)
    plain = torch.stack(
        [model.log_likelihood(x[row : row + 1], latents).sum(-1).squeeze(1).logsumexp(0) for row in range(3)]
    ) - math.log(len(z))
    torch.testing.assert_close(found, plain, rtol=0.0, atol=0.15)


def test_refusals() -> None:
    x = small_multimodal_data(2, dtype=torch.float64)
    apart = small_multimodal_vae(None).double().eval()
    for ask in (
        lambda: multimodal_log_likelihood(apart, x),
        lambda: conditional_log_likelihood(apart, [x]),
        lambda: rates(apart, [x]),
    ):
        with pytest.raises(VaekitError, match="there is no p\\(x\\)"):
            ask()
    with pytest.raises(VaekitError, match="1 or more"):
        multimodal_log_likelihood(linear_model(), samples(2), particles=0)


# ---- conditionals ----------------------------------------------------------------------------------------------------


def test_conditionals_are_those_of_gaussian_algebra() -> None:
    x = samples(30)
    found = conditional_log_likelihood(linear_model(), [x[:20], x[20:]], particles=1)
    names, whole = tuple(SHAPES), analytic(x, SHAPES.keys())
    subsets = list_subsets(names)
    assert set(found.rest) == {0, 1, 2}
    for size, one in found.rest.items():
        truth = torch.stack([whole - analytic(x, s) for s in subsets if len(s) == size]).mean(0)
        assert one.mean == pytest.approx(float(truth.mean()), abs=1e-9)
        assert one.standard_error == pytest.approx(float(truth.std()) / math.sqrt(30), abs=1e-9)
    for name, sizes in found.targets.items():
        assert set(sizes) == {0, 1, 2}
        for size, one in sizes.items():
            given = [s for s in subsets if len(s) == size and name not in s]
            truth = torch.stack([analytic(x, (*s, name)) - analytic(x, s) for s in given]).mean(0)
            assert one.mean == pytest.approx(float(truth.mean()), abs=1e-9)


def test_conditionals_with_missing_modalities() -> None:
    """Only what is there is predicted, from what is there."""
    x = samples(3)
    there = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    found = conditional_log_likelihood(linear_model(), [Observed(x.values, there)], particles=1)
    given = analytic(x, ("left", "middle")) - analytic(x, ("left",))
    assert found.targets["right"][2].count == 1
    assert found.targets["middle"][0].count == 2
    # Of the first sample {left} and {middle} are given, of the second nothing is left to predict.
    assert found.rest[1].count == 2
    assert found.rest[2].count == 1
    first = (given[0] + analytic(x, ("left", "middle"))[0] - analytic(x, ("middle",))[0]) / 2
    third = torch.stack([analytic(x, x.names)[2] - analytic(x, (name,))[2] for name in x.names]).mean()
    assert found.rest[1].mean == pytest.approx(float((first + third) / 2), abs=1e-9)


def test_table_has_nan_where_a_subset_is_not_all_there() -> None:
    x = Observed(samples(1).values, torch.tensor([[True, False, False]]))
    table = subset_log_likelihood(linear_model(), [x], [("left",), ("left", "right"), ()], particles=1)
    assert table.isnan().tolist() == [[False, True, False]]
    assert covered([("left",), ("right",), ()], x).tolist() == [[True, False, True]]


# ---- rates and distortions -------------------------------------------------------------------------------------------


def test_rates_of_the_exact_linear_model() -> None:
    x = samples(2000)
    found = rates(linear_model(), [x[:1500], x[1500:]], draws=4)
    shared, _, biases = matrices()
    sums = torch.stack(
        [(x.values[n] - b) @ w for n, w, b in zip(x.names, shared, biases, strict=True)], 1
    )  # W_m' (x_m - b_m)

    def posterior(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        precision = torch.tensor(1.0 + len(numbers))
        return sums[:, list(numbers)].sum(1) / precision, precision.rsqrt()

    def kl(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
        return torch.distributions.kl_divergence(
            torch.distributions.Normal(q[0], q[1].expand_as(q[0])), torch.distributions.Normal(p[0], p[1])
        ).sum(1)

    prior, whole = (torch.zeros(()), torch.ones(())), posterior(range(3))
    assert found.full_rate.mean == pytest.approx(float(kl(whole, prior).mean()), abs=1e-9)
    # Of the exact posterior: distortion + rate = -log p(x), so long as the same law gives both.
    bound = found.full_rate.mean + found.full_distortion.mean
    assert bound == pytest.approx(-float(analytic(x, x.names).mean()), abs=4 * found.full_distortion.standard_error)
    pairs = ((0, 1), (0, 2), (1, 2))
    assert found.partial_rate[2].mean == pytest.approx(
        float(torch.stack([kl(posterior(p), prior) for p in pairs]).mean()), abs=1e-9
    )
    assert found.cross_rate[2].mean == pytest.approx(
        float(torch.stack([kl(whole, posterior(p)) for p in pairs]).mean()), abs=1e-9
    )
    assert found.partial_rate[0].mean == pytest.approx(0.0, abs=1e-12)
    assert found.cross_rate[0].mean == pytest.approx(found.full_rate.mean, abs=1e-9)
    assert found.cross_rate[3].mean == pytest.approx(0.0, abs=1e-12)
    assert found.marginal_distortion[0].mean == 0.0
    assert found.cross_distortion[3].mean == 0.0
    marginal = torch.stack([analytic(x, (name,)) for name in x.names]).mean()
    assert found.marginal_distortion[1].mean + found.partial_rate[1].mean == pytest.approx(-float(marginal), abs=0.1)
    # From one modality the rest is harder to decode than from all three.
    assert found.cross_distortion[1].mean > found.cross_distortion[2].mean > 0.0


def test_rates_with_private_latents_and_missing_modalities() -> None:
    model = small_multimodal_vae("poe", "independent").double().eval()
    there = torch.tensor([[True, True, True], [True, False, False]])
    found = rates(model, [small_multimodal_data(2, there, torch.float64)])
    assert found.full_rate.count == 2
    assert found.partial_rate[1].count == 2
    assert found.partial_rate[3].count == 1
    assert found.cross_rate[3].mean == pytest.approx(0.0, abs=1e-9)
    assert found.cross_rate[0].mean == pytest.approx(found.full_rate.mean)
    assert all(math.isfinite(one.mean) for one in found.cross_distortion.values())


# ---- subsets and averages --------------------------------------------------------------------------------------------


def test_subsets() -> None:
    names = [*"abcdefgh"]
    few = list_subsets(names, per_size=5, seed=1)
    assert few == list_subsets(names, per_size=5, seed=1) != list_subsets(names, per_size=5, seed=2)
    assert len(few) == len(set(few)) == 1 + 7 * 5 + 1
    assert all(list(subset) == sorted(subset) for subset in few)


def test_subsets_of_one_sample_are_no_independent_evidence() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    found = by_size(table, [("a",), ("b",)])[1]
    assert (found.mean, found.count) == (0.5, 2)
    assert found.standard_error == pytest.approx(0.5)
    assert math.isnan(estimate(torch.ones(1)).standard_error)
    with pytest.raises(VaekitError, match="no sample"):
        estimate(torch.full((3,), torch.nan))
