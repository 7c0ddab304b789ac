"""The product of Gaussian experts."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.fusions.base import ExpertFusion, MakePosterior, gaussian_parameters
from vaekit.registry import fusions

__all__ = ["ProductOfExperts"]

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
        loc, scale = gaussian_parameters(embedded, "the fusion 'poe'")
        prior_loc, prior_scale = gaussian_parameters(prior, "the fusion 'poe'")
        precision = scale.pow(-2)
        # As a product of matrices: many subsets cost no copies of the experts. One that is masked out gets weight 0.
        chosen = mask.to(loc.dtype)
        total = torch.einsum("...bm,bmd->...bd", chosen, precision)
        weighted = torch.einsum("...bm,bmd->...bd", chosen, precision * loc)
        alone = torch.ones_like(mask[..., 0]) if self.prior_expert else ~mask.any(-1)
        prior_precision = alone.unsqueeze(-1) * prior_scale.pow(-2)
        total, weighted = total + prior_precision, weighted + prior_precision * prior_loc
        return dist.Normal(weighted / total, total.rsqrt(), validate_args=False).to_event(1)

    def extra_repr(self) -> str:
        """Show the option."""
        return f"prior_expert={self.prior_expert}"
