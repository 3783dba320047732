"""A world with operators in it, driven second by second. Operators may be killed between any two calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainrun_operator.cluster import Key
from trainrun_operator.operator import Operator
from trainrun_operator.settings import Settings
from trainrun_operator.testing.clock import FakeClock
from trainrun_operator.testing.cluster import FakeCluster, OperatorKilled
from trainrun_operator.testing.trainers import Pace
from trainrun_operator.testing.world import World

PASSES_PER_TICK = 50
"""More passes without any time passing would be a busy loop."""

LONGEST_STEP_SECONDS = 60.0


class BusyLoopError(AssertionError):
    """The operator does not come to rest although nothing changes."""


class Simulation:
    """Clock, cluster, world and operators; `step` moves everything by some seconds."""

    def __init__(self, *, nodes: int = 4, operators: int = 1, pace: Pace | None = None) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock)
        self.world = World(self.clock, self.cluster, pace)
        for index in range(nodes):
            self.world.add_node(f"n{index}")
        self.journal: list[Mapping[str, Any]] = []
        self.kills = 0
        self.down_until = [0.0] * operators
        self.operators = [self._start() for _ in range(operators)]

    def step(self, *, at_most: float = LONGEST_STEP_SECONDS) -> None:
        """Let the world act, then the operators; then time passes: a second, or more while nothing can happen."""
        self.world.tick()
        for index in range(len(self.operators)):
            self.drive(index)
        now = self.clock.monotonic()
        dues = [t for t in (*self.down_until, *(o.next_due_at() for o in self.operators)) if t > now]
        due = min(dues, default=now)
        quiet = 1.0 if self.world.is_busy() else max(1.0, due - self.clock.monotonic())
        self.clock.advance(min(quiet, at_most))

    def run(self, seconds: float) -> None:
        """Go on for that long."""
        self.until(lambda: False, limit_seconds=seconds)

    def drive(self, index: int) -> None:
        """One operator does what is due; if it is killed, its successor starts a little later."""
        if self.clock.monotonic() < self.down_until[index]:
            return
        operator = self.operators[index]
        try:
            operator.resync_if_due()
            operator.poller.run_due()
            for _ in range(PASSES_PER_TICK):
                if not operator.process_due():
                    return
        except OperatorKilled:
            self.kills += 1
            self.down_until[index] = self.clock.monotonic() + 3.0
            self.operators[index] = self._start()
            return
        raise BusyLoopError(f"{PASSES_PER_TICK} passes without rest: {[dict(line) for line in self.journal[-4:]]}")

    def until(self, is_done: Callable[[], bool], *, limit_seconds: float) -> bool:
        """Step until it holds; False if it does not within the limit."""
        end = self.clock.monotonic() + limit_seconds
        while not is_done():
            if self.clock.monotonic() >= end:
                return False
            self.step(at_most=max(1.0, end - self.clock.monotonic()))
        return True

    def finish(self, key: Key, *, limit_seconds: float = 3600.0) -> dict[str, Any]:
        """Step until the run is over; its status."""
        is_over = self.until(lambda: self.world.status(key).get("result") is not None, limit_seconds=limit_seconds)
        assert is_over, f"{key} is not over after {limit_seconds} s: {self.world.status(key)}"
        return self.world.status(key)

    def told(self, kind: str = "decision") -> list[str]:
        """Reasons of the journal's lines of one kind."""
        return [str(line["reason"]) for line in self.journal if line["type"] == kind]

    def _start(self) -> Operator:
        operator = Operator(self.cluster, self.clock, Settings(), self.journal.append)
        self.cluster.subscribe(operator.on_event)
        return operator
