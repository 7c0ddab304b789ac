"""The mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekit.distributions import ExpertMixture, choose_between
from vaekit.fusions.base import ExpertFusion, MakePosterior
from vaekit.registry import fusions

__all__ = ["MixtureOfExperts"]

Distribution = torch.distributions.Distribution


@fusions.register(
    "moe",
    about="Uniform mixture of Gaussian or Laplace experts",
    source="Shi, Siddharth, Paige and Torr, Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep "
    "Generative Models, 2019, arXiv 1911.03393",
    only_with={"posteriors": ("gaussian", "laplace"), "priors": ("standard_normal", "gaussian", "laplace")},
)
class MixtureOfExperts(ExpertFusion):
    r"""The uniform mixture of the experts in S:

    $$q(z\mid x_S)=\frac1{|S|}\sum_{m\in S}q_m(z\mid x_m).$$

    For no modality it is the prior, which must be of the experts' family: Laplace with Laplace, Gaussian with Gaussian.

    References:
        Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models, Shi, Siddharth, Paige and
        Torr, 2019, arXiv 1911.03393.

    Arguments:
        features: The numbers of features that the encoders give.
        latent_dim: The number D of latent dimensions.
        posterior: Builds an expert from a number of features; Gaussian or Laplace.
        stratified: Whether an objective's draw is one of every expert, weighted, instead of one of an expert chosen at
            random: less noise for M decoder passes instead of one.

    Raises:
        VaekitError: In `fuse`, experts and prior are not of one family.

    Examples:
        >>> from vaekit.posteriors import Laplace
        >>> from vaekit.priors import Laplace as LaplacePrior
        >>> fusion = MixtureOfExperts([4, 6], 2, lambda features: Laplace(features, 2), stratified=True)
        >>> mask = torch.tensor([[True, True], [True, False], [False, False]])
        >>> fusion([torch.ones(3, 4), torch.ones(3, 6)], mask, LaplacePrior(2)()).draws(1).weights.T.tolist()
        [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]
    """

    def __init__(
        self, features: Sequence[int], latent_dim: int, posterior: MakePosterior, *, stratified: bool = False
    ) -> None:
        super().__init__(features, latent_dim, posterior)
        self.stratified = stratified

    def fuse(self, embedded: Distribution, mask: Tensor, prior: Distribution) -> Distribution:
        """Return the mixture of the experts that the mask lets through."""
        some = mask.any(-1, keepdim=True)
        # In place of the experts, not beside them: a stratified draw then costs no pass more.
        return ExpertMixture(choose_between(some, embedded, prior), mask, self.stratified, validate_args=False)

    def extra_repr(self) -> str:
        """Show the option."""
        return f"stratified={self.stratified}"
