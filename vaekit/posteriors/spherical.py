"""Posteriors on the unit sphere."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import distributions
from vaekit.backbones.layers import Init, initialise
from vaekit.distributions.rotational import Rotational
from vaekit.distributions.sphere import check_dimensions
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors

__all__ = ["PowerSpherical", "Spherical", "VonMisesFisher"]


class Spherical(Posterior):
    r"""A direction and a concentration: a base class.

    $\mu=h/\|h\|$ and $\kappa=1+\mathrm{softplus}(g)$ from two linear heads h (D numbers) and g (one number).

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of coordinates, 2 or more; the sphere has one dimension less.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Attributes:
        distribution: What `forward` returns.

    Raises:
        VaekitError: Fewer than two coordinates.
    """

    distribution: ClassVar[type[Rotational]]

    def __init__(self, features: int, latent_dim: int, *, init: Init = "default") -> None:
        super().__init__(features, latent_dim)
        check_dimensions(latent_dim)
        self.loc = nn.Linear(features, latent_dim)
        self.concentration = nn.Linear(features, 1)
        initialise(self, init)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        features = features.to(self.loc.weight.dtype)
        loc, concentration = at_least_float32(self.loc(features)), at_least_float32(self.concentration(features))
        return self.distribution(
            F.normalize(loc, dim=-1), 1.0 + F.softplus(concentration.squeeze(-1)), validate_args=False
        )

    def point(self, q: torch.distributions.Distribution) -> Tensor:
        """Return the mode: the mean lies inside the sphere, where the decoder has never been."""
        return q.mode


@posteriors.register(
    "vmf",
    about="Von Mises-Fisher on the unit sphere",
    source="T. R. Davidson, L. Falorsi, N. De Cao, T. Kipf and J. M. Tomczak, Hyperspherical Variational "
    "Auto-Encoders, 2018, arXiv 1804.00891",
    needs=("latent_dim of 2 or more",),
    supports=("reparameterised", "density", "finite Fisher information", "moments"),
    only_with={"priors": ("sphere_uniform",)},
    support="sphere",
    closed_kl=("sphere_uniform",),
)
class VonMisesFisher(Spherical):
    r"""$q(z|x)\propto e^{\kappa(x)\,\mu(x)^\top z}$ on the unit sphere of $\mathbb R^D$.

    Source: T. R. Davidson, L. Falorsi, N. De Cao, T. Kipf and J. M. Tomczak, Hyperspherical Variational Auto-Encoders,
    2018, arXiv 1804.00891. Gradients are those of `vaekit.distributions.VonMisesFisher`.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of coordinates, 2 or more; the sphere has one dimension less.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Raises:
        VaekitError: Fewer than two coordinates.

    Examples:
        >>> from vaekit.priors import SphereUniform
        >>> q = VonMisesFisher(16, 3)(torch.randn(8, 16), SphereUniform(3)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    distribution = distributions.VonMisesFisher


@posteriors.register(
    "power_spherical",
    about="Power spherical on the unit sphere: like vmf, with cheaper draws",
    source="N. De Cao and W. Aziz, The Power Spherical distribution, 2020, arXiv 2006.04437",
    needs=("latent_dim of 2 or more",),
    supports=("reparameterised", "density", "finite Fisher information", "moments"),
    only_with={"priors": ("sphere_uniform",)},
    support="sphere",
    closed_kl=("sphere_uniform",),
)
class PowerSpherical(Spherical):
    r"""$q(z|x)\propto(1+\mu(x)^\top z)^{\kappa(x)}$ on the unit sphere of $\mathbb R^D$.

    Source: N. De Cao and W. Aziz, The Power Spherical distribution, 2020, arXiv 2006.04437.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of coordinates, 2 or more; the sphere has one dimension less.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Raises:
        VaekitError: Fewer than two coordinates.

    Examples:
        >>> from vaekit.priors import SphereUniform
        >>> q = PowerSpherical(16, 3)(torch.randn(8, 16), SphereUniform(3)())
        >>> q.batch_shape, q.event_shape
        (torch.Size([8]), torch.Size([3]))
    """

    distribution = distributions.PowerSpherical
