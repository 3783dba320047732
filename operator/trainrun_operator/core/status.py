"""From a rule's choice to a Decision: conditions in kstatus' convention, phase, goodput, events, watch.

Reconciling and Stalled exist only while true. Nothing changes from pass to pass unless the situation does,
so an unchanged run is not written again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from trainrun_api.v1alpha1 import Condition, GoodputStatus, TrainingRunStatus

from trainrun_operator.core import conditions, goodput, stall
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.conditions import Freshness
from trainrun_operator.core.decision import Action, Decision, RecordEvent, Watch
from trainrun_operator.core.outcome import Outcome
from trainrun_operator.core.rules.always import next_cleanup_at
from trainrun_operator.core.situation import Situation, open_attempt
from trainrun_operator.core.times import earliest, from_text, to_second

CHECKPOINT_OLDEST_SECONDS = 900.0
"""A newest checkpoint older than this and than three intervals is called stale."""

UNBLAMED_CAUSES = frozenset({"Done", "Stopped", "Suspended"})
"""Ends that destroyed nothing."""


def settle(situation: Situation, rule: str, choice: Choice, tidy: tuple[Action, ...]) -> Decision:
    """The Decision for a choice; `tidy` actions come before the rule's own."""
    observed = situation.observed
    old = observed.run.status
    status = choice.status or situation.status
    status = _with_conditions(situation, status, choice)
    status = status.model_copy(
        update={
            "observed_generation": observed.run.generation,
            "phase": choice.outcome.phase,
            "goodput": _goodput(situation, status, choice.outcome),
        }
    )
    events = _events(old, status, choice)
    wake = earliest(choice.wake, _checkpoint_stale_at(situation, status), next_cleanup_at(situation))
    return Decision(
        rule=rule,
        reason=choice.outcome.reason,
        message=choice.message,
        status=to_json(status),
        actions=(*tidy, *choice.actions, *events),
        next_wake=wake,
        watch=_watch(situation, status, choice),
    )


def to_json(status: TrainingRunStatus) -> dict[str, Any]:
    """Status as the API stores it; what is unknown, empty or as usual is absent, so that people see what matters.

    Two numbers are there also when they are 0 (kstatus wants the one, the Restarts column the other), and a verdict is
    whole: that its confidence is Unknown is news.
    """
    dumped = status.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if status.failure is not None:
        dumped["failure"] = status.failure.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**dumped, "observedGeneration": status.observed_generation, "restarts": status.restarts}


def _goodput(situation: Situation, status: TrainingRunStatus, outcome: Outcome) -> GoodputStatus:
    created, now = situation.observed.run.created_at, situation.now
    new_class = outcome.goodput if status.result is None else "finished"
    is_over = situation.attempt is not None and open_attempt(status) is None
    ledger = goodput.booked(status.goodput, created, now, new_class, is_forced=is_over)
    if is_over and status.attempts[-1].cause not in UNBLAMED_CAUSES and not _is_saved(status):
        return goodput.settled(ledger, status.attempts[-1], status, situation.last_step_at, now)
    return ledger


def _is_saved(status: TrainingRunStatus) -> bool:
    """Whether the last attempt stopped as wanted with all of its steps in a checkpoint: then nothing is lost."""
    attempt = status.attempts[-1]
    return attempt.stop is not None and (status.checkpoint.step or 0) >= (attempt.end_step or 0)


def _events(old: TrainingRunStatus, new: TrainingRunStatus, choice: Choice) -> tuple[RecordEvent, ...]:
    """An Event when the reason changed, or the same reason came for another attempt."""
    if choice.outcome.event is None:
        return ()
    before = next((c for c in old.conditions if c.type == conditions.READY), None)
    is_same = before is not None and before.reason == choice.outcome.reason
    if is_same and (old.attempt, len(old.attempts)) == (new.attempt, len(new.attempts)):
        return ()
    return (RecordEvent(choice.outcome.event, choice.outcome.reason, choice.message),)


