"""Where the time of a step goes: `vaekit run ... --profile N`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from vaekit.errors import VaekitError
from vaekit.files import save_text, storage_errors
from vaekit.training.step import Clock

__all__ = ["Profile", "StepTimes"]

WARM_UP = 3
TRACED = 5


@dataclass
class StepTimes:
    """What the time of some steps went to.

    Arguments:
        device: Where they ran, in words.
        batch_size: Samples per step, on all devices.
        steps: How many steps were timed.
        seconds: Wall-clock time of all of them.
        parts: Part of a step to its time in all of them: `"data"`, `"vae forward"`, `"vae backward"`, ...
        busy: The share of the time in which the device computes, from the trace; of the processor's threads on a CPU.
        operations: The costliest operations of the trace: name, share of the device's time, calls per step.
    """

    device: str
    batch_size: int
    steps: int = 0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    operations: list[tuple[str, float, float]] = field(default_factory=list)

    def share(self, part: str) -> float:
        """Return the share of the time that went to a part."""
        return self.parts.get(part, 0.0) / self.seconds if self.seconds else 0.0


class Profile(Clock):
    """Times the parts of some steps, then traces a few more, and leaves a trace and a page about both.

    The first steps (3) are not looked at: compilation and first allocations are theirs. The times are those of steps
    that nothing slows: the tracer, which does, is on for some steps after them (5 at most). On a GPU the parts are
    timed on the device, between events in its queue; nothing waits for it in the meantime.

    Arguments:
        steps: How many steps to time.
        folder: Where `trace.json.gz` and `summary.html` go.
        times: Filled in as steps go by.
        device: Where training runs.

    Raises:
        VaekitError: `steps` is below 1.
    """

    def __init__(self, steps: int, folder: Path, times: StepTimes, device: torch.device) -> None:
        if steps < 1:
            raise VaekitError(f"profile must be 1 step or more, not {steps}")
        self.steps, self.traced, self.folder, self.times, self.device = steps, min(steps, TRACED), folder, times, device
        self._seen, self._stamps = 0, list[tuple[str, Any]]()
        self._profiler: profile | None = None
        self._began = self._worked = 0.0

    @property
    def needed(self) -> int:
        """The steps that a run must have for it."""
        return WARM_UP + self.steps + self.traced

    @property
    def _timing(self) -> bool:
        return WARM_UP <= self._seen < WARM_UP + self.steps

    def mark(self, what: str) -> None:
        """Put the time since the last mark down to `what`."""
        if self._timing:
            self._stamps.append((what, self._stamp()))

    def restart(self) -> None:
        """Begin anew: the time since the last mark belongs to no step."""
        self.mark("")

    def end_step(self) -> None:
        """A step is done: begin to time, to trace, or to write, when it is time to."""
        self.mark("logging")
        self._seen += 1
        if self._seen == WARM_UP:
            self._wait()
            self.mark("")
        elif self._seen == WARM_UP + self.steps:
            self._wait()
            self._add_up()
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # It complains of a machine without a GPU.
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
            self._profiler = profile(activities=activities, record_shapes=True, acc_events=True)
            self._profiler.start()
            self._began, self._worked = time.perf_counter(), time.process_time()
        elif self._seen == self.needed:
            self._wait()
            self._finish(time.perf_counter() - self._began, time.process_time() - self._worked)

    def _stamp(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _add_up(self) -> None:
        """Sum the times between neighbouring marks by what they went to."""
        times = self.times
        for (_, before), (what, after) in zip(self._stamps, self._stamps[1:], strict=False):
            if what:
                spent = after - before if self.device.type != "cuda" else before.elapsed_time(after) / 1000
                times.parts[what] = times.parts.get(what, 0.0) + spent
        times.steps, times.seconds = self.steps, sum(times.parts.values())

    def _finish(self, wall: float, worked: float) -> None:
        """Stop the tracer; write the trace and the page."""
        from vaekit.reporting.profile_page import profile_page

        assert self._profiler is not None
        self._profiler.stop()
        times, cuda = self.times, self.device.type == "cuda"
        averages: Sequence[Any] = self._profiler.key_averages()
        spent = {e.key: (e.self_device_time_total if cuda else e.self_cpu_time_total) for e in averages}
        total = sum(spent.values())
        calls = {e.key: e.count / self.traced for e in averages}
        costly = sorted(spent, key=lambda key: -spent[key])[:12]
        times.operations = [(key, spent[key] / total, calls[key]) for key in costly if total and spent[key]]
        # More than all is possible: kernels of several streams, and threads beside those that compute.
        times.busy = min(1.0, total / 1e6 / wall if cuda else worked / wall / torch.get_num_threads())
        self.folder.mkdir(parents=True, exist_ok=True)
        with storage_errors(self.folder):
            self._profiler.export_chrome_trace(str(self.folder / "trace.json.gz"))
        save_text(self.folder / "summary.html", profile_page(times))
        self._profiler = None
