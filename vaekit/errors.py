"""The one exception type that vaekit raises for a mistake the user can mend."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

__all__ = ["VaekitError", "memory_errors", "one_line", "printable", "suggest"]

# PyTorch's own errors of memory are RuntimeErrors, on a CPU of no other type, and TypeErrors for sizes past counting.
_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Storage size calculation overflowed",
    "Overflow when unpacking long",
)
_LONGEST = 2000


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
    except (MemoryError, RuntimeError, TypeError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY)):
            raise
        raise VaekitError(f"out of memory: {advice}") from error


def one_line(text: object) -> str:
    r"""Return text as one line: what breaks or commands a terminal is written out, and what is endless is cut.

    Examples:
        >>> one_line("a\n  b"), one_line("\x1b[31mred\udcff")
        ('a b', '\\x1b[31mred\\udcff')
    """
    words = " ".join(str(text).split())
    return printable(words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ...")


def printable(text: str) -> str:
    r"""Return text with every sign written out that does not print.

    Examples:
        >>> printable("caf\xe9"), printable("\u202e")
        ('café', '\\u202e')
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


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
