"""Densities, moments and losses run in float32 at least, whatever the networks run in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["at_least_float32", "without_autocast"]

_NOTHING = nullcontext()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is of a half precision, unchanged otherwise.

    Examples:
        >>> at_least_float32(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast on the device; it costs nothing where autocast is off anyway."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else _NOTHING
