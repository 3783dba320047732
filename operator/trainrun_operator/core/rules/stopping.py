"""Rules about stops: asked for by the spec or a marked node, under way, or done by a queue."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainrun_operator.core import attempts, elastic, nodes, reasons
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.decision import Action, StopJob
from trainrun_operator.core.observed import PodFacts
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text

STOP_PATIENCE_SECONDS = 30.0
"""After the grace of a save stop; then whatever still hangs is left to the clean-up."""

OVERRUN_SECONDS = 60.0
"""The agent ends an attempt at its deadline by itself; the operator steps in this much later."""


def stop_done(situation: Situation) -> Choice | None:
    """A save stop is complete (no job, no living pod), or its time is over: the attempt ends, free."""
    attempt = situation.current
    if attempt.stop is None:
        return None
    is_gone = situation.job is None and not _saving(situation)
    if not is_gone and situation.now < _stop_deadline(situation):
        return None
    stop = attempt.stop
    status = attempts.ended(situation, stop.reason, "Stopped as wanted.", stop.message)
    facts = {"attempt": attempt.number, "cause": stop.reason, "why": stop.message}
    return Choice(reasons.ATTEMPT_STOPPED, facts, status, wake=situation.now)


def stop_under_way(situation: Situation) -> Choice | None:
    """A save stop is on record: the job is deleted, pods get the grace period to save, nobody is forced."""
    attempt = situation.current
    if attempt.stop is None:
        return None
    facts = {"attempt": attempt.number, "why": attempt.stop.message}
    return Choice(reasons.STOPPING, facts, actions=_save(situation), wake=_stop_deadline(situation))


def job_queued(situation: Situation) -> Choice | None:
    """A queue (Kueue) suspends the job: queued or preempted, free, all clocks stopped, same attempt afterwards."""
    if situation.job is None or not situation.job.is_suspended:
        return None
    had_nodes = bool(situation.current.nodes)
    outcome = reasons.PREEMPTED if had_nodes else reasons.QUEUED
    return Choice(outcome, {"job": situation.job.name})


def stop_wanted(situation: Situation) -> Choice | None:
    """Suspension, restartToken, a changed number of workers, a path in use by an older run, a marked node, an overrun
    time limit, or good nodes for all workers again after 10 minutes of training on fewer (doubled each time that it
    was in vain): save and stop; the request is on record before the job is touched."""
    wanted = _wanted(situation)
    if wanted is None:
        return None
    reason, message = wanted
    status = attempts.stop_requested(situation, reason, message)
    if reason == "NodeMarked":  # now: when its pods have ended nobody can tell any more which nodes were marked
        status = nodes.with_excluded(status, tuple(sorted(nodes.judge(situation).marked)))
    grace = situation.spec.termination_grace_period_seconds
    wake = situation.now + timedelta(seconds=grace + STOP_PATIENCE_SECONDS)
    facts = {"attempt": situation.current.number, "why": message}
    return Choice(reasons.STOPPING, facts, status, _save(situation), wake=wake)


def time_limit_at(situation: Situation) -> datetime | None:
    """When the operator ends an attempt that outlived spec.maxAttemptSeconds."""
    limit, scheduled = situation.spec.max_attempt_seconds, from_text(situation.current.scheduled_at)
    if limit is None or scheduled is None:
        return None
    grace = situation.spec.termination_grace_period_seconds
    return scheduled + timedelta(seconds=limit + grace + OVERRUN_SECONDS)


def _wanted(situation: Situation) -> tuple[str, str] | None:
    """Reason and sentence of the first stop that is wanted."""
    spec, attempt = situation.spec, situation.current
    rival, marked = situation.observed.rival, nodes.judge(situation).marked
    overrun = time_limit_at(situation)
    if rival is not None:
        return "CheckpointPathInUse", f"the older run {rival.namespace}/{rival.name} uses the same checkpoint.path."
    if spec.suspend:
        return "Suspended", "spec.suspend is true."
    if spec.restart_token != attempt.restart_token:
        return "RestartRequested", "spec.restartToken changed."
    if spec.workers.replicas not in (attempt.replicas, attempt.wanted_replicas):
        asked = attempt.wanted_replicas or attempt.replicas
        return "WorkersChanged", f"spec.workers.replicas went from {asked} to {spec.workers.replicas}."
    if marked:
        told = (f"node {nodes.named(situation, name)}: {why}" for name, why in sorted(marked.items()))
        return "NodeMarked", "; ".join(told) + "."
    if overrun is not None and situation.now >= overrun:
        return "TimeLimit", f"spec.maxAttemptSeconds={spec.max_attempt_seconds} is over."
    grows = elastic.returned(situation)
    return (elastic.CAPACITY_RETURNED, grows) if grows is not None else None


def _save(situation: Situation) -> tuple[Action, ...]:
    uid = situation.current.job_uid
    if uid is None:
        return ()
    grace = situation.spec.termination_grace_period_seconds
    return (StopJob(situation.current.job, uid, "save", grace),)


def _stop_deadline(situation: Situation) -> datetime:
    stop = situation.current.stop
    asked = from_text(stop.requested_at) if stop is not None else None
    grace = situation.spec.termination_grace_period_seconds
    return (asked or situation.now) + timedelta(seconds=grace + STOP_PATIENCE_SECONDS)


def _saving(situation: Situation) -> list[PodFacts]:
    """Pods that can still save: alive, with a node that exists."""
    deviating = situation.observed.nodes.deviating
    return [p for p in situation.living if p.node is None or p.node not in deviating or deviating[p.node].exists]
