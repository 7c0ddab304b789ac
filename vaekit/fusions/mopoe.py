"""The mixture of the products of experts of all subsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor

from vaekit.distributions import ExpertMixture, choose_between
from vaekit.errors import VaekitError
from vaekit.fusions.base import ExpertFusion, MakePosterior
from vaekit.fusions.poe import gaussian_product
from vaekit.registry import fusions

__all__ = ["MixtureOfProducts", "PriorExpert"]

Distribution = torch.distributions.Distribution

PriorExpert: TypeAlias = Literal["none", "full", "all"]

#: 1,023 products; each modality more doubles them.
_MOST = 10


@fusions.register(
    "mopoe",
    about="Uniform mixture of the products of Gaussian experts over all subsets of what is there",
    source="Sutter, Daunhawer and Vogt, Generalized Multimodal ELBO, 2021, arXiv 2105.02470",
    needs=("10 modalities at most",),
    only_with={"posteriors": ("gaussian",), "priors": ("standard_normal", "gaussian")},
)
class MixtureOfProducts(ExpertFusion):
    r"""The uniform mixture of the products of experts over the non-empty subsets of S:

    $$q(z\mid x_S)=\frac1{2^{|S|}-1}\sum_{\emptyset\ne A\subseteq S}q_A(z),\qquad
    q_A(z)\propto[p(z)]\prod_{m\in A}q_m(z\mid x_m).$$

    For no modality it is the prior.

    References:
        Generalized Multimodal ELBO, Sutter, Daunhawer and Vogt, 2021, arXiv 2105.02470.

    Arguments:
        features: The numbers of features that the encoders give, 10 at most.
        latent_dim: The number D of latent dimensions.
        posterior: Builds an expert from a number of features; Gaussian.
        prior_expert: Which products the prior is a factor of: `"none"`, so that the product of one expert is that
            expert; `"full"`, that of all M modalities alone, as in the published code; or `"all"`.
        stratified: Whether an objective's draw is one of every product, weighted, instead of one of a product chosen at
            random: less noise for 2^M - 1 decoder passes instead of one.

    Raises:
        VaekitError: There are more than 10 modalities; in `fuse`, the experts or the prior are not Gaussian.

    Examples:
        >>> from vaekit.posteriors import Gaussian
        >>> from vaekit.priors import StandardNormal
        >>> fusion = MixtureOfProducts([4, 6], 2, lambda features: Gaussian(features, 2))
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> fusion([torch.ones(2, 4), torch.ones(2, 6)], mask, StandardNormal(2)()).mask.int().tolist()
        [[1, 1, 1], [1, 0, 0]]
    """

    subsets: Tensor

    def __init__(
        self,
        features: Sequence[int],
        latent_dim: int,
        posterior: MakePosterior,
        *,
        prior_expert: PriorExpert = "none",
        stratified: bool = False,
    ) -> None:
        super().__init__(features, latent_dim, posterior)
        count = len(self.features)
        if count > _MOST:
            raise VaekitError(
                f"the fusion 'mopoe' joins {_MOST} modalities at most, because it has a product for every subset of "
                f"them, not {count}: use 'poe' or 'moe'"
            )
        self.prior_expert = prior_expert
        self.stratified = stratified
        subsets = (torch.arange(1, 2**count).unsqueeze(-1) >> torch.arange(count)) % 2 == 1
        self.register_buffer("subsets", subsets, persistent=False)

    def fuse(self, embedded: Distribution, mask: Tensor, prior: Distribution) -> Distribution:
        """Return the mixture of the products over the subsets of what the mask lets through."""
        # The products are the same for every mask; a mask says which of them count.
        chosen = self.subsets.unsqueeze(1).expand(-1, embedded.batch_shape[0], -1)
        with_prior = {
            "none": torch.zeros_like(self.subsets[:, 0]),
            "full": self.subsets.all(-1),
            "all": torch.ones_like(self.subsets[:, 0]),
        }[self.prior_expert]
        product = gaussian_product(embedded, chosen, prior, with_prior.unsqueeze(-1), "the fusion 'mopoe'")
        loc, scale = (part.movedim(0, -2) for part in product)
        products = dist.Normal(loc, scale, validate_args=False).to_event(1)
        within = (mask.unsqueeze(-2) | ~self.subsets).all(-1)
        some = mask.any(-1, keepdim=True)
        return ExpertMixture(choose_between(some, products, prior), within, self.stratified, validate_args=False)

    def extra_repr(self) -> str:
        """Show the options."""
        return f"prior_expert={self.prior_expert!r}, stratified={self.stratified}"
