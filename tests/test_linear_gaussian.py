"""The linear-Gaussian benchmark: its distribution, its data set and the exact evaluation of linear models."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from linear_models import exact_model, linear_model
from torch.distributions import Independent, MultivariateNormal, Normal

import vaekit as vk
from vaekit.data import PairedSplit
from vaekit.distributions import LinearGaussian, kl_divergence, kl_method
from vaekit.errors import VaekitError
from vaekit.evaluation import (
    exact_log_likelihood,
    exact_posterior_kl,
    learned_linear_gaussian,
    linear_report,
    mixture_gap,
    mixture_optimum,
)
from vaekit.objectives.masks import size_probabilities
from vaekit.testing import small_multimodal_vae

pytestmark = pytest.mark.usefixtures("float64")


# ---- the distribution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "sparse", "size", "log_likelihood", "negative_entropy", "best"),
    [
        (0, False, 226, -325.2302, -325.1595, -325.0994),
        (1, False, 230, -330.5094, -330.8353, -330.3707),
        (2, False, 205, -295.2936, -295.3618, -295.1690),
        (0, True, 226, -333.7943, -333.8238, -333.1404),
        (1, True, 230, -339.1307, -339.4996, -338.4507),
        (2, True, 205, -303.9687, -304.0261, -303.3632),
    ],
)
def test_benchmark(
    seed: int, sparse: bool, size: int, log_likelihood: float, negative_entropy: float, best: float
) -> None:
    """Log-likelihood of 5,000 draws under the truth and under maximum likelihood, and the negative entropy."""
    random = np.random.default_rng(seed)
    truth = LinearGaussian.benchmark(random, sparse=sparse)
    x = truth.sample(5000, random)
    fitted = LinearGaussian.maximum_likelihood(x, truth.latent_dim)
    assert sum(truth.sizes) == size
    found = truth.log_prob(x).mean(), -truth.entropy(), fitted.log_prob(x).mean()
    assert [value.item() for value in found] == pytest.approx([log_likelihood, negative_entropy, best], abs=5.1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_posteriors_have_independent_dimensions(sparse: bool) -> None:
    truth = LinearGaussian.benchmark(4, sparse=sparse)
    for subset in [(), (2,), (0, 1, 4), (0, 1, 2, 3, 4)]:
        covariance = truth.posterior(truth.biases, subset).covariance_matrix
        expected = torch.ones(truth.latent_dim)
        expected[-5:] = 1 / (1 + len(subset))
        for number in subset if sparse else ():
            expected[5 * number : 5 * number + 5] = 0.5
        torch.testing.assert_close(covariance, expected.diag(), atol=1e-12, rtol=0)


def small(sigma: float = 0.7) -> LinearGaussian:
    torch.manual_seed(2)
    sizes = (2, 1, 3)
    return LinearGaussian([torch.randn(size, 2) for size in sizes], [torch.randn(size) for size in sizes], sigma)


@pytest.mark.parametrize("subset", [(), (1,), (2, 0), (0, 1, 2)])
def test_bayes(subset: tuple[int, ...]) -> None:
    """p(x_S|z) p(z) = p(z|x_S) p(x_S) at any z."""
    p = small()
    x, z = p.sample(4, np.random.default_rng(0)), torch.randn(4, 2)
    log_joint = Normal(0.0, 1.0).log_prob(z).sum(-1)
    for number in subset:
        mean = z @ p.weights[number].T + p.biases[number]
        log_joint = log_joint + Normal(mean, p.sigma).log_prob(x[number]).sum(-1)
    torch.testing.assert_close(p.posterior(x, subset).log_prob(z) + p.log_prob(x, subset), log_joint)


def test_conditionals_and_marginals() -> None:
    p = small()
    x = dict(zip("abc", p.sample(5, np.random.default_rng(0)), strict=True))
    chain = p.log_prob(x, [1]) + p.log_prob(x, [2], given=[1]) + p.log_prob(x, given=[2, 1])
    torch.testing.assert_close(chain, p.log_prob(x))
    joined = torch.cat([x["c"], x["a"]], -1)
    weight, bias = torch.cat([p.weights[2], p.weights[0]]), torch.cat([p.biases[2], p.biases[0]])
    full = MultivariateNormal(bias, weight @ weight.T + 0.49 * torch.eye(5))
    torch.testing.assert_close(p.log_prob(x, [2, 0]), full.log_prob(joined))
    torch.testing.assert_close(p.entropy([2, 0]), full.entropy())


def test_sample_moments() -> None:
    p = small()
    joined = torch.cat(p.sample(200_000, np.random.default_rng(0)), -1)
    expected = p.marginal()
    torch.testing.assert_close(joined.mean(0), expected.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(joined.T), expected.covariance_matrix, atol=0.06, rtol=0)


def test_maximum_likelihood_is_the_best() -> None:
    """Its likelihood has no gradient in weights and biases, and is that of no other start."""
    p = small(1.0)
    x = p.sample(300, np.random.default_rng(0))
    best = LinearGaussian.maximum_likelihood(x, 2)
    reached = best.log_prob(x).mean().item()
    for part in (*best.weights, *best.biases):
        part.requires_grad_()
    gradients = torch.autograd.grad(best.log_prob(x).mean(), [*best.weights, *best.biases])
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-10
    assert reached > p.log_prob(x).mean().item()


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(VaekitError, match="shapes"):
        LinearGaussian([torch.ones(2, 1), torch.ones(2, 2)], [torch.ones(2), torch.ones(2)])
    with pytest.raises(VaekitError, match="shapes"):
        LinearGaussian([torch.ones(2, 1)], [torch.ones(3)])
    with pytest.raises(VaekitError, match="sigma"):
        LinearGaussian([torch.ones(2, 1)], [torch.ones(2)], 0.0)


def test_kl_from_diagonal() -> None:
    torch.manual_seed(0)
    factor = torch.randn(3, 3)
    p = MultivariateNormal(torch.randn(4, 3), factor @ factor.T + torch.eye(3))
    q = Independent(Normal(torch.randn(4, 3), torch.rand(4, 3) + 0.1), 1)
    expected = kl_divergence(MultivariateNormal(q.mean, torch.diag_embed(q.variance)), p)
    assert kl_method(q, p) == "closed"
    torch.testing.assert_close(kl_divergence(q, p), expected)
    laplace = Independent(torch.distributions.Laplace(q.mean, q.stddev), 1)
    assert kl_method(laplace, p) == "sampled"


# ---- the data set ----------------------------------------------------------------------------------------------------


def test_data_set() -> None:
    """The training samples are the benchmark's, the others are drawn after them."""
    data = vk.data.load("linear-gaussian", seed=1, sparse=True)
    random = np.random.default_rng(1)
    truth = LinearGaussian.benchmark(random, sparse=True)
    for split in data.splits.values():
        assert isinstance(split, PairedSplit)
        x = truth.sample(5000, random)
        for part, expected in zip(split.modalities.values(), x, strict=True):
            assert torch.equal(part.samples, expected.float())
    assert list(data.shape) == ["m0", "m1", "m2", "m3", "m4"]
    assert set(data.train.values.values()) == {"vector"}
    assert (data.protocol["seed"], data.protocol["sparse"]) == (1, True)
    few = vk.data.load("linear-gaussian", samples=7, limit=3)
    assert [len(split) for split in few.splits.values()] == [3, 3, 3]
    with pytest.raises(VaekitError, match="samples must be 1 or more"):
        vk.data.load("linear-gaussian", samples=0)


