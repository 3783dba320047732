"""So much a second, and some at once. The caller has the clock, and the lock if it needs one."""

from __future__ import annotations

ROUNDING_SECONDS = 1e-9
"""Sums of shares of a second are not exact."""


class RateLimit:
    """A token bucket that is full at first, kept as the moment at which it would be full again."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self._seconds_each = 1.0 / per_second
        self._reach_seconds = at_once / per_second
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take one in any case; returns how many seconds to wait before it is used, 0 if none."""
        self._full_at = max(now, self._full_at) + self._seconds_each
        return max(0.0, self._full_at - now - self._reach_seconds)

    def may_take(self, now: float) -> bool:
        """Take one if it can be used now."""
        full_at = max(now, self._full_at) + self._seconds_each
        if full_at - now > self._reach_seconds + ROUNDING_SECONDS:
            return False
        self._full_at = full_at
        return True
