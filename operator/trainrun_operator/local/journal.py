"""events.jsonl: what happened, one JSON object per line, written by supervisor and operator alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrun_operator.clock import Clock
from trainrun_operator.local.disk import append_line


class Journal:
    """Appends records; what a record does not say (time, run) is filled in."""

    def __init__(self, path: Path, run: str, clock: Clock) -> None:
        self._path = path
        self._run = run
        self._clock = clock

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        now = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        append_line(self._path, {"run": self._run, **record, "time": now})