# ---- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sparse", "private"), [(False, 0), (True, 0), (True, 5)])
def test_exact_model(sparse: bool, private: int) -> None:
    """The truth as a model: no gap, exact posteriors of every subset."""
    truth = LinearGaussian.benchmark(0, sparse=sparse)
    data = vk.data.load("linear-gaussian", sparse=sparse, samples=500)
    model = exact_model(truth, private)
    report = linear_report(model, data, truth)
    assert abs(report.gap.mean) < 1e-6  # samples are kept in float32, the model in float64
    assert report.best_gap.mean > 0.5
    assert sorted(report.posterior_kl) == [0, 1, 2, 3, 4, 5]
    assert max(abs(found.mean) for found in report.posterior_kl.values()) < 1e-6
    assert report.signal == pytest.approx([5.0] * 5 + [1.0] * 25 * sparse)
    learned = learned_linear_gaussian(model)
    for weight, expected in zip(learned.weights, truth.weights, strict=True):
        torch.testing.assert_close(weight, expected, atol=1e-12, rtol=0)


def test_best_gap() -> None:
    """What maximum likelihood reaches on held-out data of the benchmark."""
    truth, data = LinearGaussian.benchmark(0), vk.data.load("linear-gaussian")
    best = LinearGaussian.maximum_likelihood({name: part.samples for name, part in data.train.modalities.items()}, 5)
    held = {name: part.samples for name, part in data.valid.modalities.items()}
    gap = (truth.log_prob(held) - best.log_prob(held)).mean().item()
    assert 0.12 < gap < 0.17


def test_exact_log_likelihood_and_posterior_of_a_trained_model() -> None:
    """Beside importance sampling: log p(x) and E_q[log q - log p(z|x)] of a model that is no truth."""
    truth = LinearGaussian.benchmark(0)
    data = vk.data.load("linear-gaussian", samples=20)
    torch.manual_seed(0)
    model = linear_model(truth)
    assert isinstance(data.test, PairedSplit)
    log_likelihood = exact_log_likelihood(model, data.test)
    from vaekit.observed import Observed

    x = Observed({name: part.samples.double() for name, part in data.test.modalities.items()})
    q = model.encode(x).posterior().shared
    z = q.sample((20_000,))
    latents = z.unsqueeze(2).expand(-1, -1, 5, -1)
    with torch.no_grad():
        log_joint = model.log_likelihood(x, latents).sum(-1) + model.prior().log_prob(z)
    # E_q[log p(x, z) - log q(z)] = log p(x) - KL(q || p(z|x))
    ratio = log_joint - q.log_prob(z).detach()
    elbo, error = ratio.mean(), ratio.std(0).square().mean().sqrt() / math.sqrt(20_000 * 20)
    kl = exact_posterior_kl(model, data.test)[5].mean
    assert kl > 1.0
    assert abs((log_likelihood.mean() - kl - elbo).item()) < 4 * error.item()


