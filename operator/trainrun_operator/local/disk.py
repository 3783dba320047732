"""Small JSON files that are either old or new, never torn: what kill -9 at any moment needs.

No fsync: these files must survive the death of processes, not of the machine, whose pods die with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainrun_operator.cluster import Object
from trainrun_operator.objects import ObjectKey


def write_json(path: Path, value: Any) -> None:
    """Replace a file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, separators=(",", ":")))
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Content of a file, or None when it is missing or not JSON (somebody else writes it, perhaps just now)."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add one JSON line by one write: lines of supervisor and operator do not mix."""
    line = json.dumps(record, separators=(",", ":"), default=str) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def read_lines(path: Path) -> Iterator[Any]:
    """JSON lines of a file that may be growing: an unfinished or damaged line is left out."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


class ObjectFiles:
    """The `persist` hook of an ObjectStore: one file per object."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, key: ObjectKey, obj: Object | None) -> None:
        """Store or forget one object."""
        path = self._folder / f"{key.kind}.{key.namespace}.{key.name}.json"
        if obj is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, obj)

    def read(self, kind: str = "") -> list[Object]:
        """All stored objects, or those of one kind; callable from any process at any time."""
        found = (read_json(path) for path in sorted(self._folder.glob(f"{kind}*.json")))
        return [obj for obj in found if obj is not None and kind in ("", obj["kind"])]
