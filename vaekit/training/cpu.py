"""Settings of the process that make training on a CPU faster."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["ask_for_gpus_once", "keep_freed_memory"]

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def ask_for_gpus_once() -> None:
    """Let torch ask the CUDA runtime whether there are GPUs, which remembers it.

    Importing Fabric makes torch ask the driver's management library instead, and loads that library anew each time:
    torch's optimisers ask at every step, which takes 0.2 ms where there is no GPU.

    Examples:
        >>> ask_for_gpus_once()
        >>> os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]
        '0'
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for the next step, and return whether that is so now.

    By default glibc gives a freed tensor of some megabytes back to the system, which hands the next one out in pages
    that it has to find and to zero one by one: on a CPU a good part of the time of a convolutional network. The size
    of the process stays at its peak instead. Nothing happens where another C library is at work, or where the user has
    chosen with the environment variables `MALLOC_MMAP_MAX_`, `MALLOC_MMAP_THRESHOLD_` or `MALLOC_TRIM_THRESHOLD_`.

    Examples:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if any(f"MALLOC_{name}_" in os.environ for name in ("MMAP_MAX", "MMAP_THRESHOLD", "TRIM_THRESHOLD")):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all(mallopt(option, value) for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 2**26)))
