"""Importance-weighted bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from vaekit.distributions import require_density, stopped
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.models.vae import Output
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.elbo import Objective
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer

__all__ = ["IWAE"]


@objectives.register(
    "iwae",
    about="The importance-weighted bound of K draws, with its own or doubly reparameterised gradients",
    source="Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2015, arXiv 1509.00519; Tucker et al., "
    "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2018, arXiv 1810.04152",
    requires=("finite KL", "reparameterised", "density"),
)
class IWAE(Objective):
    r"""The importance-weighted bound of K draws, negated, in nats per sample:

    $$\mathcal L=-\tfrac1B\sum_i\log\sum_{k=1}^K w_k\,\frac{p(x_i\mid z_k)\,p(z_k)}{q(z_k\mid x_i)}
    \;\ge\;-\tfrac1B\sum_i\log p(x_i),$$

    with $w_k=1/K$; the stratified draws of a mixture come with the weights of their components, which is a bound as
    well. It holds the KL within itself: regularizers are added only as extra terms, which make the loss a surrogate.

    Under `dreg` the posterior's gradient is that of Tucker et al.: each draw's pathwise gradient, weighted by the
    square of its normalised importance, without the score term; its signal does not fade as K grows. The decoder's
    gradient is the same in both.

    References:
        Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2015, arXiv 1509.00519.
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, Tucker, Lawson, Gu and Maddison, 2018,
        arXiv 1810.04152.
        Automatic Differentiation Variational Inference with Mixture Posteriors, Morningstar et al., 2020,
        arXiv 2003.01687 (stratified draws).

    Arguments:
        regularizers: Extra terms; none for the bound alone.
        adversary: A discriminator with its loss and weight; `None` for none.
        draws: The number K of draws per sample.
        estimator: `"standard"`, or `"dreg"` for doubly reparameterised gradients.

    Raises:
        VaekitError: `draws` is below 1, or `dreg` comes with extra terms; in `evaluate`, the draws carry score-function
            weights or are relaxed, or `dreg` meets a posterior without finite Fisher information or with weights to
            differentiate.

    Examples:
        >>> IWAE(draws=5, estimator="dreg").label
        'negative importance-weighted bound'
    """

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        draws: int = 5,
        estimator: Literal["standard", "dreg"] = "standard",
    ) -> None:
        super().__init__(regularizers, adversary, draws=draws)
        if estimator == "dreg" and (self.terms or adversary is not None):
            raise VaekitError(
                "the estimator 'dreg' is for the bound alone: take regularizers and adversary away, or set "
                "objective.estimator to standard"
            )
        self.estimator = estimator

    @property
    def bound(self) -> bool:
        """Whether the loss is a bound on -log p(x)."""
        return not self.terms and self.adversary is None

    @property
    def label(self) -> str:
        """`"negative importance-weighted bound"` where the loss is exactly that, else `"surrogate loss"`."""
        return "negative importance-weighted bound" if self.bound else "surrogate loss"

    def evaluate(self, output: Output, x: Tensor, step: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the mean of -log p(x|z), what the bound adds to it, and all terms by name."""
        latents = output.latents
        estimator = getattr(latents.q, "estimator", "")
        if estimator in ("score", "gumbel"):
            raise VaekitError(
                f"the objective 'iwae' needs draws of the posterior itself, which the estimator '{estimator}' does not "
                "give: set posterior.estimator to stratified or pathwise"
            )
        require_density(latents.q, "the objective 'iwae'")
        with without_autocast(x.device):
            log_likelihood = output.likelihood.log_prob(x)
            reconstruction = -latents.expect(log_likelihood).mean()
            bound = self._bound(latents, log_likelihood).mean()
        regularization, terms = self._regularize(latents, step)
        rest = -bound - reconstruction + regularization
        return reconstruction, rest, self._named(reconstruction, rest, {**terms, "gap": rest - regularization}, output)

    def _bound(self, latents: Latents, log_likelihood: Tensor) -> Tensor:
        """Return the bound of every sample, shape (B,), whose gradient is the estimator's."""
        if self.estimator == "standard":
            log_ratio = log_likelihood + latents.p.log_prob(latents.z) - latents.q.log_prob(latents.z)
            return (latents.weights.log() + log_ratio).logsumexp(0)
        if latents.weights.requires_grad:
            raise VaekitError(
                "the estimator 'dreg' needs draws of equal weight: set posterior.estimator to pathwise, or "
                "objective.estimator to standard"
            )
        log_q = stopped(latents.q).log_prob(latents.z)
        log_ratio = latents.weights.log() + log_likelihood + latents.p.log_prob(latents.z) - log_q
        importance = log_ratio.detach().softmax(0)
        if latents.z.requires_grad:
            # The gradient that reaches a draw has one factor of its importance already; the second is put on here.
            latents.z.register_hook(lambda gradient: gradient * importance.unsqueeze(-1))
        surrogate = (importance * log_ratio).sum(0)
        return surrogate + (log_ratio.logsumexp(0) - surrogate).detach()

    def regularization(self, latents: Latents, step: int = 0) -> Tensor:
        """Refuse: the bound is no sum of a reconstruction and a term of the latents.

        Raises:
            VaekitError: Always.
        """
        raise VaekitError(
            "the importance-weighted bound has no regularization apart: use pyro.infer.RenyiELBO(alpha=0)"
        )
