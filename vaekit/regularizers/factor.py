"""The total correlation by a critic that tells draws from permuted draws."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.backbones.layers import require_layers, require_positive
from vaekit.distributions import exponentials
from vaekit.errors import VaekitError
from vaekit.latents import Latents
from vaekit.registry import regularizers
from vaekit.regularizers.base import Regularizer
from vaekit.schedules import Scalar

__all__ = ["Factor", "FactorCritic", "permute_dimensions"]


class FactorCritic(nn.Module):
    """Fully connected layers from latents (N, D) to one logit each, shape (N,), with leaky ReLUs of slope 0.2.

    Arguments:
        latent_dim: The number D of latent dimensions.
        hidden: The width of every hidden layer.
        depth: The number of hidden layers.

    Examples:
        >>> FactorCritic(4, hidden=8, depth=2)(torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(self, latent_dim: int, *, hidden: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([latent_dim, *[hidden] * depth]):
            layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.logit = nn.Linear(hidden, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Return the logits, in the dtype of z."""
        logits: Tensor = self.logit(self.layers(z.to(self.logit.weight.dtype))).squeeze(-1)
        return logits.to(z.dtype)


def permute_dimensions(z: Tensor) -> Tensor:
    """Return z (B, D) with every dimension in an order of its own: draws from the product of the marginals."""
    order = torch.rand(z.shape, device=z.device).argsort(0)
    return z.gather(0, order)


@regularizers.register(
    "factor",
    about="FactorVAE: total correlation of the aggregate posterior, by a critic's density ratio",
    source="Kim and Mnih, Disentangling by Factorising, 2018, arXiv 1802.05983",
    needs=("batch of two or more",),
    requires=("reparameterised",),
)
class Factor(Regularizer):
    r"""The total correlation $\mathrm{KL}(q(z)\,\|\,\prod_dq(z_d))$, estimated by the logits l of a critic:

    $$\frac1B\sum_il(z_i)\quad\text{[nats],}\qquad
    \mathcal L_{\text{critic}}=\frac12\,\mathbb E_{q(z)}\bigl[\log(1+e^{-l(z)})\bigr]
    +\frac12\,\mathbb E_{\prod_dq(z_d)}\bigl[\log(1+e^{l(z)})\bigr],$$

    whose minimum is at $l(z)=\log q(z)-\sum_d\log q(z_d)$. Draws of the product are the batch's own, every dimension
    permuted among the samples. A loss of log 2 = 0.693 means that the critic tells nothing apart. FactorVAE is the term
    `kl` at weight 1 and this one at gamma.

    The critic is trained in a phase of its own, `factor_critic`, by the trainer's `discriminator_optimizer`. It is held
    fixed while the VAE is updated, and the draws while it is. The authors permute a second batch; this one is the batch
    that the VAE has just seen. With several draws per sample the permuted ones hold one of them each, chosen by weight.
    Under several ranks each rank permutes its own part of the batch.

    References:
        Disentangling by Factorising, Kim and Mnih, 2018, arXiv 1802.05983.

    Arguments:
        weight: gamma; a number or a schedule.
        hidden: The width of the critic's hidden layers.
        depth: The number of its hidden layers.

    Raises:
        VaekitError: `hidden` or `depth` is not positive, or the objective was made ready for another latent dimension;
            in `forward`, it was never made ready.

    Examples:
        >>> term = Factor(hidden=8, depth=2)
        >>> term.prepare(latent_dim=4, samples=100)
        >>> term.critic.logit
        Linear(in_features=8, out_features=1, bias=True)
    """

    least_batch = 2

    def __init__(self, *, weight: Scalar = 1.0, hidden: int = 1000, depth: int = 6) -> None:
        super().__init__(weight=weight)
        require_positive("factor", hidden=hidden)
        require_layers("factor", depth=depth)
        self.hidden = hidden
        self.depth = depth
        # The critic is made when its input is known, from the random state of now: it depends on the run's seed alone.
        self._seed = int(torch.randint(2**62, ()))

    def extra_repr(self) -> str:
        """Show the weight and the size of the critic."""
        return f"{super().extra_repr()}, hidden={self.hidden}, depth={self.depth}"

    def prepare(self, latent_dim: int, samples: int) -> None:
        """Make the critic, unless there is one."""
        if self.critic is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed)
                self.critic = FactorCritic(latent_dim, hidden=self.hidden, depth=self.depth)
                self.latent_dim = latent_dim
        elif latent_dim != self.latent_dim:
            raise VaekitError(
                f"the critic of 'factor' is for {self.latent_dim} latent dimensions, not {latent_dim}: build a new one"
            )

    def forward(self, latents: Latents) -> Tensor:
        """Return the mean logit of the draws, with a gradient for the draws alone."""
        if self.critic is None:
            raise VaekitError("'factor' has no critic yet: call objective.prepare(model, samples) first")
        self.critic.requires_grad_(False)
        logits = self.critic(latents.z.flatten(0, 1))
        self.critic.requires_grad_(True)
        return latents.expect(logits.view(latents.weights.shape)).mean()

    def critic_loss(self, critic: nn.Module, latents: Latents) -> Tensor:
        """Return the mean cross-entropy of telling draws from permuted draws."""
        draws, batch, dim = latents.z.shape
        # A race of exponentials chooses a draw for every sample without waiting for the device.
        race = exponentials(latents.weights.shape, latents.weights) / latents.weights
        chosen = latents.z.gather(0, race.argmin(0)[None, :, None].expand(1, batch, dim)).squeeze(0)
        # One call: the engine's wrapper wants one forward pass for one backward pass.
        logits = critic(torch.cat([latents.z.flatten(0, 1), permute_dimensions(chosen)]))
        of_draws, of_permuted = logits.split([draws * batch, batch])
        real = latents.expect(F.softplus(-of_draws).view(draws, batch)).mean()
        return 0.5 * (real + F.softplus(of_permuted).mean())
