"""The three parts of the mean KL: mutual information, total correlation, dimension-wise KL."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.distributions import Independent

from vaekit.distributions import pairwise_log_prob, pairwise_log_prob_by_dimension
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["DimensionKL", "MutualInformation", "TotalCorrelation"]


class _Decomposed(Regularizer):
    """A term of the aggregate posterior of all N training samples, estimated from a batch of B."""

    least_batch = 2

    def __init__(self, *, weight: Scalar = 1.0, estimator: Literal["stratified", "weighted"] = "stratified") -> None:
        super().__init__(weight=weight)
        self.estimator = estimator
        self.samples = 0

    def extra_repr(self) -> str:
        """Show the weight and the estimator."""
        return f"{super().extra_repr()}, estimator={self.estimator}"

    def prepare(self, latent_dim: int, samples: int) -> None:
        """Take in the number N of training samples."""
        self.samples = samples

    def log_joint(self, latents: Latents) -> Tensor:
        """Return the estimate of log q(z) at every draw, shape (S, B)."""
        return (pairwise_log_prob(latents.q, latents.z) + self._log_shares(latents)).logsumexp(-1)

    def log_product(self, latents: Latents) -> Tensor:
        """Return the sum over d of the estimates of log q(z_d) at every draw, shape (S, B)."""
        pairs = pairwise_log_prob_by_dimension(latents.q, latents.z)
        return (pairs + self._log_shares(latents).unsqueeze(-1)).logsumexp(-2).sum(-1)

    def _log_shares(self, latents: Latents) -> Tensor:
        """Return the logarithm of the share of sample j in the estimate at a draw of sample i, shape (B, B)."""
        batch, samples = latents.z.shape[1], self.samples
        if batch < 2 or samples < 2:
            raise VaekitError(
                f"this term needs two or more samples in the batch and in the training split, not {batch} and "
                f"{samples}; outside the trainer, call objective.prepare(model, samples) first"
            )
        if self.estimator == "weighted":
            return latents.z.new_full((batch, batch), -math.log(samples * batch))
        others = math.log((samples - 1) / (samples * (batch - 1)))
        return latents.z.new_full((batch, batch), others).fill_diagonal_(-math.log(samples))


@regularizers.register(
    "mutual_information",
    about="Mutual information of data and latent, from the densities of all pairs of a batch",
    source="Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, arXiv 1802.04942; Hoffman and Johnson, "
    "ELBO surgery, 2016",
    needs=("batch of two or more",),
    requires=("reparameterised", "density"),
)
class MutualInformation(_Decomposed):
    r"""The mutual information of sample and latent, $\mathbb E\bigl[\log q(z\mid x)-\log q(z)\bigr]$:

    $$\frac1B\sum_i\bigl[\log q(z_i\mid x_i)-\log\hat q(z_i)\bigr]\quad\text{[nats per sample],}\qquad
    \hat q(z_i)=\sum_ja_{ij}\,q(z_i\mid x_j).$$

    The aggregate posterior $q(z)=\frac1N\sum_nq(z\mid x_n)$ of all N training samples is estimated from the batch:

    - `stratified`: $a_{ii}=\frac1N$ and $a_{ij}=\frac{N-1}{N(B-1)}$, which makes $\hat q$ unbiased, and exact for
      B = N. It is Chen et al.'s estimate, averaged over the order of the batch.
    - `weighted`: $a_{ij}=\frac1{NB}$, whose logarithm is too small by about log B (posteriors far apart) to log N (all
      alike). The sample itself counts no more than any other, so that the gradient knows nothing of N.

    With a positive weight it pushes information out of the latent. A negative weight keeps information in. The
    logarithm bends what is unbiased: with B far below N the information is overestimated. Under several ranks each rank
    uses its own part of the batch.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen, Li, Grosse and Duvenaud, 2018,
        arXiv 1802.04942.
        ELBO surgery: yet another way to carve up the variational evidence lower bound, Hoffman and Johnson, 2016.

    Arguments:
        weight: A number or a schedule.
        estimator: `"stratified"` or `"weighted"`.

    Raises:
        VaekitError: In `forward`, the batch holds one sample, or the number of training samples was never told.

    Examples:
        >>> import torch, pyro.distributions as dist
        >>> q = dist.Normal(torch.tensor([[-50.0], [50.0]]), torch.ones(2, 1)).to_event(1)
        >>> p = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
        >>> term = MutualInformation()
        >>> term.prepare(1, samples=2)
        >>> round(term(Latents(q, p, q.rsample((1,)), torch.ones(1, 2))).item(), 3)  # log 2
        0.693
    """

    def forward(self, latents: Latents) -> Tensor:
        """Return the estimate."""
        return latents.expect(latents.q.log_prob(latents.z) - self.log_joint(latents)).mean()


@regularizers.register(
    "total_correlation",
    about="beta-TCVAE: total correlation of the aggregate posterior, from the densities of all pairs of a batch",
    source="Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, arXiv 1802.04942",
    needs=("batch of two or more",),
    requires=("reparameterised", "density", "factorised"),
)
class TotalCorrelation(_Decomposed):
    r"""The KL of the aggregate posterior to the product of its marginals:

    $$\mathrm{KL}\Bigl(q(z)\,\Big\|\,\prod_dq(z_d)\Bigr)\approx
    \frac1B\sum_i\Bigl[\log\hat q(z_i)-\sum_d\log\hat q(z_{id})\Bigr]\quad\text{[nats],}$$

    with the estimates of `MutualInformation`. beta-TCVAE is the term `kl` at weight 1 and this one at beta - 1. The
    densities of all pairs in every dimension take S B B D numbers of memory, and several times that with gradients.

    With `weighted` the value is shifted upwards, by (D - 1) log N where all posteriors are alike, and only its gradient
    means something.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen, Li, Grosse and Duvenaud, 2018,
        arXiv 1802.04942.

    Arguments:
        weight: A number or a schedule.
        estimator: `"stratified"` or `"weighted"`.

    Raises:
        VaekitError: In `forward`, the batch holds one sample, the number of training samples was never told, or the
            posterior's dimensions are not independent.
    """

    def forward(self, latents: Latents) -> Tensor:
        """Return the estimate."""
        return latents.expect(self.log_joint(latents) - self.log_product(latents)).mean()


@regularizers.register(
    "dimension_kl",
    about="KL of every marginal of the aggregate posterior to the prior's: what the other two leave of the mean KL",
    source="Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, arXiv 1802.04942",
    needs=("batch of two or more", "prior of independent dimensions"),
    requires=("finite KL", "reparameterised", "density", "factorised", "factorised prior"),
)
class DimensionKL(_Decomposed):
    r"""The KL of the aggregate posterior's marginals to those of a prior of independent dimensions:

    $$\sum_d\mathrm{KL}(q(z_d)\,\|\,p(z_d))\approx
    \frac1B\sum_i\sum_d\bigl[\log\hat q(z_{id})-\log p(z_{id})\bigr]\quad\text{[nats],}$$

    with the estimates of `MutualInformation`. On the same draws and with one estimator, `mutual_information` plus
    `total_correlation` plus this term are the sampled mean KL exactly. The three together, in place of `kl`, give each
    part a weight of its own.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen, Li, Grosse and Duvenaud, 2018,
        arXiv 1802.04942.

    Arguments:
        weight: A number or a schedule.
        estimator: `"stratified"` or `"weighted"`.

    Raises:
        VaekitError: In `forward`, the dimensions of the prior or of the posterior are not independent, the batch holds
            one sample, or the number of training samples was never told.
    """

    def forward(self, latents: Latents) -> Tensor:
        """Return the estimate."""
        if not isinstance(latents.p, Independent):
            raise VaekitError(
                "dimension_kl needs a prior of independent dimensions: set prior to standard_normal, or use the "
                "regularizer 'kl'"
            )
        return latents.expect(self.log_product(latents) - latents.p.log_prob(latents.z)).mean()
