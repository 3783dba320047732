"""Rules about the run as a whole; they come first."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainrun_operator.core import reasons
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.decision import DeleteRun
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text


def run_deleted(situation: Situation) -> Choice | None:
    """The run is deleted: nothing is done. Its pods save on SIGTERM, the garbage collector takes its objects."""
    if not situation.observed.run.is_deleted:
        return None
    return Choice(reasons.DELETED)


def run_expired(situation: Situation) -> Choice | None:
    """A finished run is deleted `ttlSecondsAfterFinished` after its end."""
    expiry = _expiry(situation)
    if expiry is None or situation.now < expiry:
        return None
    return Choice(reasons.EXPIRED, actions=(DeleteRun(situation.observed.run.uid),))


def run_finished(situation: Situation) -> Choice | None:
    """A run that succeeded or failed stays so; nothing is started again."""
    status = situation.status
    if status.result is None:
        return None
    wake = _expiry(situation)
    if status.result == "Succeeded":
        return Choice(reasons.SUCCEEDED, {"step": step_text(status.progress.step)}, wake=wake)
    attempt, failure = status.attempt, status.failure
    facts = {
        "attempt": attempt,
        "cause": failure.cause if failure else "Unknown",
        "evidence": " ".join(failure.evidence) if failure else "",
        "action": failure.action if failure else "",
    }
    return Choice(reasons.FAILED, facts, wake=wake)


def spec_unworkable(situation: Situation) -> Choice | None:
    """The spec cannot be read or contradicts itself: a person must act. An open attempt is left alone."""
    run = situation.observed.run
    if run.spec is not None:
        return None
    return Choice(reasons.SPEC_UNWORKABLE, {"error": run.spec_error or "it cannot be read."})


def step_text(step: int | None) -> str:
    """' at step N', or nothing when the program does not report steps."""
    return f" at step {step}" if step is not None else ""


def _expiry(situation: Situation) -> datetime | None:
    """When a finished run is deleted; None: never."""
    spec, ended = situation.observed.run.spec, from_text(situation.status.ended_at)
    if situation.status.result is None or ended is None or spec is None:
        return None
    ttl = spec.ttl_seconds_after_finished
    return None if ttl is None else ended + timedelta(seconds=ttl)
