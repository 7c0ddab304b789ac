"""The Gaussian-mixture posterior."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vaekit import distributions
from vaekit.backbones.layers import Init, initialise
from vaekit.distributions import Estimator
from vaekit.errors import VaekitError
from vaekit.posteriors.location_scale import LocationScale
from vaekit.registry import posteriors
from vaekit.schedules import Scalar, as_schedule

__all__ = ["GaussianMixture"]


@posteriors.register(
    "gmm",
    about="Mixture of diagonal Gaussians, with gradients for weights, locations and scales",
    source="M. Jankowiak and F. Obermeyer, Pathwise Derivatives Beyond the Reparameterization Trick, 2018, "
    "arXiv 1806.01851",
    supports=("reparameterised", "density", "finite Fisher information", "moments", "gaussian components"),
    support="real",
    bounded_kl=("standard_normal", "gaussian", "gaussian_mixture"),
)
class GaussianMixture(LocationScale):
    r"""$q(z|x) = \sum_k \pi_k(x) \prod_d N(z_d; \mu_{kd}(x), \sigma_{kd}^2(x))$.

    With one component it has the parameters of `Gaussian` and returns the same distribution. With more, the heads
    begin with distinct components, as rows of one randomly initialised linear map.

    Source: M. Jankowiak and F. Obermeyer, Pathwise Derivatives Beyond the Reparameterization Trick, 2018,
    arXiv 1806.01851 (the `pathwise` estimator; see `vaekit.distributions.GaussianMixture` for all).

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        components: The number K of components.
        estimator: How expectations are differentiated: `stratified` decodes one draw of every component, `pathwise`
            and `score` decode one draw of the mixture; `gumbel` decodes a blend of the components, which is biased and
            there for comparison (evaluation draws from the mixture itself).
        temperature: The temperature of `gumbel`, a number or a schedule of the step.
        log_variance_range: The log-variances are softly clamped to this range; None leaves them free.
        init: `"default"` for PyTorch's first weights, `"glorot"` for Glorot-uniform kernels and zero biases.

    Raises:
        VaekitError: There is no component, or the range does not rise.

    Examples:
        >>> from vaekit.priors import StandardNormal
        >>> q = GaussianMixture(16, 3, components=4)(torch.randn(8, 16), StandardNormal(3)())
        >>> q.components, q.batch_shape, q.event_shape
        (4, torch.Size([8]), torch.Size([3]))
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        components: int = 4,
        estimator: Estimator = "stratified",
        temperature: Scalar = 0.5,
        log_variance_range: tuple[float, float] | None = (-10.0, 4.0),
        init: Init = "default",
    ) -> None:
        if components < 1:
            raise VaekitError(f"a mixture needs 1 or more components, not {components}")
        super().__init__(features, latent_dim, log_variance_range, components)
        self.components = components
        self.estimator: Estimator = estimator
        self.temperature = as_schedule(temperature)
        self.passes = components if estimator == "stratified" else 1
        self.relaxes = estimator == "gumbel" and components > 1
        if components > 1:
            self.logits = nn.Linear(features, components)
        initialise(self, init)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        loc, scale = self.loc_and_scale(features)
        if self.components == 1:
            return dist.Normal(loc, scale, validate_args=False).to_event(1)
        shape = (self.components, self.latent_dim)
        return distributions.GaussianMixture(
            self.logits(features.to(self.logits.weight.dtype)),
            loc.unflatten(-1, shape),
            scale.unflatten(-1, shape),
            estimator="pathwise" if self.relaxes and not self.training else self.estimator,
            temperature=self.temperature(self.step),
            validate_args=False,
        )

    def extra_repr(self) -> str:
        """Show the options."""
        return f"components={self.components}, estimator={self.estimator!r}"
