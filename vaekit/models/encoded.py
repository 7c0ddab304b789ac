"""One multimodal batch, encoded: where the posteriors of every subset of the modalities come from.

Shapes: S draws, B samples, M modalities, D latent dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vaekit.distributions import choose_between
from vaekit.errors import VaekitError
from vaekit.fusions.base import Fusion
from vaekit.models.subset import SubsetPosterior
from vaekit.precision import without_autocast

if TYPE_CHECKING:
    from vaekit.models.multimodal import MultimodalVAE

__all__ = ["Encoded"]

Distribution = torch.distributions.Distribution


class Encoded:
    """One batch, encoded: the posteriors of every subset of its modalities come from here.

    Arguments:
        model: The model.
        embedded: What the fusion's `embed` gave, or the experts where there is no fusion.
        private: What the private fusion's `embed` gave, where there is one.
        prior: p(z).
        available: Which modalities are there, (B, M).
    """

    def __init__(
        self, model: MultimodalVAE, embedded: Any, private: Any, prior: Distribution, available: Tensor
    ) -> None:
        self._model, self._embedded, self._private = model, embedded, private
        self.prior_of_shared = prior
        self.available = available

    @property
    def prior(self) -> SubsetPosterior:
        """The prior of all latents."""
        model = self._model
        return SubsetPosterior(
            self.prior_of_shared, None if model.private is None else lambda z: model.private_prior(z)
        )

    def fuse(self, mask: Tensor) -> Distribution:
        """Return q(z|x_S) of the shared latent for masks (..., B, M): `batch_shape (..., B)`.

        Raises:
            VaekitError: The model has no fusion.
        """
        fusion = self._model.fusion
        if not isinstance(fusion, Fusion):
            raise VaekitError(
                "this model has a latent for each modality and no fusion: use the objective 'independent' or 'mmvm', "
                "or give the model a fusion"
            )
        with without_autocast(mask.device):
            return fusion.fuse(self._embedded, mask & self.available, self.prior_of_shared)

    def posterior(self, mask: Tensor | None = None) -> SubsetPosterior:
        """Return the law of all latents given the modalities of a mask (B, M), all available ones by default.

        The private latent of a modality that is not in the subset has its prior.
        """
        chosen = self.available if mask is None else mask & self.available
        model, private = self._model, self._model.private
        if private is None:
            return SubsetPosterior(self.fuse(chosen))

        def of_private(z: Tensor) -> Distribution:
            with without_autocast(z.device):
                return choose_between(chosen, private.fuse(self._private, z, chosen), model.private_prior(z))

        return SubsetPosterior(self.fuse(chosen), of_private)

    @property
    def experts(self) -> Distribution:
        """The posterior of each modality alone: `batch_shape (B, M)`.

        Raises:
            VaekitError: The fusion has no experts.
        """
        if not isinstance(self._embedded, Distribution):
            raise VaekitError(
                f"the fusion {type(self._model.fusion).__name__} has no posterior for each modality: use 'poe', 'moe', "
                "'mopoe' or 'average'"
            )
        return self._embedded
