"""What every pass tidies up, whatever rule applies: leftovers of attempts that are over."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainrun_operator.core.decision import Action, ForceDeletePod, ReplacePod, StopJob
from trainrun_operator.core.observed import JobFacts, PodFacts
from trainrun_operator.core.pytorchjob import job_name
from trainrun_operator.core.situation import Situation

ABORT_GRACE_SECONDS = 1
"""An aborted worker has nothing to save; its devices are wanted."""

STUCK_SECONDS = 5.0
"""A pod on a dead node gets this long after its grace before its object is removed."""


def superseded_jobs(situation: Situation) -> tuple[Action, ...]:
    """Jobs of attempts that are over are deleted in every pass, with their pods at grace 1."""
    attempt = situation.attempt
    return tuple(
        StopJob(job.name, job.uid, "abort", ABORT_GRACE_SECONDS)
        for job in situation.observed.jobs
        if job.is_owned and not job.is_deleting and not _is_kept(situation, job)
        if attempt is None or job.attempt < attempt.number
    )


def orphaned_pods(situation: Situation) -> tuple[Action, ...]:
    """Pods of attempts that are over and whose job is gone are deleted with grace 1: the garbage collector would do it
    too, but a minute later if the API server was away, and they hold nodes meanwhile."""
    attempt, known = situation.attempt, {job.uid for job in situation.observed.jobs}
    orphans = {
        pod.job_uid: pod.attempt
        for pod in situation.observed.pods
        if pod.is_owned and not pod.has_ended and not pod.is_departed and pod.deleted_at is None
        if pod.job_uid is not None and pod.job_uid not in known
        if attempt is None or pod.attempt < attempt.number
    }
    run = situation.observed.run.name
    return tuple(StopJob(job_name(run, n), uid, "abort", ABORT_GRACE_SECONDS) for uid, n in orphans.items())


def stuck_pods(situation: Situation) -> tuple[Action, ...]:
    """A pod that stays Terminating on a node that is gone or not Ready is removed by force, once its job is not
    alive: clean-up, never a precondition."""
    alive = {job.uid for job in situation.observed.jobs if not job.is_deleting}
    return tuple(
        ForceDeletePod(pod.name, pod.uid)
        for pod in situation.observed.pods
        if pod.is_owned and pod.job_uid not in alive and _is_stuck(situation, pod)
    )


def replaced_pods(situation: Situation) -> tuple[Action, ...]:
    """A pod whose seat a spare took is taken from its job and removed by force, until it is gone."""
    uids = situation.attempt.replaced_pods if situation.attempt is not None else ()
    return tuple(
        ReplacePod(pod.name, pod.uid) for pod in situation.observed.pods if pod.uid in uids and not pod.is_departed
    )


ALWAYS = (superseded_jobs, orphaned_pods, stuck_pods, replaced_pods)


def next_cleanup_at(situation: Situation) -> datetime | None:
    """When a pod that is being deleted may turn out to be stuck."""
    times = [_stuck_at(p) for p in situation.observed.pods if p.is_owned and not p.is_departed]
    return min((t for t in times if t is not None and t > situation.now), default=None)


def _is_kept(situation: Situation, job: JobFacts) -> bool:
    """The last attempt's job of a finished run stays for people to look at; its pods have ended."""
    last = situation.status.attempts[-1] if situation.status.attempts else None
    return situation.status.result == "Succeeded" and last is not None and last.number == job.attempt


def _is_stuck(situation: Situation, pod: PodFacts) -> bool:
    if pod.is_departed:
        return False
    node = situation.observed.nodes.deviating.get(pod.node or "")
    if node is None or (node.exists and node.ready is True) or node.is_stale:
        return False
    stuck_at = _stuck_at(pod)
    return stuck_at is not None and situation.now >= stuck_at


def _stuck_at(pod: PodFacts) -> datetime | None:
    return pod.terminates_by + timedelta(seconds=STUCK_SECONDS) if pod.terminates_by else None
