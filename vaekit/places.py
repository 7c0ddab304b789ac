"""Paths of this machine, and configurations and texts without them: what leaves the machine names no folder of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from vaekit.config import RunConfig

__all__ = ["hide_places", "without_places"]


def without_places(config: RunConfig) -> RunConfig:
    """Return a configuration without `data.root`, and with the last part alone of every absolute path.

    Examples:
        >>> from vaekit.config import read_recipe, resolve
        >>> config = resolve(read_recipe("vae"), {"data": {"root": "/home/me/data"}}, data="/home/me/photographs")
        >>> without_places(config).data["name"], "root" in without_places(config).data
        ('photographs', False)
    """
    content = config.model_dump(mode="json")
    content["data"].pop("root", None)
    return RunConfig(**_shortened(content))


def hide_places(text: str, config: RunConfig) -> str:
    """Return a text in which the paths of a configuration, and the user's folder, are shortened likewise.

    Examples:
        >>> from vaekit.config import read_recipe, resolve
        >>> hide_places("3 files of /home/me/x were skipped", resolve(read_recipe("vae"), data="/home/me/x"))
        '3 files of x were skipped'
    """
    for place in sorted(set(_places(config.model_dump(mode="json"))), key=len, reverse=True):
        text = text.replace(place, PurePath(place).name)
    home = Path.home()
    return text.replace(str(home), "~") if len(home.parts) > 1 else text


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, str) and (PurePath(value).is_absolute() or value.startswith("~")) and value.strip("/~") != ""
    )


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shortened(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    return PurePath(value).name if _is_place(value) else value


def _places(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _places(part)
    elif _is_place(value):
        yield value
