"""The one trainer: launch, loop, log, look, keep."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vaekit.data import Batches, Dataset
from vaekit.errors import VaekitError
from vaekit.files import storage_errors
from vaekit.models.vae import VAE
from vaekit.objectives.elbo import Objective
from vaekit.registry import check_spec, optimizers
from vaekit.reporting.images import save_grid, side_by_side
from vaekit.training.interrupt import Interrupt, listen
from vaekit.training.listeners import Listener, Plan, TensorBoard
from vaekit.training.session import Session

__all__ = ["Fit", "Trainer", "check_batch"]


@dataclass(frozen=True)
class Fit:
    """What a call of `Trainer.fit` did.

    Arguments:
        model: The trained model, or its moving average where there is one.
        steps: Optimiser steps of the run so far, those before a resume included.
        metrics: The lines of metrics.jsonl.
        signal: The signal that stopped it early, or 0.
        seconds: Wall-clock time of this call.
        samples_per_second: Training throughput of this call, validation and pictures not counted.
        peak_memory: Largest device memory allocated, in bytes; 0 on a CPU.
    """

    model: VAE
    steps: int
    metrics: list[dict[str, Any]]
    signal: int
    seconds: float
    samples_per_second: float
    peak_memory: int


class Trainer:
    """Trains any model under any objective; the recipe's `trainer` section is its options.

    The engine is Lightning Fabric: it launches, wraps and moves. The step is here and the same for every model: the
    objective yields named phases, each a loss whose gradient updates one module.

    Arguments:
        epochs: Passes over the training data.
        max_steps: Stop after so many optimiser steps, however many epochs that is.
        optimizer: Name or mapping; its `lr` may be a schedule.
        discriminator_optimizer: The discriminator's; `None` for the same as `optimizer`.
        ema: Decay of a moving average of the weights, which is then what is evaluated and kept; `None` for none.
        clip: Largest gradient norm, per phase; `None` for no clipping.
        precision: `"float32"`, or `"bf16"` for networks under autocast to bfloat16 (densities stay in float32).
        compile: Whether to run the networks through `torch.compile`.
        accelerator: `"auto"`, `"cpu"` or `"cuda"`.
        devices: Processes on this machine, one per device; the batch is split among them.
        nodes: Machines.
        strategy: Fabric's strategy name; `"auto"` is plain on one device and data-parallel on several.
        log_every: Steps between lines of training metrics (each one reads the device once).
        checkpoint_every: Steps between checkpoints, besides the one at the end of every epoch; `None` for those only.
        sample_every: Epochs between picture grids; 0 for none.
        tensorboard: Whether to write TensorBoard events into the run directory.
        seed: Seed of the noise and of the data order.

    Raises:
        VaekitError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        epochs: int = 10,
        max_steps: int | None = None,
        optimizer: str | dict[str, Any] = "adam",
        discriminator_optimizer: str | dict[str, Any] | None = None,
        ema: float | None = None,
        clip: float | None = None,
        precision: Literal["float32", "bf16"] = "float32",
        compile: bool = False,
        accelerator: Literal["auto", "cpu", "cuda"] = "auto",
        devices: int = 1,
        nodes: int = 1,
        strategy: str = "auto",
        log_every: int = 10,
        checkpoint_every: int | None = None,
        sample_every: int = 1,
        tensorboard: bool = False,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("epochs", epochs, 1),
            ("max_steps", max_steps, 1),
            ("devices", devices, 1),
            ("nodes", nodes, 1),
            ("log_every", log_every, 1),
            ("checkpoint_every", checkpoint_every, 1),
            ("sample_every", sample_every, 0),
        ):
            if value is not None and value < least:
                raise VaekitError(f"trainer.{name} must be {least} or more, not {value}")
        if ema is not None and not 0.0 < ema < 1.0:
            raise VaekitError(f"trainer.ema must lie between 0 and 1, not {ema:g}; leave it out for no average")
        if clip is not None and not clip > 0:
            raise VaekitError(f"trainer.clip must be above 0, not {clip:g}; leave it out for no clipping")
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise VaekitError("trainer.accelerator is 'cuda' and no CUDA device is here: use 'auto' or 'cpu'")
        self.epochs, self.max_steps = epochs, max_steps
        self.optimizer = check_spec(optimizers, optimizer, "trainer.optimizer")
        self.discriminator_optimizer = (
            self.optimizer
            if discriminator_optimizer is None
            else check_spec(optimizers, discriminator_optimizer, "trainer.discriminator_optimizer")
        )
        self.ema, self.clip, self.precision, self.compile = ema, clip, precision, compile
        self.accelerator, self.devices, self.nodes, self.strategy = accelerator, devices, nodes, strategy
        self.log_every, self.checkpoint_every, self.sample_every = log_every, checkpoint_every, sample_every
        self.tensorboard, self.seed = tensorboard, seed

    def launch(self) -> Fabric:
        """Start the processes of this run and return the engine; with several, each one returns from here."""
        # Our own autocast stands in for Fabric's: its mixed precision refuses torch.autograd.grad.
        fabric = Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy=self.strategy,
            precision="32-true",
        )
        fabric.launch()
        return fabric

    def fit(
        self,
        model: VAE,
        objective: Objective,
        data: Dataset,
        *,
        batch_size: int = 64,
        flip: bool = False,
        resident: bool = True,
        out: str | Path | None = None,
        resume: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> Fit:
        """Train, and return what was done.

        Arguments:
            model: The model; trained in place.
            objective: What is minimised.
            data: Training and validation splits.
            batch_size: Samples per optimiser step, over all devices.
            flip: Whether to mirror images left to right at random.
            resident: Whether to keep the training split on the device where there is one.
            out: The run directory for metrics, checkpoints and pictures; `None` to keep nothing.
            resume: Whether to go on from the last checkpoint in `out`.
            listeners: Called on rank zero.

        Raises:
            NotFiniteError: A term became NaN or infinite; the last good checkpoint is kept.
            VaekitError: The batch does not fit the data or the devices, `out` holds another run, or the checkpoint
                cannot be used.
        """
        if resume and out is None:
            raise VaekitError("resume needs the run directory: give out")
        if out is not None and not resume and (Path(out) / "metrics.jsonl").exists():
            raise VaekitError(f"{out} already holds a run: resume it, or give another directory")
        check_batch(objective, batch_size, len(data.train))
        fabric = self.launch()
        world = fabric.world_size
        if batch_size % world:
            raise VaekitError(f"data.batch_size {batch_size} cannot be split evenly among {world} devices")
        torch.manual_seed(self.seed + fabric.global_rank)
        session = Session(
            fabric,
            model,
            objective,
            {"vae": self.optimizer, "discriminator": self.discriminator_optimizer},
            self.ema,
            self.compile,
            Path(out) if out is not None else None,
        )
        scale = model.data_range if data.is_image else None
        train = Batches(
            data.train,
            batch_size // world,
            data_range=scale,
            device=fabric.device,
            shuffle=True,
            flip=flip,
            seed=self.seed,
            rank=fabric.global_rank,
            world=world,
            drop_last=True,
            resident=resident,
        )
        # Chunks of nearly equal size: batch-level terms must not meet a last batch of one.
        chunks = math.ceil(len(data.valid) / batch_size)
        valid = Batches(
            data.valid,
            math.ceil(len(data.valid) / chunks),
            data_range=scale,
            device=fabric.device,
            shuffle=False,
            flip=False,
            seed=self.seed,
            drop_last=False,
            resident=False,
        )
        if resume:
            session.resume()
        elif session.out is not None and fabric.is_global_zero:
            with storage_errors(session.out):
                session.out.mkdir(parents=True, exist_ok=True)
        everyone = list(listeners)
        if self.tensorboard and out is not None:
            everyone.append(TensorBoard(Path(out) / "tensorboard"))
        loop = _Loop(self, session, train, valid, everyone if fabric.is_global_zero else [], data)
        with listen() as interrupt:
            return loop.run(interrupt)


def check_batch(objective: Objective, batch_size: int, samples: int) -> None:
    """Refuse a batch that the objective or the data cannot serve, before anything is launched or written.

    Raises:
        VaekitError: The batch is smaller than a term needs, or larger than the training split.
    """
    for name, term in objective.terms.items():
        if batch_size < term.least_batch:
            raise VaekitError(
                f"the regularizer '{name}' needs a batch of two or more: set data.batch_size to {term.least_batch} or "
                "more, or use the regularizer 'kl'"
            )
    if batch_size > samples:
        raise VaekitError(
            f"data.batch_size {batch_size:,} is larger than the training split of {samples:,} samples: make it smaller"
        )


class _Loop:
    """One call of `Trainer.fit`."""

    def __init__(
        self,
        trainer: Trainer,
        session: Session,
        train: Batches,
        valid: Batches,
        listeners: Sequence[Listener],
        data: Dataset,
    ) -> None:
        self.trainer, self.session, self.train, self.valid = trainer, session, train, valid
        self.listeners, self.data = listeners, data
        total = trainer.epochs * len(train)
        self.steps = total if trainer.max_steps is None else min(total, trainer.max_steps)
        self.batch_size = train.batch_size * session.fabric.world_size

    def run(self, interrupt: Interrupt) -> Fit:
        """Train from where the session stands to the last step, or until interrupted."""
        session, first = self.session, self.session.step
        began, self.idle = time.perf_counter(), 0.0
        for listener in self.listeners:
            listener.on_start(self._plan())
        try:
            while session.step < self.steps and not interrupt.agreed(session.fabric.device):
                epoch, start = divmod(session.step, len(self.train))
                self._epoch(epoch, start, interrupt)
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
            seconds=seconds,
            samples_per_second=trained / max(seconds - self.idle, 1e-9),
            peak_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        )

    def _plan(self) -> Plan:
        session, model = self.session, self.session.model
        modules = session.objective.modules_by_phase(model)
        return Plan(
            first_step=session.step,
            steps=self.steps,
            steps_per_epoch=len(self.train),
            label=session.objective.label,
            device=_describe(session.fabric),
            parameters={n: sum(p.numel() for p in m.parameters() if p.requires_grad) for n, m in modules.items()},
            notes=(*self.data.notes, *session.objective.notes(self.batch_size, model.latent_dim)),
        )

    def _epoch(self, epoch: int, start: int, interrupt: Interrupt) -> None:
        """Train from batch `start` of an epoch to its end, then look and keep; an interrupt ends it early."""
        session, trainer = self.session, self.trainer
        session.model.train()
        session.objective.train()
        end = min(self.steps, (epoch + 1) * len(self.train))
        # Ranks agree on stopping when they talk anyway; a single one stops after any step.
        every = trainer.log_every if session.fabric.world_size > 1 else 1
        for x in self.train.epoch(epoch, start):
            self._step(x)
            if session.step % trainer.log_every == 0 or session.step == end:
                self._write("train", epoch, session.meter.read())
            for listener in self.listeners:
                listener.on_step(session.step)
            if session.step == end:
                break  # Looking, below, keeps a checkpoint: none may lie between the last step and the look.
            if session.step % every == 0 and interrupt.agreed(session.fabric.device):
                session.save("last")
                return
            if trainer.checkpoint_every and session.step % trainer.checkpoint_every == 0:
                session.save("last")
        began = time.perf_counter()
        self._look(epoch)
        self.idle += time.perf_counter() - began

    def _step(self, x: Tensor) -> None:
        """One optimiser step of every phase; nothing here waits for the device."""
        session = self.session
        phases = session.objective.phases(session.model, x, session.step, session.wrapped)
        while True:
            # The generator computes the next loss when it is asked: under autocast. Backward runs outside.
            with self._autocast():
                phase = next(phases, None)
            if phase is None:
                break
            optimizer, terms = session.optimizers[phase.name], phase.terms
            optimizer.set_rate(session.step)
            optimizer.inner.zero_grad()
            session.fabric.backward(phase.loss)
            if self.trainer.clip is not None:
                norm = torch.nn.utils.clip_grad_norm_(optimizer.parameters, self.trainer.clip)
                terms = {**terms, f"{phase.name}_gradient_norm": norm}
            optimizer.inner.step()
            session.meter.add(phase.name, terms, session.step)
        session.step += 1
        if session.averaged is not None:
            session.averaged.update(session.model, session.step)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.trainer.precision == "float32":
            return nullcontext()
        return torch.autocast(self.session.fabric.device.type, torch.bfloat16)

    # ---- looking -----------------------------------------------------------------------------------------------

    def _write(self, split: str, epoch: int, terms: Mapping[str, float]) -> None:
        if not terms:
            return
        line: dict[str, Any] = {"split": split, "step": self.session.step, "epoch": epoch, **terms}
        if self.data.is_image:
            line["bits_per_dim"] = self.session.model.likelihood.bits_per_dim(terms["loss"])
        self.session.write(line)
        for listener in self.listeners:
            listener.on_metrics(line)

    @torch.no_grad()
    def _look(self, epoch: int) -> None:
        """Validate, draw the grids and write the checkpoints, leaving the random state as it was."""
        session, trainer = self.session, self.trainer
        model = session.evaluated.eval()
        with _fixed_rng(session.fabric.device, trainer.seed):
            meter: dict[str, float] = {}
            for x in self.valid.epoch(0):
                with self._autocast():
                    output = model(x, session.objective.draws)
                    _, _, terms = session.objective.evaluate(output, x, session.step)
                for name, value in zip(terms, torch.stack(list(terms.values())).tolist(), strict=True):
                    meter[name] = meter.get(name, 0.0) + value * len(x) / len(self.data.valid)
            self._write("valid", epoch, meter)
            last = session.step >= self.steps
            if self.data.is_image and trainer.sample_every and (last or (epoch + 1) % trainer.sample_every == 0):
                self._draw(model, epoch)
        better = meter["loss"] < session.best
        session.best = min(session.best, meter["loss"])
        session.save("last", *(["best"] if better else []))

    def _draw(self, model: VAE, epoch: int) -> None:
        if self.session.out is None or not self.session.fabric.is_global_zero:
            return
        folder = self.session.out / "samples"
        x = next(iter(self.valid.epoch(0)))[:32]
        with self._autocast():
            reconstructed, drawn = model.reconstruct(x), model.sample(64)
        pairs = side_by_side(x, reconstructed)
        for name, images in (("reconstructions", pairs), ("prior", drawn)):
            save_grid(folder / f"epoch-{epoch + 1:04d}-{name}.png", images, model.data_range)


@contextmanager
def _fixed_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Fix the random state inside and restore it after: looking must not change what training draws."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _describe(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
    else:
        name = f"{fabric.device.type}, {torch.get_num_threads()} threads"
    return name if fabric.world_size == 1 else f"{fabric.world_size} x {name}"
