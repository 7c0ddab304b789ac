"""KL terms of single posteriors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vaekit.distributions import Draws, as_mixture, kl_divergence, require_density, stopped
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["KL", "VarianceCollapse"]


@regularizers.register(
    "kl",
    about="KL(q(z|x) || p(z)): closed form where one exists, else sampled; weight schedule and free bits",
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114; free bits: Kingma et al., "
    "Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv 1606.04934",
    requires=("finite KL",),
)
class KL(Regularizer):
    r"""The KL term of the ELBO, $\frac1B\sum_i\mathrm{KL}(q(z\mid x_i)\,\|\,p(z))$ in nats per sample.

    Estimators: `auto` takes the closed form where one exists and an unbiased estimate from the draws elsewhere;
    `sampled` always estimates; `sticking_the_landing` estimates with the density's parameters held fixed, so that the
    gradient's variance vanishes where q is the true posterior. The value is the same estimate. It needs a posterior of
    finite Fisher information.

    With weight 1 and no free bits, reconstruction plus this term is a bound: the negative ELBO. A weight above 1 is
    beta-VAE. Free bits replace the batch mean k by `max(k, free_bits)`, so that nothing pushes it below.

    References:
        Auto-Encoding Variational Bayes, Kingma and Welling, 2013, arXiv 1312.6114.
        beta-VAE, Higgins et al., ICLR 2017.
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv 1606.04934.
        Sticking the Landing, Roeder, Wu and Duvenaud, 2017, arXiv 1703.09194.

    Arguments:
        weight: A number or a schedule.
        free_bits: Nats per sample below which the term is constant.
        estimator: `"auto"`, `"sampled"` or `"sticking_the_landing"`.

    Raises:
        VaekitError: `free_bits` is negative; in `forward`, the estimator does not suit the posterior.

    Examples:
        >>> KL(weight={"name": "linear", "steps": 1000}, free_bits=2.0)
        KL(weight=linear(0 -> 1 in 1000), free_bits=2)
    """

    def __init__(
        self,
        *,
        weight: Scalar = 1.0,
        free_bits: float = 0.0,
        estimator: Literal["auto", "sampled", "sticking_the_landing"] = "auto",
    ) -> None:
        super().__init__(weight=weight)
        if free_bits < 0:
            raise VaekitError(f"kl: free_bits must be 0 or more, not {free_bits:g}")
        self.free_bits = free_bits
        self.estimator = estimator
        #: How the KL to the prior is computed, once that is known.
        self.method: Literal["closed", "sampled", "unknown"] = "unknown"
        self.bound = weight == 1 and not free_bits

    def extra_repr(self) -> str:
        """Show the weight and the free bits."""
        return f"{super().extra_repr()}, free_bits={self.free_bits:g}"

    def notes(self, batch_size: int, latent_dim: int) -> list[str]:
        """Say where the KL is an estimate."""
        sampled = self.estimator != "auto" or self.method == "sampled"
        why = "it has no closed form for these parts" if self.method == "sampled" else "as was asked for"
        return [f"the KL to the prior is estimated from the draws: {why}"] if sampled else []

    def forward(self, latents: Latents) -> Tensor:
        """Return the batch mean of the KL, at least `free_bits`."""
        if self.estimator == "auto":
            kl = kl_divergence(latents.q, latents.p, Draws(latents.z, latents.weights)).mean()
        else:
            require_density(latents.q, f"the KL's estimator '{self.estimator}'")
            q = stopped(latents.q) if self.estimator == "sticking_the_landing" else latents.q
            kl = latents.expect(q.log_prob(latents.z) - latents.p.log_prob(latents.z)).mean()
        return kl.clamp_min(self.free_bits) if self.free_bits else kl


@regularizers.register(
    "variance_collapse",
    about="GAMIX: keeps every posterior variance away from 0",
    source="Rivera, How to train your VAE, 2024, arXiv 2309.13160",
    needs=("gaussian or gmm posterior",),
    requires=("gaussian components",),
)
class VarianceCollapse(Regularizer):
    r"""The variance half of the Gaussian KL, without its factor one half:

    $$\frac1B\sum_i\sum_k\pi_{ik}\sum_d\bigl(\sigma_{ikd}^2-1-\log\sigma_{ikd}^2\bigr)\quad\text{[nats per sample].}$$

    Zero at unit variance and infinite at zero variance: in GAMIX-VAE it is the only term that sees $\sigma$. Weight 0.5
    is the variance penalty of the ordinary KL; the author's is 0.1.

    References:
        How to train your VAE, Rivera, 2024, arXiv 2309.13160.

    Arguments:
        weight: A number or a schedule.

    Raises:
        VaekitError: The posterior is neither a Gaussian nor a Gaussian mixture.
    """

    def __init__(self, *, weight: Scalar = 0.1) -> None:
        super().__init__(weight=weight)

    def forward(self, latents: Latents) -> Tensor:
        """Return the batch mean of the weighted sum over components and dimensions."""
        log_probs, _, scale = as_mixture(latents.q)
        log_variance = 2.0 * scale.log()
        # expm1 keeps the digits that exp(v) - 1 - v loses near unit variance.
        excess = (torch.expm1(log_variance) - log_variance).sum(-1)
        return (log_probs.exp() * excess).sum(-1).mean()
