"""The contracts of a fusion: one posterior for every subset of the modalities.

Shapes: B samples, M modalities, D latent dimensions, F_m features of modality m; a mask is bool of shape (..., B, M),
so that many subsets of one batch are fused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit.distributions import location_scale, stack
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32, without_autocast

__all__ = ["ExpertFusion", "Experts", "Fusion", "PrivateFusion", "gaussian_parameters"]

Distribution = torch.distributions.Distribution

#: Builds a posterior module from a number of features; its module maps (features, prior) to a distribution.
MakePosterior = Callable[[int], nn.Module]


class Fusion(nn.Module):
    r"""Turns the features of every modality and a mask into $q(z\mid x_S)$, for every subset S, the empty one too.

    It works in two steps, so that the features of a batch are used once however many subsets are asked for: `embed`
    is what each modality says by itself, `fuse` joins what a mask lets through. Nothing depends on the values of what
    is masked out. A subclass takes `(features, latent_dim, posterior)` by position and its options as keywords.

    Arguments:
        features: The numbers F_m of features that the encoders give, in the order of the modalities.
        latent_dim: The number D of latent dimensions.
        posterior: Builds a posterior from a number of features.
    """

    def __init__(self, features: Sequence[int], latent_dim: int, posterior: MakePosterior) -> None:
        super().__init__()
        self.features = tuple(features)
        self.latent_dim = latent_dim

    def embed(self, features: Sequence[Tensor], prior: Distribution) -> Any:
        """Return what each modality says by itself, for `fuse`.

        Arguments:
            features: One tensor (B, F_m) for each modality.
            prior: p(z).
        """
        raise NotImplementedError

    def fuse(self, embedded: Any, mask: Tensor, prior: Distribution) -> Distribution:
        """Return q(z|x_S): `batch_shape (..., B)`, `event_shape (D,)`.

        Arguments:
            embedded: What `embed` gave.
            mask: Which modalities are in S, bool of shape (..., B, M).
            prior: p(z).
        """
        raise NotImplementedError

    def forward(self, features: Sequence[Tensor], mask: Tensor, prior: Distribution) -> Distribution:
        """Return q(z|x_S) for features (B, F_m) of each modality and a mask (..., B, M)."""
        return self.fuse(self.embed(features, prior), mask, prior)


class Experts(nn.Module):
    """One posterior for each modality, $q_m(z|x_m)$, as one distribution.

    Arguments:
        heads: A posterior for each modality, all of one family.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Sequence[Tensor], prior: Distribution) -> Distribution:
        """Return the experts for features (B, F_m): `batch_shape (B, M)`, `event_shape (D,)`.

        Raises:
            VaekitError: The posteriors are of different families, or of one that cannot be stacked.
        """
        with without_autocast(features[0].device):
            return stack([head(at_least_float32(part), prior) for head, part in zip(self.heads, features, strict=True)])


class ExpertFusion(Fusion):
    """A fusion of experts: every modality has a posterior of its own, and the fusion joins the distributions.

    What it embeds is the experts as one distribution of `batch_shape (B, M)`.
    """

    def __init__(self, features: Sequence[int], latent_dim: int, posterior: MakePosterior) -> None:
        super().__init__(features, latent_dim, posterior)
        self.experts = Experts([posterior(count) for count in features])

    def embed(self, features: Sequence[Tensor], prior: Distribution) -> Distribution:
        """Return the experts: `batch_shape (B, M)`, `event_shape (D,)`."""
        experts: Distribution = self.experts(features, prior)
        return experts


class PrivateFusion(nn.Module):
    r"""Turns features, a mask and shared latents into $q(\tilde z_m\mid z,x_S)$ of every modality's private latent.

    A subclass takes `(features, latent_dim, private_dim)` by position and its options as keywords. What it says of a
    modality that is masked out is not used: the model puts the private prior in its place.

    Arguments:
        features: The numbers F_m of features that the encoders give, in the order of the modalities.
        latent_dim: The number D of shared latent dimensions.
        private_dim: The number of dimensions of each private latent.
    """

    #: Whether the private posteriors depend on the shared draw.
    sees_shared: bool = True

    def __init__(self, features: Sequence[int], latent_dim: int, private_dim: int) -> None:
        super().__init__()
        self.features = tuple(features)
        self.latent_dim = latent_dim
        self.private_dim = private_dim

    def embed(self, features: Sequence[Tensor]) -> Any:
        """Return what each modality says by itself, for `fuse`."""
        raise NotImplementedError

    def fuse(self, embedded: Any, z: Tensor, mask: Tensor) -> Distribution:
        """Return the private posteriors: `batch_shape (S, B, M)`, `event_shape (private_dim,)`.

        Arguments:
            embedded: What `embed` gave.
            z: Draws of the shared latent, shape (S, B, D).
            mask: Which modalities are in the subset, bool of shape (B, M).
        """
        raise NotImplementedError

    @property
    def learns_auxiliary(self) -> bool:
        """Whether the auxiliary prior has parameters."""
        return False

    def auxiliary(self) -> Distribution:
        r"""Return $r_m(\tilde z_m)$, `batch_shape (M,)`, `event_shape (private_dim,)`: the standard normal by default.

        The auxiliary prior is where an objective may draw a modality's private latent from, for decoding the modality
        from what others say of the shared latent.
        """
        parameter = at_least_float32(next(self.parameters()))
        loc = parameter.new_zeros(len(self.features), self.private_dim)
        return dist.Normal(loc, torch.ones_like(loc), validate_args=False).to_event(1)

    def forward(self, features: Sequence[Tensor], z: Tensor, mask: Tensor) -> Distribution:
        """Return the private posteriors for features (B, F_m), shared draws (S, B, D) and a mask (B, M)."""
        return self.fuse(self.embed(features), z, mask)


def gaussian_parameters(q: Distribution, what: str) -> tuple[Tensor, Tensor]:
    """Return location and scale of a distribution of independent Gaussian dimensions.

    Arguments:
        q: The distribution.
        what: What needs it to be Gaussian, for the message.

    Raises:
        VaekitError: It is another distribution.
    """
    family, loc, scale = location_scale(q)
    if family.__name__ != "Normal":
        raise VaekitError(f"{what} needs Gaussian posteriors and a Gaussian prior, not {family.__name__}")
    return loc, scale
