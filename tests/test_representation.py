"""What a latent representation is good for: neighbours, neurons in use, sparse firing."""

from __future__ import annotations

import pytest
import torch
from helpers import built, tiny
from test_pvae import LINEAR, pvae

from vaekit.errors import VaekitError
from vaekit.evaluation import active_neurons, knn_accuracy, lifetime_sparsity, representation


def test_lifetime_sparsity() -> None:
    z = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0], [4.0, 1.0, 1.0, 0.0]])
    assert lifetime_sparsity(z).tolist() == pytest.approx([1.0, 0.0, 4 / 9, 1.0])
    with pytest.raises(VaekitError, match="2 samples"):
        lifetime_sparsity(z[:1])


def test_active_neurons_and_features() -> None:
    model = pvae(LINEAR, (2,), 3, max_log_rate=500.0).eval()
    with torch.no_grad():
        model.posterior.log_ratio.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]]))
        model.posterior.log_ratio.bias.zero_()
        model.prior.log_rate.zero_()
    batches = [torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.01]])]
    assert active_neurons(model, batches) == pytest.approx(1 / 3)
    assert active_neurons(model, batches, threshold=1e-4) == pytest.approx(2 / 3)
    expected = torch.cat(batches) @ model.posterior.log_ratio.weight.detach().T
    assert torch.allclose(representation(model, batches), expected, atol=2e-3)
    with pytest.raises(VaekitError, match="at least one batch"):
        active_neurons(model, [])
    gmm = built(tiny("vae", posterior={"name": "gmm"}))[0].eval()
    with pytest.raises(VaekitError, match="independent"):
        active_neurons(gmm, [torch.rand(2, 1, 8, 8)])


def test_nearest_neighbours() -> None:
    features, labels = torch.randn(300, 4), torch.arange(300) % 3
    shifted = features + 100.0 * torch.nn.functional.one_hot(labels, 4)
    assert knn_accuracy(shifted[:200], labels[:200], shifted[200:], labels[200:]) == 1.0
    assert knn_accuracy(features[:200], labels[:200], features[200:], labels[200:]) < 0.6
    with pytest.raises(VaekitError, match="cannot vote"):
        knn_accuracy(features[:3], labels[:3], features, labels)
