"""The one exception type that vaekit raises for a mistake the user can mend."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

__all__ = ["VaekitError", "memory_errors", "suggest"]


class VaekitError(ValueError):
    """A mistake in what the user asked for: one plain sentence that says what is wrong and what to do.

    The command line prints the sentence and ends with exit code 2; in Python it is an ordinary `ValueError`.
    """


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn a device or a machine without enough memory into one plain sentence.

    Arguments:
        advice: What to do.

    Examples:
        >>> with memory_errors("use smaller batches"):
        ...     raise MemoryError()
        Traceback (most recent call last):
        vaekit.errors.VaekitError: out of memory: use smaller batches
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)  # PyTorch's own are RuntimeErrors, on a CPU of no other type.
        if not (isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said):
            raise
        raise VaekitError(f"out of memory: {advice}") from error


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return the tail of an error sentence: the nearest choice, if one is near, and all the valid ones.

    Examples:
        >>> suggest("componets", ["components", "estimator"])
        "did you mean 'components'? Valid: components, estimator."
    """
    names = sorted(choices)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    listing = f"Valid: {', '.join(names)}." if names else "There are none to choose from."
    return f"did you mean '{near[0]}'? {listing}" if near else listing[0].lower() + listing[1:]
