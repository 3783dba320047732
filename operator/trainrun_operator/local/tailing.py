"""Follows a growing file of JSON lines or of text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Follower:
    """Gives each line once, when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def skip_to_end(self) -> None:
        """Only what comes from now on."""
        self._offset = self._path.stat().st_size if self._path.exists() else 0

    def lines(self) -> Iterator[str]:
        """New whole lines."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def read(self) -> Iterator[dict[str, Any]]:
        """New whole lines as JSON objects; what is none is left out."""
        for line in self.lines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
