"""Gaussians with correlated dimensions: the KL to a diagonal one, and the posterior, full and of low rank."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, tiny
from pyro.infer import TraceMeanField_ELBO
from test_pyro import same, svi_side, trainer_side
from torch import Tensor

from vaekit.distributions import draw, kl_divergence, kl_method, kl_to_diagonal, stopped
from vaekit.errors import VaekitError
from vaekit.posteriors.full_gaussian import FullGaussian
from vaekit.registry import posteriors
from vaekit.testing import PosteriorContract
from vaekit.testing.contract import fixed


class TestFull(PosteriorContract):
    """The contract for a full covariance: 512 dimensions would take 256 matrices of a quarter of a million numbers."""

    name = "full_gaussian"
    latent = 64


def correlated(batch: int, dimensions: int) -> tuple[Tensor, Tensor]:
    tril = 0.4 * torch.randn(batch, dimensions, dimensions).tril(-1)
    return torch.randn(batch, dimensions), tril + (0.3 * torch.randn(batch, dimensions)).exp().diag_embed()


def diagonal(dimensions: int) -> Any:
    return dist.Normal(torch.randn(dimensions), torch.rand(dimensions) + 0.5).to_event(1)


@pytest.mark.parametrize("kind", ["full", "low rank"])
def test_kl_to_a_diagonal_gaussian(kind: str, float64: None) -> None:
    p = diagonal(6)
    loc, tril = correlated(5, 6)
    if kind == "full":
        q: Any = dist.MultivariateNormal(loc, scale_tril=tril)
    else:
        q = dist.LowRankMultivariateNormal(loc, torch.randn(5, 6, 2), torch.rand(5, 6) + 0.1)
    whole = torch.distributions.MultivariateNormal(q.mean, q.covariance_matrix)
    matrix = torch.distributions.MultivariateNormal(p.mean, p.variance.diag())
    kl = kl_divergence(q, p)
    assert kl_method(q, p) == "closed"
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(whole, matrix), rtol=1e-10, atol=1e-10)
    assert kl_divergence(q, p.expand((5,))).shape == (5,)


def test_oracle_in_one_dimension(float64: None) -> None:
    q = dist.MultivariateNormal(torch.tensor([0.5]), scale_tril=torch.tensor([[0.8]]))
    p = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    assert kl_to_diagonal(q, p).item() == pytest.approx(0.168143551314, abs=1e-11)


def test_oracle_of_a_moment_match(float64: None) -> None:
    covariance = torch.tensor([[5.69, -1.88], [-1.88, 2.987]])
    q = dist.MultivariateNormal(torch.tensor([0.1, -0.2]), covariance)
    p = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    assert kl_divergence(q, p).item() == pytest.approx(2.06357829178, abs=1e-10)


def test_no_closed_form_for_other_priors(float64: None) -> None:
    loc, tril = correlated(5, 3)
    q, p = dist.MultivariateNormal(loc, scale_tril=tril), dist.Laplace(torch.zeros(3), 1.0).to_event(1)
    assert kl_method(q, p) == "sampled"
    with pytest.raises(NotImplementedError):
        kl_to_diagonal(q, p)
    z = q.sample((50000,))
    expected = (q.log_prob(z) - p.log_prob(z)).mean(0)
    torch.testing.assert_close(kl_divergence(q, p, draw(q, 50000)), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_draws_have_the_covariance_of_the_heads(rank: int | None, float64: None) -> None:
    q: Any = FullGaussian(8, 4, rank=rank, log_variance_range=None)(3.0 * fixed(2, 8).double(), None)
    z = q.sample((60000,))
    centred = z - q.mean
    sampled = torch.einsum("nbi,nbj->bij", centred, centred) / len(z)
    assert (sampled - q.covariance_matrix).abs().max() < 0.05 * q.variance.max()
    off = q.covariance_matrix - torch.diag_embed(q.variance)
    assert off.abs().max() > 0.05


@pytest.mark.parametrize("rank", [None, 2])
def test_clamps_the_diagonal(rank: int | None) -> None:
    q: Any = FullGaussian(8, 3, rank=rank)(1e4 * fixed(5, 8), None)
    diagonal = q.cov_diag.log() if rank else 2.0 * q.scale_tril.diagonal(dim1=-2, dim2=-1).log()
    assert -10.1 < diagonal.min() < diagonal.max() < 4.1
    assert diagonal.max() > 3.0
    assert diagonal.min() < -9.0


def test_gradients_are_those_of_finite_differences(float64: None) -> None:
    p = diagonal(3)

    def value(loc: Tensor, raw: Tensor) -> Tensor:
        tril = raw.tril(-1) + raw.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return kl_divergence(dist.MultivariateNormal(loc, scale_tril=tril), p)

    inputs = (torch.randn(2, 3, requires_grad=True), (0.5 * torch.randn(2, 3, 3)).requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)


def test_parameters_can_be_held_fixed() -> None:
    for rank in (None, 2):
        q: Any = FullGaussian(8, 3, rank=rank)(fixed(5, 8), None)
        assert q.log_prob(torch.zeros(3)).requires_grad
        assert not stopped(q).log_prob(torch.zeros(3)).requires_grad


def test_wrong_ranks_and_ranges_are_refused() -> None:
    with pytest.raises(VaekitError, match="rank must be 1 or more"):
        posteriors.build({"name": "full_gaussian", "rank": 0}, 8, 3)
    with pytest.raises(VaekitError, match="rise"):
        posteriors.build({"name": "full_gaussian", "log_variance_range": (1.0, 0.0)}, 8, 3)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("prior", ["standard_normal", "gaussian"])
def test_elbo_of_pyro_is_the_loss(prior: str, rank: int | None, float64: None) -> None:
    pyro.clear_param_store()
    config = tiny("vae", posterior={"name": "full_gaussian", "rank": rank}, prior=prior)
    model, objective = (part.double() for part in built(config))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))
