"""The categorical posterior: groups of one-hot numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekit.distributions import RelaxedOneHot
from vaekit.distributions.categorical import check_groups
from vaekit.errors import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.precision import at_least_float32
from vaekit.registry import posteriors
from vaekit.schedules import Scalar, as_schedule

__all__ = ["Categorical"]


@posteriors.register(
    "categorical",
    about="Independent categorical variables as one-hot groups, relaxed in training (Gumbel-softmax)",
    source="E. Jang, S. Gu and B. Poole, Categorical Reparameterization with Gumbel-Softmax, 2016, arXiv 1611.01144; "
    "C. J. Maddison, A. Mnih and Y. W. Teh, The Concrete Distribution, 2016, arXiv 1611.00712",
    supports=("reparameterised", "moments"),
    support="one-hot",
    closed_kl=("categorical",),
    only_with={"priors": ("categorical",)},
)
class Categorical(Posterior):
    r"""$q(z|x) = \prod_v \mathrm{Cat}(z_v; \mathrm{softmax}(l_v(x)))$: V variables of K categories, D = V K.

    In training each variable is $\mathrm{softmax}((l_v+g)/\tau)$ with Gumbel noise g; in evaluation mode it is one-hot,
    so that every evaluation speaks of the true model. The KL is that of the discrete variables in both.

    Source: E. Jang, S. Gu and B. Poole, Categorical Reparameterization with Gumbel-Softmax, 2016, arXiv 1611.01144;
    C. J. Maddison, A. Mnih and Y. W. Teh, The Concrete Distribution, 2016, arXiv 1611.00712.

    Arguments:
        features: The number F of features that the encoder gives.
        latent_dim: The number D of latent dimensions, a multiple of K.
        categories: The number K of categories of each variable; the prior's must be the same.
        temperature: The temperature of training, a number or a schedule.
        straight_through: Whether training decodes one-hot draws, with the gradient of the soft ones.

    Raises:
        VaekitError: `latent_dim` is not a multiple of `categories`; in `forward`, the prior has other categories.

    Examples:
        >>> from vaekit.priors import Categorical as Prior
        >>> q = Categorical(16, 12, categories=4)(torch.randn(8, 16), Prior(12, categories=4)())
        >>> q.batch_shape, q.event_shape, q.categories
        (torch.Size([8]), torch.Size([12]), 4)
    """

    relaxes = True

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        categories: int = 8,
        temperature: Scalar = 0.5,
        straight_through: bool = False,
    ) -> None:
        super().__init__(features, latent_dim)
        check_groups(latent_dim, categories)
        self.categories = categories
        self.temperature = as_schedule(temperature)
        self.straight_through = straight_through
        self.logits = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor, prior: torch.distributions.Distribution) -> torch.distributions.Distribution:
        """Return q(z|x) in float32 at least, `batch_shape (B,)`, `event_shape (D,)`."""
        others = getattr(prior, "categories", None)
        if others != self.categories:
            raise VaekitError(
                f"posterior and prior have {self.categories} and {others} categories: set "
                "posterior.categories and prior.categories to the same number"
            )
        logits = at_least_float32(self.logits(features.to(self.logits.weight.dtype)))
        return RelaxedOneHot(
            logits.unflatten(-1, (-1, self.categories)),
            self.temperature(self.step) if self.training else 0.0,
            self.straight_through,
            validate_args=False,
        )

    def extra_repr(self) -> str:
        """Show the options."""
        return f"categories={self.categories}, temperature={self.temperature!r}"
