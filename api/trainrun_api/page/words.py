"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

UNKNOWN = "\u2013"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `1 min 18 s`, `3 h 05 min`, `2 d 04 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def count(value: float | int | None) -> str:
    """`40,960`, `1.2 M`, `3.4 B`."""
    if value is None:
        return UNKNOWN
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def size(number_of_bytes: float | int | None) -> str:
    """`1.9 MB`."""
    if number_of_bytes is None:
        return UNKNOWN
    amount = float(number_of_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:.3g} {unit}"
        amount /= 1000
    raise AssertionError


def figure(value: float | None) -> str:
    """A loss or a perplexity: four significant digits, thousands grouped."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def percent(share: float | None) -> str:
    """`14.4 %`."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def parse_time(text: str | None) -> datetime | None:
    """An API time; None for an absent one."""
    if not text:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def clock_time(moment: datetime | None) -> str:
    """`2026-11-22 03:17:39 UTC`."""
    return UNKNOWN if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def of_day(moment: datetime | None) -> str:
    """`03:17:39`."""
    return UNKNOWN if moment is None else moment.astimezone(UTC).strftime("%H:%M:%S")


def times(number: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 restart`, `2 restarts`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
