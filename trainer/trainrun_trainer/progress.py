"""What this rank tells its agent: one small file, replaced atomically after each step and phase change.

Instants are of this machine's monotonic clock; the agent turns them into ages.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainrun_api.contract import PHASE_ALLOWANCE_SECONDS, Progress, ProgressFile

from trainrun_trainer.checkpoint import Durable
from trainrun_trainer.logs import log
from trainrun_trainer.ranks import Ranks

STEP_WINDOW = 50
"""Steps whose slowest governs the automatic stall limit."""


PATIENCE_FACTOR = 20.0
PATIENCE_SHORTEST_SECONDS = 10.0
"""A save or an evaluation may take 20 x the slowest one before, and this much more: as the automatic stall limit."""


class Stopwatch:
    """Seconds by class: each lap adds the time since the last one, so that the classes add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> float:
        """End a stretch of time; returns its length in seconds."""
        now = time.monotonic()
        length = now - self._last
        self._last = now
        self.seconds[name] = self.seconds.get(name, 0.0) + length
        return length

    def since(self, earlier: dict[str, float]) -> dict[str, float]:
        """Seconds by class since an earlier copy of `seconds`."""
        gained = {name: total - earlier.get(name, 0.0) for name, total in self.seconds.items()}
        return {name: round(value, 6) for name, value in gained.items() if value > 0}


class ProgressWriter:
    """Writes `rank<k>.json`."""

    def __init__(self, folder: str | None, run: str, attempt: int, generation: int, ranks: Ranks) -> None:
        self._path = None if folder is None else Path(folder) / ProgressFile.rank(ranks.local_rank)
        self._record: dict[str, Any] = asdict(
            Progress(run=run, attempt=attempt, generation=generation, inplace_restarts=generation, stage="train")
        )
        for name in ("step_age_seconds", "heard", "workers"):
            del self._record[name]
        self._record |= {"pid": os.getpid(), "rank": ranks.rank, "local_rank": ranks.local_rank}
        self._recent: deque[tuple[float, int]] = deque(maxlen=STEP_WINDOW)
        self._slowest: dict[str, float] = {}
        self.stopwatch = Stopwatch()

    def phase(self, phase: str, **known: Any) -> None:
        """A new phase begins; `known` are further fields of the record."""
        self._record |= {"phase": phase, **known}
        self._write()

    @contextmanager
    def during(self, phase: str, first_seconds: float | None = None) -> Generator[None, None, None]:
        """A phase within another one, which goes on afterwards.

        How long it may be silent is told from its own past, the first time from `first_seconds`: a hang in a
        save must not have to wait for the allowance of the largest model.
        """
        outer, started = self._record["phase"], time.monotonic()
        self.phase(phase, expected_next_within_seconds=self._expected(phase, first_seconds))
        try:
            yield
        finally:
            self._slowest[phase] = max(self._slowest.get(phase, 0.0), time.monotonic() - started)
            self.phase(outer, expected_next_within_seconds=None)

    def slowest_step_seconds(self) -> float | None:
        """Of the steps that this group remembers; None before the first."""
        return max((seconds for seconds, _ in self._recent), default=None)

    def _expected(self, phase: str, first_seconds: float | None) -> float | None:
        """None: nothing is known, the contract's allowance holds."""
        slowest = self._slowest.get(phase)
        seconds = first_seconds if slowest is None else PATIENCE_FACTOR * slowest
        if seconds is None:
            return None
        return min(PHASE_ALLOWANCE_SECONDS[phase], PATIENCE_SHORTEST_SECONDS + seconds)

    def step_done(self, step: int, loss: float, tokens: int, step_tokens: int, seconds: float) -> None:
        """An optimizer step is complete."""
        self._recent.append((seconds, step_tokens))
        total = sum(s for s, _ in self._recent)
        self._record |= {
            "phase": "training", "step": step, "loss": loss, "tokens": tokens, "step_monotonic": time.monotonic(),
            "tokens_per_second": sum(t for _, t in self._recent) / total if total else None,
            "slowest_step_seconds": self.slowest_step_seconds(),
        }  # fmt: skip
        self._write()

    def saved(self, durable: Durable | None, error: str | None) -> None:
        """A save ended: the newest durable checkpoint, and the error of the last save if it failed."""
        checkpoint = None
        if durable is not None:
            checkpoint = {**durable.facts(), "committed_monotonic": durable.committed_monotonic}
        self._record |= {"durable_checkpoint": checkpoint, "save_error": error}
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._record["written_monotonic"] = time.monotonic()
        self._record["seconds_by_class"] = self.stopwatch.seconds
        temporary = f"{self._path}.{os.getpid()}.tmp"
        try:
            with open(temporary, "w", encoding="utf-8") as stream:
                json.dump(self._record, stream, separators=(",", ":"))
            os.replace(temporary, self._path)
        except OSError as error:  # a full disk must not end training; the next step tells again
            log("progress-not-written", message=str(error))
