"""One optimiser step: every phase in turn, in micro-batches, clipped, and left out where it is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from vaekit.objectives.elbo import Phase
from vaekit.observed import Observed
from vaekit.training.not_finite import Guard
from vaekit.training.session import Session

__all__ = ["Clock", "Compile", "Step"]

Compile = Literal[False, True, "reduce-overhead", "max-autotune"]


class StepOptions(Protocol):
    """What a step reads of the trainer's options."""

    accumulate: int
    compile: Compile
    clip: float | None
    not_finite: Literal["stop", "skip"]
    precision: Literal["float32", "bf16"]


class Clock:
    """Told what the time since the last mark went to; this one does not listen."""

    def mark(self, what: str) -> None:
        """Put the time since the last mark down to `what`."""

    def restart(self) -> None:
        """Begin anew: the time since the last mark belongs to no step."""

    def end_step(self) -> None:
        """A step is done."""


class Step:
    """Takes the steps of a run; nothing here waits for the device, unless steps that are not finite are left out.

    Arguments:
        options: The trainer's options.
        session: The state of the run.
        clock: Told of each part of a step.
    """

    def __init__(self, options: StepOptions, session: Session, clock: Clock) -> None:
        self.options, self.session, self.clock = options, session, clock
        self.guard = Guard(session, self.replay) if options.not_finite == "skip" else None

    def take(self, x: Tensor | Observed) -> str:
        """Update every phase's parameters once; return what there is to say, mostly nothing."""
        session, said = self.session, ""
        if self.options.compile:
            torch.compiler.cudagraph_mark_step_begin()  # What graphs gave in the step before may be written over.
        if self.guard is not None:
            self.guard.begin()
        streams = self._streams(x, session.wrapped)
        while (found := self._backward(streams)) is not None:
            name, terms = found
            optimizer = session.optimizers[name]
            optimizer.set_rate(session.step)
            if self.options.clip is not None:
                norm = session.clip(name, self.options.clip)
                terms = {**terms, f"{name}_gradient_norm": norm}
            if self.guard is not None and (said := self.guard.refuse(name, terms, x)):
                break
            optimizer.inner.step()
            self.clock.mark(f"{name} update")
            session.meter.add(name, terms, session.step)
        session.step += 1
        if session.averaged is not None:
            session.averaged.update(session.model, session.step)
            self.clock.mark("moving average")
        return said

    def _streams(self, x: Tensor | Observed, wrapped: Any) -> list[Iterator[Phase]]:
        """Return the phases of each micro-batch: generators, which compute a loss when they are asked for it."""
        session, parts = self.session, self.options.accumulate
        size = len(x) // parts
        return [
            session.objective.phases(session.model, x[n * size : (n + 1) * size], session.step, wrapped)
            for n in range(parts)
        ]

    def _backward(self, streams: Sequence[Iterator[Phase]]) -> tuple[str, dict[str, Tensor]] | None:
        """Leave the next phase's gradients with its parameters; return its name and terms, `None` after the last."""
        session, terms, name = self.session, [], ""
        for number, stream in enumerate(streams):
            with self._synchronised(number + 1 == len(streams)):
                with self.autocast():  # Backward runs outside.
                    phase = next(stream, None)
                if phase is None:
                    return None
                name = phase.name
                self.clock.mark(f"{name} forward")
                if number == 0:
                    session.optimizers[name].inner.zero_grad()
                session.fabric.backward(phase.loss if len(streams) == 1 else phase.loss / len(streams))
                self.clock.mark(f"{name} backward")
            terms.append(phase.terms)
        if len(terms) == 1:
            return name, terms[0]
        return name, {term: torch.stack([part[term] for part in terms]).mean(0) for term in terms[0]}

    def _synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Let ranks average their gradients at the last micro-batch only."""
        session, stack = self.session, ExitStack()
        if not last and session.fabric.world_size > 1:
            for module in session.engines.values():
                stack.enter_context(session.fabric.no_backward_sync(module))
        return stack

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run."""
        if self.options.precision == "float32":
            return nullcontext()
        return torch.autocast(self.session.fabric.device.type, torch.bfloat16)

    def replay(self, x: Tensor | Observed) -> Iterator[Phase]:
        """Yield the phases of a step once more, of every micro-batch, without updates and without the engine."""
        session = self.session
        for stream in self._streams(x, session.objective.modules_by_phase(session.model)):
            while True:
                with self.autocast():
                    phase = next(stream, None)
                if phase is None:
                    break
                yield phase
