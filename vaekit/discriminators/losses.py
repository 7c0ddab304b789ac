"""Adversarial losses: what logits are worth to the discriminator and to the generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.registry import adversarial_losses

__all__ = ["AdversarialLoss", "BCE", "Hinge", "LeastSquares"]


class AdversarialLoss:
    """A pair of losses on logits of any shape (B, ...), each the mean over a sample's logits, of shape (B,).

    The discriminator minimises the mean of `real(D(x)) + fake(D(x_hat))`, the generator that of `generator(D(x_hat))`.
    All three are in float32 or wider, also under autocast, and give one value per sample, so that an objective can
    weight samples and draws.
    """

    def real(self, logits: Tensor) -> Tensor:
        """Return the discriminator's loss (B,) on real samples."""
        raise NotImplementedError

    def fake(self, logits: Tensor) -> Tensor:
        """Return the discriminator's loss (B,) on fake samples."""
        raise NotImplementedError

    def generator(self, logits: Tensor) -> Tensor:
        """Return the generator's loss (B,) on its fake samples."""
        raise NotImplementedError


def _mean(terms: Tensor) -> Tensor:
    return terms.reshape(terms.shape[0], -1).mean(dim=1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@adversarial_losses.register(
    "bce",
    about="Binary cross-entropy, with the generator's loss that does not saturate",
    source="Generative adversarial nets, I. Goodfellow et al., 2014, arXiv 1406.2661",
)
class BCE(AdversarialLoss):
    r"""Binary cross-entropy of logits $l$, with $\sigma$ the logistic function.

    real: $-\log \sigma(l)$; fake: $-\log(1 - \sigma(l))$; generator: $-\log \sigma(l)$, which does not saturate.
    Source: Generative adversarial nets, I. Goodfellow et al., 2014, arXiv 1406.2661.

    Examples:
        >>> BCE().real(torch.zeros(1, 1, 2, 2))
        tensor([0.6931])
    """

    def real(self, logits: Tensor) -> Tensor:
        """Return the mean of -log sigmoid(logits)."""
        return _mean(-F.logsigmoid(_wide(logits)))

    def fake(self, logits: Tensor) -> Tensor:
        """Return the mean of -log sigmoid(-logits)."""
        return _mean(-F.logsigmoid(-_wide(logits)))

    def generator(self, logits: Tensor) -> Tensor:
        """Return the mean of -log sigmoid(logits)."""
        return self.real(logits)


@adversarial_losses.register(
    "hinge",
    about="Hinge loss: the discriminator stops caring beyond a margin of 1",
    source="Geometric GAN, J. H. Lim and J. C. Ye, 2017, arXiv 1705.02894",
)
class Hinge(AdversarialLoss):
    r"""Hinge loss of logits $l$.

    real: $\max(0, 1 - l)$; fake: $\max(0, 1 + l)$; generator: $-l$.
    Source: Geometric GAN, J. H. Lim and J. C. Ye, 2017, arXiv 1705.02894.

    Examples:
        >>> Hinge().fake(torch.tensor([[-2.0], [0.5]]))
        tensor([0.0000, 1.5000])
    """

    def real(self, logits: Tensor) -> Tensor:
        """Return the mean of max(0, 1 - logits)."""
        return _mean(F.relu(1.0 - _wide(logits)))

    def fake(self, logits: Tensor) -> Tensor:
        """Return the mean of max(0, 1 + logits)."""
        return _mean(F.relu(1.0 + _wide(logits)))

    def generator(self, logits: Tensor) -> Tensor:
        """Return the mean of -logits."""
        return _mean(-_wide(logits))


@adversarial_losses.register(
    "least_squares",
    about="Half squared distance to the targets 1 (real) and 0 (fake)",
    source="Least squares generative adversarial networks, X. Mao et al., 2016, arXiv 1611.04076",
)
class LeastSquares(AdversarialLoss):
    r"""Half the squared distance of logits $l$ to their target.

    real: $\frac12 (l - 1)^2$; fake: $\frac12 l^2$; generator: $\frac12 (l - 1)^2$.
    Source: Least squares generative adversarial networks, X. Mao et al., 2016, arXiv 1611.04076.

    Examples:
        >>> LeastSquares().generator(torch.tensor([[3.0]]))
        tensor([2.])
    """

    def real(self, logits: Tensor) -> Tensor:
        """Return the mean of (logits - 1)^2 / 2."""
        return _mean((_wide(logits) - 1.0).square() / 2)

    def fake(self, logits: Tensor) -> Tensor:
        """Return the mean of logits^2 / 2."""
        return _mean(_wide(logits).square() / 2)

    def generator(self, logits: Tensor) -> Tensor:
        """Return the mean of (logits - 1)^2 / 2."""
        return self.real(logits)
