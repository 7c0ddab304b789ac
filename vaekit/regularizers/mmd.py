"""The maximum mean discrepancy between the aggregate posterior and the prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["MMD", "Kernel", "kernel_matrix"]

Kernel: TypeAlias = Literal["imq", "rbf"]


def kernel_matrix(x: Tensor, y: Tensor, kernel: Kernel, widths: Sequence[float]) -> Tensor:
    r"""Return the kernel between all rows of x (N, D) and y (M, D), summed over the widths c, shape (N, M).

    `imq` is $c/(c+\|x-y\|^2)$, `rbf` is $\exp(-\|x-y\|^2/c)$; each is 1 at distance 0.

    Examples:
        >>> kernel_matrix(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), "imq", [1.0, 3.0])
        tensor([[1.2500]])
    """
    # A product of matrices: never all pairs times dimensions in memory. The expanded square cancels, hence float64.
    wide_x, wide_y = x.double(), y.double()
    squares = wide_x.square().sum(-1).unsqueeze(-1) + wide_y.square().sum(-1) - 2.0 * wide_x @ wide_y.mT
    squares = squares.clamp_min(0.0).to(x.dtype)
    if kernel == "imq":
        return torch.stack([c / (c + squares) for c in widths]).sum(0)
    return torch.stack([(-squares / c).exp() for c in widths]).sum(0)


@regularizers.register(
    "mmd",
    about="Maximum mean discrepancy between the aggregate posterior and the prior, from draws of both",
    source="Tolstikhin et al., Wasserstein Auto-Encoders, 2017, arXiv 1711.01558; Zhao, Song and Ermon, InfoVAE, "
    "2017, arXiv 1706.02262",
    needs=("batch of two or more",),
    requires=("reparameterised",),
)
class MMD(Regularizer):
    r"""The squared maximum mean discrepancy of aggregate posterior and prior, estimated without bias:

    $$\frac1{B(B-1)}\sum_{i\ne j}k(z_i,z_j)+\frac1{n(n-1)}\sum_{s\ne t}k(\tilde z_s,\tilde z_t)
    -\frac2{Bn}\sum_{i,s}k(z_i,\tilde z_s),\qquad z_i\sim q(z\mid x_i),\;\tilde z_s\sim p(z),$$

    with as many draws $n$ from the prior as from the posterior; weighted draws enter with their weights. It is not in
    nats. Where both are the same it is 0 on average, hence often negative. The kernel is a sum over `scales` s of

    $$k(z,z')=\frac{c}{c+\|z-z'\|^2}\;(\texttt{imq})\qquad\text{or}\qquad
    k(z,z')=\exp\Bigl(-\frac{\|z-z'\|^2}c\Bigr)\;(\texttt{rbf}),\qquad c=2\,s\cdot\texttt{bandwidth}.$$

    At the default bandwidth D, and s = 1, c is the mean squared distance of two draws from N(0, I). A prior that can be
    reparameterised is trained by this term too. Under several ranks each rank uses its own part of the batch.

    References:
        Wasserstein Auto-Encoders, Tolstikhin et al., 2017, arXiv 1711.01558 (`imq`, these scales).
        InfoVAE: Information Maximizing Variational Autoencoders, Zhao, Song and Ermon, 2017, arXiv 1706.02262 (`rbf`).
        A Kernel Two-Sample Test, Gretton et al., JMLR 2012 (the unbiased estimate).

    Arguments:
        weight: A number or a schedule.
        kernel: `"imq"`, whose tails reach far, or `"rbf"`.
        scales: Factors of the bandwidth, one kernel each.
        bandwidth: The variance that the kernel has in mind for the sum over dimensions; None for D.

    Raises:
        VaekitError: A scale or the bandwidth is not positive; in `forward`, the batch holds one sample.

    Examples:
        >>> import pyro.distributions as dist
        >>> q = dist.Normal(torch.full((64, 2), 3.0), torch.ones(64, 2)).to_event(1)
        >>> p = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        >>> bool(MMD()(Latents(q, p, q.rsample((1,)), torch.ones(1, 64))) > 1.0)
        True
    """

    least_batch = 2

    def __init__(
        self,
        *,
        weight: Scalar = 1.0,
        kernel: Kernel = "imq",
        scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        bandwidth: float | None = None,
    ) -> None:
        super().__init__(weight=weight)
        if not scales or min(scales) <= 0:
            raise VaekitError(f"mmd: scales must be one or more numbers above 0, not {list(scales)}")
        if bandwidth is not None and bandwidth <= 0:
            raise VaekitError(f"mmd: bandwidth must be above 0, not {bandwidth:g}; leave it out for the default, D")
        self.kernel: Kernel = kernel
        self.scales = tuple(scales)
        self.bandwidth = bandwidth

    def extra_repr(self) -> str:
        """Show the weight and the kernel."""
        return f"{super().extra_repr()}, kernel={self.kernel}"

    def forward(self, latents: Latents) -> Tensor:
        """Return the estimate of the squared discrepancy."""
        (draws, batch), p = latents.weights.shape, latents.p
        if batch < 2:
            raise VaekitError("mmd is not defined for a single sample: give a batch of two or more on every device")
        z = latents.z.flatten(0, 1)
        weights = latents.weights.flatten() / batch
        count = (len(z),)
        prior = (p.rsample(count) if p.has_rsample else p.sample(count)).to(z.dtype)
        base = z.shape[-1] if self.bandwidth is None else self.bandwidth
        widths = [2.0 * scale * base for scale in self.scales]
        # Draws for one sample are no independent draws of the aggregate posterior: pairs of samples only.
        sample = torch.arange(batch, device=z.device).repeat(draws)
        others = sample.unsqueeze(-1) != sample
        within = weights @ (kernel_matrix(z, z, self.kernel, widths) * others) @ weights * (batch / (batch - 1))
        of_prior = kernel_matrix(prior, prior, self.kernel, widths)
        apart = (of_prior.sum() - of_prior.diagonal().sum()) / (len(z) * (len(z) - 1))
        across = weights @ kernel_matrix(z, prior, self.kernel, widths).mean(-1)
        return within + apart - 2.0 * across
