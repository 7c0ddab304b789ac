"""Where networks may take pretrained weights from while they are built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

__all__ = ["Source", "pretrained_weights", "weights_from"]

Source = Literal["anywhere", "disk", "nowhere"]

_source: ContextVar[Source] = ContextVar("where pretrained weights may come from", default="anywhere")


@contextmanager
def pretrained_weights(source: Source) -> Iterator[None]:
    """Limit where networks that are built inside take pretrained weights from.

    A run that is loaded or resumed has weights of its own, so it looks `"nowhere"`: the files that it began from need
    not be there any more. Blocks within blocks can only forbid more.

    Arguments:
        source: `"anywhere"`, `"disk"` for no downloads, or `"nowhere"` for none at all.

    Examples:
        >>> with pretrained_weights("nowhere"), pretrained_weights("disk"):
        ...     weights_from()
        'nowhere'
        >>> weights_from()
        'anywhere'
    """
    token = _source.set(max(source, _source.get(), key=get_args(Source).index))
    try:
        yield
    finally:
        _source.reset(token)


def weights_from() -> Source:
    """Return where a network that is built now may take pretrained weights from."""
    return _source.get()
