"""The wall seconds of a run, partitioned into named classes that add up exactly.

Time is booked in whole milliseconds from the run's creation to its end; a class change closes the open span.
Seconds of training that a failure made worthless are moved, never added.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from trainrun_api.v1alpha1 import AttemptStatus, GoodputStatus, TrainingRunStatus

from trainrun_operator.core.times import from_text, seconds_between, to_text

CLASSES: dict[str, str] = {
    "training": "Steps that still count.",
    "starting": "From nodes assigned to the first step.",
    "waitingCapacity": "Pods without nodes, queued or preempted.",
    "suspended": "spec.suspend.",
    "stopping": "Saving and ending pods.",
    "detecting": "From the last step to the verdict.",
    "recovering": "From the verdict to the next attempt, back-off included.",
    "lost": "Steps whose results a failure destroyed.",
    "blind": "No agent could be asked.",
    "userFault": "The spec or its surroundings cannot work.",
}
"""Every class; `finished` time is not booked."""

FREE_CLASSES = frozenset({"waitingCapacity", "suspended"})
"""Not part of the time that effective training time is measured against."""

BOOKING_SECONDS = 60.0
"""An open span is written to status at most this often."""


def booked(
    goodput: GoodputStatus, created_at: datetime, now: datetime, new_class: str, *, is_forced: bool
) -> GoodputStatus:
    """Book the span since the last booking on the class that was in force, then go on with `new_class`."""
    since = from_text(goodput.accounted_until) or created_at
    old_class = goodput.current_class or "starting"
    if old_class == "finished":
        return goodput
    if old_class == new_class and not is_forced and goodput.accounted_until is not None:
        if seconds_between(since, now) < BOOKING_SECONDS:
            return goodput
    seconds = dict(goodput.seconds_by_class)
    seconds[old_class] = _milli(seconds.get(old_class, 0.0) + seconds_between(since, now))
    until = since + timedelta(seconds=seconds_between(since, now))
    return _with_ettr(
        goodput.model_copy(
            update={"seconds_by_class": seconds, "current_class": new_class, "accounted_until": to_text(until)}
        )
    )


def settled(
    goodput: GoodputStatus,
    attempt: AttemptStatus,
    status: TrainingRunStatus,
    last_step_at: datetime | None,
    now: datetime,
) -> GoodputStatus:
    """At the end of an attempt by failure: what was booked as training since the last durable checkpoint is lost,
    what passed since the last step was detection."""
    first = from_text(attempt.first_step_at)
    if first is None:
        return goodput
    last = max(first, min(last_step_at or now, now))
    goodput = _moved(goodput, "detecting", seconds_between(last, now))
    committed = from_text(status.checkpoint.committed_at)
    safe = max(first, min(committed, last)) if committed is not None else first
    return _moved(goodput, "lost", seconds_between(safe, last))


def _moved(goodput: GoodputStatus, to: str, seconds: float) -> GoodputStatus:
    by_class = dict(goodput.seconds_by_class)
    have = by_class.get("training", 0.0)
    amount = min(have, seconds)
    if amount <= 0:
        return goodput
    by_class["training"] = _milli(have - amount)
    by_class[to] = _milli(by_class.get(to, 0.0) + amount)
    return _with_ettr(goodput.model_copy(update={"seconds_by_class": by_class}))


def _with_ettr(goodput: GoodputStatus) -> GoodputStatus:
    seconds = goodput.seconds_by_class
    eligible = sum(v for k, v in seconds.items() if k not in FREE_CLASSES)
    ettr = round(seconds.get("training", 0.0) / eligible, 4) if eligible > 0 else None
    return goodput.model_copy(update={"ettr": ettr})


def _milli(seconds: float) -> float:
    return round(seconds, 3)
