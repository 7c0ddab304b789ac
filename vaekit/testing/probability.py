"""Contracts of posteriors, priors and likelihoods."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution

from vaekit.distributions import draw, kl_divergence, sphere
from vaekit.likelihoods.base import Likelihood
from vaekit.posteriors.base import Posterior
from vaekit.priors.base import Prior
from vaekit.registry import Info, Registry, likelihoods, posteriors, priors
from vaekit.testing.contract import Contract, ModuleContract, fixed, without_gradient

__all__ = ["LikelihoodContract", "PosteriorContract", "PriorContract", "total_mass"]

# A real size: large enough for float32 to overflow where a part is careless.
BATCH, LATENT, FEATURES = 256, 512, 64
SMALL = 8


def total_mass(distribution: Distribution) -> Tensor:
    """Return the integral (or the sum, where it is discrete) of a density of event shape (1,), for each batch member.

    The integral is by the trapezoidal rule on [-60, 60], the sum over 0, ..., 2,000: give it a density that lies there.
    On a sphere the event shape is (2,) and the integral is over the circle. A relaxed distribution is summed over what
    its attribute `space` names: counts, or the K vectors of one variable.

    Examples:
        >>> from torch.distributions import Independent, Normal
        >>> total_mass(Independent(Normal(torch.zeros(2, 1).double(), 1.0), 1))
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """
    support = distribution.support
    assert support is not None, "the distribution must say what its support is"
    space = getattr(getattr(distribution, "base_dist", distribution), "space", "")
    if space == "one-hot":
        vectors = torch.eye(distribution.event_shape[0], dtype=torch.float64)
        points = vectors.reshape(len(vectors), *[1] * len(distribution.batch_shape), len(vectors))
        return distribution.log_prob(points).exp().sum(0)
    discrete = support.is_discrete or space == "counting"
    if support is sphere:
        angles = torch.arange(2000, dtype=torch.float64) * (math.pi / 1000)
        points = torch.stack([angles.cos(), angles.sin()], -1).reshape(-1, *[1] * len(distribution.batch_shape), 2)
        points = points.expand(-1, *distribution.batch_shape, 2)
        return distribution.log_prob(points).exp().sum(0) * (math.pi / 1000)
    if discrete:
        grid = torch.arange(2001, dtype=torch.float64)
    else:
        grid = torch.arange(-60_000, 60_001, dtype=torch.float64) / 1000
    points = grid.reshape(-1, *[1] * len(distribution.batch_shape), 1)
    points = points.expand(-1, *distribution.batch_shape, 1)
    inside = support.check(points)
    # Outside the support a density need not answer.
    points = torch.where(inside.unsqueeze(-1), points, distribution.sample().double())
    density = distribution.log_prob(points).exp() * inside
    if discrete:
        return density.sum(0)
    # An interval counts where both of its ends lie in the support: a density may end with a step.
    return ((density[1:] + density[:-1]) * (inside[1:] & inside[:-1])).sum(0) / 2000


def _lowest(suite: Contract) -> int:
    """Return the fewest latent dimensions in which the density of a part can be integrated."""
    known = suite.name in suite.registry.names()
    support = suite.registry.info(suite.name).support if known else ""
    return {"sphere": 2, "one-hot": SMALL}.get(support, 1)


def _assert_pyro(distribution: Distribution) -> None:
    assert isinstance(distribution, TorchDistributionMixin), (
        "return a distribution of pyro.distributions (or a TorchDistribution): the VAE is a Pyro program"
    )


class PosteriorContract(ModuleContract):
    """What a posterior promises: a normalised density q(z|x) whose draws, moments and gradients fit together.

    Attributes:
        latent: The number of latent dimensions of a real size; fewer for a posterior that grows with their square.
    """

    registry: ClassVar[Registry] = posteriors
    latent: ClassVar[int] = LATENT

    def prior(self, latent_dim: int) -> Distribution:
        """Return the prior beside it: the first that `only_with` or `closed_kl` names, else the standard normal."""
        names = (*self._info.only_with.get("priors", ()), *self._info.closed_kl)
        return priors.build((*names, "standard_normal")[0], latent_dim)()

    @property
    def _info(self) -> Info:
        return self.registry.info(self.name) if self.name in self.registry.names() else Info("", "")

    def module(self) -> Posterior:
        """Build it with 8 features and 8 latent dimensions."""
        return self.make(8, SMALL)

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return features (5, 8)."""
        return fixed(5, 8, dtype=dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return mean, variance and, where there is a density, its logarithm at one latent, for each sample."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            prior = self.prior(SMALL)
            z = prior.sample().to(inputs.dtype)
        q = module(inputs, prior)
        if self._info.support == "point":
            return torch.cat([q.mean, q.variance], dim=-1)
        # A box need not hold a draw of the prior; it holds its own mean.
        z = q.mean if self._info.support == "interval" else z.expand(len(inputs), SMALL)
        return torch.cat([q.mean, q.variance, q.log_prob(z).unsqueeze(-1)], dim=-1)

    @pytest.fixture
    def q(self) -> Distribution:
        """The posterior of a real batch: 256 samples, `latent` latent dimensions."""
        return self.make(FEATURES, self.latent)(fixed(BATCH, FEATURES), self.prior(self.latent))

    def test_shapes(self, q: Distribution) -> None:
        """`batch_shape (B,)`, `event_shape (D,)`; mean and variance (B, D)."""
        _assert_pyro(q)
        assert (q.batch_shape, q.event_shape) == ((BATCH,), (self.latent,))
        for moment in (q.mean, q.variance):
            assert (moment.shape, moment.dtype) == ((BATCH, self.latent), torch.float32)
            assert moment.isfinite().all()
        assert (q.variance >= 0).all()

    @pytest.mark.parametrize("count", [1, 2])
    def test_draws(self, q: Distribution, count: int) -> None:
        """Draws of the announced number, whose weights sum to one, with finite densities under q and in the KL."""
        passes = self.make(FEATURES, self.latent).passes
        drawn = draw(q, count)
        assert drawn.z.shape == (count * passes, BATCH, self.latent), "draws and `passes` disagree"
        assert drawn.weights.shape == drawn.z.shape[:-1]
        torch.testing.assert_close(drawn.weights.sum(0), torch.ones(BATCH))
        log_q = q.log_prob(drawn.z)
        assert (log_q.shape, log_q.dtype) == (drawn.weights.shape, torch.float32)
        assert log_q.isfinite().all()
        assert q.sample().shape == (BATCH, self.latent)
        if self._info.support == "point":
            return
        kl = kl_divergence(q, self.prior(self.latent), drawn)
        assert kl.shape == (BATCH,)
        assert kl.isfinite().all()

    def test_large_features_stay_finite(self) -> None:
        """Features ten times as large still give finite draws and densities."""
        q = self.make(FEATURES, self.latent)(10 * fixed(BATCH, FEATURES), self.prior(self.latent))
        z = draw(q).z
        assert z.isfinite().all()
        assert q.log_prob(z).isfinite().all()

    def test_every_parameter_gets_a_gradient(self) -> None:
        """An expectation over draws, and the KL, move every parameter; features get a gradient too."""
        module, features = self.make(FEATURES, self.latent), fixed(BATCH, FEATURES).requires_grad_()
        q = module(features, self.prior(self.latent))
        drawn = draw(q)
        expected = (drawn.weights * (drawn.z - 0.5).square().sum(-1)).sum(0).mean()
        losses = {"an expectation over draws": expected}
        if self._info.support != "point":
            losses["the KL"] = kl_divergence(q, self.prior(self.latent), drawn).mean()
        for what, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
            assert gradient.isfinite().all(), f"{what} gives the encoder a gradient that is not finite"
            assert gradient.any(), f"{what} gives the encoder no gradient"
        missing = without_gradient(module, torch.stack([*losses.values()]).sum())
        assert not missing, f"no gradient, or one that is not finite, for {missing}"

    def test_density_is_normalised(self) -> None:
        """In one dimension, or on a circle, q(z|x) integrates to one."""
        if self._info.support == "point":
            pytest.skip("a point has no density")
        lowest = _lowest(self)
        q = self.make(8, lowest).double().eval()(self.inputs(torch.float64), self.prior(lowest))
        torch.testing.assert_close(total_mass(q), torch.ones(5, dtype=torch.float64), rtol=1e-4, atol=1e-4)

    def test_draws_have_the_moments(self) -> None:
        """Weighted draws of evaluation reproduce mean and variance, which may be estimates from a few points."""
        count = 20_000
        q = self.module().eval()(self.inputs(), self.prior(SMALL))
        share = 1.0 / count + 1.0 / getattr(q, "moments_from", math.inf)
        z, weights = draw(q, count)
        mean = (weights.unsqueeze(-1) * z).sum(0)
        variance = (weights.unsqueeze(-1) * (z - mean).square()).sum(0)
        assert ((mean - q.mean).abs() <= 6 * (variance * share).sqrt() + 1e-4).all(), "draws miss the mean"
        fourth = (weights.unsqueeze(-1) * (z - mean).pow(4)).sum(0)
        error = ((fourth - variance.square()).clamp_min(0.0) * share).sqrt()
        tolerance = torch.maximum(6 * error, 0.1 * q.variance)
        assert ((variance - q.variance).abs() <= tolerance + 1e-4).all(), "draws miss the variance"

    def test_draws_follow_the_seed(self) -> None:
        """The same seed gives the same draws."""
        q = self.module()(self.inputs(), self.prior(SMALL))
        torch.manual_seed(4)
        first = draw(q)
        torch.manual_seed(4)
        second = draw(q)
        torch.testing.assert_close(tuple(first), tuple(second), rtol=0.0, atol=0.0)


class PriorContract(ModuleContract):
    """What a prior promises: a normalised density p(z) that can be sampled, expanded and trained."""

    registry: ClassVar[Registry] = priors

    def module(self) -> Prior:
        """Build it with 8 latent dimensions."""
        return self.make(SMALL)

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return latents (5, 8): draws of a prior of this kind."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return self.module()().sample(torch.Size([5])).detach().to(dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return the log-density of each latent."""
        return module().log_prob(inputs)

    def test_shapes(self) -> None:
        """`batch_shape ()`, `event_shape (D,)`; finite at a real size; a part of a Pyro program."""
        p = self.make(LATENT)()
        _assert_pyro(p)
        assert (p.batch_shape, p.event_shape) == ((), (LATENT,))
        z = p.sample(torch.Size([BATCH]))
        assert (z.shape, z.dtype) == ((BATCH, LATENT), torch.float32)
        assert z.isfinite().all()
        log_p = p.log_prob(z)
        assert (log_p.shape, log_p.dtype) == ((BATCH,), torch.float32)
        assert log_p.isfinite().all()
        expanded = p.expand(torch.Size([2, 3]))
        assert (expanded.batch_shape, expanded.sample().shape) == ((2, 3), (2, 3, LATENT))
        expanded.mask(False)

    def test_every_parameter_gets_a_gradient(self) -> None:
        """The density of latents moves every parameter."""
        module = self.make(LATENT)
        if not list(module.parameters()):
            pytest.skip("this prior has no parameters")
        z = module().sample(torch.Size([BATCH])).detach()
        missing = without_gradient(module, module().log_prob(z).mean())
        assert not missing, f"no gradient, or one that is not finite, for {missing}"

    def test_density_is_normalised(self) -> None:
        """In one dimension, or on a circle, p(z) integrates to one."""
        total = total_mass(self.make(_lowest(self)).double()())
        torch.testing.assert_close(total, torch.ones((), dtype=torch.float64), rtol=1e-4, atol=1e-4)

    def test_draws_follow_the_seed(self) -> None:
        """The same seed gives the same draws."""
        p = self.module()()
        torch.manual_seed(4)
        first = p.sample(torch.Size([4]))
        torch.manual_seed(4)
        torch.testing.assert_close(p.sample(torch.Size([4])), first, rtol=0.0, atol=0.0)


class LikelihoodContract(ModuleContract):
    """What a likelihood promises: a normalised p(x|z) over samples of any shape.

    Attributes:
        smallest: The fewest numbers of a sample for which the mass of p(x|z) is summed up.
    """

    registry: ClassVar[Registry] = likelihoods
    smallest: ClassVar[int] = 1

    def module(self) -> Likelihood:
        """Build it for samples of shape (1, 4, 4)."""
        return self.make((1, 4, 4))

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a decoder's output for 5 samples."""
        return fixed(5, *self.module().parameters_shape, dtype=dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return the log-density of one sample, and the mean."""
        p = module(inputs)
        x = self.data(module, 1, inputs.dtype).expand(len(inputs), *module.data_shape)
        return torch.cat([p.log_prob(x).unsqueeze(-1), p.mean.flatten(1)], dim=-1)

    def data(self, module: Likelihood, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return samples (count, *data_shape) at the levels of 8-bit data within `data_range`."""
        generator = torch.Generator().manual_seed(6)
        grey = torch.randint(0, 256, (count, *module.data_shape), generator=generator)
        low, high = module.data_range
        levels = 256 if module.continuous else module.levels
        return low + (high - low) * (grey * levels // 256).to(dtype) / (levels - 1)

    def all_values(self, module: Likelihood) -> Tensor:
        """Return every sample of the smallest size, where data are discrete: float64, shape (N, smallest)."""
        low, high = module.data_range
        return torch.linspace(low, high, module.levels, dtype=torch.float64).unsqueeze(-1)

    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 64), (5,)], ids=str)
    @pytest.mark.parametrize("batch", [(7,), (2, 7)], ids=str)
    def test_shapes(self, shape: tuple[int, ...], batch: tuple[int, ...]) -> None:
        """`batch_shape (...)`, `event_shape data_shape`, for decoded (..., *parameters_shape), also far from zero."""
        module = self.make(shape)
        x = self.data(module, 7)
        for factor in (1.0, 20.0):
            p = module(factor * fixed(*batch, *module.parameters_shape))
            _assert_pyro(p)
            assert (p.batch_shape, p.event_shape) == (batch, shape)
            log_prob = p.log_prob(x)
            assert (log_prob.shape, log_prob.dtype) == (batch, torch.float32)
            assert log_prob.isfinite().all()
            for values in (p.mean, p.sample()):
                assert values.shape == (*batch, *shape)
                assert values.isfinite().all()

    def test_every_parameter_and_every_decoded_value_gets_a_gradient(self) -> None:
        """The density of data moves the decoder's whole output and the likelihood's own parameters."""
        module = self.make((3, 8, 8))
        decoded = fixed(7, *module.parameters_shape).requires_grad_()
        loss = -module(decoded).log_prob(self.data(module, 7)).mean()
        (gradient,) = torch.autograd.grad(loss, decoded, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.flatten(1).any(0).all(), "a decoded value is never used"
        missing = without_gradient(module, loss) if list(module.parameters()) else []
        assert not missing, f"no gradient, or one that is not finite, for {missing}"

    def test_density_is_normalised(self) -> None:
        """For one dimension p(x|z) integrates, or sums over the levels, to one; to a constant where it says so."""
        module = self.make((self.smallest,)).double()
        p = module(fixed(5, *module.parameters_shape, dtype=torch.float64))
        if module.continuous:
            total = total_mass(p)
        else:
            total = p.log_prob(self.all_values(module).unsqueeze(1).expand(-1, 5, -1)).exp().sum(0)
        if not module.normalised:
            total = total / total[0]
        torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64), rtol=1e-4, atol=1e-4)

    def test_mean_lies_in_the_range_of_discrete_data(self) -> None:
        """Discrete data have a mean between the ends of `data_range`."""
        module = self.module()
        low, high = module.data_range
        assert low < high
        mean = module(10 * self.inputs()).mean
        assert module.continuous or (low <= mean.min() and mean.max() <= high)

    def test_bits_per_dim(self) -> None:
        """Bits per dimension are finite and rise with the nats, by 1 for log(2) nats per dimension."""
        module = self.make((3, 8, 8))
        low, high = (module.bits_per_dim(nats) for nats in (100.0, 100.0 + 192 * math.log(2)))
        assert math.isfinite(low)
        assert high - low == pytest.approx(1.0)
