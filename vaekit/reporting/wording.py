"""How numbers, durations and terms are written for a reader."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["duration", "figure_title", "number", "title_of", "unit_of", "value_of", "when"]

_TITLES = {
    "bits_per_dim": "bits/dim",
    "negative_elbo": "negative ELBO",
    "r1": "R1 penalty",
    "log_likelihood": "log p(x)",
    "latent": "latent space",
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
}
_SPELLED = {
    **{word: word.upper() for word in ("dci", "elbo", "fid", "gan", "kid", "kl", "lpips", "mig", "nll", "psnr", "sap",
                                       "ssim")},
    "isc": "inception score",
    "frechet": "Fréchet",
}  # fmt: skip
# These names are given by the evaluation only to figures of the network that defines them.
_INCEPTION = ("fid", "kid", "isc")


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
    if seconds < 59.95 or not math.isfinite(seconds):
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
    return " ".join(_SPELLED.get(word, word) for word in term.split("_"))


def unit_of(term: str, regularizers: Collection[str]) -> str:
    """Return a term's unit in words, or an empty string for a number without one.

    Arguments:
        term: Its name in the log.
        regularizers: The names of the run's regularizers, which are logged before their weights.
    """
    if term in ("loss", "reconstruction", "negative_elbo") or term in regularizers:
        return "nats per sample"
    return "bits per dimension" if term == "bits_per_dim" else ""


def value_of(line: Mapping[str, Any], term: str) -> str:
    """Return a term of a line of metrics as a table shows it; an empty string where it is not there."""
    value = line.get(term)
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:.3f}" if term == "bits_per_dim" else number(value, padded=True)


def when(line: Mapping[str, Any]) -> str:
    """Say when a line of metrics was written: its epoch, counted from 1, or its step."""
    epoch = line.get("epoch")
    return f"epoch {epoch + 1}" if isinstance(epoch, int) else f"step {line['step']}"


def figure_title(name: str, protocol: Mapping[str, Any]) -> str:
    """Write the dotted name of a figure of an evaluation, with its extractor where it was made with one.

    Arguments:
        name: The name.
        protocol: The figure's protocol.

    Examples:
        >>> figure_title("sharpness.ratio", {}), figure_title("fid", {"extractor": {"name": "inception-v3-compat"}})
        ('sharpness: ratio', 'FID')
        >>> figure_title("frechet_distance", {"extractor": {"name": "mobilenet.ts"}})
        'Fréchet distance (mobilenet.ts)'
    """
    words = ": ".join(title_of(part) for part in name.split("."))
    extractor = protocol.get("extractor")
    if name.startswith(_INCEPTION) or not isinstance(extractor, Mapping) or "name" not in extractor:
        return words
    return f"{words} ({extractor['name']})"
