"""Objectives over random subsets of the modalities: masked and mixture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vaekit.models.multimodal import MultimodalVAE
from vaekit.models.subset import KLEstimator
from vaekit.objectives.adversary import Adversary
from vaekit.objectives.masks import MaskLaw, random_mask
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["Masked", "Mixture"]


class _OfRandomSubsets(MultimodalObjective):
    """An objective that draws a subset S of the modalities for every sample, anew in every step."""

    #: The name of the distortion of what is not in S.
    rest: str

    def __init__(
        self,
        regularizers: Mapping[str, Regularizer] | None = None,
        adversary: Adversary | None = None,
        *,
        beta: Scalar = 1.0,
        draws: int = 1,
        weights: dict[str, float] | None = None,
        mask_law: MaskLaw = "bernoulli",
        estimator: KLEstimator = "auto",
    ) -> None:
        super().__init__(regularizers, adversary, beta=beta, draws=draws, weights=weights)
        self.mask_law: MaskLaw = mask_law
        self.estimator: KLEstimator = estimator

    def sum_up_subsets(
        self, model: MultimodalVAE, kept: Tensor, distortion: Tensor, rate: Tensor, step: int, **named: Tensor
    ) -> Terms:
        """Return the terms of the loss, with the distortion in S and out of it (under `rest`) for the log."""
        inside, outside = (torch.where(part, distortion, 0.0).sum(-1) for part in (kept, ~kept))
        named |= {"marginal_distortion": inside, f"{self.rest}_distortion": outside}
        return self.sum_up(model, distortion, rate, step, **named)


@objectives.register(
    "masked",
    about="Several modalities: a random subset explains itself, and the whole explains the rest",
    source="Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with permutation-invariant "
    "encoders and tighter variational objectives, 2023, arXiv 2309.00380",
    needs=("several modalities", "a fusion"),
)
class Masked(_OfRandomSubsets):
    r"""A random subset S of the modalities explains itself, and all of them explain the rest, negated:

    $$\mathbb E_{q(z\mid x_S)}[-\log p(x_S\mid z)]+\beta\,\mathrm{KL}(q(z\mid x_S)\,\|\,p(z))
    +\mathbb E_{q(z\mid x)}[-\log p(x_{\setminus S}\mid z)]+\beta\,\mathrm{KL}(q(z\mid x)\,\|\,q(z\mid x_S)),$$

    in nats per sample, averaged over S. It trains the posterior of every subset, towards $p(z\mid x_S)$: with exact
    posteriors it is $-\log p(x)$ for every sample and every S. It is no bound on it sample by sample, because
    $q(z\mid x_S)$ takes the place of a prior in the second half and may fit better than the true posterior does;
    averaged over the data it is never below their entropy. So it is a surrogate.

    A modality is decoded once: in S from a draw of $q(z\mid x_S)$, out of it from a draw of $q(z\mid x)$. Under
    `sticking_the_landing`, $q(z\mid x_S)$ is held fixed within its own KL to the prior and $q(z\mid x)$ within the
    other, where $q(z\mid x_S)$ stays free: that is what it learns from.

    Logged besides: `partial_rate` and `cross_rate`, which add up to `kl`; `full_rate`, the KL of $q(z\mid x)$ to the
    prior; `marginal_distortion` and `conditional_distortion`, which add up to `reconstruction`.

    References:
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of both KLs, a number or a schedule.
        draws: Draws per sample from each of the two posteriors.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        mask_law: The law of S: `"bernoulli"` or `"uniform_size"`, see `vaekit.objectives.masks.random_mask`.
        estimator: How the KLs are estimated: `"auto"` (a closed form where there is one), `"sampled"` or
            `"sticking_the_landing"`.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1.

    Examples:
        >>> Masked(mask_law="uniform_size").label
        'surrogate loss'
    """

    rest = "conditional"

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return distortion and rate for one random subset of every sample."""
        encoded = model.encode(x)
        kept = random_mask(self.mask_law, x.available)
        with without_autocast(x.device):
            full, partial = encoded.posterior(), encoded.posterior(kept)
            z_full, z_partial = full.draw(self.draws), partial.draw(self.draws)
            partial_rate = partial.kl(encoded.prior, z_partial, self.estimator)
            cross_rate = full.kl(partial, z_full, self.estimator)
            with torch.no_grad():
                full_rate = full.kl(encoded.prior, z_full)
        count = len(x.names)
        z = torch.where(kept.unsqueeze(-1), z_partial.for_modalities(count), z_full.for_modalities(count))
        weights = torch.where(kept, z_partial.weights.unsqueeze(-1), z_full.weights.unsqueeze(-1))
        distortion = (weights * self.distortions(model, x, z)).sum(0)
        rates = {"partial_rate": partial_rate, "cross_rate": cross_rate, "full_rate": full_rate}
        return self.sum_up_subsets(model, kept, distortion, partial_rate + cross_rate, step, **rates)


@objectives.register(
    "mixture",
    about="Several modalities: a random subset explains all of them; a bound",
    source="Shi et al., Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models, 2019, "
    "arXiv 1911.03393; Hirt, Campolo, Leong and Ortega, Learning multi-modal generative models with "
    "permutation-invariant encoders and tighter variational objectives, 2023, arXiv 2309.00380",
    needs=("several modalities", "a fusion"),
)
class Mixture(_OfRandomSubsets):
    r"""A random subset S of the modalities explains all of them, negated:

    $$\mathbb E_{q(z\mid x_S)}\Bigl[-\sum_m\log p(x_m\mid z)\Bigr]+\beta\,\mathrm{KL}(q(z\mid x_S)\,\|\,p(z))
    \quad\text{[nats per sample].}$$

    It is an ELBO whichever S is, so a bound, and a loose one: what S does not say of the others cannot be encoded. The
    best posterior is not $p(z\mid x_S)$, and the best model is not the true one: what only one modality knows is left
    out of it (`vaekit.evaluation.mixture_optimum` has the linear case in closed form).

    Logged besides: `marginal_distortion` (of S) and `cross_distortion` (of the others).

    References:
        Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models, Shi, Siddharth, Paige and
        Torr, 2019, arXiv 1911.03393.
        Learning multi-modal generative models with permutation-invariant encoders and tighter variational objectives,
        Hirt, Campolo, Leong and Ortega, 2023, arXiv 2309.00380.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of the KL, a number or a schedule.
        draws: Draws per sample.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.
        mask_law: The law of S: `"bernoulli"` or `"uniform_size"`, see `vaekit.objectives.masks.random_mask`.
        estimator: How the KL is estimated: `"auto"` (a closed form where there is one), `"sampled"` or
            `"sticking_the_landing"`.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1.

    Examples:
        >>> Mixture().label
        'negative ELBO'
    """

    is_bound = True

    rest = "conditional"

    rest = "cross"

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return distortion and rate for one random subset of every sample."""
        encoded = model.encode(x)
        kept = random_mask(self.mask_law, x.available)
        q = encoded.posterior(kept)
        with without_autocast(x.device):
            z = q.draw(self.draws)
            rate = q.kl(encoded.prior, z, self.estimator)
        distortion = z.expect(self.distortions(model, x, z.for_modalities(len(x.names))))
        return self.sum_up_subsets(model, kept, distortion, rate, step)
