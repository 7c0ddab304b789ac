"""Draws of a Gaussian mixture that move with its weights: the transport of mass between components."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Pathwise", "choose"]


def choose(log_probs: Tensor, sample_shape: Size) -> Tensor:
    """Draw component numbers by an exponential race, which needs no check of the weights and no wait for the device."""
    uniform = torch.rand(sample_shape + log_probs.shape, dtype=log_probs.dtype, device=log_probs.device)
    return (log_probs - uniform.log_().neg_().log_()).argmax(-1)


class Pathwise(torch.autograd.Function):
    r"""One draw per sample and row, and its velocity with respect to every parameter.

    With $r_k$ the responsibilities, $\Phi_k$ the component cdfs and $q v$ the flux of mass,

    - location: $v^{\mu_{kd}} = r_k e_d$; scale: $v^{\sigma_{kd}} = r_k (z_d - \mu_{kd}) / \sigma_{kd} e_d$;
    - logits: $v_d^{l_k} = \sum_j \pi_j \pi_k v_d^{(j \to k)}$ with
      $q v_d^{(j \to k)} = \prod_{i<d} N_k(z_i)\,(\Phi_j - \Phi_k)(z_d) \prod_{i>d} N_j(z_i)$,
      whose divergence telescopes to $\prod N_j - \prod N_k$.

    The sum over j needs only $\sum_j \pi_j \mathrm{suffix}_j$ and $\sum_j \pi_j \mathrm{suffix}_j \Phi_j$, so the
    work and the memory are linear in K. Shapes: S draws, N rows, K components, D dimensions.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, loc: Tensor, scale: Tensor, sample_shape: Size) -> Tensor:
        """Draw z of shape sample_shape + (..., D) from logits (..., K), loc (..., K, D) and scale (..., K, D)."""
        ctx.shape = loc.shape
        components, dimensions = loc.shape[-2:]
        log_probs = logits.log_softmax(-1).reshape(-1, components)
        loc, scale = loc.reshape(-1, dimensions), scale.reshape(-1, dimensions)
        chosen = choose(log_probs, Size((sample_shape.numel(),)))
        rows = chosen.add_(torch.arange(0, loc.shape[0], components, device=loc.device)).flatten()
        noise = torch.randn(rows.shape[0], dimensions, dtype=loc.dtype, device=loc.device)
        z = torch.addcmul(loc.index_select(0, rows), scale.index_select(0, rows), noise)
        ctx.save_for_backward(log_probs, loc, scale, z, noise, rows)
        return z.view(sample_shape + ctx.shape[:-2] + ctx.shape[-1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """Return the gradients of logits, loc and scale."""
        log_probs, loc, scale, z, noise, rows = ctx.saved_tensors
        (size, components), dimensions = log_probs.shape, loc.shape[-1]
        loc, scale = loc.view(size, components, dimensions), scale.view(size, components, dimensions)
        thin = (-1, size, 1, dimensions)
        grad_z, z = grad_z.reshape(thin), z.view(thin)

        standard = (z - loc).div_(scale)
        energy = scale.log().addcmul(standard, standard, value=0.5)
        if z.shape[0] > 1:
            draws = torch.arange(0, rows.shape[0] * components, size * components, device=rows.device)
            rows = (rows.view(-1, size) + draws.unsqueeze(-1)).flatten()
        own = energy.view(-1, dimensions).index_select(0, rows).view(thin)

        # Everything is relative to the density of the chosen component: identical components give exact zeros, and each
        # ratio has expectation one. A dimension that makes a component e^60 less likely has ended it; that floor keeps
        # the sums small enough to be subtracted (at D = 1024 the exponents err by less than 0.004 in float32).
        relative = (own - energy).clamp_(min=-60.0)
        sums = relative.cumsum(-1)
        joint = sums[..., -1:] + log_probs.unsqueeze(-1)
        # By Markov's inequality a ratio meets its limit with a probability below e^-22 in float32, unless rounding of z
        # breaks q itself; then the limits keep the product of two ratios and `outer` finite.
        largest = math.log(torch.finfo(z.dtype).max)
        limit = 0.25 * largest
        prefix = (sums - relative).clamp_(max=limit).exp_()
        suffix = (joint - sums).clamp_(max=limit).exp_()
        joint = joint.clamp_(max=limit).exp_()
        density = joint.sum(-2, keepdim=True)
        grad_z = grad_z / density
        flow = joint * grad_z
        grad_loc = _sum_draws(flow).view(ctx.shape)
        grad_scale = _sum_draws(flow * standard).view(ctx.shape)
        if not ctx.needs_input_grad[0]:
            return None, grad_loc, grad_scale, None

        # The cdfs are taken from the side of the chosen component where z lies: there they are small and their
        # differences exact, while a component beyond z has a difference near one to the chosen one.
        side = noise.sign().mul_(math.sqrt(0.5)).view(thin)
        tail = standard.mul_(side).erfc_()
        outer = own.clamp_(max=0.45 * largest).exp_().mul_(side).mul_(grad_z)
        total = suffix.sum(-2, keepdim=True).mul_(outer)
        beyond = suffix.mul_(tail).sum(-2, keepdim=True).mul_(outer)
        velocity = torch.addcmul(beyond.neg_(), tail, total).mul_(prefix)
        grad_logits = velocity.sum((0, -1)).mul_(log_probs.exp()).mul_(math.sqrt(math.pi))
        return grad_logits.view(ctx.shape[:-1]), grad_loc, grad_scale, None


def _sum_draws(per_draw: Tensor) -> Tensor:
    """Sum over the first dimension, free of cost where it is one."""
    return per_draw[0] if per_draw.shape[0] == 1 else per_draw.sum(0)
