"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vaekit.training.sharded import local

__all__ = ["Averaged"]


class Averaged(AveragedModel):
    r"""A copy of a model whose parameters and buffers follow the model's: $a\leftarrow d\,a+(1-d)\,w$.

    The decay warms up, $d_t=\min(d,\frac{1+t}{10+t})$, so that the first weights are soon forgotten.

    Arguments:
        model: The model to follow.
        decay: The decay d after warm-up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._now = decay
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)

    def update(self, model: nn.Module, step: int) -> None:
        """Follow the model after its update number `step`."""
        self._now = min(self._decay, (1 + step) / (10 + step))
        self.update_parameters(model)

    @torch.no_grad()
    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _: object) -> None:
        if averaged[0].is_floating_point():
            # Of weights that are shared out every rank averages its part.
            torch._foreach_lerp_([local(a) for a in averaged], [local(c) for c in current], 1.0 - self._now)
        else:
            for mine, other in zip(averaged, current, strict=True):
                mine.copy_(other)
