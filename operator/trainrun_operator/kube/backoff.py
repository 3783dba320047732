"""Waits between tries while the cluster does not answer: a blip costs little, an outage no storm of calls."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 8.0


class Backoff:
    """Doubling, from `FIRST_SECONDS` up to `LONGEST_SECONDS`, each shortened by up to half at random: several that wait
    for the same server would else come back together again and again."""

    def __init__(self) -> None:
        self._failures = 0

    def failed(self) -> float:
        """Count a failure; seconds to wait."""
        self._failures += 1
        bound = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._failures - 1, 32))
        return bound * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def worked(self) -> None:
        """Begin again with the first wait."""
        self._failures = 0
