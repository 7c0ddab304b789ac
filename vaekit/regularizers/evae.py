"""The penalty of EVAE."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.distributed import world_size
from vaekit.distributions import bounds
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["EVAEPenalty"]


@regularizers.register(
    "evae_penalty",
    about="EVAE: a barrier 1/r that keeps the kernel from shrinking; a surrogate, not a KL and not a bound",
    source="Qin and Huang, On Kernel-based Variational Autoencoder, 2024, arXiv 2405.12783, equation 10",
    only_with={"posteriors": ("evae", "epanechnikov")},
)
class EVAEPenalty(Regularizer):
    r"""The published term of EVAE for kernels of half-width $r_{ik}$, as a mean over the batch:

    $$\frac1N\sum_i\frac{3B}{5M}\sum_k\frac1{r_{ik}}.$$

    The paper derives it as an asymptotic upper bound of the KL. It is none: it falls as r grows and does not see the
    location, while the KL rises in both, and with the paper's uniform prior the KL is infinite. vaekit reports it as a
    surrogate.

    This is the literal reading of equation 10, in which every sample carries the factor 1/M. Multiply the weight by M
    for the other one, which averages the reconstruction over the batch and sums this term.

    References:
        On Kernel-based Variational Autoencoder, Qin and Huang, 2024, arXiv 2405.12783.

    Arguments:
        weight: A number or a schedule.
        length: The length B of the prior's support. None takes it from the prior, and for a Gaussian prior the standard
            deviation in its place, as the paper's Gaussian variant does.
        samples: The number M; None for the size of the batch, over all ranks.

    Raises:
        VaekitError: The length or the number of samples is not above 0.

    Examples:
        >>> from vaekit.distributions import Epanechnikov
        >>> q = Epanechnikov(torch.zeros(1, 64), 1.0).to_event(1)
        >>> p = torch.distributions.Independent(torch.distributions.Uniform(-0.05 * torch.ones(64), 0.05), 1)
        >>> term = EVAEPenalty(samples=100)
        >>> round(term(Latents(q, p, q.sample((1,)), torch.ones(1, 1))).item(), 6)
        0.0384
    """

    def __init__(self, *, weight: Scalar = 1.0, length: float | None = None, samples: int | None = None) -> None:
        super().__init__(weight=weight)
        if (length is not None and not length > 0) or (samples is not None and samples < 1):
            raise VaekitError(f"evae_penalty: length and samples must be above 0, not {length} and {samples}")
        self.length = length
        self.samples = samples

    def extra_repr(self) -> str:
        """Show the weight, B and M."""
        return f"{super().extra_repr()}, length={self.length}, samples={self.samples}"

    def forward(self, latents: Latents) -> Tensor:
        """Return the batch mean of the penalty."""
        samples = self.samples or latents.q.batch_shape[0] * world_size()
        inverse = latents.q.base_dist.scale.reciprocal()  # type: ignore[attr-defined]
        return (0.6 / samples * self._length(latents.p) * inverse).sum(-1).mean()

    def _length(self, p: torch.distributions.Distribution) -> Tensor | float:
        if self.length is not None:
            return self.length
        ends = bounds(p)
        return (p.stddev if ends is None else ends[1] - ends[0]).detach()

    def notes(self, batch_size: int, latent_dim: int) -> list[str]:
        """Say that it is no KL, and how small it is."""
        share = 0.6 * latent_dim / (self.samples or batch_size)
        return [
            "evae_penalty is neither a KL nor a bound of one: the loss is a surrogate and says nothing about log p(x)",
            f"evae_penalty is {share:.3g} B nats per sample where every half-width is 1, B being the prior's length",
        ]
