"""The covariance of the aggregate posterior held at the identity."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vaekit.distributed import all_mean
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["DIP"]


@regularizers.register(
    "dip",
    about="DIP-VAE: squared distance of the aggregate posterior's covariance from the identity",
    source="Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled "
    "Observations, 2017, arXiv 1711.00848",
    needs=("batch of two or more",),
    requires=("moments", "factorised"),
)
class DIP(Regularizer):
    r"""The squared distance of a covariance matrix C of the batch from the identity:

    $$\lambda_{\text{off}}\sum_{d\ne e}C_{de}^2+\lambda_{\text{diag}}\sum_d(C_{dd}-1)^2,\qquad
    C^{\text{I}}=\operatorname{Cov}_x\mathbb E_q[z],\quad
    C^{\text{II}}=C^{\text{I}}+\mathbb E_x\operatorname{diag}\operatorname{Var}_q[z].$$

    Kind I looks at the posterior means alone, kind II at the aggregate posterior. It is not in nats. A covariance of B
    samples has a variance of about 1/B in every entry, which a small batch adds to the term. Under several ranks it is
    that of the global batch, with exact gradients.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, Kumar, Sattigeri and
        Balakrishnan, 2017, arXiv 1711.00848.

    Arguments:
        weight: A number or a schedule, which multiplies both of the following.
        kind: `"i"` or `"ii"`.
        off_diagonal: The weight of the squared covariances.
        diagonal: The weight of the squared distances of the variances from 1; in kind I the authors take ten times
            that of the covariances.

    Raises:
        VaekitError: One of the two weights is negative, or both are 0.

    Examples:
        >>> import torch, pyro.distributions as dist
        >>> q = dist.Normal(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1)).to_event(1)
        >>> p = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
        >>> latents = Latents(q, p, q.rsample((1,)), torch.ones(1, 2))
        >>> DIP(kind="i")(latents).item(), DIP(kind="ii")(latents).item()
        (0.0, 10.0)
    """

    least_batch = 2

    def __init__(
        self,
        *,
        weight: Scalar = 1.0,
        kind: Literal["i", "ii"] = "ii",
        off_diagonal: float = 10.0,
        diagonal: float = 10.0,
    ) -> None:
        super().__init__(weight=weight)
        if min(off_diagonal, diagonal) < 0 or off_diagonal == diagonal == 0:
            raise VaekitError(
                "dip: off_diagonal and diagonal must be 0 or more, and not both 0, "
                f"not {off_diagonal:g} and {diagonal:g}"
            )
        self.kind = kind
        self.off_diagonal = off_diagonal
        self.diagonal = diagonal

    def extra_repr(self) -> str:
        """Show the weights and the kind."""
        both = f"off_diagonal={self.off_diagonal:g}, diagonal={self.diagonal:g}"
        return f"{super().extra_repr()}, kind={self.kind}, {both}"

    def covariance(self, latents: Latents) -> Tensor:
        """Return the covariance matrix C, shape (D, D)."""
        means = latents.q.mean
        centred = means - all_mean(means.mean(0))
        covariance = centred.mT @ centred / len(means)
        if self.kind == "ii":
            covariance = covariance + latents.q.variance.mean(0).diag()
        return all_mean(covariance)

    def forward(self, latents: Latents) -> Tensor:
        """Return the weighted squared distance from the identity."""
        covariance = self.covariance(latents)
        variances = covariance.diagonal()
        off = (covariance - variances.diag()).square().sum()
        return self.off_diagonal * off + self.diagonal * (variances - 1.0).square().sum()
