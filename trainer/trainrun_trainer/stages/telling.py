"""What people and the operator see of a stage that is not training, and how it is asked to stop."""

from __future__ import annotations

import threading
import time

import torch

from trainrun_trainer.environment import ToolEnvironment
from trainrun_trainer.progress import ProgressWriter
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.stop import StopRequests
from trainrun_trainer.units import Units

UNIT_SECONDS = 3600.0
"""How long one unit may take: the allowance of an evaluation, which nothing here exceeds by nature."""


class StopAsked(Exception):
    """The work ends between two units, as asked; `code` is the exit code that was asked for."""

    def __init__(self, code: int) -> None:
        super().__init__(f"asked to stop with {code}")
        self.code = code


class ToldUnits(Units):
    """Units as steps of the progress record; looks for a stop request after each. Threads may share it."""

    def __init__(self, env: ToolEnvironment) -> None:
        ranks = Ranks(0, 0, 1, torch.device("cpu"))
        self.progress = ProgressWriter(env.progress_dir, env.run, env.owner.attempt, env.owner.generation, ranks)
        self._phase = "evaluating" if env.stage.kind == "evaluate" else "finishing"
        self._stop_requests = StopRequests(env.progress_dir)
        self._lock = threading.Lock()
        self.finished = self.total = 0
        self._tell()

    def expect(self, number: int) -> None:
        """More is to come."""
        with self._lock:
            self.total += number
            self._tell()

    def done(self) -> None:
        """One more unit. Raises StopAsked."""
        with self._lock:
            self.finished += 1
            self._tell()
        code = self._stop_requests.code()
        if code is not None:
            raise StopAsked(code)

    def _tell(self) -> None:
        self.progress.phase(
            self._phase, step=self.finished, total_steps=self.total or None, step_monotonic=time.monotonic(),
            expected_next_within_seconds=UNIT_SECONDS,
        )  # fmt: skip
