"""Waiting for nodes: free of budget, with all clocks stopped; half a gang goes on alone or gives its nodes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainrun_api.v1alpha1 import AttemptStatus

from trainrun_operator.core import elastic
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

PARTIAL_GANG_SECONDS = 300.0
"""Time that part of a gang may hold nodes while the rest waits; two such runs would block each other for ever."""

LOOK_AGAIN_SECONDS = 10.0
"""A quota or webhook that refuses pods is told by an Event on the job, which is not watched."""

KNOWN_SHORT_SECONDS = 30.0
"""Instead of that, for a run that may go on with fewer workers and cannot hope for more: pods that are just leaving
their nodes have left by then."""

PATIENCE_SECONDS = 3.0
"""A younger attempt is starting, not waiting: the pods that it follows are just leaving their nodes."""


@dataclass(frozen=True)
class Waiting:
    """Pods of the attempt that have no node."""

    waiting: int
    total: int
    why: str
    """A sentence with the cluster's own words."""
    scheduled: int
    fewer: int | None
    """Workers with which it goes on then; None: it gives all nodes back."""
    gives_up_at: datetime | None
    """When it stops waiting for the rest of the gang; None: no part holds nodes."""
    look_again_at: datetime | None
    """Pods that do not exist yet: no watch tells why, so it is asked for."""


def is_late(attempt: AttemptStatus, now: datetime) -> bool:
    """Whether all pods of a started attempt should have had their nodes by now, and have not."""
    started = from_text(attempt.started_at)
    if started is None or attempt.scheduled_at is not None:
        return False
    return now >= started + timedelta(seconds=PATIENCE_SECONDS)


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
    if not is_late(attempt, situation.now):
        return None
    pods = situation.living
    scheduled = [p for p in pods if p.is_scheduled]
    total = situation.replicas
    started = from_text(attempt.started_at) or situation.now
    since = max([started, *(p.scheduled_at for p in scheduled if p.scheduled_at)])
    fewer = elastic.fewer(situation.spec, len(scheduled))
    is_vain = fewer is not None and elastic.is_known_short(situation)
    patience = timedelta(seconds=KNOWN_SHORT_SECONDS if is_vain else PARTIAL_GANG_SECONDS)
    again = situation.now + timedelta(seconds=LOOK_AGAIN_SECONDS) if len(pods) < total else None
    return Waiting(
        waiting=max(1, total - len(scheduled)),
        total=total,
        why=_why(situation),
        scheduled=len(scheduled),
        fewer=fewer,
        gives_up_at=since + patience if scheduled else None,
        look_again_at=again,
    )


def _why(situation: Situation) -> str:
    warning = situation.job.warning if situation.job is not None else ""
    if warning:
        return f"Pods cannot be created: {warning}"
    says = next((p.pending_because for p in situation.living if not p.is_scheduled and p.pending_because), "")
    return f"The scheduler says: {says}" if says else "Nobody says why yet."
