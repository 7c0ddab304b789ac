"""The product of Gaussian experts."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.fusions.base import ExpertFusion, MakePosterior, gaussian_parameters
from vaekit.registry import fusions

__all__ = ["ProductOfExperts", "gaussian_product"]

Distribution = torch.distributions.Distribution


@fusions.register(
    "poe",
    about="Product of Gaussian experts, with or without the prior as one of them",
    source="Wu and Goodman, Multimodal Generative Models for Scalable Weakly-Supervised Learning, 2018, "
    "arXiv 1802.05335",
    only_with={"posteriors": ("gaussian",), "priors": ("standard_normal", "gaussian")},
)
class ProductOfExperts(ExpertFusion):
    r"""The product of the experts in S, a Gaussian whose precision is the sum of theirs:

    $$q(z\mid x_S)\propto[p(z)]\prod_{m\in S}q_m(z\mid x_m),\qquad
    \frac1v=\Bigl[\frac1{v_0}\Bigr]+\sum_{m\in S}\frac1{v_m},\quad
    \mu=v\Bigl(\Bigl[\frac{\mu_0}{v_0}\Bigr]+\sum_{m\in S}\frac{\mu_m}{v_m}\Bigr).$$

    For no modality it is the prior, with the prior expert or without.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning, Wu and Goodman, 2018, arXiv 1802.05335.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of latent dimensions.
        posterior: Builds an expert from a number of features; Gaussian.
        prior_expert: Whether the prior is one of the experts.

    Raises:
        VaekitError: In `fuse`, the experts or the prior are not Gaussian.

    Examples:
        >>> from vaekit.posteriors import Gaussian
        >>> from vaekit.priors import StandardNormal
        >>> fusion = ProductOfExperts([4, 6], 2, lambda features: Gaussian(features, 2))
        >>> mask = torch.tensor([[True, True], [True, False], [False, False]])
        >>> q = fusion([torch.ones(3, 4), torch.ones(3, 6)], mask, StandardNormal(2)())
        >>> q.batch_shape, q.mean[2].tolist()
        (torch.Size([3]), [0.0, 0.0])
    """

    def __init__(
        self, features: Sequence[int], latent_dim: int, posterior: MakePosterior, *, prior_expert: bool = True
    ) -> None:
        super().__init__(features, latent_dim, posterior)
        self.prior_expert = prior_expert

    def fuse(self, embedded: Distribution, mask: Tensor, prior: Distribution) -> Distribution:
        """Return the product of the experts that the mask lets through."""
        alone = torch.ones_like(mask[..., 0]) if self.prior_expert else ~mask.any(-1)
        loc, scale = gaussian_product(embedded, mask, prior, alone, "the fusion 'poe'")
        return dist.Normal(loc, scale, validate_args=False).to_event(1)

    def extra_repr(self) -> str:
        """Show the option."""
        return f"prior_expert={self.prior_expert}"


def gaussian_product(
    experts: Distribution, chosen: Tensor, prior: Distribution, with_prior: Tensor, what: str
) -> tuple[Tensor, Tensor]:
    """Return location and scale of products of Gaussian experts, each of shape (..., B, D).

    Arguments:
        experts: The experts, `batch_shape (B, M)`.
        chosen: Which of them are in each product, bool of shape (..., B, M).
        prior: p(z).
        with_prior: Whether the prior is a factor too, bool of shape (..., B); it must be where no expert is chosen.
        what: What needs Gaussians, for the message.

    Raises:
        VaekitError: The experts or the prior are not Gaussian.

    Examples:
        >>> experts = dist.Normal(torch.tensor([[[0.0], [3.0]]]), torch.ones(1, 2, 1)).to_event(1)
        >>> prior = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        >>> loc, scale = gaussian_product(experts, torch.ones(1, 2).bool(), prior, torch.tensor([True]), "this")
        >>> loc, scale.square()
        (tensor([[1.]]), tensor([[0.3333]]))
    """
    loc, scale = gaussian_parameters(experts, what)
    prior_loc, prior_scale = gaussian_parameters(prior, what)
    precision = scale.pow(-2)
    # As a product of matrices: many subsets cost no copies of the experts. One that is not chosen gets weight 0.
    weights = chosen.to(loc.dtype)
    total = torch.einsum("...bm,bmd->...bd", weights, precision)
    weighted = torch.einsum("...bm,bmd->...bd", weights, precision * loc)
    prior_precision = with_prior.unsqueeze(-1) * prior_scale.pow(-2)
    total, weighted = total + prior_precision, weighted + prior_precision * prior_loc
    return weighted / total, total.rsqrt()
