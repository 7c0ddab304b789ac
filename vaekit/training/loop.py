"""The loop of one training run; the same for every model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vaekit.data import Batches, Dataset, PairedBatches
from vaekit.distributed import all_mean
from vaekit.likelihoods.base import Likelihood
from vaekit.models import VAE, Model
from vaekit.observed import Observed
from vaekit.reporting.grids import grids
from vaekit.training.interrupt import Interrupt
from vaekit.training.listeners import Listener, Plan
from vaekit.training.meter import NotFiniteError
from vaekit.training.not_finite import find_tensor, keep_batch
from vaekit.training.session import Session
from vaekit.training.step import Clock, Step, StepOptions

__all__ = ["Fit", "Loop", "LoopOptions", "describe"]


class LoopOptions(StepOptions, Protocol):
    """What the loop reads of the trainer's options."""

    epochs: int
    max_steps: int | None
    log_every: int
    checkpoint_every: int | None
    sample_every: int
    seed: int


@dataclass(frozen=True)
class Fit:
    """What a call of `Trainer.fit` did.

    Arguments:
        model: The trained model, or its moving average where there is one.
        steps: Optimiser steps of the run so far, those before a resume included.
        metrics: The lines of metrics.jsonl.
        signal: The signal that stopped it early, or 0.
        seconds: Wall-clock time of the run so far: of this call, and of what it resumed up to its checkpoint.
        samples_per_second: Training throughput of this call, validation and pictures not counted.
        peak_memory: Largest device memory allocated, in bytes; 0 on a CPU.
        skipped: Steps that were left out because they were not finite.
    """

    model: Model
    steps: int
    metrics: list[dict[str, Any]]
    signal: int
    seconds: float
    samples_per_second: float
    peak_memory: int
    skipped: int


