"""Faults asked for in local mode: the worker that completed the named step is held until the supervisor acts.

`<id>.json` = {id, kind, step, rank} is there before the start; this side answers with `<id>.held` and waits
for `<id>.done`, which the supervisor writes before the effect, so that a fault fires once.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Fault:
    """One fault that this worker will be held for."""

    id: str
    step: int


class Faults:
    """The faults that concern this rank; none outside local mode."""

    def __init__(self, folder: str | None, rank: int, world_size: int, held: dict[str, Any]) -> None:
        self._folder = None if folder is None else Path(folder)
        self._held = held
        self._faults = [] if self._folder is None else list(_read(self._folder, rank, world_size))

    def hold_after(self, step: int) -> None:
        """If a fault names this step and has not fired, say so and wait until it has."""
        for fault in self._faults:
            if fault.step == step and self._folder is not None:
                self._hold(self._folder, fault)

    def _hold(self, folder: Path, fault: Fault) -> None:
        done, held = folder / f"{fault.id}.done", folder / f"{fault.id}.held"
        while not done.exists():
            if not held.exists() or not _is_alive(json.loads(held.read_text() or "{}").get("pid")):
                _replace(held, {"pid": os.getpid(), **self._held, "step": fault.step})
            time.sleep(POLL_SECONDS)


def _read(folder: Path, rank: int, world_size: int) -> list[Fault]:
    faults = []
    for path in sorted(folder.glob("*.json")):
        raw = json.loads(path.read_text())
        if int(raw.get("rank", -1)) % world_size == rank:
            faults.append(Fault(str(raw["id"]), int(raw["step"])))
    return faults


def _replace(path: Path, record: dict[str, Any]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record))
    os.replace(temporary, path)


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
