"""Gaussian mixtures that can be a posterior: draws with gradients for every parameter, the weights included."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from vaekit.distributions.draws import Draws, exponentials
from vaekit.distributions.pathwise import Pathwise, choose
from vaekit.errors import VaekitError, suggest
from vaekit.precision import at_least_float32

__all__ = ["Estimator", "GaussianMixture", "as_mixture"]

Estimator: TypeAlias = Literal["stratified", "pathwise", "score", "gumbel"]

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class GaussianMixture(TorchDistribution):
    r"""Mixture of K diagonal Gaussians in D dimensions, differentiable in weights, locations and scales.

    $$q(z) = \sum_k \pi_k \prod_d N(z_d; \mu_{kd}, \sigma_{kd}^2), \qquad \pi = \mathrm{softmax}(l)$$

    `rsample` is a pathwise draw: it differentiates through the velocity fields that solve the continuity equation of
    q, in float32 too. `draws` gives the weighted draws of the chosen estimator, which is what an objective should use:

    | estimator | draws | weights | gradient of the logits |
    |---|---|---|---|
    | `stratified` | one (or `count`) from every component | $\pi_k / n$ | through the weights |
    | `pathwise` | `count` of the mixture | $1 / n$ | transport of mass between components |
    | `score` | `count` of the mixture | $1 / n$ in value | score function, leave-one-out baseline in the weights |
    | `gumbel` | `count`, blends of a draw of every component | $1 / n$ | through the blend; biased, for comparison |

    A `gumbel` draw is $\sum_ky_k(\mu_k+\sigma_k\varepsilon_k)$ with $y=\mathrm{softmax}((l+g)/\tau)$ and Gumbel
    noise g: it has not the law of q, and tends to it as the temperature τ tends to 0. `log_prob` and `rsample` stay
    those of q.

    Sources: Jankowiak and Obermeyer, Pathwise Derivatives Beyond the Reparameterization Trick, 2018, arXiv 1806.01851;
    Jankowiak and Karaletsos, Pathwise Derivatives for Multivariate Distributions, 2019, arXiv 1806.01856;
    Kool, van Hoof and Welling, Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019 (the leave-one-out baseline);
    Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, 2016, arXiv 1611.01144;
    Maddison, Mnih and Teh, The Concrete Distribution, 2016, arXiv 1611.00712.

    Arguments:
        logits: Unnormalised log-weights l, shape (..., K).
        loc: Locations of the components, shape (..., K, D).
        scale: Standard deviations of the components, shape (..., K, D), positive.
        estimator: What `draws` gives: `"stratified"`, `"pathwise"`, `"score"` or `"gumbel"`.
        temperature: τ of `"gumbel"`, positive; the others do not use it.
        validate_args: Check parameters and values at run time (this waits for the device).

    Raises:
        VaekitError: The shapes do not fit together, the estimator is unknown, or the temperature is not positive.

    Examples:
        >>> q = GaussianMixture(torch.zeros(8, 3), torch.randn(8, 3, 5), torch.ones(8, 3, 5))
        >>> q.batch_shape, q.event_shape, q.log_prob(q.sample()).shape
        (torch.Size([8]), torch.Size([5]), torch.Size([8]))
        >>> z, weights = q.draws(2)
        >>> z.shape, weights.shape
        (torch.Size([6, 8, 5]), torch.Size([6, 8]))
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        estimator: Estimator = "stratified",
        temperature: float = 0.5,
        validate_args: bool | None = None,
    ) -> None:
        if estimator not in get_args(Estimator):
            raise VaekitError(f"unknown mixture estimator '{estimator}': {suggest(estimator, get_args(Estimator))}")
        if not temperature > 0.0:
            raise VaekitError(f"the temperature of a relaxed choice must be above 0, not {temperature:g}")
        logits, loc, scale = at_least_float32(logits), at_least_float32(loc), at_least_float32(scale)
        if not logits.shape + loc.shape[-1:] == loc.shape == scale.shape:
            logits, loc, scale = _broadcast(logits, loc, scale)
        self.estimator, self.temperature = estimator, temperature
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args=validate_args)

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"GaussianMixture(components={self.components}, {shapes}, estimator={self.estimator!r})"

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianMixture:
        """Return the same mixture with its parameters expanded to a larger batch shape."""
        new = self._get_checked_instance(GaussianMixture, _instance)
        batch_shape = Size(batch_shape)
        new.estimator, new.temperature = self.estimator, self.temperature
        new.logits = self.logits.expand(batch_shape + self.logits.shape[-1:])
        new.loc = self.loc.expand(batch_shape + self.loc.shape[-2:])
        new.scale = self.scale.expand(batch_shape + self.scale.shape[-2:])
        super(GaussianMixture, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def components(self) -> int:
        """The number K of components."""
        return self.logits.shape[-1]

    @property
    def log_probs(self) -> Tensor:
        """The normalised log-weights, shape (..., K)."""
        return self.logits.log_softmax(-1)

    @property
    def component_probs(self) -> Tensor:
        """The weights, shape (..., K)."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The mean, shape (..., D)."""
        return (self.component_probs.unsqueeze(-1) * self.loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each dimension, within plus between the components, shape (..., D)."""
        between = self.loc - self.mean.unsqueeze(-2)
        return (self.component_probs.unsqueeze(-1) * (self.scale.square() + between.square())).sum(-2)

    def entropy_bounds(self) -> tuple[Tensor, Tensor]:
        r"""Return a lower and an upper bound of the entropy in nats, each of shape (...).

        $\sum_k \pi_k H(N_k) \le H(q) \le \min\{\sum_k \pi_k H(N_k) + H(\pi),\; H(N(m, v))\}$
        with m and v the mean and the variances of q.

        Examples:
            >>> low, high = GaussianMixture(torch.zeros(2), torch.zeros(2, 1), torch.ones(2, 1)).entropy_bounds()
            >>> torch.allclose(low, high)
            True
        """
        constant = self.event_shape[0] * (_HALF_LOG_2PI + 0.5)
        lower = (self.component_probs * self.scale.log().sum(-1)).sum(-1) + constant
        of_weights = -(self.component_probs * self.log_probs).sum(-1)
        matched = 0.5 * self.variance.log().sum(-1) + constant
        return lower, torch.minimum(lower + of_weights, matched)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(value) for values (..., D), shape (...), by logsumexp over the components."""
        if self._validate_args:
            self._validate_sample(value)
        standard = (at_least_float32(value).unsqueeze(-2) - self.loc) / self.scale
        densities = -0.5 * standard.square().sum(-1) - self.scale.log().sum(-1) - self.loc.shape[-1] * _HALF_LOG_2PI
        return (self.log_probs + densities).logsumexp(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Return pathwise draws, shape sample_shape + (..., D), with gradients for logits, loc and scale."""
        sample_shape = Size(sample_shape)
        if self.components == 1:
            return self._chosen(None, sample_shape)
        return Pathwise.apply(self.logits, self.loc, self.scale, sample_shape)

    def draws(self, count: int) -> Draws:
        """Return weighted draws by the chosen estimator: z (S, ..., D) and weights (S, ...).

        S is `count * K` for `stratified` (component after component within each of the `count` rounds), else `count`.

        Raises:
            VaekitError: `count` is not positive.
        """
        if count < 1:
            raise VaekitError(f"the number of draws must be 1 or more, not {count}")
        if self.estimator == "stratified":
            shape = (count, self.components, *self.batch_shape, *self.event_shape)
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            z = self.loc.movedim(-2, 0) + self.scale.movedim(-2, 0) * noise
            weights = self.component_probs.movedim(-1, 0).expand(noise.shape[:-1]) / count
            return Draws(z.flatten(0, 1), weights.flatten(0, 1))
        if self.estimator in ("pathwise", "gumbel") or self.components == 1:
            blends = self.estimator == "gumbel" and self.components > 1
            z = self._blended(count) if blends else self.rsample((count,))
            return Draws(z, z.new_full(z.shape[:-1], 1.0 / count))
        chosen = choose(self.log_probs.detach(), Size((count,)))
        z = self._chosen(chosen, Size((count,)))
        log_prob = self.log_probs.expand(count, *self.logits.shape).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        score = log_prob - log_prob.detach()
        if count > 1:
            score = score - (score.sum(0) - score) / (count - 1)
        return Draws(z, (1.0 + score) / count)

    def _blended(self, count: int) -> Tensor:
        """Return draws of every component, blended by a relaxed choice among them."""
        race = -exponentials((count, *self.logits.shape), self.loc).log_()
        blend = ((self.log_probs + race) / self.temperature).softmax(-1).unsqueeze(-1)
        noise = torch.randn(count, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        return (blend * (self.loc + self.scale * noise)).sum(-2)

    def _chosen(self, chosen: Tensor | None, sample_shape: Size) -> Tensor:
        """Return reparameterised draws of the chosen components (of the only one, for None)."""
        if chosen is None:
            loc, scale = self.loc[..., 0, :], self.scale[..., 0, :]
        else:
            index = chosen[..., None, None].expand(*chosen.shape, 1, *self.event_shape)
            loc = self.loc.expand(*sample_shape, *self.loc.shape).gather(-2, index).squeeze(-2)
            scale = self.scale.expand(*sample_shape, *self.scale.shape).gather(-2, index).squeeze(-2)
        shape = sample_shape + self.batch_shape + self.event_shape
        return loc + scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)


def _broadcast(logits: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Expand the parameters to one batch shape, or raise VaekitError."""
    try:
        shape = torch.broadcast_shapes((*logits.shape, 1), loc.shape, scale.shape)
    except RuntimeError:
        shape = Size()
    if loc.dim() < 2 or shape[-2:] != loc.shape[-2:]:
        raise VaekitError(
            "a Gaussian mixture needs logits (..., K), loc (..., K, D) and scale (..., K, D), "
            f"not {tuple(logits.shape)}, {tuple(loc.shape)} and {tuple(scale.shape)}"
        )
    return logits.expand(shape[:-1]), loc.expand(shape), scale.expand(shape)


def as_mixture(q: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """View a diagonal Gaussian or a `GaussianMixture` as the parameters of a mixture.

    Arguments:
        q: `Independent(Normal)` with one event dimension (torch's or Pyro's), or `GaussianMixture`.

    Returns:
        Normalised log-weights (..., K), locations (..., K, D) and scales (..., K, D), in float32 at least.

    Raises:
        VaekitError: `q` is anything else.

    Examples:
        >>> log_probs, loc, scale = as_mixture(Independent(Normal(torch.zeros(8, 5), 1.0), 1))
        >>> log_probs.shape, loc.shape, scale.shape
        (torch.Size([8, 1]), torch.Size([8, 1, 5]), torch.Size([8, 1, 5]))
    """
    if isinstance(q, GaussianMixture):
        return q.log_probs, q.loc, q.scale
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal) and len(q.event_shape) == 1:
        loc, scale = at_least_float32(q.base_dist.loc), at_least_float32(q.base_dist.scale)
        return loc.new_zeros(*q.batch_shape, 1), loc.unsqueeze(-2), scale.unsqueeze(-2)
    raise VaekitError(
        f"a Gaussian or a Gaussian mixture is needed here, not {type(q).__name__}; "
        "use the posterior 'gaussian' or 'gmm', or another regularizer"
    )
