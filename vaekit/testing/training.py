"""Contracts of schedules, optimisers and loggers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from vaekit.registry import Registry, loggers, optimizers, schedules
from vaekit.schedules import as_schedule
from vaekit.testing.contract import Contract
from vaekit.training.optimizers import Optimizer

__all__ = ["LoggerContract", "OptimizerContract", "ScheduleContract"]


class ScheduleContract(Contract):
    """What a schedule promises: a finite number that depends on the step alone."""

    registry: ClassVar[Registry] = schedules
    sourced: ClassVar[bool] = False

    def test_a_function_of_the_step(self) -> None:
        """Every step has one finite value, in whatever order steps are asked for (a run may be resumed)."""
        schedule = self.make()
        steps = [0, 1, 2, 10, 1_000, 10_000_000]
        values = [schedule(step) for step in steps]
        assert all(isinstance(value, float) and math.isfinite(value) for value in values), values
        assert [self.make()(step) for step in reversed(steps)] == values[::-1]

    def test_repr(self) -> None:
        """The repr is for people: no memory address."""
        assert " at 0x" not in repr(self.make())

    def test_is_taken_where_a_number_is(self) -> None:
        """A weight or a learning rate may be this schedule, by name or built."""
        built = self.make()
        assert as_schedule(built) is built
        if self.name:
            assert as_schedule({"name": self.name, **self.options})(3) == built(3)


class OptimizerContract(Contract):
    """What an optimiser promises: it minimises, follows the schedule of its rate, and resumes exactly."""

    registry: ClassVar[Registry] = optimizers

    def run(self, optimizer: Optimizer, parameter: nn.Parameter, first: int, last: int) -> None:
        """Take the steps `first` to `last - 1` down a parabola."""
        for step in range(first, last):
            optimizer.set_rate(step)
            optimizer.inner.zero_grad()
            (parameter - 1.0).square().sum().backward()
            optimizer.inner.step()

    def test_minimises(self) -> None:
        """A hundred steps go down a parabola."""
        parameter = nn.Parameter(torch.zeros(3))
        self.run(self.make([parameter], lr=0.05), parameter, 0, 100)
        assert ((parameter - 1.0).abs() < 0.5).all()

    def test_rate_follows_its_schedule(self) -> None:
        """`set_rate` sets the rate of the step; at rate 0 nothing moves."""
        parameter = nn.Parameter(torch.zeros(3))
        optimizer = self.make([parameter], lr={"name": "linear", "start": 0.0, "end": 1.0, "steps": 10})
        assert optimizer.parameters == [parameter]
        self.run(optimizer, parameter, 0, 1)
        assert not parameter.any()
        self.run(optimizer, parameter, 1, 3)
        assert [group["lr"] for group in optimizer.inner.param_groups] == [0.2]
        assert parameter.all()

    def test_resumes_exactly(self) -> None:
        """Six steps, and three, the state, three again, end at the same place."""
        whole, halves = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.run(self.make([whole]), whole, 0, 6)
        first = self.make([halves])
        self.run(first, halves, 0, 3)
        second = self.make([halves])
        second.inner.load_state_dict(first.inner.state_dict())
        self.run(second, halves, 3, 6)
        torch.testing.assert_close(halves, whole, rtol=0.0, atol=0.0)


class LoggerContract(Contract):
    """What a logger promises: it tells everything once, and goes on with the same run of the tracker when asked to."""

    registry: ClassVar[Registry] = loggers

    def told(self, out: Path, identity: str) -> dict[str, list[tuple[int, float]]]:
        """Return what the tracker has of a run, name of a value to its steps and values; override it to be tested."""
        pytest.skip("the contract cannot read what the tracker has: override `told`")

    def test_goes_on_with_the_same_run(self, tmp_path: Path) -> None:
        """What is told before and after a break arrives, in order, in one run, with a picture between."""
        from PIL import Image

        logger, picture = self.make(), tmp_path / "picture.png"
        Image.new("L", (8, 8)).save(picture)
        config = {"latent_dim": 4, "posterior": {"name": "gaussian", "range": [-1.0, 1.0]}, "regularizers": {}}
        identity = logger.start(tmp_path, None, config, ["one note", "another"])
        assert isinstance(identity, str)
        assert identity.strip() == identity != "", "the identity must fit into one line of a file"
        assert len(identity.splitlines()) == 1, "the identity must fit into one line of a file"
        logger.metrics({"train/loss": 4.5, "epoch": 0.0}, 10)
        logger.metrics({"valid/loss": 5.5, "epoch": 0.0}, 10)
        logger.picture("pictures/prior", picture, 10)
        logger.finish(False)
        again = self.make()
        assert again.start(tmp_path, identity, {**config, "latent_dim": 8}, []) == identity
        again.metrics({"train/loss": 3.5, "epoch": 1.0}, 20)
        again.finish(True)
        told = self.told(tmp_path, identity)
        assert told["train/loss"] == [(10, 4.5), (20, 3.5)]
        assert told["valid/loss"] == [(10, 5.5)]

    def test_two_runs_are_two(self, tmp_path: Path) -> None:
        """Runs that begin in two directories do not get in each other's way."""
        first, second = self.make(), self.make()
        places = [tmp_path / "first", tmp_path / "second"]
        for place in places:
            place.mkdir()
        identities = [logger.start(place, None, {}, []) for logger, place in zip((first, second), places, strict=True)]
        first.metrics({"train/loss": 1.0}, 1)
        second.metrics({"train/loss": 2.0}, 1)
        first.finish(True)
        second.finish(True)
        found = [self.told(place, identity)["train/loss"] for place, identity in zip(places, identities, strict=True)]
        assert found == [[(1, 1.0)], [(1, 2.0)]]
