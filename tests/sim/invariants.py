"""What must hold after every step of a simulation, whatever befalls it (reference: resilience 4.2, item 10)."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

from trainrun_api.stages import spec_of
from trainrun_api.v1alpha1 import TrainingRunSpec
from trainrun_operator.cluster import Key
from trainrun_operator.core.times import from_text
from trainrun_operator.testing.simulation import Simulation

EXTRA_JOB_SECONDS = 700.0
"""A job that a stale operator made late is deleted by the next pass: at the latest after two resyncs."""

HARMLESS_RULES = frozenset(
    {"attempt_runs", "attempt_blind", "node_suspected", "contract_unknown", "waiting_for_capacity", "job_queued"}
)
"""Under these nothing may be done to the open attempt."""

SPENDING_CAUSES = frozenset(
    {
        "ProgramError", "EndedEarly", "Unexplained", "Unknown", "SegmentationFault", "Aborted", "Killed",
        "DeviceOutOfMemory", "OOMKilled", "NumericalFault", "StorageRefused",
         "NeverStarted", "Stalled", "StorageEvicted",
    }
)  # fmt: skip
"""Everything else is free: preemption, node faults, requested stops. Written down here again on purpose."""


class Invariants:
    """Looks at the store and the journal; raises AssertionError with what it saw."""

    def __init__(self, sim: Simulation, runs: list[Key]) -> None:
        self.sim = sim
        self.runs = runs
        self.read = 0
        self.writes = -1
        self.closed: dict[Key, dict[int, str]] = {key: {} for key in runs}
        self.results: dict[Key, tuple[Any, Any]] = {}
        self.extra_since: dict[str, float] = {}
        self.seen_attempt: dict[Key, int] = {}

    def check(self) -> None:
        """Everything, for every run, if an operator wrote anything since the last look."""
        if len(self.sim.cluster.writes) == self.writes:
            return
        self.writes = len(self.sim.cluster.writes)
        self._journal()
        for key in self.runs:
            status = self.sim.world.status(key)
            if status:
                self._history(key, status)
                self._terminal(key, status)
                self._books(key, status)
                self._jobs(key, status)

    def _history(self, key: Key, status: dict[str, Any]) -> None:
        attempts = status["attempts"]
        numbers = [a["number"] for a in attempts]
        assert numbers == sorted(set(numbers)), f"{key}: attempts {numbers}"
        newest = numbers[-1] if numbers else -1
        assert newest >= self.seen_attempt.get(key, -1), f"{key}: attempt numbers went back"
        self.seen_attempt[key] = newest
        for attempt in attempts[:-1]:
            assert "endedAt" in attempt, f"{key}: two open attempts {attempts}"
        for attempt in attempts:
            if "endedAt" in attempt:
                known = self.closed[key].setdefault(attempt["number"], attempt["cause"])
                assert known == attempt["cause"], f"{key}: attempt {attempt['number']} was judged twice"
        for before, attempt in pairwise([{}, *attempts]):
            is_first = attempt.get("stage") != before.get("stage")
            self._size(key, {} if is_first else before, attempt)
        limit = 10
        assert status["restarts"] <= limit, f"{key}: budget exceeded"
        spent = sum(1 for cause in self.closed[key].values() if cause in SPENDING_CAUSES)
        spent -= status.get("result") == "Failed" and status["failure"]["cause"] in SPENDING_CAUSES
        assert status["restarts"] == spent, f"{key}: {status['restarts']} restarts for {self.closed[key]}"
        for condition in status["conditions"]:
            assert condition["message"], f"{key}: a condition without words: {condition}"

    def _size(self, key: Key, before: dict[str, Any], attempt: dict[str, Any]) -> None:
        """Never fewer workers than may be, and fewer than wanted only right after an attempt that lacked nodes."""
        run = self.sim.world.store.get("TrainingRun", key)
        assert run is not None
        workers = spec_of(TrainingRunSpec.model_validate(run["spec"]), attempt.get("stage", "")).workers
        least = workers.min_replicas or attempt["replicas"]
        assert attempt["replicas"] >= least, f"{key}: {attempt} runs on too few"
        wanted = attempt.get("wantedReplicas")
        if wanted is not None:
            assert attempt["replicas"] < wanted, f"{key}: {attempt} wants no more than it has"
            if before:  # the history is bounded
                assert before["cause"] == "GangIncomplete", f"{key}: {attempt} is smaller, and nobody knows why"
                assert attempt["replicas"] <= before["scheduledReplicas"], f"{key}: {attempt} is not what it got"
        if before.get("cause") == "CapacityReturned":
            assert before["wantedReplicas"] > before["replicas"], f"{key}: {before} lacked nothing"

    def _terminal(self, key: Key, status: dict[str, Any]) -> None:
        result = (status.get("result"), status.get("endedAt"))
        if result[0] is not None:
            assert self.results.setdefault(key, result) == result, f"{key}: terminal is terminal"
        else:
            assert key not in self.results, f"{key}: a result was taken back"

    def _books(self, key: Key, status: dict[str, Any]) -> None:
        run = self.sim.world.store.get("TrainingRun", key)
        assert run is not None
        ledger, created = status["goodput"], from_text(run["metadata"]["creationTimestamp"])
        until = from_text(ledger["accountedUntil"])
        assert created is not None
        assert until is not None
        total = round(sum(ledger["secondsByClass"].values()) * 1000)
        assert total == (until - created) // timedelta(milliseconds=1), f"{key}: the books do not close: {ledger}"
        assert min(ledger["secondsByClass"].values()) >= 0

    def _jobs(self, key: Key, status: dict[str, Any]) -> None:
        """One living job; one that a stale operator made is gone soon."""
        last = status["attempts"][-1] if status["attempts"] else None
        now = self.sim.clock.monotonic()
        for job in self.sim.world.living_jobs(key):
            name = job["metadata"]["name"]
            if last is not None and name == last["job"] and ("endedAt" not in last or status.get("result")):
                self.extra_since.pop(name, None)
                continue
            since = self.extra_since.setdefault(name, now)
            assert now - since <= EXTRA_JOB_SECONDS, f"{key}: job {name} lives beside {last}"

    def _journal(self) -> None:
        """No effect on a finished run; no effect of blindness; every line has words."""
        for line in self.sim.journal[self.read :]:
            assert line.get("message"), f"a line without words: {line}"
            if line["type"] == "action" and line["reason"] == "StopJob" and line["rule"] in HARMLESS_RULES:
                own = f"{line['run']}-a{line['attempt']} "
                assert own not in line["message"], f"a harmless rule stopped its own attempt: {line}"
            if line["type"] == "action" and line["reason"] == "CreateJob":
                key = Key(line["namespace"], line["run"])
                assert key not in self.results, f"an attempt was started after the end: {line}"
        self.read = len(self.sim.journal)
