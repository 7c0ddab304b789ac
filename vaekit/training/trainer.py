"""The one trainer: options, launch and set-up; `loop` trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from vaekit.data import Dataset, make_batches
from vaekit.errors import VaekitError, memory_errors
from vaekit.files import storage_errors
from vaekit.models import Model
from vaekit.objectives.elbo import Objective
from vaekit.registry import check_spec, optimizers
from vaekit.training.interrupt import listen
from vaekit.training.listeners import Listener, TensorBoard
from vaekit.training.loop import Fit, Loop
from vaekit.training.session import Session

__all__ = ["Fit", "Trainer", "check_fit"]


class Trainer:
    """Trains any model under any objective; the recipe's `trainer` section is its options.

    The engine is Lightning Fabric: it launches, wraps and moves. The step is here and the same for every model: the
    objective yields named phases, each a loss whose gradient updates one module.

    Arguments:
        epochs: Passes over the training data.
        max_steps: Stop after so many optimiser steps, however many epochs that is.
        optimizer: Name or mapping; its `lr` may be a schedule.
        discriminator_optimizer: That of the discriminator and of regularizers' critics; `None` for `optimizer`.
        ema: Decay of a moving average of the weights, which is then what is evaluated and kept; `None` for none.
        clip: Largest gradient norm, per phase; `None` for no clipping.
        precision: `"float32"`, or `"bf16"` for networks under autocast to bfloat16 (densities stay in float32).
        compile: Whether to run the networks through `torch.compile`.
        accelerator: `"auto"`, `"cpu"` or `"cuda"`.
        devices: Processes on this machine, one per device; the batch is split among them.
        nodes: Machines.
        strategy: Fabric's strategy name; `"auto"` is plain on one device and data-parallel on several.
        log_every: Steps between lines of training metrics (each one reads the device once).
        checkpoint_every: Steps between checkpoints, besides those before the first step and at the end of every epoch;
            `None` for those only.
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
        model: Model,
        objective: Objective,
        data: Dataset,
        *,
        batch_size: int = 64,
        flip: bool = False,
        binarize: bool = False,
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
            binarize: Whether to draw each grey value as black or white, anew at every visit in training and the same at
                every validation.
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
        check_fit(model, objective, batch_size, len(data.train))
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
        train = make_batches(
            data,
            data.train,
            batch_size // world,
            model.data_range,
            device=fabric.device,
            shuffle=True,
            flip=flip,
            binarize=binarize,
            seed=self.seed,
            rank=fabric.global_rank,
            world=world,
            drop_last=True,
            resident=resident,
        )
        # Chunks of nearly equal size: batch-level terms must not meet a last batch of one.
        chunks = math.ceil(len(data.valid) / batch_size)
        valid = make_batches(
            data,
            data.valid,
            math.ceil(len(data.valid) / chunks),
            model.data_range,
            device=fabric.device,
            shuffle=False,
            flip=False,
            binarize=binarize,
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
        loop = Loop(self, session, train, valid, everyone if fabric.is_global_zero else [], data)
        smaller = (
            f"make data.batch_size smaller than {batch_size}, set trainer.precision to bf16 or take narrower networks; "
            "each of them makes another run"
        )
        with listen() as interrupt, memory_errors(smaller):
            return loop.run(interrupt)


def check_fit(model: Model, objective: Objective, batch_size: int, samples: int) -> None:
    """Make the objective ready, and refuse what cannot be trained, before anything is launched or written.

    Raises:
        VaekitError: The batch is smaller than a term needs or larger than the training split, or model and objective
            do not go together.
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
    objective.prepare(model, samples)
