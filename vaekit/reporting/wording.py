"""How numbers, durations and terms are written for a reader."""

from __future__ import annotations

import math
from collections.abc import Collection

__all__ = ["duration", "number", "title_of", "unit_of"]

_TITLES = {"bits_per_dim": "bits/dim", "kl": "KL", "negative_elbo": "negative ELBO", "r1": "R1 penalty"}


def number(value: float, *, padded: bool = False) -> str:
    """Write a number to four significant digits, without an exponent where that stays short.

    Arguments:
        value: The number.
        padded: Whether to keep zeros at the end, so that figures below each other compare.

    Examples:
        >>> [number(value) for value in (1234567.0, 123.456, 0.01234, 1e-9, 0, float("nan"))]
        ['1,234,567', '123.5', '0.01234', '1e-09', '0', 'nan']
        >>> number(24.2, padded=True)
        '24.20'
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}" if padded else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Write a time span in its two largest units.

    Examples:
        >>> [duration(seconds) for seconds in (4.21, 75, 3600, 200000)]
        ['4.2 s', '1 min 15 s', '1 h 0 min', '2 d 7 h']
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def title_of(term: str) -> str:
    """Write a term's name in the log as a heading.

    Examples:
        >>> title_of("population_kl"), title_of("bits_per_dim")
        ('population KL', 'bits/dim')
    """
    if term in _TITLES:
        return _TITLES[term]
    return " ".join({"kl": "KL", "gan": "GAN"}.get(word, word) for word in term.split("_"))


def unit_of(term: str, regularizers: Collection[str]) -> str:
    """Return a term's unit in words, or an empty string for a number without one.

    Arguments:
        term: Its name in the log.
        regularizers: The names of the run's regularizers, which are logged before their weights.
    """
    if term in ("loss", "reconstruction", "negative_elbo") or term in regularizers:
        return "nats per sample"
    return "bits per dimension" if term == "bits_per_dim" else ""