def _with_conditions(situation: Situation, status: TrainingRunStatus, choice: Choice) -> TrainingRunStatus:
    outcome, message = choice.outcome, choice.message
    wanted = [(conditions.READY, outcome.kstatus == conditions.READY)]
    if outcome.kstatus != conditions.READY:
        wanted.append((outcome.kstatus, True))
    wanted.append((conditions.COMPLETED, status.result == "Succeeded"))
    ours = [
        _condition(situation, kind, "True" if value else "False", outcome.reason, message) for kind, value in wanted
    ]
    step = status.checkpoint.step
    if step is not None:
        fresh = _freshness(situation, status)
        text = fresh.template.format(step=step)
        ours.append(_condition(situation, conditions.CHECKPOINT_FRESH, fresh.status, fresh.reason, text))
    others = [c for c in status.conditions if c.type not in conditions.TYPES]
    return status.model_copy(update={"conditions": [*ours, *others]})


def _condition(situation: Situation, kind: str, value: str, reason: str, message: str) -> Condition:
    old = next((c for c in situation.observed.run.status.conditions if c.type == kind), None)
    since = old.last_transition_time if old is not None and old.status == value else to_second(situation.now)
    return Condition.model_validate(
        {
            "type": kind,
            "status": value,
            "reason": reason,
            "message": message,
            "last_transition_time": since,
            "observed_generation": situation.observed.run.generation,
        }
    )


def _freshness(situation: Situation, status: TrainingRunStatus) -> Freshness:
    """What the age of the newest checkpoint means; one of unknown age is not called old."""
    if not _is_training(status):
        return conditions.NOT_TRAINING
    committed = from_text(status.checkpoint.committed_at)
    if committed is not None and _checkpoint_stale_at(situation, status) is None:
        return conditions.CHECKPOINT_OLD
    return conditions.CHECKPOINT_RECENT


def _checkpoint_stale_at(situation: Situation, status: TrainingRunStatus) -> datetime | None:
    """When the newest checkpoint will be called stale; None if there is none, or it is already."""
    committed = from_text(status.checkpoint.committed_at)
    if committed is None or situation.observed.run.spec is None or not _is_training(status):
        return None
    stale_at = committed + timedelta(seconds=max(CHECKPOINT_OLDEST_SECONDS, 3 * _interval_seconds(situation)))
    return stale_at if stale_at > situation.now else None


def _is_training(status: TrainingRunStatus) -> bool:
    attempt = open_attempt(status)
    return attempt is not None and attempt.first_step_at is not None


def _interval_seconds(situation: Situation) -> float:
    """The checkpoint interval as time; steps are measured by the slowest of the last 50."""
    interval = situation.spec.checkpoint.interval
    if isinstance(interval, int) or interval.isdigit():
        record = situation.observed.progress.record
        return int(interval) * ((record.slowest_step_seconds if record else None) or 0.0)
    if interval == "auto":
        return 300.0
    return float(interval[:-1]) * {"s": 1, "m": 60, "h": 3600}[interval[-1]]


def _watch(situation: Situation, status: TrainingRunStatus, choice: Choice) -> Watch | None:
    """Thresholds for the poller while an attempt is open and has pods that run."""
    attempt = open_attempt(status)
    if (
        attempt is None
        or situation.observed.run.spec is None
        or not any(p.phase == "Running" for p in situation.living)
    ):
        return None
    progress = situation.observed.progress
    record = progress.record
    is_ours = record is not None and record.attempt == attempt.number
    limit = stall.limit_seconds(situation, record) if is_ours and record is not None else None
    return Watch(
        attempt=attempt.number,
        is_suspect=choice.is_suspect or (attempt.first_step_at is None and not situation.is_mute),
        first_step_missing=attempt.first_step_at is None,
        step_age_limit_seconds=limit,
        phase=record.phase if is_ours and record is not None else "",
        inplace_restarts=attempt.inplace_restarts,
        heard_indices=progress.heard_indices,
        silent_indices=progress.silent_indices,
        ask_all=choice.is_suspect,
    )
