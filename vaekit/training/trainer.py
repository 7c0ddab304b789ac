"""The one trainer: options, launch and set-up; `loop` trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from vaekit.data import Dataset, make_batches
from vaekit.distributed import leave_at_exit, rank_errors
from vaekit.errors import VaekitError, memory_errors
from vaekit.files import storage_errors
from vaekit.models import Model
from vaekit.objectives.elbo import Objective
from vaekit.registry import check_spec
from vaekit.registry import loggers as logger_registry
from vaekit.training.cpu import ask_for_gpus_once, keep_freed_memory
from vaekit.training.interrupt import listen
from vaekit.training.listeners import Listener
from vaekit.training.loggers import Logger
from vaekit.training.loop import Fit, Loop, describe
from vaekit.training.optimizers import check_optimizer
from vaekit.training.profile import Profile, StepTimes
from vaekit.training.session import Session
from vaekit.training.sharded import sharding
from vaekit.training.step import Clock, Compile
from vaekit.training.tracking import Tracking

__all__ = ["Fit", "Trainer"]

_MOST = 1024  # devices of a machine, and machines


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
        compile: Whether to run the networks through `torch.compile`; or a mode of it: `"reduce-overhead"`, which
            replays CUDA graphs, or `"max-autotune"`, which does so with the fastest kernels that it finds.
        accumulate: Parts into which each batch is split, one after another, before an optimiser step: as much less
            memory for activations. Terms of the whole batch are then those of a part.
        activation_checkpointing: Whether the networks keep few activations and compute the others again for the
            gradient: less memory, about a third more work.
        not_finite: What to do about a step whose terms or gradients are not finite: `"stop"`, or `"skip"` to leave
            it out and count it (which waits for the device in every step).
        accelerator: `"auto"`, `"cpu"` or `"cuda"`.
        devices: Processes on this machine, one per device; the batch is split among them.
        nodes: Machines.
        strategy: `"auto"`, plain on one device and data-parallel on several; `"ddp"`; `"fsdp"`, which shares weights,
            gradients and optimiser states out among the devices; or another name that Fabric knows.
        log_every: Steps between lines of training metrics (each one reads the device once).
        checkpoint_every: Steps between checkpoints, besides those before the first step and at the end of every epoch;
            `None` for those only.
        sample_every: Epochs between picture grids; 0 for none.
        loggers: Trackers that are told of the run, by name or mapping: `tensorboard`, `wandb`, `mlflow`, `trackio`.
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
        compile: Compile = False,
        accumulate: int = 1,
        activation_checkpointing: bool = False,
        not_finite: Literal["stop", "skip"] = "stop",
        accelerator: Literal["auto", "cpu", "cuda"] = "auto",
        devices: int = 1,
        nodes: int = 1,
        strategy: str = "auto",
        log_every: int = 10,
        checkpoint_every: int | None = None,
        sample_every: int = 1,
        loggers: list[str | dict[str, Any]] | None = None,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("epochs", epochs, 1),
            ("max_steps", max_steps, 1),
            ("accumulate", accumulate, 1),
            ("devices", devices, 1),
            ("nodes", nodes, 1),
            ("log_every", log_every, 1),
            ("checkpoint_every", checkpoint_every, 1),
            ("sample_every", sample_every, 0),
        ):
            if value is not None and value < least:
                raise VaekitError(f"trainer.{name} must be {least} or more, not {value}")
        for name, value in (("devices", devices), ("nodes", nodes)):
            if value > _MOST:  # Processes are started for each, before anybody notices.
                raise VaekitError(f"trainer.{name} must be {_MOST:,} or fewer, not {value:,}")
        if not 0 <= seed <= 2**48:
            raise VaekitError(f"trainer.seed must lie between 0 and {2**48:,}, not {seed}")
        if ema is not None and not 0.0 < ema < 1.0:
            raise VaekitError(f"trainer.ema must lie between 0 and 1, not {ema:g}; leave it out for no average")
        if clip is not None and not clip > 0:
            raise VaekitError(f"trainer.clip must be above 0, not {clip:g}; leave it out for no clipping")
        if "find_unused" in strategy:
            raise VaekitError(
                f"trainer.strategy '{strategy}' cannot see which weights a model's record depends on: use ddp, and "
                "freeze or remove weights that have no part in the loss"
            )
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise VaekitError("trainer.accelerator is 'cuda' and no CUDA device is here: use 'auto' or 'cpu'")
        self.epochs, self.max_steps = epochs, max_steps
        self.optimizer = check_optimizer(optimizer, "trainer.optimizer")
        self.discriminator_optimizer = (
            self.optimizer
            if discriminator_optimizer is None
            else check_optimizer(discriminator_optimizer, "trainer.discriminator_optimizer")
        )
        self.ema, self.clip, self.precision, self.compile = ema, clip, precision, compile
        self.accumulate, self.activation_checkpointing = accumulate, activation_checkpointing
        self.not_finite = not_finite
        self.accelerator, self.devices, self.nodes, self.strategy = accelerator, devices, nodes, strategy
        self.log_every, self.checkpoint_every, self.sample_every = log_every, checkpoint_every, sample_every
        self.loggers: dict[str, Logger] = {}
        for number, spec in enumerate(loggers or ()):
            where = f"trainer.loggers[{number}]"
            name = check_spec(logger_registry, spec, where)["name"]
            if name in self.loggers:
                raise VaekitError(f"trainer.loggers has '{name}' twice: leave one of them out")
            self.loggers[name] = logger_registry.build(spec, where=where)
        self.seed = seed

    def engine(self) -> Fabric:
        """Return the engine, with no process started yet.

        Raises:
            VaekitError: The strategy or the devices that it is to use are not here.
        """
        # Our own autocast stands in for Fabric's: its mixed precision refuses torch.autograd.grad.
        try:
            return Fabric(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.nodes,
                strategy=sharding(self.devices * self.nodes) if self.strategy == "fsdp" else self.strategy,
                precision="32-true",
            )
        except VaekitError:
            raise
        except (ImportError, RuntimeError, ValueError, MisconfigurationException) as error:
            raise VaekitError(
                f"trainer.strategy '{self.strategy}' cannot be used on {self.devices} device(s) of "
                f"'{self.accelerator}' here: {error}"
            ) from error

    def launch(self) -> Fabric:
        """Start the processes of this run and return the engine; with several, each one returns from here."""
        fabric = self.engine()
        fabric.launch()
        leave_at_exit()
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
        profile: int = 0,
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
            profile: Time so many steps and leave a trace and a page in the folder `profile` of `out`; 0 for none.

        Raises:
            NotFiniteError: A term became NaN or infinite; the last good checkpoint is kept.
            VaekitError: The batch does not fit the data or the devices, `out` holds another run, or the checkpoint
                cannot be used.
        """
        if resume and out is None:
            raise VaekitError("resume needs the run directory: give out")
        if self.loggers and out is None:
            raise VaekitError("trainer.loggers need the run directory: give out")
        if out is not None and not resume and (Path(out) / "metrics.jsonl").exists():
            raise VaekitError(f"{out} already holds a run: resume it, or give another directory")
        self.check(model, objective, batch_size, len(data.fitted_to))
        fabric = self.launch()
        if fabric.device.type == "cpu":
            ask_for_gpus_once()
            keep_freed_memory()
        world = fabric.world_size
        torch.manual_seed(self.seed + fabric.global_rank)
        session = Session(
            fabric,
            model,
            objective,
            {"vae": self.optimizer, "discriminator": self.discriminator_optimizer},
            self.ema,
            self.compile,
            self.activation_checkpointing,
            Path(out) if out is not None else None,
        )
        train = make_batches(
            data,
            data.fitted_to,
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
        # The ranks share validation, unless a batch has not a sample for each.
        sharing = world if len(data.valid) // math.ceil(len(data.valid) / batch_size) >= world else 1
        valid = make_batches(
            data,
            data.valid,
            batch_size // sharing,
            model.data_range,
            device=fabric.device,
            shuffle=False,
            flip=False,
            binarize=binarize,
            seed=self.seed,
            rank=fabric.global_rank % sharing,
            world=sharing,
            drop_last=False,
            even=True,
            resident=False,
        )
        if resume:
            session.resume()
        elif session.out is not None and fabric.is_global_zero:
            with storage_errors(session.out):
                session.out.mkdir(parents=True, exist_ok=True)
        everyone = list(listeners)
        if out is not None:
            everyone += [Tracking(name, logger, Path(out), listeners) for name, logger in self.loggers.items()]
        clock = self._clock(profile, session, batch_size)
        loop = Loop(self, session, train, valid, everyone if fabric.is_global_zero else [], data, clock)
        if isinstance(clock, Profile) and (steps := loop.steps - session.step) < clock.needed:
            raise VaekitError(
                f"a profile of {profile} steps needs a run of {clock.needed} steps, and this one has {steps} to go: "
                "give more epochs or profile fewer steps"
            )
        smaller = (
            "set trainer.activation_checkpointing to true and resume; or set trainer.accumulate to "
            f"{2 * self.accumulate}, trainer.precision to bf16, make data.batch_size smaller than {batch_size} or take "
            "narrower networks: each of these makes another run"
        )
        with listen() as interrupt, memory_errors(smaller), rank_errors(), warnings.catch_warnings():
            # Of a kernel with one input channel both layouts are the same memory, which torch takes amiss.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            return loop.run(interrupt)

    def check(self, model: Model, objective: Objective, batch_size: int, samples: int) -> None:
        """Make the objective ready, and refuse what cannot be trained, before anything is launched or written.

        Arguments:
            model: The model.
            objective: The objective.
            batch_size: Samples per optimiser step, over all devices.
            samples: Training samples.

        Raises:
            VaekitError: The batch is smaller than a term needs, larger than the training split or cannot be shared out
                evenly, or model and objective do not go together.
        """
        for name, term in objective.terms.items():
            if batch_size // self.accumulate < term.least_batch:
                raise VaekitError(
                    f"the regularizer '{name}' needs a batch of two or more: set data.batch_size to "
                    f"{self.accumulate * term.least_batch} or more, or use the regularizer 'kl'"
                )
        if batch_size > samples:
            raise VaekitError(
                f"data.batch_size {batch_size:,} is larger than the training split of {samples:,} samples: make it "
                "smaller"
            )
        ranks = self.devices * self.nodes
        if batch_size % (ranks * self.accumulate):
            parts = f" in trainer.accumulate = {self.accumulate} parts each" if self.accumulate > 1 else ""
            raise VaekitError(f"data.batch_size {batch_size} cannot be split evenly among {ranks} devices{parts}")
        objective.prepare(model, samples)

    def _clock(self, steps: int, session: Session, batch_size: int) -> Clock:
        if not steps:
            return Clock()
        if session.out is None:
            raise VaekitError("a profile needs the run directory: give out")
        # Every rank times, so that all take the same path; rank zero writes.
        rank = f"-rank-{session.fabric.global_rank}" if session.fabric.global_rank else ""
        device = session.fabric.device
        return Profile(steps, session.out / f"profile{rank}", StepTimes(describe(session.fabric), batch_size), device)
