"""Running means and the watch for non-finite terms, both kept on the device until they are read."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor

from vaekit.distributed import world_size
from vaekit.errors import VaekitError

__all__ = ["Meter", "NotFiniteError"]


class NotFiniteError(VaekitError):
    """A term of the loss became NaN or infinite; the sentence names the term and the step."""


class Meter:
    """Means of named scalars over a window of steps, without reading one back from the device before `read`.

    For every name it also keeps the first step at which the value was not finite. The scalars of one `add` travel as
    one vector, so that a step costs a handful of small operations whatever the number of terms.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._bad: dict[str, Tensor] = {}

    def add(self, terms: dict[str, Tensor], step: int) -> None:
        """Add one step's scalars; the same names are expected together every time."""
        key = ",".join(terms)
        values = torch.stack([value.detach().float() for value in terms.values()]).double()
        if key not in self._totals:
            self._totals[key], self._counts[key] = torch.zeros_like(values), 0
        if key not in self._bad:
            self._bad[key] = torch.full_like(values, torch.inf)
        self._totals[key] += values
        self._counts[key] += 1
        # The first bad step of every name: values that are finite leave infinity behind.
        self._bad[key] = self._bad[key].clamp_max(torch.where(values.isfinite(), torch.inf, float(step)))

    def check(self) -> None:
        """Read the watch, on all ranks together.

        Raises:
            NotFiniteError: A term was not finite; names the earliest step and the first such term of that step.
        """
        if not self._bad:
            return
        steps = torch.cat(list(self._bad.values()))
        if world_size() > 1:
            torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MIN)
        bad = list(zip(_names(self._bad), steps.tolist(), strict=True))
        earliest = min(step for _, step in bad)
        if earliest == torch.inf:
            return
        names = [name for name, step in bad if step == earliest]
        # The sum is not finite because one of its terms is: name the term.
        culprit = next((name for name in names if name != "loss"), names[0])
        raise NotFiniteError(
            f"the term '{culprit}' became NaN or infinite at step {earliest:.0f}: the last good checkpoint is kept; "
            "lower trainer.optimizer.lr or set trainer.clip, then start again or resume"
        )

    def read(self) -> dict[str, float]:
        """Return the means over the window and all ranks, and begin a new window.

        Raises:
            NotFiniteError: A term was not finite.
        """
        self.check()
        if not self._totals:
            return {}
        means = torch.cat([total / self._counts[key] for key, total in self._totals.items()])
        if world_size() > 1:
            torch.distributed.all_reduce(means)
            means = means / world_size()
        values = dict(zip(_names(self._totals), means.tolist(), strict=True))
        self._totals, self._counts = {}, {}
        return values

    def state_dict(self) -> dict[str, dict]:
        """Return the window so far."""
        return {"totals": dict(self._totals), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, dict], device: torch.device) -> None:
        """Continue a window."""
        self._totals = {key: total.to(device) for key, total in state["totals"].items()}
        self._counts, self._bad = dict(state["counts"]), {}


def _names(vectors: dict[str, Tensor]) -> list[str]:
    return [name for key in vectors for name in key.split(",")]
