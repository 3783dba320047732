"""How long to wait before an attempt. No randomness: jitter is a hash of run and attempt."""

from __future__ import annotations

import hashlib

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 600.0
"""10 s doubling to 10 min: long enough for a person to read, short enough for a flaking store to come back."""

GANG_FIRST_SECONDS = 30.0
"""Two gangs that block each other part when one returns at least this much later than the other."""


def restart_delay_seconds(consecutive_failures: int) -> float:
    """Delay after the n-th failure of the program in a row (n >= 1)."""
    if consecutive_failures < 1:
        return 0.0
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(consecutive_failures - 1, 16))


def gang_delay_seconds(uid: str, attempt: int, consecutive: int) -> float:
    """Delay before a gang asks again: exponential, times a factor in [0.5, 1.5) that differs between runs."""
    base = min(LONGEST_SECONDS, GANG_FIRST_SECONDS * 2.0 ** min(max(consecutive, 1) - 1, 16))
    digest = hashlib.sha256(f"{uid}/{attempt}".encode()).digest()
    return round(base * (0.5 + int.from_bytes(digest[:4], "big") / 2**32), 3)
