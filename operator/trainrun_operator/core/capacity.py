"""Waiting for nodes: free of budget, with all clocks stopped; half a gang gives its nodes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

PARTIAL_GANG_SECONDS = 300.0
"""Time that part of a gang may hold nodes while the rest waits; two such runs would block each other for ever."""

PATIENCE_SECONDS = 3.0
"""A younger attempt is starting, not waiting: the pods that it follows are just leaving their nodes."""


@dataclass(frozen=True)
class Waiting:
    """Pods of the attempt that have no node."""

    waiting: int
    total: int
    scheduler: str
    """The scheduler's own message."""
    gives_up_at: datetime | None
    """When the scheduled part gives its nodes back; None: no part holds nodes."""


def told_at(situation: Situation) -> datetime | None:
    """When pods without nodes will be called waiting; None if they are already, or none is without."""
    started = from_text(situation.current.started_at)
    if started is None or situation.current.scheduled_at is not None:
        return None
    moment = started + timedelta(seconds=PATIENCE_SECONDS)
    return moment if moment > situation.now else None


def waiting(situation: Situation) -> Waiting | None:
    """Who waits; None if every pod has (or had) its node."""
    attempt = situation.current
    if attempt.scheduled_at is not None:
        return None
    pods = situation.living
    scheduled = [p for p in pods if p.is_scheduled]
    total = situation.replicas
    if len(scheduled) >= total:
        return None
    says = next((p.pending_because for p in pods if not p.is_scheduled and p.pending_because), "")
    started = from_text(attempt.started_at) or situation.now
    if situation.now < started + timedelta(seconds=PATIENCE_SECONDS):
        return None
    since = max([started, *(p.scheduled_at for p in scheduled if p.scheduled_at)])
    gives_up = since + timedelta(seconds=PARTIAL_GANG_SECONDS) if scheduled else None
    return Waiting(total - len(scheduled), total, says or "nothing yet.", gives_up)
