"""Permutation-invariant fusions: networks over sets by hand, invariance, the empty set, many masks, heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.distributions import GaussianMixture, draw
from vaekit.errors import VaekitError
from vaekit.fusions.sets import AttentionBlocks, SetNorm, affine, mlp, pool
from vaekit.registry import fusions, posteriors, priors, private_fusions
from vaekit.testing.contract import fixed
from vaekit.testing.fusions import all_subsets

pytestmark = pytest.mark.usefixtures("float64")

FEATURES = (6, 6, 6)
SMALL = {"width": 12, "pooled": 10}
INVARIANT = [
    {"name": "sum_pooling", **SMALL},
    {"name": "sum_pooling", "residual": True, "layers": 3, **SMALL},
    {"name": "self_attention", "depth": 2, **SMALL},
]
HEADS = ["gaussian", "laplace", "full_gaussian", {"name": "gmm", "components": 3}]


def build(spec: dict[str, Any], head: Any = "gaussian", features: tuple[int, ...] = FEATURES, latent: int = 4) -> Any:
    fusion = fusions.build(spec, features, latent, lambda count: posteriors.build(head, count, latent))
    # Where all biases are zero, more than one would forget them.
    for name, parameter in fusion.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return fusion


def normal(latent: int = 4) -> Any:
    return priors.build("standard_normal", latent)()


def parts(count: int = 8, seed: int = 0) -> list[Tensor]:
    return list(fixed(count, sum(FEATURES), dtype=torch.float64, seed=seed).split(FEATURES, -1))


# ---- the networks over sets ------------------------------------------------------------------------------------------


def test_set_norm_by_hand() -> None:
    # Members 0 and 2 hold 1, 2, 3 and 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5.
    norm, x = SetNorm(2), torch.tensor([[[1.0, 2.0], [50.0, -7.0], [3.0, 6.0]]])
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0]))
    y = norm(x, torch.tensor([[True, False, True]]))
    root = math.sqrt(3.5 + 1e-6)
    torch.testing.assert_close(y[0, 0], torch.tensor([0.5 - 2 / root, -10 / root]))
    torch.testing.assert_close(y[0, 2], torch.tensor([0.5, 30 / root]))


def test_set_norm_of_every_member_is_layer_norm_over_both_axes() -> None:
    x = fixed(5, 3, 4, dtype=torch.float64)
    found = SetNorm(4)(x, torch.ones(5, 3, dtype=torch.bool))
    torch.testing.assert_close(found, F.layer_norm(x, (3, 4), eps=1e-6))


def test_set_norm_of_nothing_is_finite_with_its_gradient() -> None:
    x = fixed(2, 3, 4, dtype=torch.float64).requires_grad_()
    y = SetNorm(4)(x, torch.zeros(2, 3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert y.isfinite().all()
    assert not gradient.any()


def test_attention_agrees_with_a_loop() -> None:
    width, heads, x = 10, 4, fixed(3, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, True], [True, False, True, False], [False, False, False, True]])
    network = AttentionBlocks(pooled=6, width=width, depth=2, heads=heads)
    found = network(x, mask)
    for row in range(3):
        members = mask[row].nonzero().flatten().tolist()
        values = {m: x[row, m] for m in members}
        for block in network.blocks:
            normed = {m: block.norms[0](v) for m, v in values.items()}
            # Ten numbers and four heads of two: the width is rounded down to eight.
            triples = {m: block.query_key_value(v).reshape(3, heads, 2) for m, v in normed.items()}
            after = {}
            for m in members:
                said = []
                for head in range(heads):
                    scores = torch.stack([triples[m][0, head] @ triples[t][1, head] / math.sqrt(2) for t in members])
                    share = scores.exp() / scores.exp().sum()
                    said.append(sum(w * triples[t][2, head] for w, t in zip(share, members, strict=True)))
                h = values[m] + block.out.weight @ torch.cat(said)
                first, _, second = block.feed_forward
                after[m] = h + second(first(block.norms[1](h)).clamp_min(0.0))
            values = after
        for m in members:
            torch.testing.assert_close(found[row, m], network.norm(values[m]), rtol=1e-10, atol=1e-10)


def test_attention_has_no_biases_of_its_own() -> None:
    names = [name for name, _ in AttentionBlocks(8, 8, 1, 2).named_parameters() if "bias" in name]
    assert not [name for name in names if "query" in name or ".out" in name]


def test_first_weights_keep_the_size_of_numbers() -> None:
    torch.manual_seed(2)
    x = torch.randn(2000, 256)
    network = torch.nn.Sequential(*mlp([256] * 6, 0.01), affine(256, 256))
    y = network(x)
    assert 0.5 < y.square().mean() < 2.0
    assert network[0].bias.count_nonzero() == 0


def test_what_rho_takes_begins_at_size_one_for_all_modalities() -> None:
    torch.manual_seed(2)
    for spec in (
        {"name": "sum_pooling"},
        {"name": "sum_pooling", "residual": True},
        {"name": "self_attention"},
        {"name": "self_attention", "residual": True},
    ):
        fusion = fusions.build(spec, (32,) * 5, 4, lambda count: posteriors.build("gaussian", count, 4))
        embedded = fusion.embed([torch.randn(500, 32) for _ in range(5)], normal())
        seen: list[Tensor] = []
        fusion.rho.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[0]))
        fusion.fuse(embedded, torch.ones(500, 5, dtype=torch.bool), normal())
        assert 0.2 < seen[0].square().mean() < 5.0, spec


# ---- invariant fusions -----------------------------------------------------------------------------------------------


def test_sum_pooling_by_hand() -> None:
    fusion, features = build({"name": "sum_pooling", **SMALL}), parts(3)
    mask = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    q = fusion(features, mask, normal())
    for row in range(3):
        said = [fusion.chi(fusion.adapters.maps[m](features[m][row])) for m in range(3) if mask[row, m]]
        expected = fusion.posterior(fusion.rho(sum(said, torch.zeros(10))), normal())
        torch.testing.assert_close(q.mean[row], expected.mean)
        torch.testing.assert_close(q.variance[row], expected.variance)


def test_numbers_of_parameters() -> None:
    a, p, e, d = 12, 10, 6, 4
    adapters, head = 3 * (e + 1) * a, (a + 1) * 2 * d
    chi = 2 * (a + 1) * a + (a + 1) * p
    rho = (p + 1) * a + (a + 1) * a
    expected = adapters + chi + rho + head
    assert sum(x.numel() for x in build({"name": "sum_pooling", **SMALL}).parameters()) == expected
    chi = (a + 1) * a + (a + 1) * p
    block = 4 * p + 3 * p * a + a * p + (p + 1) * a + (a + 1) * p
    expected = adapters + chi + block + 2 * p + rho + head
    assert sum(x.numel() for x in build({"name": "self_attention", **SMALL}).parameters()) == expected


@pytest.mark.parametrize("spec", INVARIANT, ids=str)
def test_order_of_the_modalities_does_not_matter(spec: dict[str, Any]) -> None:
    fusion, mask, features, order = build(spec), all_subsets(3), parts(), [2, 0, 1]
    q = fusion(features, mask, normal())
    fusion.adapters.maps = torch.nn.ModuleList(fusion.adapters.maps[number] for number in order)
    moved = fusion([features[number] for number in order], mask[:, order], normal())
    torch.testing.assert_close(moved.mean, q.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moved.variance, q.variance, rtol=1e-10, atol=1e-10)
    assert (q.mean[:, None] - q.mean).abs().amax(-1).fill_diagonal_(1.0).min() > 1e-6, "subsets must differ"


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("spec", INVARIANT, ids=str)
def test_masked_modalities_have_no_say_and_no_gradient(spec: dict[str, Any], head: Any) -> None:
    fusion, mask = build(spec, head), all_subsets(3)
    seen = []
    for seed in (0, 1):
        features = [
            torch.where(mask[:, m : m + 1], part, other).requires_grad_()
            for m, (part, other) in enumerate(zip(parts(), parts(seed=seed), strict=True))
        ]
        q = fusion(features, mask, normal())
        torch.manual_seed(3)
        z, weights = draw(q)
        log_prob = q.log_prob(z.detach())
        total = (weights.unsqueeze(-1) * z).sum() + log_prob.sum()
        gradients = torch.autograd.grad(total, features)
        for m, gradient in enumerate(gradients):
            assert gradient.isfinite().all()
            assert not gradient[~mask[:, m]].any()
            assert gradient[mask[:, m]].any(-1).all()
        seen.append(log_prob)
    torch.testing.assert_close(seen[0], seen[1], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("spec", INVARIANT, ids=str)
def test_the_empty_set_is_rho_of_zero(spec: dict[str, Any]) -> None:
    fusion = build(spec)
    features = [part.requires_grad_() for part in parts()]
    q = fusion(features, torch.zeros(8, 3, dtype=torch.bool), normal())
    expected = fusion.posterior(fusion.rho(torch.zeros(1, 10)), normal())
    torch.testing.assert_close(q.mean, expected.mean.expand(8, 4))
    torch.testing.assert_close(q.variance, expected.variance.expand(8, 4))
    loss = q.rsample().square().sum()
    gradients = torch.autograd.grad(loss, [*features, *fusion.parameters()], allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    assert not any(gradient.any() for gradient in gradients[:3] if gradient is not None)
    assert any(gradient is not None and gradient.any() for gradient in gradients[3:]), "it is learned"


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("spec", INVARIANT, ids=str)
def test_many_masks_at_once_give_what_each_gives(spec: dict[str, Any], head: Any) -> None:
    fusion, prior = build(spec, head), normal()
    embedded = fusion.embed(parts(), prior)
    masks = torch.stack([all_subsets(3).roll(shift, 0) for shift in range(4)])
    together = fusion.fuse(embedded, masks, prior)
    assert (together.batch_shape, together.event_shape) == ((4, 8), (4,))
    assert draw(together).z.shape[1:] == (4, 8, 4)
    z = fixed(4, 8, 4, dtype=torch.float64)
    for number, mask in enumerate(masks):
        alone = fusion.fuse(embedded, mask, prior)
        torch.testing.assert_close(together.mean[number], alone.mean)
        torch.testing.assert_close(together.log_prob(z)[number], alone.log_prob(z[number]))


def test_the_mixture_variants_come_from_the_head() -> None:
    q = build(INVARIANT[0], {"name": "gmm", "components": 3})(parts(), all_subsets(3), normal())
    assert isinstance(q, GaussianMixture)
    assert (q.components, q.batch_shape, q.event_shape) == (3, (8,), (4,))


def test_chi_is_computed_once_unless_it_is_residual() -> None:
    for spec, shape in ((INVARIANT[0], (8, 3, 10)), (INVARIANT[1], (8, 3, 12))):
        assert build(spec).embed(parts(), normal()).shape == shape
    pooled = pool(fixed(8, 3, 10, dtype=torch.float64), all_subsets(3).expand(5, 8, 3))
    assert pooled.shape == (5, 8, 10)


@pytest.mark.parametrize("spec", ["sum_pooling", {"name": "sum_pooling", "residual": True}, "self_attention"], ids=str)
def test_float32_at_a_real_size(spec: Any) -> None:
    torch.set_default_dtype(torch.float32)
    features = [20 * fixed(256, 64, seed=m) for m in range(5)]
    fusion = build(spec, "gaussian", (64,) * 5, 32)
    mask = torch.rand(3, 256, 5) < 0.5
    mask[0] = False
    q = fusion(features, mask, normal(32))
    z = q.rsample()
    loss = (q.log_prob(z) + z.square().sum(-1)).mean()
    gradients = torch.autograd.grad(loss, list(fusion.parameters()))
    assert (z.dtype, z.shape) == (torch.float32, (3, 256, 32))
    assert all(tensor.isfinite().all() for tensor in (z, loss, *gradients))


@pytest.mark.parametrize("registry", [fusions, private_fusions], ids=["fusions", "private"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sum_pooling", "layers": 0}, "layers = 0"),
        ({"name": "sum_pooling", "slope": 1.5}, "slope = 1.5"),
        ({"name": "self_attention", "depth": 0}, "depth = 0"),
        ({"name": "self_attention", "width": 3}, "4 heads do not fit"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(registry: Any, options: dict[str, Any], message: str) -> None:
    last = 2 if registry is private_fusions else lambda count: posteriors.build("gaussian", count, 4)
    with pytest.raises(VaekitError, match=message):
        registry.build(options, FEATURES, 4, last)
