"""The likelihood of one-hot data: against torch's cross-entropy, and with values that are missing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vaekit as vk
from vaekit.errors import VaekitError
from vaekit.registry import likelihoods
from vaekit.testing.contract import fixed

pytestmark = pytest.mark.usefixtures("float64")


def test_one_hot_is_the_cross_entropy() -> None:
    logits, classes = 3 * fixed(7, 5, 4, dtype=torch.float64), torch.arange(35).reshape(7, 5) % 4
    p = likelihoods.build("one_hot", (5, 4))(logits)
    found = p.log_prob(F.one_hot(classes, 4).double())
    expected = -F.cross_entropy(logits.movedim(-1, 1), classes, reduction="none").sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.mean, logits.softmax(-1))
    assert (p.batch_shape, p.event_shape) == ((7,), (5, 4))
    assert torch.equal(p.sample().sum(-1), torch.ones(7, 5))


def test_one_hot_values_that_are_missing_count_nothing() -> None:
    logits = fixed(2, 3, 4, dtype=torch.float64).requires_grad_()
    x = F.one_hot(torch.tensor([[0, 1, 2], [3, 3, 3]]), 4).double()
    x[0, 1], x[1] = 0.0, 0.0
    log_prob = likelihoods.build("one_hot", (3, 4))(logits).log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob.sum(), logits)
    log_softmax = logits.detach().log_softmax(-1)
    torch.testing.assert_close(log_prob, torch.stack([log_softmax[0, 0, 0] + log_softmax[0, 2, 2], torch.zeros(())]))
    assert gradient.isfinite().all()
    assert not gradient[1].any()
    assert not gradient[0, 1].any()


def test_one_hot_needs_an_axis() -> None:
    with pytest.raises(VaekitError, match="an axis for the classes"):
        vk.likelihoods.OneHot(())
