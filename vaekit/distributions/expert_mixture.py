"""The uniform mixture of those experts that a mask lets through."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from vaekit.distributions.draws import Draws
from vaekit.distributions.kl import kl_divergence
from vaekit.distributions.stacking import Family, location_scale
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32

__all__ = ["ExpertMixture"]


class ExpertMixture(TorchDistribution):
    r"""Uniform mixture of the Gaussian or Laplace components that a mask lets through,

    $$q(z)=\frac1{|A|}\sum_{k\in A}q_k(z).$$

    Where the mask lets nothing through, all components count: a choice among none must be ruled out by whoever makes
    the mask, and whatever stands here has to be finite.

    `rsample` chooses a component at random and reparameterises within it. Its gradient is unbiased, because the weights
    $1/|A|$ are constants: $\nabla\mathbb E_q[f]=\frac1{|A|}\sum_{k\in A}\nabla\mathbb E_{q_k}[f]$, and the choice adds
    nothing. (`GaussianMixture` has weights to be learned, and there that is not so.) `draws` can be `stratified`
    instead: one draw of every component, weighted by $1/|A|$, or by 0 where it is masked out. That leaves no noise of
    the choice and costs K decoder passes.

    Source: Shi, Siddharth, Paige and Torr, Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative
    Models, 2019, arXiv 1911.03393 (the mixture, and stratified draws).

    Arguments:
        components: Independent Gaussian or Laplace dimensions, `batch_shape (..., K)`, `event_shape (D,)`.
        mask: Which components are in A, bool of shape (..., K); batch shapes are broadcast.
        stratified: Whether `draws` takes every component in turn.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: The components are of another family, or their number is not the mask's.

    Examples:
        >>> from pyro.distributions import Normal
        >>> components = Normal(torch.tensor([[-1.0], [1.0], [9.0]]), torch.ones(3, 1)).to_event(1)
        >>> q = ExpertMixture(components, torch.tensor([True, True, False]))
        >>> q.mean, q.variance
        (tensor([0.]), tensor([2.]))
        >>> [tuple(part.shape) for part in ExpertMixture(components, q.mask, stratified=True).draws(2)]
        [(6, 1), (6,)]
    """

    arg_constraints = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
        "mask": constraints.independent(constraints.boolean, 1),
    }
    support = constraints.real_vector
    has_rsample = True
    family: Family

    def __init__(
        self, components: Distribution, mask: Tensor, stratified: bool = False, validate_args: bool | None = None
    ) -> None:
        self.family, loc, scale = location_scale(components)
        self.loc, self.scale = at_least_float32(loc), at_least_float32(scale)
        if components.batch_shape[-1:] != mask.shape[-1:] or not mask.shape:
            raise VaekitError(
                f"a mask of shape {tuple(mask.shape)} does not say which of the components of batch shape "
                f"{tuple(components.batch_shape)} are in the mixture: end both with the same number"
            )
        batch_shape = torch.broadcast_shapes(components.batch_shape, mask.shape)[:-1]
        # The components keep their own shape: many masks cost no copies of them.
        self.mask = (mask | ~mask.any(-1, keepdim=True)).expand(*batch_shape, mask.shape[-1])
        self.stratified = stratified
        super().__init__(batch_shape, components.event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"ExpertMixture({self.family.__name__}, components={self.mask.shape[-1]}, {shapes})"

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExpertMixture:
        """Return the same mixture, expanded to a larger batch shape."""
        new = self._get_checked_instance(ExpertMixture, _instance)
        batch_shape = Size(batch_shape)
        new.family, new.loc, new.scale, new.stratified = self.family, self.loc, self.scale, self.stratified
        new.mask = self.mask.expand(batch_shape + self.mask.shape[-1:])
        super(ExpertMixture, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def component_probs(self) -> Tensor:
        """The weights, shape (..., K): constants."""
        chosen = self.mask.to(self.loc.dtype)
        return chosen / chosen.sum(-1, keepdim=True)

    @property
    def mean(self) -> Tensor:
        """The mean, shape (..., D)."""
        return torch.einsum("...k,...kd->...d", self.component_probs, self.loc)

    @property
    def variance(self) -> Tensor:
        """The variance of each dimension, within plus between the components, shape (..., D)."""
        within = self.family(self.loc, self.scale, validate_args=False).variance
        between = (self.loc - self.mean.unsqueeze(-2)).square()
        return (self.component_probs.unsqueeze(-1) * (within + between)).sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value) for values (..., D), shape (...), by logsumexp over the components."""
        if self._validate_args:
            self._validate_sample(value)
        standard = (at_least_float32(value).unsqueeze(-2) - self.loc) / self.scale
        # By hand: half as many tensors of all draws, components and dimensions as the components' own densities make.
        gaussian = self.family is Normal
        distance = 0.5 * standard.square().sum(-1) if gaussian else standard.abs().sum(-1)
        constant = self.event_shape[0] * (0.5 * math.log(2.0 * math.pi) if gaussian else math.log(2.0))
        densities = -distance - self.scale.log().sum(-1) - constant
        # Never all of them: one component or more is let through, so that sum and gradient are finite.
        among = torch.where(self.mask, densities, -math.inf).logsumexp(-1)
        return among - self.mask.sum(-1).to(among.dtype).log()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return draws of components chosen at random, reparameterised, shape sample_shape + (..., D)."""
        race = torch.rand(Size(sample_shape) + self.mask.shape, dtype=self.loc.dtype, device=self.loc.device)
        chosen = race.masked_fill(~self.mask, -1.0).argmax(-1)
        # Location and scale are looked up before noise is drawn: K times less of it.
        first = torch.arange(0, self.loc.shape[:-1].numel(), self.mask.shape[-1], device=chosen.device)
        rows = (chosen + first.view(self.loc.shape[:-2])).flatten()
        shape = Size((*chosen.shape, *self.event_shape))
        loc, scale = (part.flatten(0, -2).index_select(0, rows).view(shape) for part in (self.loc, self.scale))
        z: Tensor = self.family(loc, scale, validate_args=False).rsample()
        return z

    def draws(self, count: int) -> Draws:
        """Return weighted draws: z (S, ..., D) and weights (S, ...).

        S is `count * K` where draws are stratified (component after component within each of the `count` rounds),
        else `count`.

        Raises:
            VaekitError: `count` is not positive.
        """
        if count < 1:
            raise VaekitError(f"the number of draws must be 1 or more, not {count}")
        if not self.stratified:
            z = self.rsample((count,))
            return Draws(z, z.new_full(z.shape[:-1], 1.0 / count))
        z = self._by_component().rsample((count,))
        weights = self.component_probs.movedim(-1, 0).expand(z.shape[:-1]) / count
        return Draws(z.flatten(0, 1), weights.flatten(0, 1))

    def component_kl(self, p: Distribution) -> Tensor:
        r"""Return $\frac1{|A|}\sum_{k\in A}\mathrm{KL}(q_k\,\|\,p)$ in nats, shape (...).

        As the KL is convex it is an upper bound of KL(q || p); they differ by what the components tell of one another,
        log |A| at most.

        Source: Sutter, Daunhawer and Vogt, Generalized Multimodal ELBO, 2021, arXiv 2105.02470.

        Arguments:
            p: A distribution with `batch_shape ()` or that of q, and the same `event_shape`.

        Raises:
            VaekitError: As in `kl_divergence`.
        """
        kl = kl_divergence(self._by_component(), p).movedim(0, -1)
        return (self.component_probs * kl).sum(-1)

    def _by_component(self) -> Distribution:
        """Return the components with K in front of the batch."""
        shape = (*self.mask.shape, *self.event_shape)
        loc, scale = (part.expand(shape).movedim(-2, 0) for part in (self.loc, self.scale))
        return self.family(loc, scale, validate_args=False).to_event(1)
