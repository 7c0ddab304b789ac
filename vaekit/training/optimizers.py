"""Optimisers by name, with typed options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from vaekit.errors import VaekitError
from vaekit.registry import check_spec, optimizers
from vaekit.schedules import Scalar, as_schedule
from vaekit.training.sharded import shared_out

__all__ = ["Optimizer", "adam", "adamax", "adamw", "check_optimizer", "sgd"]


class Optimizer:
    """A torch optimiser and the schedule of its learning rate."""

    def __init__(self, inner: torch.optim.Optimizer, lr: Scalar) -> None:
        if isinstance(lr, int | float) and lr < 0:
            raise VaekitError(f"the learning rate lr must be 0 or more, not {lr:g}")
        self.inner = inner
        self.lr = as_schedule(lr)
        self.parameters = [parameter for group in inner.param_groups for parameter in group["params"]]

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a state whose tensors are whole, also where the parameters are shared out among ranks."""
        entries = {
            index: shared_out(entry, dict.fromkeys(entry, self.parameters[index]))
            for index, entry in state["state"].items()
        }
        self.inner.load_state_dict({**state, "state": entries})

    def set_rate(self, step: int) -> None:
        """Set the learning rate of this step."""
        for group in self.inner.param_groups:
            group["lr"] = self.lr(step)


def check_optimizer(spec: str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a spec with checked options, after it was tried on a parameter.

    Arguments:
        spec: A name, or a mapping with `name` and options.
        where: The path of the spec within a configuration, for messages.

    Raises:
        VaekitError: Unknown name, unknown option, or a value of the wrong type or out of its range.
    """
    checked = check_spec(optimizers, spec, where)
    try:
        optimizers.build(checked, [nn.Parameter(torch.zeros(1))], where=where)
    except (RuntimeError, TypeError, ValueError) as error:  # torch refuses what is out of its range
        raise VaekitError(f"{where} is not valid: {error}") from error
    return checked


@optimizers.register(
    "adam",
    about="Adam",
    source="Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, arXiv 1412.6980",
)
def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Scalar = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool = True,
) -> Optimizer:
    """Return Adam.

    Arguments:
        parameters: What is optimised.
        lr: The learning rate, a number or a schedule.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the root of the mean square.
        fused: Whether one kernel updates all parameters.
    """
    return Optimizer(torch.optim.Adam(parameters, betas=betas, eps=eps, fused=fused), lr)


@optimizers.register(
    "adamax",
    about="Adam with the running maximum of the gradient instead of its mean square",
    source="Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, arXiv 1412.6980",
)
def adamax(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Scalar = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Return AdaMax.

    Arguments:
        parameters: What is optimised.
        lr: The learning rate, a number or a schedule.
        betas: Decay of the running mean of the gradient and of its running maximum.
        eps: Added to the size of the gradient.
        weight_decay: The weight of the squared norm of the parameters, halved, that is added to the loss.
    """
    return Optimizer(torch.optim.Adamax(parameters, betas=betas, eps=eps, weight_decay=weight_decay), lr)


@optimizers.register(
    "adamw",
    about="Adam with decoupled weight decay",
    source="Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, arXiv 1711.05101",
)
def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Scalar = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    fused: bool = True,
) -> Optimizer:
    """Return AdamW.

    Arguments:
        parameters: What is optimised.
        lr: The learning rate, a number or a schedule.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the root of the mean square.
        weight_decay: The share of every weight, times the rate, that is taken away at each step.
        fused: Whether one kernel updates all parameters.
    """
    inner = torch.optim.AdamW(parameters, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)
    return Optimizer(inner, lr)


@optimizers.register("sgd", about="Stochastic gradient descent with momentum", source="Robbins and Monro, 1951")
def sgd(
    parameters: Iterable[nn.Parameter], *, lr: Scalar = 1e-2, momentum: float = 0.0, weight_decay: float = 0.0
) -> Optimizer:
    """Return stochastic gradient descent.

    Arguments:
        parameters: What is optimised.
        lr: The learning rate, a number or a schedule.
        momentum: The share of the last update that is repeated.
        weight_decay: The weight of the squared norm of the parameters, halved, that is added to the loss.
    """
    return Optimizer(torch.optim.SGD(parameters, momentum=momentum, weight_decay=weight_decay), lr)
