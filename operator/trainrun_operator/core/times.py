"""Times in status: UTC text with milliseconds, so that sums of differences are exact integers of milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def to_text(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_second(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes conditions."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def from_text(text: str | None) -> datetime | None:
    """Read a time that we or the API server wrote; None stays None."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Seconds from earlier to later, never negative, in whole milliseconds."""
    return max(0, (later - earlier) // timedelta(milliseconds=1)) / 1000


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of those moments that are known."""
    known = [m for m in moments if m is not None]
    return min(known) if known else None
