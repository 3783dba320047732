"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05
LONGEST_SECONDS = 90.0
"""A bound for a loaded machine, no expectation of speed."""


def wait_for(
    look: Callable[[], T],
    what: str,
    seconds: float = LONGEST_SECONDS,
    *,
    seen: Callable[[], object] | None = None,
    every: float = POLL_SECONDS,
) -> T:
    """Poll until `look` gives something true, and return it; else an AssertionError with what was `seen` last."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            last = f"; last seen: {seen()}" if seen is not None else ""
            raise AssertionError(f"waited {seconds:.0f} s for {what}{last}")
        time.sleep(every)
