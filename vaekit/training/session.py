"""The state of one training run: model, optimisers, averages and counters, on disk and off."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from torch import nn

from vaekit.errors import VaekitError
from vaekit.files import atomic, storage_errors
from vaekit.models import Model
from vaekit.objectives.elbo import Objective
from vaekit.registry import optimizers
from vaekit.training import checkpoint
from vaekit.training.ema import Averaged
from vaekit.training.meter import Meter
from vaekit.training.optimizers import Optimizer

__all__ = ["Session"]


class Session:
    """Model, objective, optimisers and counters of one run, set up on their device.

    Arguments:
        fabric: The launched engine.
        model: The model.
        objective: The objective.
        optimizer_specs: `vae` and `discriminator` to optimiser, by name or mapping.
        ema: Decay of the weights' moving average, or `None`.
        compiled: Whether to compile the networks.
        out: The run directory, or `None` to keep nothing on disk.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: Model,
        objective: Objective,
        optimizer_specs: Mapping[str, Any],
        ema: float | None,
        compiled: bool,
        out: Path | None,
    ) -> None:
        self.fabric, self.model, self.objective, self.out = fabric, model, objective, out
        model.to(fabric.device)
        objective.to(fabric.device)
        # The average is a copy: taken before the engine wraps or compiles anything.
        self.averaged = Averaged(model, ema) if ema is not None else None
        modules = objective.modules_by_phase(model)
        if compiled:
            for network in (*model.networks(), *(m for name, m in modules.items() if name != "vae")):
                network.compile()
        self.wrapped: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Optimizer] = {}
        for name, module in modules.items():
            # Critics of regularizers are discriminators too.
            role = "vae" if name == "vae" else "discriminator"
            spec = optimizer_specs[role]
            where = "trainer.optimizer" if role == "vae" else "trainer.discriminator_optimizer"
            parameters = [p for p in module.parameters() if p.requires_grad]
            optimizer: Optimizer = optimizers.build(spec, parameters, where=where)
            self.wrapped[name], optimizer.inner = fabric.setup(module, optimizer.inner)
            self.optimizers[name] = optimizer
        self.meter = Meter()
        self.step = 0
        self._earlier, self._began = 0.0, time.perf_counter()
        self.best = math.inf
        self.metrics: list[dict[str, Any]] = []
        self.notes: list[str] = []  # What the user should know of a resume.
        self._metrics_bytes = 0

    @property
    def evaluated(self) -> Model:
        """The model that is evaluated and kept: the averaged one where there is one."""
        return cast(Model, self.averaged.module) if self.averaged is not None else self.model

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run so far: of this session, and of what it resumed up to its checkpoint."""
        return self._earlier + time.perf_counter() - self._began

    # ---- metrics.jsonl -----------------------------------------------------------------------------------------

    def write(self, line: dict[str, Any]) -> None:
        """Append a line of metrics; on disk too, on rank zero."""
        self.metrics.append(line)
        if self.out is not None and self.fabric.is_global_zero:
            payload = (json.dumps(line) + "\n").encode()
            path = self.out / "metrics.jsonl"
            with storage_errors(path), open(path, "ab") as file:
                file.write(payload)
            self._metrics_bytes += len(payload)

    def _rewind_metrics(self, length: int) -> None:
        """Cut metrics.jsonl back to what it was at the checkpoint: later lines will be written again, the same."""
        assert self.out is not None
        path = self.out / "metrics.jsonl"
        content = path.read_bytes() if path.is_file() else b""
        if len(content) < length:
            raise VaekitError(f"{path} is shorter than at the checkpoint: restore it, or start again elsewhere")
        self.metrics = [json.loads(line) for line in content[:length].splitlines()]
        self._metrics_bytes = length
        if self.fabric.is_global_zero and len(content) > length:
            with atomic(path) as file:
                file.write(content[:length])

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def save(self, *names: str) -> None:
        """Write the checkpoints named, unless a term was not finite since the last look.

        Raises:
            NotFiniteError: The weights may be spoilt: nothing is written.
            VaekitError: The disk is full.
        """
        self.meter.check()
        if self.out is None:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "metrics_bytes": self._metrics_bytes,
            "meter": self.meter.state_dict(),
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizers": {name: optimizer.inner.state_dict() for name, optimizer in self.optimizers.items()},
            "rng": checkpoint.collect_rng(self.fabric.device),
        }
        if self.fabric.is_global_zero:
            # Metrics first: a checkpoint never speaks of lines that a power cut could take away.
            path = self.out / "metrics.jsonl"
            if path.is_file():
                with storage_errors(path), open(path, "rb") as file:
                    os.fsync(file.fileno())
            for name in names:
                checkpoint.save(self.out, name, state)
        self.fabric.barrier()

    def resume(self) -> None:
        """Go back to the last checkpoint of the run directory.

        Raises:
            VaekitError: It is missing, damaged, or of another model.
        """
        assert self.out is not None
        state, self.notes = checkpoint.latest(self.out)
        try:
            self.model.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            for name, optimizer in self.optimizers.items():
                optimizer.inner.load_state_dict(state["optimizers"][name])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise VaekitError(
                f"the checkpoint in {self.out} is of another model or optimiser: resume with the configuration it was "
                "trained with"
            ) from error
        self.step, self.best = state["step"], state["best"]
        self._earlier, self._began = state.get("seconds", 0.0), time.perf_counter()  # An older checkpoint has none.
        self.meter.load_state_dict(state["meter"])
        self._rewind_metrics(state["metrics_bytes"])
        checkpoint.restore_rng(state["rng"], self.fabric.global_rank, self.fabric.device)
