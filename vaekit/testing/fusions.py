"""Contract of fusions."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution

from vaekit.distributions import draw, kl_divergence, location_scale
from vaekit.fusions.base import Fusion
from vaekit.registry import Info, Registry, fusions, posteriors, priors
from vaekit.testing.contract import ModuleContract, fixed, without_gradient
from vaekit.testing.probability import BATCH, LATENT, SMALL, total_mass

__all__ = ["FusionContract", "all_subsets"]

FEATURES = (6, 4, 5)


def all_subsets(modalities: int) -> Tensor:
    """Return the masks of all subsets, the empty one first: bool, shape (2^M, M).

    Examples:
        >>> all_subsets(2).int().tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    return (torch.arange(2**modalities).unsqueeze(-1) >> torch.arange(modalities)) % 2 == 1


class FusionContract(ModuleContract):
    """What a fusion promises: a density for every subset, blind to what is masked out and to the modalities' order.

    It is built for three modalities with 6, 4 and 5 features.

    Attributes:
        posterior: The posterior that the fusion builds, by name; by default the first that `only_with` names.
        prior: The prior, by name; by default the first that `only_with` names.
    """

    registry: ClassVar[Registry] = fusions
    posterior: ClassVar[str] = ""
    prior: ClassVar[str] = ""

    @property
    def _info(self) -> Info:
        return self.registry.info(self.name) if self.name in self.registry.names() else Info("", "")

    def fusion(self, features: tuple[int, ...], latent_dim: int) -> Fusion:
        """Build it for modalities with these numbers of features."""
        kind = self.posterior or (*self._info.only_with.get("posteriors", ()), "gaussian")[0]
        fusion: Fusion = self.make(features, latent_dim, lambda count: posteriors.build(kind, count, latent_dim))
        return fusion

    def prior_of(self, latent_dim: int, dtype: torch.dtype = torch.float32) -> Distribution:
        """Return p(z)."""
        kind = self.prior or (*self._info.only_with.get("priors", ()), "standard_normal")[0]
        p: Distribution = priors.build(kind, latent_dim).to(dtype)()
        return p

    def permuted(self, embedded: Any, order: Tensor) -> Any:
        """Return what `embed` gave with the modalities in another order: a tensor (B, M, ...) or stacked experts.

        Override it where `embed` gives something else.
        """
        if isinstance(embedded, Tensor):
            return embedded[:, order]
        family, loc, scale = location_scale(embedded)
        return family(loc[:, order], scale[:, order]).to_event(1)

    # ---- what the tests of every module need ---------------------------------------------------------------------

    def module(self) -> Fusion:
        """Build it with 8 latent dimensions."""
        return self.fusion(FEATURES, SMALL)

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return features (8, 15): those of all modalities, side by side."""
        return fixed(8, sum(FEATURES), dtype=dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return mean, variance and the logarithm of the density at one latent for every subset, for each sample."""
        mask = all_subsets(len(FEATURES)).unsqueeze(1).expand(-1, len(inputs), -1)
        q = module(inputs.split(FEATURES, -1), mask, self.prior_of(SMALL, inputs.dtype))
        return self.numbers(q).transpose(0, 1)

    def numbers(self, q: Distribution) -> Tensor:
        """Return mean, variance and log-density at one latent, shape (..., B, 2 D + 1)."""
        z = fixed(q.event_shape[0], dtype=q.mean.dtype, seed=3).expand(q.mean.shape)
        return torch.cat([q.mean, q.variance, q.log_prob(z).unsqueeze(-1)], -1)

    # ---- what fusions promise ------------------------------------------------------------------------------------

    def test_every_subset_at_a_real_size(self) -> None:
        """256 samples, each with two of all subsets, in 512 dimensions: shapes, draws, densities, gradients: finite."""
        module, prior = self.fusion(FEATURES, LATENT), self.prior_of(LATENT)
        features = fixed(BATCH, sum(FEATURES)).requires_grad_()
        subsets = all_subsets(len(FEATURES))
        mask = torch.stack([subsets, subsets.roll(3, 0)]).repeat(1, BATCH // len(subsets), 1)
        q = module(features.split(FEATURES, -1), mask, prior)
        assert isinstance(q, TorchDistributionMixin), "return a distribution of pyro.distributions"
        assert (q.batch_shape, q.event_shape) == ((len(mask), BATCH), (LATENT,))
        for moment in (q.mean, q.variance, q.sample()):
            assert (moment.shape, moment.dtype) == ((len(mask), BATCH, LATENT), torch.float32)
            assert moment.isfinite().all()
        assert q.expand(torch.Size([2, *q.batch_shape])).sample().shape == (2, len(mask), BATCH, LATENT)
        drawn = draw(q)
        assert drawn.z.shape[1:] == (len(mask), BATCH, LATENT)
        torch.testing.assert_close(drawn.weights.sum(0), torch.ones(len(mask), BATCH))
        assert q.log_prob(drawn.z).isfinite().all()
        kl = kl_divergence(q, prior, drawn)
        assert kl.shape == (len(mask), BATCH)
        assert kl.isfinite().all()
        expected = (drawn.weights * (drawn.z - 0.5).square().sum(-1)).sum(0)
        loss = (expected + kl).mean()
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        assert gradient.isfinite().all()
        assert all(part.any() for part in gradient.split(FEATURES, -1)), "a modality's features are never used"
        missing = without_gradient(module, loss)
        assert not missing, f"no gradient, or one that is not finite, for {missing}"

    @pytest.mark.parametrize("modalities", [1, 2, 4])
    def test_any_number_of_modalities(self, modalities: int) -> None:
        """Every subset of one, two or four modalities has a finite posterior."""
        mask = all_subsets(modalities)
        parts = [fixed(len(mask), 3 + number) for number in range(modalities)]
        q = self.fusion(tuple(part.shape[-1] for part in parts), SMALL)(parts, mask, self.prior_of(SMALL))
        assert q.batch_shape == (2**modalities,)
        assert self.numbers(q).isfinite().all()

    def test_what_is_masked_out_changes_nothing(self) -> None:
        """Other features of what is masked out give the same numbers, to the last bit, and get no gradient."""
        module, prior, mask = self.module().eval(), self.prior_of(SMALL), all_subsets(len(FEATURES))
        wide = torch.cat([part.expand(-1, count) for part, count in zip(mask.split(1, -1), FEATURES, strict=True)], -1)
        seen = []
        for hidden in (0.0, 10.0):
            features = torch.where(wide, self.inputs(), hidden).requires_grad_()
            q = module(features.split(FEATURES, -1), mask, prior)
            torch.manual_seed(4)
            z, weights = draw(q)
            numbers = torch.cat([self.numbers(q), (weights.unsqueeze(-1) * z).sum(0)], -1)
            (gradient,) = torch.autograd.grad(numbers.square().sum(), features)
            assert not gradient[~wide].any(), "features that are masked out get a gradient"
            assert all(gradient[row][inside].any() for row, inside in enumerate(wide) if inside.any())
            seen.append(numbers)
        torch.testing.assert_close(seen[0], seen[1], rtol=0.0, atol=0.0)

    def test_order_of_the_modalities(self) -> None:
        """What modalities say, and the mask, in another order give the same posterior."""
        module, prior = self.module().double().eval(), self.prior_of(SMALL, torch.float64)
        mask, order = all_subsets(len(FEATURES)), torch.tensor([2, 0, 1])
        embedded = module.embed(self.inputs(torch.float64).split(FEATURES, -1), prior)
        as_is = self.numbers(module.fuse(embedded, mask, prior))
        permuted = self.numbers(module.fuse(self.permuted(embedded, order), mask[:, order], prior))
        torch.testing.assert_close(permuted, as_is, rtol=1e-10, atol=1e-10)

    def test_many_masks_at_once(self) -> None:
        """Masks (..., B, M) give what each mask (B, M) gives by itself."""
        module, prior = self.module().double().eval(), self.prior_of(SMALL, torch.float64)
        embedded = module.embed(self.inputs(torch.float64).split(FEATURES, -1), prior)
        masks = torch.stack([all_subsets(len(FEATURES)).roll(shift, 0) for shift in range(6)])
        together = self.numbers(module.fuse(embedded, masks.unflatten(0, (2, 3)), prior)).flatten(0, 1)
        for mask, numbers in zip(masks, together, strict=True):
            alone = self.numbers(module.fuse(embedded, mask, prior))
            torch.testing.assert_close(numbers, alone, rtol=1e-10, atol=1e-10)

    def test_each_sample_has_its_own_mask(self) -> None:
        """A batch whose samples have different masks gives what each sample gives by itself."""
        module, prior = self.module().double().eval(), self.prior_of(SMALL, torch.float64)
        inputs, mask = self.inputs(torch.float64), all_subsets(len(FEATURES))
        together = self.numbers(module(inputs.split(FEATURES, -1), mask, prior))
        for row in range(len(inputs)):
            one = slice(row, row + 1)
            alone = self.numbers(module(inputs[one].split(FEATURES, -1), mask[one], prior))
            torch.testing.assert_close(alone, together[one], rtol=1e-10, atol=1e-10)

    def test_density_is_normalised(self) -> None:
        """In one dimension q(z|x_S) integrates to one for every subset."""
        module, mask = self.fusion(FEATURES, 1).double().eval(), all_subsets(len(FEATURES))
        q = module(self.inputs(torch.float64).split(FEATURES, -1), mask, self.prior_of(1, torch.float64))
        torch.testing.assert_close(total_mass(q), torch.ones(len(mask), dtype=torch.float64), rtol=1e-4, atol=1e-4)

    def test_draws_have_the_moments(self) -> None:
        """Weighted draws reproduce mean and variance for every subset."""
        count, module, mask = 20_000, self.module().eval(), all_subsets(len(FEATURES))
        q = module(self.inputs().split(FEATURES, -1), mask, self.prior_of(SMALL))
        z, weights = draw(q, count)
        mean = (weights.unsqueeze(-1) * z).sum(0)
        assert ((mean - q.mean).abs() <= 6 * (q.variance / count).sqrt() + 1e-4).all(), "draws miss the mean"
        squares = (z - mean).square()
        variance = (weights.unsqueeze(-1) * squares).sum(0)
        error = ((weights.unsqueeze(-1) * (squares - variance).square()).sum(0) / count).sqrt()
        assert ((variance - q.variance).abs() <= 6 * error + 1e-4).all(), "draws miss the variance"
