"""Rules for an attempt that is under way and has given no reason to end."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainrun_operator.core import attempts, backoff, capacity, elastic, nodes, reasons, spares, stall, verdict
from trainrun_operator.core.capacity import Waiting
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.decision import CreateJob, ReplacePod
from trainrun_operator.core.rules.ending import abort
from trainrun_operator.core.rules.stopping import time_limit_at
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import earliest, to_text

REFUSED_RETRY_SECONDS = 60.0
"""A quota or webhook that said no is asked again this often."""

CREATED_SEEN_SECONDS = 5.0
"""If no watch event tells of the new job by then, look."""


def job_missing(situation: Situation) -> Choice | None:
    """The attempt is on record and its job does not exist yet: it is created (again after a crash); a refusal by the
    cluster is told and repeated every minute; a job of that name with another owner is waited for."""
    attempt = situation.current
    if situation.job is not None:
        return None
    foreign = [j.name for j in situation.observed.jobs if j.name == attempt.job]
    if foreign:
        return Choice(reasons.PREVIOUS_RUN_TERMINATING, {"leftovers": f"job {foreign[0]}"})
    create = CreateJob(attempt.number, situation.replicas, tuple(attempt.excluded), attempt.spares)
    seen_at = situation.now + timedelta(seconds=CREATED_SEEN_SECONDS)
    refusal = situation.observed.refusal
    if refusal is None or refusal.attempt != attempt.number:
        return Choice(reasons.STARTING, {"attempt": attempt.number}, actions=(create,), wake=seen_at)
    error = refusal.message if refusal.message.endswith(".") else f"{refusal.message}."
    facts = {"attempt": attempt.number, "error": error}
    again_at = refusal.at + timedelta(seconds=REFUSED_RETRY_SECONDS)
    if situation.now < again_at:
        return Choice(reasons.CREATION_REFUSED, facts, wake=again_at)
    # asked again, and refused until we know better: a condition that comes and goes would look like news
    return Choice(reasons.CREATION_REFUSED, facts, actions=(create,), wake=seen_at)


def fewer_workers(situation: Situation) -> Choice | None:
    """At least `minReplicas` workers have had nodes for 5 minutes while the rest got none (30 s if there are fewer good
    nodes than workers, or the run was short of nodes just before): the next attempt starts at once on the largest
    number that the global batch can be shared over."""
    waiting = capacity.waiting(situation)
    if waiting is None or waiting.fewer is None or not _is_over(waiting, situation.now):
        return None
    action = f"Goes on with {waiting.fewer} of {situation.spec.workers.replicas} workers."
    status = attempts.gave_up(situation, waiting.scheduled, action, waiting.why)
    facts = {
        "attempt": situation.current.number,
        "scheduled": waiting.scheduled,
        "total": waiting.total,
        "fewer": waiting.fewer,
        "least": situation.spec.workers.min_replicas,
        "why": waiting.why,
    }
    return Choice(reasons.FEWER_WORKERS, facts, status, abort(situation), wake=situation.now)


def gang_incomplete(situation: Situation) -> Choice | None:
    """A part of the gang holds nodes for 5 minutes while the rest waits: all are given back, and asked for again
    after a jittered back-off, so that two such runs do not block each other for ever."""
    waiting = capacity.waiting(situation)
    if waiting is None or not _is_over(waiting, situation.now):
        return None
    in_a_row = 1
    for attempt in reversed(situation.status.attempts[:-1]):
        if attempt.cause != elastic.GANG_INCOMPLETE:
            break
        in_a_row += 1
    number = situation.current.number
    delay = backoff.gang_delay_seconds(situation.observed.run.uid, number, in_a_row)
    status = attempts.ended(situation, elastic.GANG_INCOMPLETE, "Asks again later.", waiting.why, delay_seconds=delay)
    at = situation.now + timedelta(seconds=delay)
    minutes = round(capacity.PARTIAL_GANG_SECONDS / 60)
    facts = {"attempt": number, "minutes": minutes, "at": to_text(at)}
    return Choice(reasons.GANG_INCOMPLETE, facts, status, abort(situation), wake=at)


def waiting_for_capacity(situation: Situation) -> Choice | None:
    """Pods wait for nodes: free, clocks stopped, with the scheduler's own message."""
    waiting = capacity.waiting(situation)
    if waiting is None:
        return None
    why = waiting.why
    if waiting.fewer is not None and waiting.gives_up_at is not None:
        wanted, at = situation.spec.workers.replicas, to_text(waiting.gives_up_at)
        why += f" It goes on with {waiting.fewer} of {wanted} workers at {at} if nothing changes."
    facts = {"waiting": waiting.waiting, "total": waiting.total, "why": why}
    wake = earliest(waiting.gives_up_at, waiting.look_again_at)
    return Choice(reasons.WAITING_FOR_CAPACITY, facts, wake=wake)


