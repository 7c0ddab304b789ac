"""Laplace posteriors and priors, and closed-form KLs between Laplace and Gaussian in both directions."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import built, tiny
from pyro.infer import TraceMeanField_ELBO
from test_pyro import same, svi_side, trainer_side

from vaekit.compatibility import pair
from vaekit.distributions import kl_divergence, kl_method
from vaekit.errors import VaekitError
from vaekit.posteriors.laplace import Laplace
from vaekit.registry import posteriors, priors
from vaekit.testing.contract import fixed


def one(kind: Any, loc: float, scale: float) -> Any:
    return kind(torch.tensor([loc]), torch.tensor([scale])).to_event(1)


def by_quadrature(q: Any, p: Any) -> float:
    """The KL by the trapezoidal rule, with the corners of both densities on the grid."""
    z = torch.linspace(-40.0, 40.0, 800001).unsqueeze(-1)
    log_q = q.log_prob(z)
    return torch.trapezoid(log_q.exp() * (log_q - p.log_prob(z)), z[:, 0]).item()


def test_oracles(float64: None) -> None:
    assert kl_divergence(one(dist.Laplace, 0.5, 0.8), one(dist.Laplace, 0.0, 1.0)).item() == pytest.approx(
        0.151352694129, abs=1e-11
    )
    assert kl_divergence(one(dist.Normal, 0.5, 0.8), one(dist.Normal, 0.0, 1.0)).item() == pytest.approx(
        0.168143551314, abs=1e-11
    )


@pytest.mark.parametrize(("loc", "scale"), [(0.5, 0.8), (-2.0, 0.3), (0.0, 1.5)])
@pytest.mark.parametrize("kinds", [(dist.Laplace, dist.Normal), (dist.Normal, dist.Laplace)], ids=["to normal", "from"])
def test_kl_between_the_families(kinds: tuple[Any, Any], loc: float, scale: float, float64: None) -> None:
    q, p = one(kinds[0], loc, scale), one(kinds[1], 0.25, 1.2)
    assert kl_method(q, p) == "closed"
    assert kl_divergence(q, p).item() == pytest.approx(by_quadrature(q, p), abs=1e-7)


@pytest.mark.parametrize("posterior", ["gaussian", "laplace"])
@pytest.mark.parametrize("prior", ["standard_normal", "gaussian", "laplace"])
def test_the_metadata_tell_the_truth(posterior: str, prior: str) -> None:
    assert pair(posterior, prior).kind == "closed"
    features = (10 * fixed(256, 16)).requires_grad_()
    q = posteriors.build(posterior, 16, 512)(features, None)
    p = priors.build(prior, 512)()
    assert kl_method(q, p) == "closed"
    kl = kl_divergence(q, p)
    assert kl.isfinite().all()
    assert (kl > 0).all()
    (gradient,) = torch.autograd.grad(kl.sum(), features)
    assert gradient.isfinite().all()


def test_the_posterior_has_the_variance_that_its_head_says(float64: None) -> None:
    module = Laplace(8, 3, log_variance_range=None).double()
    features = fixed(5, 8).double()
    q: Any = module(features, None)
    torch.testing.assert_close(q.variance, module.log_variance(features).exp())
    torch.testing.assert_close(q.base_dist.scale, (0.5 * q.variance).sqrt())
    with pytest.raises(VaekitError, match="rise"):
        Laplace(8, 3, log_variance_range=(1.0, 0.0))


def test_the_prior_has_its_scale(float64: None) -> None:
    p = priors.build({"name": "laplace", "scale": 0.5}, 3).double()()
    torch.testing.assert_close(p.variance, torch.full((3,), 0.5))
    with pytest.raises(VaekitError, match="scale must be above 0"):
        priors.build({"name": "laplace", "scale": 0.0}, 3)


@pytest.mark.parametrize(
    ("posterior", "prior"), [("laplace", "laplace"), ("laplace", "gaussian"), ("gaussian", "laplace")]
)
def test_elbo_of_pyro_is_the_loss(posterior: str, prior: str, float64: None) -> None:
    pyro.clear_param_store()
    model, objective = (part.double() for part in built(tiny("vae", posterior=posterior, prior=prior)))
    x = torch.rand(8, 1, 8, 8)
    same(trainer_side(model, objective, x), svi_side(model, TraceMeanField_ELBO(), x))
