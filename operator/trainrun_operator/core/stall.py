"""Whether training stands still, per phase. Blind is not stalled: only a fresh answer can prove standstill."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainrun_api.contract import PHASE_ALLOWANCE_SECONDS, Progress

from trainrun_operator.core.observed import PodFacts
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

AUTO_FACTOR = 20.0
AUTO_SHORTEST_SECONDS = 10.0
AUTO_LONGEST_SECONDS = 1800.0
"""auto = 20 x the slowest of the last 50 steps, within these bounds."""

FRESH_SECONDS = 45.0
"""An answer older than one and a half healthy poll intervals proves nothing about now."""

BLIND_SECONDS = 60.0
"""Silence of all agents after which people are told; two healthy poll intervals."""

SILENCE_SECONDS = 6.0
"""One missed answer is a busy machine: a member counts as silent when it missed the next question, 5 s later, too."""


@dataclass(frozen=True)
class Stall:
    """How the newest step compares with its limit."""

    age_seconds: float
    limit_seconds: float
    phase: str

    @property
    def is_stalled(self) -> bool:
        """The step is older than the limit."""
        return self.age_seconds > self.limit_seconds


def measure(situation: Situation) -> Stall | None:
    """Age and limit of the newest step; None while nothing can be said (blind, before the first step)."""
    progress = situation.observed.progress
    record, received = progress.record, progress.received_at
    if record is None or received is None or record.step_age_seconds is None or situation.last_step_at is None:
        return None
    if (situation.now - received).total_seconds() > FRESH_SECONDS:
        return None
    # the age when it was said: a step may have been made since
    return Stall(record.step_age_seconds, limit_seconds(situation, record), record.phase)


def limit_seconds(situation: Situation, record: Progress) -> float:
    """The stall limit of the record's phase."""
    health = situation.spec.health
    if record.phase == "starting":  # an in-place restart loads and compiles again
        return float(health.startup_timeout_seconds)
    allowance = record.expected_next_within_seconds
    if allowance is None:
        allowance = PHASE_ALLOWANCE_SECONDS.get(record.phase, 0.0)
    if isinstance(health.stall_timeout_seconds, int):
        return health.stall_timeout_seconds + allowance
    slowest = record.slowest_step_seconds or AUTO_LONGEST_SECONDS
    return min(AUTO_LONGEST_SECONDS, max(AUTO_SHORTEST_SECONDS, AUTO_FACTOR * slowest)) + allowance


def startup_deadline(situation: Situation) -> datetime | None:
    """When the first step must have been made; None: it was, nobody would tell, or the clock has not started."""
    attempt = situation.current
    scheduled = from_text(attempt.scheduled_at)
    if attempt.first_step_at is not None or scheduled is None or situation.is_mute:
        return None
    return scheduled + timedelta(seconds=situation.spec.health.startup_timeout_seconds)


def silent_members(situation: Situation) -> list[PodFacts]:
    """Living pods whose agents were asked and do not answer."""
    return [p for p in situation.living if situation.silent_since(p) is not None]


def silence_proven_at(situation: Situation) -> datetime | None:
    """When the newest of these silences is long enough to blame a node; None: nobody is silent."""
    silent = [situation.silent_since(p) for p in situation.living]
    newest = max((since for since in silent if since is not None), default=None)
    return None if newest is None else newest + timedelta(seconds=SILENCE_SECONDS)


def blind_since(situation: Situation) -> datetime | None:
    """Since when no agent of the living pods answers; None: one does, or none was asked."""
    asked = [p for p in situation.living if situation.agent(p.index) is not None]
    silent = [since for p in asked if (since := situation.silent_since(p)) is not None]
    if not silent or len(silent) < len(asked):
        return None
    return max(silent)