class Loop:
    """One call of `Trainer.fit`: train, log, look, keep.

    Arguments:
        options: The trainer's options.
        session: The state of the run.
        train: Training batches.
        valid: Validation batches.
        listeners: Called as training goes on; empty on ranks other than zero.
        data: The data set.
        clock: Told what the time of each step goes to.
    """

    def __init__(
        self,
        options: LoopOptions,
        session: Session,
        train: Batches | PairedBatches,
        valid: Batches | PairedBatches,
        listeners: Sequence[Listener],
        data: Dataset,
        clock: Clock,
    ) -> None:
        self.options, self.session, self.train, self.valid = options, session, train, valid
        self.listeners, self.data, self.clock = listeners, data, clock
        self.step = Step(options, session, clock)
        total = options.epochs * len(train)
        self.steps = total if options.max_steps is None else min(total, options.max_steps)
        self.batch_size = train.batch_size * session.fabric.world_size

    def run(self, interrupt: Interrupt) -> Fit:
        """Train from where the session stands to the last step, or until interrupted."""
        session, first = self.session, self.session.step
        if first == 0:
            session.save("last")  # Whatever ends the run from here on, it can be resumed.
        began, self.idle = time.perf_counter(), 0.0
        for listener in self.listeners:
            listener.on_start(self._plan())
        try:
            while session.step < self.steps and not interrupt.agreed(session.fabric.device):
                epoch, start = divmod(session.step, len(self.train))
                self._epoch(epoch, start, interrupt)
        except NotFiniteError as error:
            raise self._explained(error) from error
        finally:
            for listener in self.listeners:
                listener.on_finish()
        seconds = time.perf_counter() - began
        trained = (session.step - first) * self.batch_size
        device = session.fabric.device
        return Fit(
            model=session.evaluated,
            steps=session.step,
            metrics=session.metrics,
            signal=interrupt.signal,
            seconds=session.seconds,
            samples_per_second=trained / max(seconds - self.idle, 1e-9),
            peak_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
            skipped=session.skipped,
        )

    def _plan(self) -> Plan:
        session, model = self.session, self.session.model
        modules = session.objective.modules_by_phase(model)
        return Plan(
            first_step=session.step,
            steps=self.steps,
            steps_per_epoch=len(self.train),
            label=session.objective.label,
            device=describe(session.fabric),
            parameters={n: sum(p.numel() for p in m.parameters() if p.requires_grad) for n, m in modules.items()},
            notes=(
                *session.notes,
                *self.data.notes,
                *model.notes(),
                *session.objective.notes(self.batch_size // self.options.accumulate, model.latent_dim),
            ),
        )

    def _epoch(self, epoch: int, start: int, interrupt: Interrupt) -> None:
        """Train from batch `start` of an epoch to its end, then look and keep; an interrupt ends it early."""
        session, options = self.session, self.options
        session.model.train()
        session.objective.train()
        end = min(self.steps, (epoch + 1) * len(self.train))
        # Ranks agree on stopping when they talk anyway; a single one stops after any step.
        every = options.log_every if session.fabric.world_size > 1 else 1
        for x in self.train.epoch(epoch, start):
            self.clock.mark("data")
            if said := self.step.take(x):
                for listener in self.listeners:
                    listener.on_note(said)
            if session.step % options.log_every == 0 or session.step == end:
                self._write("train", epoch, session.meter.read())
            for listener in self.listeners:
                listener.on_step(session.step)
            self.clock.end_step()
            if session.step == end:
                break  # Looking, below, keeps a checkpoint: none may lie between the last step and the look.
            if session.step % every == 0 and interrupt.agreed(session.fabric.device):
                session.save("last")
                return
            if options.checkpoint_every and session.step % options.checkpoint_every == 0:
                session.save("last")
                self.clock.restart()
        began = time.perf_counter()
        self._look(epoch)
        self.idle += time.perf_counter() - began
        self.clock.restart()

    def _explained(self, error: NotFiniteError) -> NotFiniteError:
        """Add to an error what the batch of its step does to the weights of the last checkpoint, and keep the batch."""
        session = self.session
        if session.out is None or error.step is None:
            return error
        at, session.step = session.reload(), error.step
        epoch, index = divmod(error.step, len(self.train))
        batches: Iterator[Tensor | Observed] = self.train.epoch(epoch, index)
        x = next(batches)
        tensor = find_tensor(session, self.step.replay, x, None)
        kept = keep_batch(session, x, error.step, {"tensor": tensor})
        found = f"{tensor} is not finite" if tensor else "its batch gives finite values"
        return NotFiniteError(f"{error}; with the weights of step {at:,} {found}{kept}", error.step)

    # ---- looking -----------------------------------------------------------------------------------------------

    def _write(self, split: str, epoch: int, terms: Mapping[str, float]) -> None:
        if not terms:
            return
        line: dict[str, Any] = {"split": split, "step": self.session.step, "epoch": epoch, **terms}
        if split == "train" and self.session.skipped:
            line["skipped_steps"] = float(self.session.skipped)
        model = self.session.model
        if isinstance(model, VAE) and self.session.objective.bound and self._has_bits(model.likelihood):
            line["bits_per_dim"] = model.likelihood.bits_per_dim(terms["loss"])
        self.session.write(line)
        for listener in self.listeners:
            listener.on_metrics(line)

    def _has_bits(self, likelihood: Likelihood) -> bool:
        """Whether the loss speaks of the probability of the pixels' values: grey levels, or black and white."""
        if not isinstance(self.train, Batches) or not self.data.is_image:
            return False
        if likelihood.continuous:
            return not self.train.binarize
        return likelihood.levels == (2 if self.train.binarize else 256)

    @torch.no_grad()
    def _look(self, epoch: int) -> None:
        """Validate, draw the grids and write the checkpoints, leaving the random state as it was."""
        session, options = self.session, self.options
        model = session.evaluated.eval()
        with _fixed_rng(session.fabric.device, options.seed):
            sums: dict[str, float] = {}
            samples = 0
            for x in self.valid.epoch(0):
                # With the weights of the last step: epochs of a warm-up compare, and the best one is what it says.
                with self.step.autocast():
                    output = session.objective.run(model, x, self.steps)
                    _, _, terms = session.objective.evaluate(output, x, self.steps)
                for name, value in zip(terms, torch.stack(list(terms.values())).tolist(), strict=True):
                    sums[name] = sums.get(name, 0.0) + value * len(x)
                samples += len(x)
            meter = self._joint_means(sums, samples)
            self._write("valid", epoch, meter)
            last = session.step >= self.steps
            if options.sample_every and (last or (epoch + 1) % options.sample_every == 0):
                self._draw(model, epoch)
        better = meter["loss"] < session.best
        session.best = min(session.best, meter["loss"])
        session.save("last", *(["best"] if better else []))

    def _joint_means(self, sums: dict[str, float], samples: int) -> dict[str, float]:
        """Return means over the samples of all ranks, the same on each: all ranks must call this together."""
        if self.session.fabric.world_size > 1:
            mine = torch.tensor([*sums.values(), samples], dtype=torch.float64, device=self.session.fabric.device)
            *joint, samples = all_mean(mine).tolist()
            sums = dict(zip(sums, joint, strict=True))
        return {name: total / samples for name, total in sums.items()}

    def _draw(self, model: Model, epoch: int) -> None:
        if self.session.out is None or not self.session.fabric.is_global_zero:
            return
        with self.step.autocast():
            drawn = grids(model, next(iter(self.valid.epoch(0))))
        for name, grid in drawn.items():
            file = grid.save(self.session.out / "samples" / f"epoch-{epoch + 1:04d}-{name}.png")
            for listener in self.listeners:
                listener.on_picture(name, file, self.session.step)


@contextmanager
def _fixed_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Fix the random state inside and restore it after: looking must not change what training draws."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def describe(fabric: Fabric) -> str:
    """Return the devices of a run in words."""
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
    else:
        threads = torch.get_num_threads()
        name = f"{fabric.device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return name if fabric.world_size == 1 else f"{fabric.world_size} x {name}"
