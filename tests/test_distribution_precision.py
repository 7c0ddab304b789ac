"""Every distribution at a real size in float32, under autocast too: values and gradients are finite."""

from __future__ import annotations

import pytest
import torch
from distribution_cases import CASES

from vaekit.distributions import Draws, draw, kl_divergence


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_finite_at_a_real_size(name: str, autocast: bool) -> None:
    case, batch = CASES[name], 256
    dimensions = 64 if name == "full covariance" else 512
    u = (2 * torch.rand(batch, case.size(dimensions)) - 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        q = case.make(u, dimensions)
        drawn = draw(q) if case.gradient else Draws(q.sample((1,)), torch.ones(1, batch))
        log_prob = q.log_prob(drawn.z)
        values = [drawn.z, log_prob]
        if case.prior is not None:
            kl = kl_divergence(q, case.prior(u, dimensions), drawn)
            assert kl.shape == (batch,)
            values.append(kl)
    assert log_prob.shape == (len(drawn.z), batch)
    for value in values:
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), u, retain_graph=True)
            assert gradient.isfinite().all()
