"""What is searched: options with choices, or with ranges of numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from vaekit.config import as_number
from vaekit.documents import parse_yaml
from vaekit.errors import VaekitError

__all__ = ["Choices", "Option", "Span", "as_texts", "read_option", "read_space", "written"]

_RANGE = re.compile(r"\s*(\S*?)\s*\.\.\s*(\S*?)\s*(:log)?\s*")
_KINDS = "give choices such as 2,4,8, or a range such as 8..128, 0.1..4 or 1e-5..1e-2:log"
# What is no question of a sweep, and why.
_FIXED = {
    "data": "a sweep is on one data set",
    "data.name": "a sweep is on one data set",
    "trainer.seed": "--seeds trains every trial with several seeds",
}


@dataclass(frozen=True)
class Choices:
    """An option that takes one of some values, in no order.

    Arguments:
        key: Its path in the configuration.
        values: Each value by its text.
    """

    key: str
    values: Mapping[str, Any]

    def suggest(self, trial: Any) -> Any:
        """Have a trial of optuna choose, and return the value."""
        return self.values[trial.suggest_categorical(self.key, list(self.values))]

    def value(self, stored: Any) -> Any:
        """Return the value for what the study stores."""
        return self.values[stored]

    @property
    def ends(self) -> list[Any]:
        """The values that stand for all: every one."""
        return list(self.values.values())

    @property
    def grid(self) -> list[Any]:
        """What a grid goes through, as the study stores it."""
        return list(self.values)


@dataclass(frozen=True)
class Span:
    """An option that takes numbers of a range, both ends counted.

    Arguments:
        key: Its path in the configuration.
        low: The lowest; both ends are whole where the option is.
        high: The highest.
        log: Whether equal factors are equally likely, instead of equal differences.
    """

    key: str
    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Any) -> Any:
        """Have a trial of optuna choose, and return the value."""
        choose = trial.suggest_int if self.whole else trial.suggest_float
        return choose(self.key, self.low, self.high, log=self.log)

    def value(self, stored: Any) -> Any:
        """Return the value for what the study stores."""
        return stored

    @property
    def ends(self) -> list[Any]:
        """The values that stand for all: both ends."""
        return [self.low, self.high]

    @property
    def grid(self) -> list[Any]:
        """What a grid goes through.

        Raises:
            VaekitError: The numbers are not whole.
        """
        if not self.whole:
            raise VaekitError(f"a grid cannot go through the range of {self.key}: write choices such as 0.1,0.5,1")
        return list(range(int(self.low), int(self.high) + 1))


Option: TypeAlias = Choices | Span


def read_space(over: Mapping[str, str | Sequence[Any]]) -> list[Option]:
    """Read all options of a sweep; parts come before their own options.

    Arguments:
        over: Path in the configuration to its values, as `read_option` takes them.

    Raises:
        VaekitError: There are none, or one cannot be read.
    """
    if not over:
        raise VaekitError("a sweep needs options to go over: for instance --over latent_dim=8..128")
    # Naming a part anew takes its options away, so a name is laid down before them.
    return [read_option(key, over[key]) for key in sorted(over, key=lambda key: key.count("."))]


def read_option(key: str, spec: str | Sequence[Any]) -> Option:
    """Read the values of one option.

    Arguments:
        key: Its path in the configuration.
        spec: Choices parted by commas, each in YAML; a range `LOW..HIGH`, of whole numbers where both ends are, with
            `:log` for a logarithmic scale; or a sequence of choices.

    Raises:
        VaekitError: It is none of these, or the option is none that a sweep can go over.

    Examples:
        >>> read_option("posterior.components", "2,4,8").ends
        [2, 4, 8]
        >>> read_option("latent_dim", "8..128")
        Span(key='latent_dim', low=8, high=128, log=False)
        >>> read_option("trainer.optimizer.lr", "1e-5..1e-2:log")
        Span(key='trainer.optimizer.lr', low=1e-05, high=0.01, log=True)
    """
    if key in _FIXED:
        raise VaekitError(f"cannot sweep over {key}: {_FIXED[key]}")
    if isinstance(spec, str) and (match := _RANGE.fullmatch(spec)):
        return _span(key, spec, match)
    try:
        values = parse_yaml(f"[{spec}]") if isinstance(spec, str) else list(spec)
    except VaekitError as error:
        raise VaekitError(f"cannot sweep over {key}: '{spec}' is not YAML; {_KINDS}") from error
    by_text = {written(value): value for value in map(as_number, values)}
    if len(by_text) < max(len(values), 2):
        raise VaekitError(f"cannot sweep over {key}: '{spec}' is not two or more different values; {_KINDS}")
    return Choices(key, by_text)


def _span(key: str, spec: str, match: re.Match[str]) -> Span:
    try:
        low, high = (as_number(parse_yaml(match[end])) for end in (1, 2))
        numbers = all(
            isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in (low, high)
        )
    except VaekitError:
        numbers = False
    if not numbers:
        raise VaekitError(f"cannot sweep over {key}: '{spec}' is no range of numbers; {_KINDS}")
    if low >= high:
        raise VaekitError(f"cannot sweep over {key}: in '{spec}' the first number must be the lower one")
    if match[3] and low <= 0:
        raise VaekitError(f"cannot sweep over {key}: the logarithmic range '{spec}' must begin above 0")
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Span(key, low, high, bool(match[3]))


def as_texts(over: Mapping[str, str | Sequence[Any]]) -> dict[str, str]:
    """Write the values of every option as `read_option` takes them.

    Examples:
        >>> as_texts({"posterior": ["gaussian", "gmm"], "latent_dim": "2..8"})
        {'posterior': 'gaussian,gmm', 'latent_dim': '2..8'}
    """
    return {key: spec if isinstance(spec, str) else ",".join(map(written, spec)) for key, spec in over.items()}


def written(value: Any) -> str:
    """Write a value as `--set` reads it.

    Examples:
        >>> written("gmm"), written("12"), written(1e-05), written([64, 64]), written(None)
        ('gmm', '"12"', '1e-05', '[64, 64]', 'null')
    """
    if isinstance(value, str):
        try:
            if as_number(parse_yaml(value)) == value:
                return value
        except VaekitError:
            pass
    return json.dumps(value, ensure_ascii=False)
