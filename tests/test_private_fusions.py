"""Private fusions: what each modality's private posterior sees, and the auxiliary prior."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vaekit.registry import private_fusions
from vaekit.testing.contract import fixed
from vaekit.testing.fusions import all_subsets

pytestmark = pytest.mark.usefixtures("float64")

FEATURES = (6, 6, 6)
SMALL = {"width": 12, "pooled": 10}
EQUIVARIANT = [{"name": "sum_pooling", **SMALL}, {"name": "self_attention", "depth": 2, **SMALL}]


def parts(count: int = 8) -> list[Tensor]:
    return list(fixed(count, sum(FEATURES), dtype=torch.float64).split(FEATURES, -1))


@pytest.mark.parametrize("spec", EQUIVARIANT, ids=str)
def test_private_posteriors_see_the_subset_and_the_shared_latent(spec: dict[str, Any]) -> None:
    fusion, features = private_fusions.build(spec, FEATURES, 4, 2), [part.requires_grad_() for part in parts()]
    z, mask = fixed(2, 8, 4, dtype=torch.float64).requires_grad_(), all_subsets(3)
    q = fusion(features, z, mask)
    first = q.mean[:, :, 0].sum(-1)
    for row in range(8):
        by_shared, *by_modality = torch.autograd.grad(first[0, row], [z, *features], retain_graph=True)
        assert by_shared[0, row].all()
        # Its own modality; another one where that is in the subset and the first is too.
        members = [bool(part[row].any()) for part in by_modality]
        if mask[row, 0]:
            assert members == mask[row].tolist()


def test_equivariant_sum_pooling_by_hand() -> None:
    fusion, features = private_fusions.build(EQUIVARIANT[0], FEATURES, 4, 2), parts(1)
    z, mask = fixed(1, 1, 4, dtype=torch.float64), torch.tensor([[True, False, True]])
    q = fusion(features, z, mask)
    h = [fusion.adapters.maps[m](features[m][0]) for m in range(3)]
    common = fusion.of_set(h[0]) + fusion.of_set(h[2]) + fusion.of_shared(z[0, 0])
    for m in (0, 2):
        torch.testing.assert_close(q.mean[0, 0, m], fusion.rho(common + fusion.of_own(h[m])).mean)


def test_independent_private_posteriors_see_their_own_modality_alone() -> None:
    fusion, features = private_fusions.build("independent", FEATURES, 4, 2), [part.requires_grad_() for part in parts()]
    z, empty = fixed(3, 8, 4, dtype=torch.float64).requires_grad_(), torch.zeros(8, 3, dtype=torch.bool)
    q = fusion(features, z, empty)
    full = fusion(features, z, ~empty)
    torch.testing.assert_close(q.mean, full.mean, rtol=0.0, atol=0.0)
    torch.testing.assert_close(q.mean[0], q.mean[2], rtol=0.0, atol=0.0)
    own, *others = torch.autograd.grad(q.mean[:, :, 0].sum(), [*features, z], allow_unused=True)
    assert own.any(-1).all()
    assert not any(other is not None and other.any() for other in others)


def test_auxiliary_prior() -> None:
    learned = private_fusions.build({"name": "independent", "auxiliary": True}, FEATURES, 4, 2)
    with torch.no_grad():
        learned.log_scale.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.0]]))
    r = learned.auxiliary()
    torch.testing.assert_close(r.stddev, learned.log_scale.detach().exp())
    assert not r.mean.any()
    r.log_prob(torch.ones(3, 2)).sum().backward()
    # d/ds of -s - exp(-2 s) / 2 is exp(-2 s) - 1.
    torch.testing.assert_close(learned.log_scale.grad, (-2 * learned.log_scale.detach()).exp() - 1)
    for spec in ("independent", *EQUIVARIANT):
        plain = private_fusions.build(spec, FEATURES, 4, 2).auxiliary()
        torch.testing.assert_close(plain.log_prob(torch.zeros(3, 2)), torch.full((3,), -math.log(2 * math.pi)))
