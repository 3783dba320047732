"""Large numbers as people write them: 6.6B, 132B, 1.3T; read and written."""

from __future__ import annotations

import re

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_NUMBER = re.compile(r"^\s*(\d[\d_,]*(?:\.\d+)?(?:[eE]\d+)?)\s*([KMBGT]?)\s*$", re.IGNORECASE)


class NotANumber(ValueError):
    """The text is no such number; the message says what is."""


def from_words(text: str) -> float:
    """6.6B -> 6.6e9. Raises NotANumber."""
    match = _NUMBER.match(text)
    value = float(match[1].replace(",", "").replace("_", "")) * _UNITS[match[2].upper()] if match else 0.0
    if value <= 0:
        raise NotANumber(f"{text!r} is no number above 0; write for example 6.6B, 132e9 or 1.3T")
    return value


def in_words(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def in_bytes(value: float) -> str:
    """In units of 1,000: 4 TB is what a store charges for."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def in_days(days: float) -> str:
    """Days, or hours and minutes where days would be a fraction."""
    if days >= 1:
        return f"{days:,.1f} days"
    hours = days * 24
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def share(value: float) -> str:
    """In percent."""
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
