"""Running means and the watch for non-finite terms; nothing is read back from the device before `read`."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from vaekit.distributed import world_size
from vaekit.errors import VaekitError

__all__ = ["Meter", "NotFiniteError"]


class NotFiniteError(VaekitError):
    """A term of the loss became NaN or infinite; the sentence names the term and the step.

    Arguments:
        sentence: What is wrong and what to do.
        step: The step, counted from 0; `None` where it is not one.
    """

    def __init__(self, sentence: str, step: int | None = None) -> None:
        super().__init__(sentence)
        self.step = step


class Meter:
    """Means of named scalars over a window of steps.

    A step only keeps its scalars where they are; the window is stacked, summed and searched for values that are not
    finite when it is read, so that the device is waited for once per window and a step costs next to nothing.
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._values: dict[str, list[Tensor]] = {}
        self._steps: dict[str, list[int]] = {}
        # What a window held before a resume: rows of values by phase.
        self._earlier: dict[str, Tensor] = {}

    def add(self, phase: str, terms: dict[str, Tensor], step: int) -> None:
        """Keep one step's scalars of one phase; a phase gives the same names every time."""
        self._names.setdefault(phase, list(terms))
        self._values.setdefault(phase, []).extend(terms.values())
        self._steps.setdefault(phase, []).append(step)

    def _rows(self, phase: str) -> Tensor:
        """Return the window of a phase, shape (steps, terms), in float64."""
        values = self._values.get(phase, [])
        rows = torch.stack([v.detach().float() for v in values]).double() if values else torch.empty(0)
        rows = rows.reshape(-1, len(self._names[phase]))
        return torch.cat([self._earlier[phase].to(rows.device), rows]) if phase in self._earlier else rows

    def check(self) -> None:
        """Look for values that are not finite, on all ranks together.

        Raises:
            NotFiniteError: There is one; names the earliest step and the first such term of that step.
        """
        firsts: list[Tensor] = []
        for phase in self._values:
            steps = torch.tensor(self._steps[phase], dtype=torch.float64)
            values = torch.stack([v.detach().float() for v in self._values[phase]])
            bad = ~values.isfinite().reshape(len(steps), -1)
            firsts.append(torch.where(bad, steps.to(bad.device)[:, None], torch.inf).amin(0))
        if not firsts:
            return
        earliest_by_term = torch.cat(firsts)
        if world_size() > 1:
            torch.distributed.all_reduce(earliest_by_term, torch.distributed.ReduceOp.MIN)
        names = [name for phase in self._values for name in self._names[phase]]
        found = earliest_by_term.tolist()
        step = min(found)
        if step == torch.inf:
            return
        culprits = [name for name, first in zip(names, found, strict=True) if first == step]
        # The sum is not finite because one of its terms is: name the term.
        culprit = next((name for name in culprits if name != "loss"), culprits[0])
        raise NotFiniteError(
            f"the term '{culprit}' became NaN or infinite at step {step:.0f}: the last good checkpoint is kept; "
            "lower trainer.optimizer.lr or set trainer.clip, then start again or resume",
            int(step),
        )

    def read(self) -> dict[str, float]:
        """Return the means over the window and all ranks, and begin a new window.

        Raises:
            NotFiniteError: A term was not finite.
        """
        self.check()
        if not self._names:
            return {}
        means = torch.cat([self._rows(phase).mean(0) for phase in self._names])
        if world_size() > 1:
            torch.distributed.all_reduce(means)
            means = means / world_size()
        names = [name for phase in self._names.values() for name in phase]
        self._names, self._values, self._steps, self._earlier = {}, {}, {}, {}
        return dict(zip(names, means.tolist(), strict=True))

    def state_dict(self) -> dict[str, dict]:
        """Return the window so far."""
        return {"names": dict(self._names), "rows": {phase: self._rows(phase) for phase in self._names}}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Continue a window."""
        self.__init__()  # type: ignore[misc]
        self._names, self._earlier = dict(state["names"]), dict(state["rows"])