def test_other_models_are_refused() -> None:
    with pytest.raises(VaekitError, match="linear decoder"):
        learned_linear_gaussian(small_multimodal_vae())
    with pytest.raises(VaekitError, match="shares? no latent|latent that the modalities share"):
        learned_linear_gaussian(small_multimodal_vae(fusion=None))
    with pytest.raises(VaekitError, match="standard_normal"):
        learned_linear_gaussian(small_multimodal_vae(prior="gaussian_mixture"))
    truth = LinearGaussian.benchmark(0)
    model = linear_model(truth)
    model.parts["m1"].likelihood.log_scale.fill_(0.5)
    with pytest.raises(VaekitError, match="one scale"):
        learned_linear_gaussian(model)
    with pytest.raises(VaekitError, match="test split"):
        linear_report(linear_model(truth), vk.data.load("digits"), truth)
    data = vk.data.load("linear-gaussian", samples=3).train
    assert isinstance(data, PairedSplit)
    partly = PairedSplit(data.modalities, available=torch.eye(3, 5, dtype=torch.bool))
    with pytest.raises(VaekitError, match="all modalities"):
        exact_log_likelihood(linear_model(truth), partly)


LAWS = {
    "bernoulli": size_probabilities("bernoulli", 5),
    "uniform_size": size_probabilities("uniform_size", 5),
    "single": [0, 1, 0, 0, 0, 0],
    "not empty": [0, *(math.comb(5, size) / 31 for size in range(1, 6))],
    "all": [0, 0, 0, 0, 0, 1],
}


@pytest.mark.parametrize(
    ("law", "sparse", "gap", "loss", "private", "shared"),
    [
        ("bernoulli", False, 2.4219, 0.0624, None, None),
        ("uniform_size", False, 3.6250, 0.1649, None, None),
        ("single", False, 5.0, 0.3896, None, None),
        ("not empty", False, 2.0968, 0.0448, None, None),
        ("all", False, 0.0, 0.0, None, 5.0),
        ("bernoulli", True, 8.6719, 3.8980, 0.0, 3.84),
        ("uniform_size", True, 9.8750, 4.0006, 0.0, 3.26),
        ("single", True, 15.0, 4.2253, 0.0, 2.60),
        ("not empty", True, 8.1452, 3.4961, 0.032, 3.99),
        ("all", True, 0.0, 0.0, 1.0, 5.0),
    ],
)
def test_what_the_mixture_converges_to(
    law: str, sparse: bool, gap: float, loss: float, private: float | None, shared: float | None
) -> None:
    truth = LinearGaussian.benchmark(0, sparse=sparse)
    optimum = mixture_optimum(truth, LAWS[law])
    assert mixture_gap(truth, LAWS[law]) == pytest.approx(gap, abs=5.1e-5)
    assert kl_divergence(truth.marginal(), optimum.marginal()).item() == pytest.approx(loss, abs=5.1e-5)
    signal = optimum.signal()
    if shared is not None:
        assert signal[:5].tolist() == pytest.approx([shared] * 5, abs=5.1e-3)
    if private is not None:
        assert signal[5:].tolist() == pytest.approx([private] * 25, abs=5.1e-4)


def test_the_mixture_optimum_is_one() -> None:
    """Of the mean best bound, computed from its definition: no gradient there, and below at the truth.

    For a posterior that fills in means, E log p(x_S, E[x_rest|x_S]) - tr C_rest|S / 2 sigma^2.
    """
    truth, sizes = small(1.0), [0.2, 0.3, 0.4, 0.1]
    groups = [list(itertools.combinations(range(3), size)) for size in range(4)]
    joint = truth.marginal()
    blocks = torch.arange(6).split(truth.sizes)

    def bound(p: LinearGaussian) -> torch.Tensor:
        total = torch.zeros(())
        for group, probability in zip(groups, sizes, strict=True):
            for subset in group:
                kept = torch.cat([torch.arange(0), *(blocks[number] for number in subset)])
                # The covariance of the samples with their missing parts filled in, by regression.
                covariance = joint.covariance_matrix
                known = covariance[:, kept]
                filled = known @ torch.linalg.solve(known[kept], known.T)
                model = p.marginal()
                inverse = model.precision_matrix
                log_det = torch.linalg.slogdet(model.covariance_matrix)[1]
                fit = -0.5 * ((inverse * filled).sum() + log_det + 6 * math.log(2 * math.pi))
                missing = (covariance - filled).diagonal().sum()
                total = total + probability / len(group) * (fit - 0.5 * missing)
        return total

    optimum = mixture_optimum(truth, sizes)
    for weight in optimum.weights:
        weight.requires_grad_()
    gradients = torch.autograd.grad(bound(optimum), optimum.weights)
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-10
    assert bound(optimum).item() > bound(truth).item() + 0.01
