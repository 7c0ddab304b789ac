"""The two heads that most posteriors begin with: a location and a softly clamped log-variance."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vaekit.distributions import log_variance_to_scale
from vaekit.errors import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32

__all__ = ["Head", "LocationScale"]

Head = Literal["linear", "split"]


class LocationScale(Posterior):
    """Heads for location and log-variance; a subclass makes a distribution of what `loc_and_scale` gives.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions.
        log_variance_range: The log-variance is softly clamped to this range; None leaves it free.
        components: How many locations and log-variances there are for each dimension.
        head: `"linear"` for a linear layer each, or `"split"` where the features are both already: the first half the
            location, the second the log-variance.

    Raises:
        VaekitError: The range does not rise, or the features to split are not twice as many as the latent dimensions.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        log_variance_range: tuple[float, float] | None,
        components: int = 1,
        head: Head = "linear",
    ) -> None:
        super().__init__(features, latent_dim)
        if log_variance_range is not None and log_variance_range[0] >= log_variance_range[1]:
            raise VaekitError(
                f"log_variance_range must rise from its first to its second number, not {log_variance_range}"
            )
        if head == "split" and features != 2 * components * latent_dim:
            raise VaekitError(
                f"the head 'split' takes {features} features apart into two halves, and latent_dim is {latent_dim}: "
                f"set latent_dim to {features // (2 * components)}, or the posterior's head to 'linear'"
            )
        self.log_variance_range = log_variance_range
        self.head = head
        if head == "linear":
            self.loc = nn.Linear(features, components * latent_dim)
            self.log_variance = nn.Linear(features, components * latent_dim)

    def loc_and_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations and standard deviations for features (B, F), in float32 at least."""
        if self.head == "split":
            loc, log_variance = features.chunk(2, dim=-1)
        else:
            features = features.to(self.loc.weight.dtype)
            loc, log_variance = self.loc(features), self.log_variance(features)
        return at_least_float32(loc), log_variance_to_scale(at_least_float32(log_variance), self.log_variance_range)
