"""The one exception type that vaekit raises for a mistake the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["VaekitError", "suggest"]


class VaekitError(ValueError):
    """A mistake in what the user asked for: one plain sentence that says what is wrong and what to do.

    The command line prints the sentence and ends with exit code 2; in Python it is an ordinary `ValueError`.
    """


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
