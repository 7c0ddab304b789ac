"""The Gaussian with the experts' mean moments."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.fusions.base import ExpertFusion, gaussian_parameters
from vaekit.registry import fusions

__all__ = ["Average"]

Distribution = torch.distributions.Distribution


@fusions.register(
    "average",
    about="A Gaussian with the mean of the experts' means and the mean of their variances",
    source="Sutter et al., Unity by Diversity: Improved Representation Learning in Multimodal VAEs, 2024, "
    "arXiv 2403.05300 (a baseline there)",
    only_with={"posteriors": ("gaussian",), "priors": ("standard_normal", "gaussian")},
)
class Average(ExpertFusion):
    r"""The Gaussian that has the averages of the parameters of the experts in S:

    $$q(z\mid x_S)=\mathcal N\Bigl(\frac1{|S|}\sum_{m\in S}\mu_m,\ \frac1{|S|}\sum_{m\in S}\sigma_m^2\Bigr).$$

    It is not the mixture of the experts: how far apart their means lie does not widen it. For no modality it is the
    prior.

    References:
        Unity by Diversity: Improved Representation Learning in Multimodal VAEs, Sutter et al., 2024, arXiv 2403.05300.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of latent dimensions.
        posterior: Builds an expert from a number of features; Gaussian.

    Raises:
        VaekitError: In `fuse`, the experts or the prior are not Gaussian.

    Examples:
        >>> from vaekit.posteriors import Gaussian
        >>> from vaekit.priors import StandardNormal
        >>> fusion = Average([4, 6], 2, lambda features: Gaussian(features, 2))
        >>> mask = torch.tensor([[True, True], [True, False], [False, False]])
        >>> q = fusion([torch.ones(3, 4), torch.ones(3, 6)], mask, StandardNormal(2)())
        >>> q.batch_shape, q.variance[2].tolist()
        (torch.Size([3]), [1.0, 1.0])
    """

    def fuse(self, embedded: Distribution, mask: Tensor, prior: Distribution) -> Distribution:
        """Return the Gaussian with the averages over the experts that the mask lets through."""
        loc, scale = gaussian_parameters(embedded, "the fusion 'average'")
        prior_loc, prior_scale = gaussian_parameters(prior, "the fusion 'average'")
        chosen = mask.to(loc.dtype)
        shares = chosen / chosen.sum(-1, keepdim=True).clamp_min(1.0)
        nothing = ~mask.any(-1, keepdim=True)
        # The prior is added to the variance, not chosen after the root, whose gradient at 0 is infinite.
        mean = torch.einsum("...bm,bmd->...bd", shares, loc) + nothing * prior_loc
        variance = torch.einsum("...bm,bmd->...bd", shares, scale.square()) + nothing * prior_scale.square()
        return dist.Normal(mean, variance.sqrt(), validate_args=False).to_event(1)