def members_replaced(situation: Situation) -> Choice | None:
    """A spare has taken the seat of a pod that is silent, or a spare itself is silent or on a marked node: the pod is
    removed by force, so that training-operator makes the next spare; free, the attempt goes on."""
    gone = spares.gone(situation)
    if not gone:
        return None
    pods = [pod for pod, _ in gone]
    status = attempts.replaced(situation, pods)
    blamed = {pod.node for pod in pods if pod.node in situation.observed.nodes.deviating}
    status = nodes.with_excluded(status, tuple(sorted(n for n in blamed if n is not None)))
    facts = {
        "attempt": situation.current.number,
        "pods": "; ".join(f"pod {pod.name}: {why}" for pod, why in gone),
    }
    remove = tuple(ReplacePod(pod.name, pod.uid) for pod in pods if not pod.is_departed)
    return Choice(reasons.MEMBERS_REPLACED, facts, status, remove, wake=situation.now, is_suspect=True)


def takeover_awaited(situation: Situation) -> Choice | None:
    """A node is lost with a member on it that is not worker 0, and enough spares wait: they get 20 s from the member's
    silence to take its seat."""
    lost = nodes.judge(situation).lost
    until = spares.awaited_until(situation, lost)
    if (
        not lost
        or until is None
        or verdict.root_cause(p for p in spares.explaining(situation) if p.node not in lost) is not None
    ):
        return None
    facts = {"attempt": situation.current.number, "nodes": ", ".join(sorted(lost))}
    return Choice(reasons.TAKEOVER_AWAITED, facts, wake=until, is_suspect=True)


def node_suspected(situation: Situation) -> Choice | None:
    """A node is not Ready, but the run moves, the agent answers, or too many are at once: watch closely, do nothing.
    It is told after 3 s: of most nodes that are lost the verdict is there by then."""
    suspect = nodes.judge(situation).suspect
    if not suspect:
        return None
    told_at = nodes.told_at(situation, suspect)
    if situation.now < told_at:
        wake = earliest(told_at, stall.startup_deadline(situation), spares.look_again_at(situation))
        return _goes_on(situation, wake, is_suspect=True)
    names = ", ".join(nodes.named(situation, name) for name in sorted(suspect))
    facts = {"nodes": names, "why": "; ".join(sorted(set(suspect.values())))}
    wake = earliest(nodes.wake_for(situation), stall.startup_deadline(situation), spares.look_again_at(situation))
    return Choice(reasons.NODE_SUSPECT, facts, wake=wake, is_suspect=True)


def attempt_blind(situation: Situation) -> Choice | None:
    """No agent answers for a minute while the pods live: said, not acted upon."""
    if situation.current.first_step_at is None:
        return None
    since = stall.blind_since(situation)
    if since is None or situation.now < since + timedelta(seconds=stall.BLIND_SECONDS):
        return None
    why = sorted({a.blind_because for a in situation.observed.progress.agents.values() if a.blind_because})
    facts = {"attempt": situation.current.number, "why": ", ".join(why) or "no answer"}
    return Choice(reasons.RUNNING_BLIND, facts, is_suspect=True)


def attempt_runs(situation: Situation) -> Choice:
    """The attempt starts or trains; the poller watches its thresholds."""
    missed_until = spares.look_again_at(situation)
    wake = earliest(
        missed_until,
        capacity.told_at(situation),
        stall.startup_deadline(situation),
        time_limit_at(situation),
        elastic.look_again_at(situation),
        _blind_at(situation),
    )
    measured = stall.measure(situation)
    is_slow = measured is not None and measured.age_seconds > measured.limit_seconds / 2
    is_suspect = is_slow or missed_until is not None or stall.blind_since(situation) is not None
    return _goes_on(situation, wake, is_suspect=is_suspect)


def _goes_on(situation: Situation, wake: datetime | None, *, is_suspect: bool) -> Choice:
    attempt = situation.current
    if attempt.first_step_at is None and not situation.is_mute:
        return Choice(reasons.STARTING, {"attempt": attempt.number}, wake=wake, is_suspect=is_suspect)
    return elastic.trains(situation, wake=wake, is_suspect=is_suspect)


def _is_over(waiting: Waiting, now: datetime) -> bool:
    """Whether a part of the gang has held nodes for as long as it may."""
    return waiting.gives_up_at is not None and now >= waiting.gives_up_at


def _blind_at(situation: Situation) -> datetime | None:
    """When silence that began already becomes blindness."""
    since = stall.blind_since(situation)
    return since + timedelta(seconds=stall.BLIND_SECONDS) if since is not None else None
