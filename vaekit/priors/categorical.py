"""The categorical prior."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekit.distributions import RelaxedOneHot
from vaekit.distributions.categorical import check_groups
from vaekit.precision import at_least_float32
from vaekit.priors.base import Prior
from vaekit.registry import priors

__all__ = ["Categorical"]


@priors.register(
    "categorical",
    about="Independent categorical variables, uniform or learned",
    source="E. Jang, S. Gu and B. Poole, Categorical Reparameterization with Gumbel-Softmax, 2016, arXiv 1611.01144",
    support="one-hot",
    only_with={"posteriors": ("categorical",)},
)
class Categorical(Prior):
    r"""$p(z) = \prod_v \mathrm{Cat}(z_v; \pi_v)$: V one-hot variables of K categories, D = V K, uniform at first.

    Source: E. Jang, S. Gu and B. Poole, Categorical Reparameterization with Gumbel-Softmax, 2016, arXiv 1611.01144.

    Arguments:
        latent_dim: The number D of latent dimensions, a multiple of K.
        categories: The number K of categories of each variable.
        learned: Whether the probabilities are learned.

    Raises:
        VaekitError: `latent_dim` is not a multiple of `categories`.

    Examples:
        >>> Categorical(12, categories=4)().sample().sum()
        tensor(3.)
    """

    logits: Tensor

    def __init__(self, latent_dim: int, *, categories: int = 8, learned: bool = False) -> None:
        super().__init__(latent_dim)
        check_groups(latent_dim, categories)
        logits = torch.zeros(latent_dim // categories, categories)
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    def forward(self) -> torch.distributions.Distribution:
        """Return p(z) in float32 at least, `batch_shape ()`, `event_shape (D,)`."""
        return RelaxedOneHot(at_least_float32(self.logits), validate_args=False)
