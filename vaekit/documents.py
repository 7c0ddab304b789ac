"""YAML and JSON that anybody may have written: plain values within limits, or one sentence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml

from vaekit.errors import VaekitError

__all__ = ["parse_json", "parse_yaml", "read_json", "read_text", "read_yaml"]

# A configuration has some hundred values in a few levels: these are limits to what an accident or an attack can cost.
_YAML_BYTES = 2**18
_JSON_BYTES = 2**26
_VALUES = 20_000
_DEPTH = 40
_WORD = "tag:yaml.org,2002:str"
_DIGITS = 18  # Whole numbers of more digits are read as floats.


def read_text(path: str | Path, largest: int = _JSON_BYTES, errors: Literal["strict", "replace"] = "strict") -> str:
    """Return the text of a file in UTF-8.

    Arguments:
        path: The file.
        largest: The bytes that it may have.
        errors: `"replace"` to read bytes that are no text as question marks.

    Raises:
        VaekitError: It is not there, no regular file, too large, or no text.
    """
    try:
        return _read(Path(path), largest, errors)
    except _UnreadableError as error:
        raise VaekitError(f"{path} cannot be read: {error}") from error


def _read(path: Path, largest: int, errors: str = "strict") -> str:
    try:
        if not path.is_file():  # A pipe would be waited for.
            raise VaekitError(f"there is no file {path}")
        if (size := path.stat().st_size) > largest:
            raise _UnreadableError(f"it has {size:,} bytes, and a file of its kind has {largest:,} at most")
        return path.read_text(encoding="utf-8", errors=errors)
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"it is no text in UTF-8 ({error})") from error
    except OSError as error:
        raise _UnreadableError(error.strerror or str(error)) from error


def _document(path: Path, largest: int, parse: Callable[[str], Any], kind: str) -> Any:
    try:
        return parse(_read(path, largest))
    except _UnreadableError as error:
        raise VaekitError(f"{path} is not readable {kind}: {error}") from error


def read_yaml(path: str | Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        VaekitError: As `read_text` and `parse_yaml`.
    """
    return _document(Path(path), _YAML_BYTES, parse_yaml, "YAML")


def parse_yaml(text: str) -> Any:
    """Return what YAML says: mappings, lists and plain values; no tag makes anything else.

    Raises:
        VaekitError: It is no YAML, names a type of Python's, nests deeper than 40 levels, has more than 20,000 values
            once its aliases are written out, or has a key twice.

    Examples:
        >>> parse_yaml("{a: [1, two]}")
        {'a': [1, 'two']}
        >>> parse_yaml("!!python/name:os.system")
        Traceback (most recent call last):
        vaekit.documents._UnreadableError: could not determine a constructor for the tag 'tag:yaml.org,2002:...
    """
    try:
        if len(text) > _YAML_BYTES:
            raise _UnreadableError(f"it is longer than {_YAML_BYTES:,} characters")
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _UnreadableError(" ".join(str(error).split())) from error
    except _UnreadableError:
        raise
    except (ValueError, LookupError, OverflowError) as error:
        raise _UnreadableError(f"a value is none of its type ({error})") from error


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        VaekitError: As `read_text` and `parse_json`.
    """
    return _document(Path(path), _JSON_BYTES, parse_json, "JSON")


def parse_json(text: str) -> Any:
    """Return what JSON says; a whole number of more than 18 digits becomes a float.

    Raises:
        VaekitError: It is no JSON, or nests deeper than 40 levels.

    Examples:
        >>> parse_json('{"a": [1, NaN, 100000000000000000000]}')
        {'a': [1, nan, 1e+20]}
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(str(error)) from error
    level: list[Any] = [[value]]
    for _ in range(_DEPTH + 1):
        parts = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for part in parts for each in part if isinstance(each, dict | list)]
    if level:
        raise _UnreadableError(f"it nests deeper than {_DEPTH} levels")
    return value


class _UnreadableError(VaekitError):
    """What was read is no such document."""


class _Loader(yaml.SafeLoader):
    """A loader of plain values that goes no further than it is meant to."""

    depth = values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node."""
        self.depth += 1
        self.values += 1
        _refuse_large(self.values, self.depth)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _whole_number(loader: _Loader, node: Any) -> int | float:
    value = loader.construct_yaml_int(node)
    return value if abs(value) < 10**_DIGITS else float(value)  # One of very many digits cannot even be printed.


_Loader.yaml_constructors = {
    tag: _Loader.yaml_constructors[tag]
    for tag in (None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "float", "str", "seq", "map")))
}
_Loader.yaml_constructors |= {
    "tag:yaml.org,2002:int": _whole_number,
    "tag:yaml.org,2002:timestamp": _Loader.yaml_constructors[_WORD],  # It may be the name of a folder.
}


def _refuse_large(values: int, depth: int) -> None:
    if values > _VALUES:
        raise _UnreadableError(f"it has more than {_VALUES:,} values")
    if depth > _DEPTH:
        raise _UnreadableError(f"it nests deeper than {_DEPTH} levels")


def _weigh(node: yaml.Node, known: dict[yaml.Node, tuple[int, int]]) -> tuple[int, int]:
    """Return how many values and levels a node has once its aliases are written out; refuse too many."""
    if node in known:
        if not known[node][0]:
            raise _UnreadableError("a value holds itself")
        return known[node]
    known[node] = (0, 0)
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key in keys:
            key.tag = _WORD  # A key is what is written there, be it 1, no or 2024-05-01.
        names = Counter(key.value for key in keys)
        if twice := [name for name, count in names.items() if count > 1]:
            raise _UnreadableError(f"the key '{twice[0]}' stands twice in one mapping")
    found = [_weigh(part, known) for part in parts]
    values = 1 + sum(each[0] for each in found)
    depth = 1 + max((each[1] for each in found), default=0)
    _refuse_large(values, depth)
    known[node] = (values, depth)
    return values, depth


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)
