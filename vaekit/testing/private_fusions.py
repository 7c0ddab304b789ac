"""Contract of private fusions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.fusions.base import PrivateFusion
from vaekit.registry import Registry, private_fusions
from vaekit.testing.contract import ModuleContract, fixed, without_gradient
from vaekit.testing.fusions import all_subsets

__all__ = ["PrivateFusionContract"]

FEATURES = (6, 6, 6)
SHARED, PRIVATE = 8, 3


class PrivateFusionContract(ModuleContract):
    """What a private fusion promises: a posterior of every modality's private latent, blind to what is masked out.

    It is built for three modalities with 6 features each, 8 shared and 3 private dimensions. An equivariant one keeps
    what tells the modalities apart in module lists of one entry for each modality, and nowhere else.
    """

    registry: ClassVar[Registry] = private_fusions

    def fusion(self, features: tuple[int, ...] = FEATURES, shared: int = SHARED, private: int = PRIVATE) -> Any:
        """Build it for modalities with these numbers of features."""
        return self.make(features, shared, private)

    def module(self) -> PrivateFusion:
        """Build it with 8 shared and 3 private dimensions."""
        module: PrivateFusion = self.fusion()
        return module

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return features and two shared draws (8, 34), side by side."""
        return fixed(8, sum(FEATURES) + 2 * SHARED, dtype=dtype)

    def outputs(self, module: Any, inputs: Tensor) -> Tensor:
        """Return mean, variance and the logarithm of the density at one latent, for each sample."""
        q = self.run(module, inputs, torch.ones(len(inputs), len(FEATURES), dtype=torch.bool))
        return self.numbers(q).transpose(0, 1)

    def run(self, module: Any, inputs: Tensor, mask: Tensor) -> Distribution:
        """Return the posteriors of `inputs` under a mask (B, M)."""
        *features, first, second = inputs.split((*FEATURES, SHARED, SHARED), -1)
        q: Distribution = module(features, torch.stack([first, second]), mask)
        return q

    def numbers(self, q: Distribution) -> Tensor:
        """Return mean, variance and log-density at one latent, shape (S, B, M, 2 P + 1)."""
        z = fixed(PRIVATE, dtype=q.mean.dtype, seed=3).expand(q.mean.shape)
        return torch.cat([q.mean, q.variance, q.log_prob(z).unsqueeze(-1)], -1)

    def test_a_real_size(self) -> None:
        """Three shared draws of 256 samples in 64 dimensions, any subset: shapes, draws and gradients, all finite."""
        module, features = self.fusion(shared=64, private=64), fixed(256, sum(FEATURES)).requires_grad_()
        z, mask = 3 * fixed(3, 256, 64), all_subsets(len(FEATURES)).repeat(32, 1)
        q = module(features.split(FEATURES, -1), z, mask)
        assert isinstance(q, TorchDistributionMixin), "return a distribution of pyro.distributions"
        assert (q.batch_shape, q.event_shape) == ((3, 256, len(FEATURES)), (64,))
        draws = q.rsample()
        for values in (q.mean, q.variance, draws, q.log_prob(draws)):
            assert values.dtype == torch.float32
            assert values.isfinite().all()
        auxiliary = module.auxiliary()
        loss = (draws.square().sum(-1) + q.log_prob(draws)).mean() + auxiliary.log_prob(draws.detach()).mean()
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        assert gradient.isfinite().all()
        assert all(part.any() for part in gradient.split(FEATURES, -1)), "a modality's features are never used"
        missing = without_gradient(module, loss)
        assert not missing, f"no gradient, or one that is not finite, for {missing}"

    def test_auxiliary(self) -> None:
        """The auxiliary prior is a law of each modality's private latent, and begins as the standard normal."""
        r = self.module().auxiliary()
        assert isinstance(r, TorchDistributionMixin), "return a distribution of pyro.distributions"
        assert (r.batch_shape, r.event_shape) == ((len(FEATURES),), (PRIVATE,))
        torch.testing.assert_close(r.mean, torch.zeros(len(FEATURES), PRIVATE))
        torch.testing.assert_close(r.variance, torch.ones(len(FEATURES), PRIVATE))

    def test_what_is_masked_out_changes_no_other(self) -> None:
        """Other features of what is masked out give the other modalities the same numbers, and get no gradient."""
        module, mask, inputs = self.module().eval(), all_subsets(len(FEATURES)), self.inputs()
        hidden = torch.cat([(~mask).repeat_interleave(6, -1), torch.zeros(8, 2 * SHARED, dtype=torch.bool)], -1)
        seen = []
        for value in (0.0, 10.0):
            given = torch.where(hidden, value, inputs).requires_grad_()
            numbers = self.numbers(self.run(module, given, mask))[:, mask]
            (gradient,) = torch.autograd.grad(numbers.square().sum(), given)
            assert not gradient[hidden].any(), "features that are masked out get a gradient"
            seen.append(numbers)
        torch.testing.assert_close(seen[0], seen[1], rtol=0.0, atol=0.0)

    def test_order_of_the_modalities(self) -> None:
        """The modalities in another order, with the networks that are their own, give the posteriors in that order."""
        module, mask, order = self.module().double().eval(), all_subsets(len(FEATURES)), [2, 0, 1]
        inputs = self.inputs(torch.float64)
        *features, first, second = inputs.split((*FEATURES, SHARED, SHARED), -1)
        as_is = self.numbers(self.run(module, inputs, mask))[:, :, order]
        own = [part for part in module.modules() if isinstance(part, nn.ModuleList) and len(part) == len(FEATURES)]
        assert own, "no module list with one entry for each modality"
        for entries in own:
            reordered = [entries[number] for number in order]
            for number, entry in enumerate(reordered):
                entries[number] = entry
        moved = torch.cat([*(features[number] for number in order), first, second], -1)
        permuted = self.numbers(self.run(module, moved, mask[:, order]))
        torch.testing.assert_close(permuted, as_is, rtol=1e-10, atol=1e-10)

    def test_each_sample_and_each_draw_by_itself(self) -> None:
        """A batch with several shared draws gives what each sample and each draw give alone."""
        module, mask = self.module().double().eval(), all_subsets(len(FEATURES))
        *features, first, second = self.inputs(torch.float64).split((*FEATURES, SHARED, SHARED), -1)
        z = torch.stack([first, second])
        together = self.numbers(module(features, z, mask))
        for draw in range(2):
            for row in range(8):
                one = slice(row, row + 1)
                alone = self.numbers(module([part[one] for part in features], z[draw : draw + 1, one], mask[one]))
                torch.testing.assert_close(alone[0], together[draw, one], rtol=1e-10, atol=1e-10)
