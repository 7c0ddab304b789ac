"""The state of one training run: model, optimisers, averages and counters, on disk and off."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn

from vaekit.errors import VaekitError
from vaekit.files import atomic, storage_errors
from vaekit.models import Model
from vaekit.objectives.elbo import Objective
from vaekit.registry import optimizers
from vaekit.training import checkpoint
from vaekit.training.activations import checkpoint_activations
from vaekit.training.ema import Averaged
from vaekit.training.meter import Meter, NotFiniteError
from vaekit.training.optimizers import Optimizer
from vaekit.training.sharded import Opened, Shown, any_rank, local, shared_out, whole

__all__ = ["Session"]


class Session:
    """Model, objective, optimisers and counters of one run, set up on their device.

    Arguments:
        fabric: The launched engine.
        model: The model.
        objective: The objective.
        optimizer_specs: `vae` and `discriminator` to optimiser, by name or mapping.
        ema: Decay of the weights' moving average, or `None`.
        compiled: Whether to compile the networks, or the mode to do it in.
        checkpointed: Whether the networks compute most activations anew for the gradient.
        out: The run directory, or `None` to keep nothing on disk.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: Model,
        objective: Objective,
        optimizer_specs: Mapping[str, Any],
        ema: float | None,
        compiled: bool | str,
        checkpointed: bool,
        out: Path | None,
    ) -> None:
        self.fabric, self.model, self.objective, self.out = fabric, model, objective, out
        model.to(fabric.device)
        objective.to(fabric.device)
        # The average is a copy: taken before the engine wraps or compiles anything.
        self.averaged = Averaged(model, ema) if ema is not None else None
        # One rank alone cannot look at what is shared out: looks take this copy.
        shares = isinstance(fabric.strategy, ModelParallelStrategy)
        self._copy = copy.deepcopy(model) if shares else None
        if shares and objective.adversary is not None and objective.adversary.r1:
            raise VaekitError(
                "adversary.r1 needs second derivatives, which weights that are shared out among devices do not have: "
                "use --strategy ddp"
            )
        modules = objective.modules_by_phase(model)
        if checkpointed:
            checkpoint_activations(model.networks())
        if compiled:
            # torch gives a layer's code up after eight compilations, and those of earlier runs in this process count.
            torch.compiler.reset()
            for network in (*model.networks(), *(m for name, m in modules.items() if name != "vae")):
                network.compile(mode=None if compiled is True else compiled)
        shown = {"vae": Shown(model)} if shares else {}  # Of the others the forward pass returns a tensor.
        self.engines = {name: fabric.setup_module(module) for name, module in (modules | shown).items()}
        self.wrapped: dict[str, nn.Module] = {**self.engines, **{n: Opened(self.engines[n]) for n in shown}}
        if shares and self.averaged is not None:
            fabric.setup_module(self.averaged.module)
        self.optimizers: dict[str, Optimizer] = {}
        for name, module in modules.items():  # Now: parameters that are shared out are other ones than before.
            # Critics of regularizers are discriminators too.
            role = "vae" if name == "vae" else "discriminator"
            spec = optimizer_specs[role]
            where = "trainer.optimizer" if role == "vae" else "trainer.discriminator_optimizer"
            parameters = [p for p in module.parameters() if p.requires_grad]
            optimizer: Optimizer = optimizers.build(spec, parameters, where=where)
            optimizer.inner = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer.inner))
            self.optimizers[name] = optimizer
        self.meter = Meter()
        self.step = 0
        self._earlier, self._began = 0.0, time.perf_counter()
        self.best = math.inf
        self.metrics: list[dict[str, Any]] = []
        self.notes: list[str] = []  # What the user should know of a resume.
        self._metrics_bytes = 0
        self.skipped = self.skipped_in_a_row = 0  # Steps that were left out because they were not finite.

    @property
    def evaluated(self) -> Model:
        """The model that is evaluated and kept: the averaged one where there is one; all ranks must ask together."""
        model = cast(Model, self.averaged.module) if self.averaged is not None else self.model
        if self._copy is None:
            return model
        self._copy.load_state_dict(whole(model.state_dict()))
        return self._copy

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
        try:
            self.metrics = [json.loads(line) for line in content[:length].splitlines()]
        except (ValueError, RecursionError) as error:
            raise VaekitError(f"{path} is damaged: restore it, or start again elsewhere") from error
        self._metrics_bytes = length
        if self.fabric.is_global_zero and len(content) > length:
            with atomic(path) as file:
                file.write(content[:length])

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def save(self, *names: str) -> None:
        """Write the checkpoints named, unless a term was not finite since the last look, or the weights are not now.

        Raises:
            NotFiniteError: The weights are spoilt, or may be: nothing is written.
            VaekitError: The disk is full.
        """
        self.meter.check()
        if self.out is None:
            return
        self._check_weights()
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "metrics_bytes": self._metrics_bytes,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "meter": self.meter.state_dict(),
            "model": whole(self.model.state_dict()),
            "objective": whole(self.objective.state_dict()),
            "averaged": whole(self.averaged.state_dict()) if self.averaged is not None else None,
            "optimizers": {name: whole(optimizer.inner.state_dict()) for name, optimizer in self.optimizers.items()},
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

    def _check_weights(self) -> None:
        """Refuse weights that are not finite: a gradient can be infinite where every term is finite."""
        named = [item for part in (self.model, self.objective) for item in part.named_parameters()]
        norms = torch._foreach_norm([local(value) for _, value in named])
        spoilt = ~torch.stack([norm.float() for norm in norms]).isfinite()
        bad = [name for (name, _), found in zip(named, any_rank(spoilt), strict=True) if found]
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise NotFiniteError(
                f"the weights {bad[0]}{more} became NaN or infinite before step {self.step:,}, though no term did: a "
                "gradient was not finite; the last good checkpoint is kept; set trainer.not_finite to skip, which "
                "names the step, or set trainer.clip, then start again or resume"
            )

    def resume(self) -> None:
        """Go back to the last checkpoint of the run directory.

        Raises:
            VaekitError: It is missing, damaged, or of another model.
        """
        assert self.out is not None
        state, self.notes = checkpoint.latest(self.out)
        try:
            self._load_weights(state)
            if self.averaged is not None:
                self.averaged.load_state_dict(shared_out(state["averaged"], self.averaged.state_dict()))
            for name, optimizer in self.optimizers.items():
                optimizer.load(state["optimizers"][name])
            self.meter.load_state_dict(state["meter"])
            checkpoint.restore_rng(state["rng"], self.fabric.global_rank, self.fabric.device)
            self._rewind_metrics(state["metrics_bytes"])
        except VaekitError:
            raise
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise VaekitError(
                f"the checkpoint in {self.out} is of another model or optimiser: resume with the configuration it was "
                "trained with"
            ) from error
        if (ranks := len(state["rng"])) != self.fabric.world_size:
            self.notes.append(
                f"the run had {ranks} process{'es' if ranks > 1 else ''} and has {self.fabric.world_size} now: batches "
                "stay the same, and noise is drawn anew, so that its figures are no longer bit-identical to those of a "
                "run never stopped"
            )
        self.step, self.best = state["step"], state["best"]
        self._earlier, self._began = state.get("seconds", 0.0), time.perf_counter()  # An older checkpoint has none.
        self.skipped, self.skipped_in_a_row = state.get("skipped", 0), state.get("skipped_in_a_row", 0)

    def reload(self) -> int:
        """Take the weights of the last checkpoint, to look at what they do; return its step."""
        assert self.out is not None
        state, _ = checkpoint.latest(self.out)
        self._load_weights(state)
        return int(state["step"])

    def _load_weights(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(shared_out(state["model"], self.model.state_dict()))
        self.objective.load_state_dict(shared_out(state["objective"], self.objective.state_dict()))

    def clip(self, phase: str, largest: float) -> Tensor:
        """Clip the gradients of a phase by their norm, which is returned."""
        return whole(torch.nn.utils.clip_grad_norm_(self.optimizers[phase].parameters, largest))
