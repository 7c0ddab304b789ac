"""The adversarial part of an objective: a discriminator, its loss and how strongly it pulls."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from vaekit.discriminators.base import Discriminator
from vaekit.discriminators.losses import AdversarialLoss
from vaekit.errors import VaekitError
from vaekit.precision import at_least_float32
from vaekit.schedules import Scalar, as_schedule

__all__ = ["Adversary"]


class Adversary(nn.Module):
    r"""A discriminator D that tells data from reconstructions, and the pull it exerts on the VAE.

    $$\mathcal L_G=w(t)\,a\;\ell_G(D(\hat x)),\qquad
    \mathcal L_D=w(t)\,[\ell_{\text{real}}(D(x))+\ell_{\text{fake}}(D(\hat x))]
    +\tfrac\gamma2\,\mathbb E\|\nabla_xD(x)\|^2.$$

    With `adaptive`, $a=\|\nabla_L\mathcal L_{\text{rec}}\|/(\|\nabla_L\ell_G\|+10^{-4})$, at most $10^4$, where L
    is the decoder's last layer: the adversary then pulls as strongly as the reconstruction, and `weight` is a fraction
    of that; else $a=1$. The discriminator's own loss carries the weight only without `adaptive` (with Adam its scale
    hardly matters).

    The VAE's update uses the reconstructions of the same forward pass as the discriminator's, which sees them detached.

    References:
        How to train your VAE, Rivera, 2024, arXiv 2309.13160 (weight 100, no warm-up).
        Taming Transformers for High-Resolution Image Synthesis, Esser, Rombach and Ommer, 2020, arXiv 2012.09841
        (adaptive weight, delayed start).
        Which Training Methods for GANs do actually Converge?, Mescheder, Geiger and Nowozin, 2018, arXiv 1801.04406
        (the gradient penalty on real samples, R1).

    Arguments:
        discriminator: Samples to logits.
        loss: The adversarial loss.
        weight: A number or a schedule.
        start_step: The first step at which the adversary takes part.
        adaptive: Whether the weight is relative to the reconstruction's pull on the last layer.
        r1: The weight gamma of the gradient penalty on real samples; 0 for none.

    Raises:
        VaekitError: `start_step` or `r1` is negative.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        loss: AdversarialLoss,
        *,
        weight: Scalar = 1.0,
        start_step: int = 0,
        adaptive: bool = False,
        r1: float = 0.0,
    ) -> None:
        super().__init__()
        if start_step < 0 or r1 < 0:
            raise VaekitError("adversary.start_step and adversary.r1 must be 0 or more")
        self.discriminator = discriminator
        self.loss = loss
        self.weight = as_schedule(weight)
        self.start_step = start_step
        self.adaptive = adaptive
        self.r1 = r1

    def active(self, step: int) -> bool:
        """Whether the adversary takes part in this step."""
        return step >= self.start_step

    def generator_loss(
        self, fakes: Tensor, weights: Tensor, reconstruction: Tensor, last_layer: nn.Parameter, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted term of the VAE's loss, and what to log.

        Arguments:
            fakes: Reconstructions (S, B, *X).
            weights: Weights of the draws (S, B).
            reconstruction: The reconstruction term, for the adaptive weight.
            last_layer: The decoder's last weight, for the adaptive weight.
            step: Optimiser steps taken so far.
        """
        # Frozen while the VAE is updated: gradients pass through the discriminator and leave none in it. One that is
        # shared out among ranks cannot be frozen; what gradients it gets are cleared before its own update.
        frozen = not isinstance(self.discriminator, FSDPModule)
        self.discriminator.requires_grad_(not frozen)
        logits = at_least_float32(self.discriminator(fakes.flatten(0, 1)))
        term = _mean(self.loss.generator(logits), weights)
        self.discriminator.requires_grad_(True)
        terms = {"generator": term.detach()}
        pull = self.weight(step) * term
        if self.adaptive:
            of_reconstruction, of_term = (
                torch.autograd.grad(value, last_layer, retain_graph=True)[0].norm() for value in (reconstruction, term)
            )
            factor = (of_reconstruction / (of_term + 1e-4)).clamp(max=1e4).detach()
            terms["adaptive_weight"] = factor
            pull = factor * pull
        return pull, terms

    def discriminator_loss(
        self, discriminator: nn.Module, real: Tensor, fakes: Tensor, weights: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's loss, and what to log.

        Arguments:
            discriminator: The discriminator as the engine wraps it.
            real: Data (B, *X).
            fakes: Detached reconstructions (S, B, *X).
            weights: Detached weights of the draws (S, B).
            step: Optimiser steps taken so far.
        """
        if self.r1:
            real = real.detach().requires_grad_()
        # Two calls: batch statistics, where there are any, are of real and of fake samples apart.
        logits_real = at_least_float32(discriminator(real))
        logits_fake = at_least_float32(discriminator(fakes.flatten(0, 1)))
        loss = self.loss.real(logits_real).mean() + _mean(self.loss.fake(logits_fake), weights)
        terms = {
            "discriminator": loss.detach(),
            "logits_real": logits_real.detach().mean(),
            "logits_fake": logits_fake.detach().mean(),
        }
        if not self.adaptive:
            loss = self.weight(step) * loss
        if self.r1:
            slope = torch.autograd.grad(logits_real.sum(), real, create_graph=True)[0]
            penalty = slope.float().square().flatten(1).sum(1).mean()
            loss = loss + 0.5 * self.r1 * penalty
            terms["r1"] = penalty.detach()
        return loss, terms


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the batch mean of per-sample values (S * B,) under the weights (S, B) of the draws."""
    return (weights * values.reshape(weights.shape)).sum(0).mean()
