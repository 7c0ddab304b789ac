"""The two simplest objectives of several modalities: one joint posterior, and independent modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vaekit.distributions import Draws, draw, kl_divergence
from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.models.subset import KLEstimator
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["Independent", "Joint"]


@objectives.register(
    "joint",
    about="Several modalities: one posterior given all that is there; the ELBO",
    source="Suzuki, Nakayama and Matsuo, Joint Multimodal Learning with Deep Generative Models, 2016, arXiv 1611.01891",
    needs=("several modalities", "a fusion"),
)
class Joint(MultimodalObjective):
    r"""The ELBO with the posterior given all modalities that are there, negated:

    $$\mathbb E_{q(z\mid x)}\Bigl[-\sum_m\log p(x_m\mid z)\Bigr]+\beta\,\mathrm{KL}(q(z\mid x)\,\|\,p(z))
    \quad\text{[nats per sample].}$$

    The posteriors of other subsets are not trained: with `poe`, `average` and `moe` they are there nevertheless, made
    of the same experts.

    References:
        Joint Multimodal Learning with Deep Generative Models, Suzuki, Nakayama and Matsuo, 2016, arXiv 1611.01891.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of the KL, a number or a schedule.
        draws: Draws per sample.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        estimator: How the KL is estimated: `"auto"` (a closed form where there is one), `"sampled"` or
            `"sticking_the_landing"`.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1.

    Examples:
        >>> Joint().label, Joint(beta=2.5).label
        ('negative ELBO', 'surrogate loss')
    """

    is_bound = True

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        beta: Scalar = 1.0,
        draws: int = 1,
        weights: dict[str, float] | None = None,
        estimator: KLEstimator = "auto",
    ) -> None:
        super().__init__(regularizers, adversary, beta=beta, draws=draws, weights=weights)
        self.estimator: KLEstimator = estimator

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return distortion and rate of the posterior given all that is there."""
        encoded = model.encode(x)
        q = encoded.posterior()
        with without_autocast(x.device):
            z = q.draw(self.draws)
            rate = q.kl(encoded.prior, z, self.estimator)
        distortion = z.expect(self.distortions(model, x, z.for_modalities(len(x.names))))
        return self.sum_up(model, distortion, rate, step)


@objectives.register(
    "independent",
    about="Several modalities, each a VAE of its own: the sum of their ELBOs",
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114",
    needs=("several modalities", "fusion: null"),
)
class Independent(MultimodalObjective):
    r"""The sum of the modalities' own ELBOs, negated:

    $$\sum_m\mathbb E_{q_m(z_m\mid x_m)}[-\log p(x_m\mid z_m)]+\beta\,\mathrm{KL}(q_m(z_m\mid x_m)\,\|\,p(z_m))
    \quad\text{[nats per sample].}$$

    Nothing ties the modalities together: it is what others are measured against.

    References:
        Auto-Encoding Variational Bayes, Kingma and Welling, 2013, arXiv 1312.6114.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of every KL, a number or a schedule.
        draws: Draws per sample.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1; in `compute`, the model has private
            latents, or a fusion without experts.

    Examples:
        >>> Independent().label
        'negative ELBO'
    """

    is_bound = True

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return the distortions and the summed rates of the modalities' own posteriors."""
        if model.private is not None:
            raise VaekitError("the objective 'independent' has no shared latent to stand beside: set private to null")
        encoded = model.encode(x)
        experts = encoded.experts
        with without_autocast(x.device):
            z, weights = draw(experts, self.draws)
            rates = kl_divergence(experts, encoded.prior_of_shared, Draws(z, weights))
        distortion = (weights * self.distortions(model, x, z)).sum(0)
        rate = torch.where(x.available, rates, 0.0).sum(-1)
        return self.sum_up(model, distortion, rate, step)
