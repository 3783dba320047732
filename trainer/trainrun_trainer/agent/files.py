"""The progress folder: small JSON files that workers, launcher and agent replace atomically."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, List, Optional

from trainrun_api.contract import ProgressFile

SIZE_LIMIT_BYTES = 1 << 20
"""A larger file is not a record of ours and is not read."""


def read_json(folder: str, name: str) -> Optional[Dict[str, Any]]:
    """The object in a file, or None when there is none that can be read."""
    try:
        with open(os.path.join(folder, name), "rb") as handle:
            raw = handle.read(SIZE_LIMIT_BYTES + 1)
        # NaN is no JSON for others, and a loss that is none is told as unknown
        value = json.loads(raw, parse_constant=lambda _: None) if len(raw) <= SIZE_LIMIT_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_json(folder: str, name: str, value: Dict[str, Any]) -> None:
    """Replace a file; a reader sees the old or the new content. No fsync: it need not outlive the machine."""
    path = os.path.join(folder, name)
    temporary = "%s.%d.tmp" % (path, os.getpid())
    with open(temporary, "w") as handle:
        json.dump(value, handle)
    os.replace(temporary, path)


def remove(folder: str, name: str) -> None:
    """Take a file away, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, name))


def rank_records(folder: str) -> List[Dict[str, Any]]:
    """What the local ranks last wrote, by local rank; each has `local_rank`."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    records = []
    for name in names:
        digits = name[4:-5]
        if name.startswith("rank") and name.endswith(".json") and digits.isdigit():
            record = read_json(folder, name)
            if record is not None:
                records.append({**well_typed(record), "local_rank": int(digits)})
    return sorted(records, key=lambda r: int(r["local_rank"]))


_INTEGERS = ("schema", "pid", "rank", "step", "total_steps", "tokens", "generation", "inplace_restarts", "attempt")
_NUMBERS = ("loss", "step_monotonic", "tokens_per_second", "slowest_step_seconds", "expected_next_within_seconds")
_OBJECTS = ("durable_checkpoint", "seconds_by_class")


def well_typed(record: Dict[str, Any]) -> Dict[str, Any]:
    """The record without fields of a wrong type: a user's program writes this file too, and may err."""
    kinds: Dict[str, Any] = {name: int for name in _INTEGERS}
    kinds.update({name: (int, float) for name in _NUMBERS})
    kinds.update({name: dict for name in _OBJECTS})
    return {
        name: value
        for name, value in record.items()
        if name not in kinds or (isinstance(value, kinds[name]) and not isinstance(value, bool))
    }


def clear(folder: str) -> None:
    """Make the folder, without what an earlier pod left in it. Raises OSError when it cannot be written."""
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        known = name in (ProgressFile.STOP_REQUEST, ProgressFile.RESULT, ProgressFile.LAUNCHER)
        if known or (name.startswith(("rank", "crash")) and name.endswith((".json", ".tmp"))):
            os.unlink(os.path.join(folder, name))
