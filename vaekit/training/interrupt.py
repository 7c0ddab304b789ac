"""Ctrl-C and SIGTERM end a run between two steps, not inside one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import torch
import torch.distributed

from vaekit.distributed import world_size

__all__ = ["Interrupt", "listen"]


class Interrupt:
    """Holds the signal that asked the run to stop, 0 while none has."""

    def __init__(self) -> None:
        self.signal = 0

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop; all ranks must call this together."""
        if world_size() == 1:
            return self.signal != 0
        flag = torch.tensor(self.signal, device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        self.signal = int(flag)
        return self.signal != 0


_listening: Interrupt | None = None


@contextlib.contextmanager
def listen() -> Iterator[Interrupt]:
    """Catch SIGINT and SIGTERM while inside; a second one of either acts at once, as before.

    Inside another `listen` this is the same interrupt: the handlers are set once.
    """
    global _listening
    # Only the main thread may set signal handlers.
    if _listening is not None or threading.current_thread() is not threading.main_thread():
        yield _listening or Interrupt()
        return
    interrupt = _listening = Interrupt()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        interrupt.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        _listening = None
        for number, handler in before.items():
            signal.signal(number, handler)
