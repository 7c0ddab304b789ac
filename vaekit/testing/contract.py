"""What all parts promise, and what all parts that are modules promise."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import is_parametrized

from vaekit.errors import VaekitError
from vaekit.posteriors.base import Posterior
from vaekit.registry import Registry

__all__ = ["Contract", "ModuleContract", "fixed", "without_gradient"]


def fixed(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return the same standard normal numbers at every call, whatever the random state and the dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def without_gradient(module: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of the parameters that get no gradient from `loss`, or one that is zero or not finite.

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> without_gradient(layer, layer.weight.sum())
        ['bias']
    """
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [
        name
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is None or not gradient.isfinite().all() or not gradient.any()
    ]


class Contract:
    """What every registered part promises: metadata, documentation, typed options, a readable repr.

    A subclass names its part with `name` (and `options`), or builds it itself by overriding `make`; without a name the
    tests about registration are skipped.

    Attributes:
        registry: The family.
        name: The registered name.
        options: The options to build the part with; small ones keep the tests quick.
        sourced: Whether the metadata must say where the part comes from.
    """

    registry: ClassVar[Registry]
    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    sourced: ClassVar[bool] = True

    def make(self, *context: Any, **options: Any) -> Any:
        """Build the part for its context (shapes, sizes), with `options` over those of the class."""
        checked = self.registry.check(self.name, {**self.options, **options})
        return self.registry.get(self.name)(*context, **checked)

    @pytest.fixture(autouse=True)
    def _seeded(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield

    @pytest.fixture
    def part(self) -> Any:
        """The registered class or function."""
        if not self.name:
            pytest.skip("the contract has no name: nothing is looked up in the registry")
        return self.registry.get(self.name)

    def test_metadata(self, part: Any) -> None:
        """One line about the part, and its source."""
        info = self.registry.info(self.name)
        assert info.about.strip(), "register(...) needs about='one line'"
        assert "\n" not in info.about, "about must be one line"
        assert info.source.strip() or not self.sourced, "register(...) needs source='title, authors, year, identifier'"

    def test_documentation(self, part: Any) -> None:
        """A docstring whose `Arguments:` section names every option."""
        text = inspect.getdoc(part) or ""
        assert len(text.splitlines()) > 1, f"{part.__name__} needs a docstring"
        _, _, arguments = text.partition("Arguments:\n")
        missing = [key for key in self.registry.options(self.name) if not re.search(rf"^ +{key}: ", arguments, re.M)]
        assert not missing, f"the docstring's section 'Arguments:' does not explain {missing}"

    def test_options_are_typed_keywords(self, part: Any) -> None:
        """Every option has a type, its default is of that type, and nothing swallows unknown ones."""
        kinds = {parameter.kind for parameter in inspect.signature(part).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, "**options would hide the names of the options"
        for key, option in self.registry.options(self.name).items():
            assert option.annotation is not Any, f"option '{key}' needs a type"
            if option.default is not inspect.Parameter.empty:
                checked = self.registry.check(self.name, {**self.options, key: option.default})
                assert checked[key] == option.default, f"the default of '{key}' is not of the type that it declares"

    def test_wrong_options_are_refused(self, part: Any) -> None:
        """An unknown option, and a value of the wrong type, give a sentence that names the option."""
        with pytest.raises(VaekitError, match="no_such_option"):
            self.registry.check(self.name, {**self.options, "no_such_option": 1})
        for key in self.registry.options(self.name):
            with pytest.raises(VaekitError, match=key):
                self.registry.check(self.name, {**self.options, key: object()})


class ModuleContract(Contract):
    """What every part that is a module promises: reproducible, copyable, movable, and one sample at a time.

    A family says how its part is built at a small size (`module`), what it is run on (`inputs`) and what it gives for
    each sample (`outputs`).
    """

    def module(self) -> nn.Module:
        """Build the part at a small size."""
        raise NotImplementedError

    def inputs(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a batch of a few samples, always the same one."""
        raise NotImplementedError

    def outputs(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return what the module gives for each sample, shape (B, ...), without random draws."""
        raise NotImplementedError

    def test_outputs_are_finite_float32(self) -> None:
        """Float32 in gives finite float32 out."""
        outputs = self.outputs(self.module(), self.inputs())
        assert outputs.dtype == torch.float32
        assert outputs.isfinite().all()

    def test_repr(self) -> None:
        """The repr names the class and shows no memory address."""
        module = self.module()
        assert type(module).__name__ in repr(module)
        assert " at 0x" not in repr(module)

    def test_same_seed_same_part(self) -> None:
        """Two parts built under one seed give the same numbers."""
        first, second = (self._built_and_run(seed=1) for _ in range(2))
        torch.testing.assert_close(first, second, rtol=0.0, atol=0.0)

    def test_state_dict_round_trip(self) -> None:
        """A part with another part's state gives that part's numbers."""
        torch.manual_seed(1)
        first = self.module().eval()
        torch.manual_seed(2)
        second = self.module().eval()
        second.load_state_dict(first.state_dict())
        inputs = self.inputs()
        torch.testing.assert_close(self.outputs(second, inputs), self.outputs(first, inputs), rtol=0.0, atol=0.0)

    def test_deepcopy(self) -> None:
        """A copy gives the same numbers and shares no memory."""
        module = self.module().eval()
        twin = copy.deepcopy(module)
        torch.testing.assert_close(self.outputs(twin, self.inputs()), self.outputs(module, self.inputs()))
        pairs = zip(module.parameters(), twin.parameters(), strict=True)
        assert not any(mine.data_ptr() == other.data_ptr() for mine, other in pairs)

    def test_float64(self) -> None:
        """After `.double()` the part computes the same numbers in float64."""
        module = self.module().eval()
        narrow = self.outputs(module, self.inputs())
        wide = self.outputs(module.double(), self.inputs(torch.float64))
        assert wide.dtype == torch.float64
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-3)

    def test_batch_of_one(self) -> None:
        """In evaluation one sample alone gives what it gives among others."""
        module, inputs = self.module().eval(), self.inputs()
        together = self.outputs(module, inputs)
        for row in range(len(inputs)):
            alone = self.outputs(module, inputs[row : row + 1])
            torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-4)

    def test_train_and_eval_agree(self) -> None:
        """Training and evaluation give the same numbers, unless a layer is meant to differ."""
        module, inputs = self.module(), self.inputs()
        if any(_depends_on_mode(layer) for layer in module.modules()):
            pytest.skip("a layer of this part is meant to differ between training and evaluation")
        torch.testing.assert_close(self.outputs(module.train(), inputs), self.outputs(module.eval(), inputs))

    def _built_and_run(self, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return self.outputs(self.module().eval(), self.inputs())


def _depends_on_mode(layer: nn.Module) -> bool:
    relaxes = isinstance(layer, Posterior) and layer.relaxes
    dropout = isinstance(layer, _DropoutNd) and layer.p > 0
    return relaxes or dropout or isinstance(layer, _BatchNorm) or is_parametrized(layer)
