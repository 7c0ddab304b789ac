"""The generalised ELBO of a mixture: the mean of the KLs of its components."""

from __future__ import annotations

import torch

from vaekit.errors import VaekitError
from vaekit.models.multimodal import MultimodalVAE
from vaekit.objectives.multimodal import MultimodalObjective, Terms
from vaekit.observed import Observed
from vaekit.precision import without_autocast
from vaekit.registry import objectives

__all__ = ["MoPoE"]


@objectives.register(
    "mopoe",
    about="Several modalities, a mixture over subsets: the ELBO with the mean KL of the components",
    source="Sutter, Daunhawer and Vogt, Generalized Multimodal ELBO, 2021, arXiv 2105.02470",
    needs=("several modalities", "fusion: mopoe or moe"),
)
class MoPoE(MultimodalObjective):
    r"""The mean of the negative ELBOs of the components of a mixture posterior $q=\frac1C\sum_cq_c$:

    $$\frac1C\sum_{c=1}^C\Bigl(\mathbb E_{q_c}\Bigl[-\sum_m\log p(x_m\mid z)\Bigr]
    +\beta\,\mathrm{KL}(q_c\,\|\,p)\Bigr)\quad\text{[nats per sample].}$$

    With the fusion `mopoe` the components are the products of the experts in every non-empty subset of what is there;
    with `moe` they are the experts. Every component has to explain all modalities. A mean of bounds is a bound; it is
    looser than the ELBO of the mixture itself, by what the components tell of one another (at most log C).

    A draw comes from a component chosen at random, which leaves the gradient unbiased because the weights are
    constants, or from each in turn where the fusion stratifies.

    References:
        Generalized Multimodal ELBO, Sutter, Daunhawer and Vogt, 2021, arXiv 2105.02470.

    Arguments:
        regularizers: None.
        adversary: None.
        beta: The factor of the mean KL, a number or a schedule.
        draws: Draws per sample, or rounds of them where the fusion stratifies.
        weights: Modality to the factor of its log-likelihood; 1 for those that are not named.

    Raises:
        VaekitError: There are regularizers or an adversary, or `draws` is below 1; in `compute`, the posterior is no
            mixture of experts.

    Examples:
        >>> MoPoE().label, MoPoE(beta=2.5).label
        ('negative ELBO', 'surrogate loss')
    """

    is_bound = True

    def compute(self, model: MultimodalVAE, x: Observed, step: int) -> Terms:
        """Return the distortion under the mixture and the mean rate of its components."""
        encoded = model.encode(x)
        q, p = encoded.posterior(), encoded.prior
        if not hasattr(q.shared, "component_kl"):
            raise VaekitError(
                f"the objective 'mopoe' needs a mixture of experts, not {type(model.fusion).__name__}: set fusion to "
                "mopoe or moe, or use the objective 'joint'"
            )
        with without_autocast(x.device):
            z = q.draw(self.draws)
            rate = q.shared.component_kl(p.shared) + q.private_kl(p, z)
            rate = torch.where(x.available.any(-1), rate, 0.0)
        distortion = z.expect(self.distortions(model, x, z.for_modalities(len(x.names))))
        return self.sum_up(model, distortion, rate, step)
