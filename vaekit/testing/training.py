"""Contracts of schedules and optimisers."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from vaekit.registry import Registry, optimizers, schedules
from vaekit.schedules import as_schedule
from vaekit.testing.contract import Contract
from vaekit.training.optimizers import Optimizer

__all__ = ["OptimizerContract", "ScheduleContract"]


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
