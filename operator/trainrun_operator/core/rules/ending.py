"""Rules that end an open attempt on evidence: success, failure, lost nodes, what cannot start or goes on no more."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainrun_api.contract import PEER_LOST, UNDERSTOOD_SCHEMAS, TerminationMessage
from trainrun_api.stages import TRAIN, next_stage

from trainrun_operator.core import attempts, containers, elastic, nodes, reasons, spares, stall, verdict
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.decision import Action, StopJob
from trainrun_operator.core.failure_policy import refined, rule_on
from trainrun_operator.core.rules.always import ABORT_GRACE_SECONDS
from trainrun_operator.core.rules.stopping import stop_wanted
from trainrun_operator.core.rules.whole_run import step_text
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.times import from_text
from trainrun_operator.core.verdict import Finding

SETTLE_SECONDS = 2.0
"""A program error is often the echo of another pod's end: time for the other pods to say more."""

PEER_SETTLE_SECONDS = 4.0
"""A survivor's word says that somebody else is at fault: that one's end, or its node's, is worth a longer wait
(Kubernetes cuts times of ends to whole seconds, so 3 s are left at worst)."""

TELLING_RANK = 1
"""Findings up to this rank explain themselves; no need to wait for more."""


def contract_unknown(situation: Situation) -> Choice | None:
    """The trainer speaks a contract schema that this operator does not know: blind, both versions named, no verdict;
    a stop that the user wants is still made."""
    said = [p.terminated.unknown_schema for p in situation.pods if p.terminated]
    if situation.living:
        said.append(situation.observed.progress.unknown_schema)
    theirs = next((s for s in said if s is not None), None)
    if theirs is None:
        return None
    ours = " and ".join(str(s) for s in UNDERSTOOD_SCHEMAS)
    return stop_wanted(situation) or Choice(reasons.CONTRACT_UNKNOWN, {"theirs": theirs, "ours": ours})


def stage_completed(situation: Situation) -> Choice | None:
    """The stage of a run of several reached its target, as below, and another follows: that one is next."""
    said, following = _said_done(situation), next_stage(situation.spec, situation.stage.name)
    if said is None or following is None:
        return None
    facts = {"stage": situation.stage.name, "step": step_text(said.step), "following": following}
    status = attempts.stage_completed(situation, following)
    return Choice(reasons.STAGE_COMPLETED, facts, status, wake=situation.now)


def attempt_succeeded(situation: Situation) -> Choice | None:
    """A member's termination message proves the target step and the final checkpoint: the run succeeded."""
    said = _said_done(situation)
    if said is None:
        return None
    return Choice(reasons.SUCCEEDED, {"step": step_text(said.step)}, attempts.succeeded(situation))


def node_lost(situation: Situation) -> Choice | None:
    """A node is gone, or not Ready with a silent agent and a step that stands still: abort and go on elsewhere."""
    lost = nodes.judge(situation).lost
    if not lost:
        return None
    told = (f"Node {nodes.named(situation, name)} is lost: {why}" for name, why in sorted(lost.items()))
    evidence = "; ".join(told) + "."
    return fail(situation, Finding("NodeLost", "Certain", evidence), tuple(sorted(lost)))


def attempt_failed(situation: Situation) -> Choice | None:
    """A pod failed: the cause is a contract code before the platform's word before exit 1, then the earliest.
    A bare program error waits 2 s for other pods' words; a mere stop is then put down to a drain or preemption that is
    under way. A job that is over without any word costs nothing."""
    finding = verdict.root_cause(spares.explaining(situation)) or _ended_unheard(situation)
    if finding is None or (finding.cause in verdict.MAY_BE_ECHO and (_is_job_gone(situation) or _is_queued(situation))):
        return None
    if finding.rank > TELLING_RANK and situation.living and finding.at is not None:
        patience = PEER_SETTLE_SECONDS if finding.cause == PEER_LOST else SETTLE_SECONDS
        ready_at = finding.at + timedelta(seconds=patience)
        if situation.now < ready_at:
            facts = {"attempt": situation.current.number}
            return Choice(reasons.FAILURE_SETTLING, facts, wake=ready_at, is_suspect=True)
    return fail(situation, refined(verdict.behind(finding, situation.pods)))


def container_uncreatable(situation: Situation) -> Choice | None:
    """An image cannot be pulled or a container cannot be created: the run fails fast, naming the image or key."""
    trouble = containers.trouble(situation)
    if trouble is None:
        return None
    if situation.now < trouble.patient_until:
        outcome = reasons.IMAGE_PULL_RETRIED if trouble.is_image else reasons.CONTAINER_RETRIED
        return Choice(outcome, trouble.facts, wake=trouble.patient_until)
    return fail(situation, trouble.finding)


def job_deleted(situation: Situation) -> Choice | None:
    """Somebody deleted the attempt's job: its pods may finish saving, then a new attempt starts, free."""
    attempt = situation.current
    if not _is_job_gone(situation):
        return None
    leaving = _leaves_by(situation)
    if leaving is not None and situation.now < leaving:
        facts = {"attempt": attempt.number, "why": "somebody deleted its job."}
        return Choice(reasons.STOPPING, facts, wake=leaving)
    return fail(situation, Finding("JobDeleted", "Certain", f"Job {attempt.job} was deleted by somebody else."))


def never_started(situation: Situation) -> Choice | None:
    """No step within health.startupTimeoutSeconds after all pods have nodes: one more try, then the run fails."""
    deadline = stall.startup_deadline(situation)
    if deadline is None or situation.now < deadline:
        return None
    limit = situation.spec.health.startup_timeout_seconds
    record = situation.observed.progress.record
    phase = record.phase if record is not None else "unknown"
    text = f"No step within health.startupTimeoutSeconds={limit} after all pods had nodes (last phase: {phase})."
    return fail(situation, Finding("NeverStarted", "Likely", text))


def stalled(situation: Situation) -> Choice | None:
    """A fresh answer shows the last step older than the phase's limit: abort and restart. If members' agents are silent
    at that for 6 s, it is their nodes' fault, free, and a single one is avoided. Blind is not stalled."""
    measured = stall.measure(situation)
    if measured is None or not measured.is_stalled or nodes.is_verdict_pending(situation):
        return None
    text = (
        f"No step for {measured.age_seconds:.0f} s in phase {measured.phase}, after step {situation.step}; "
        f"the limit is {measured.limit_seconds:.0f} s."
    )
    takeover = spares.awaited_until(situation)
    if takeover is not None:
        return elastic.trains(situation, wake=takeover, is_suspect=True)
    silent = stall.silent_members(situation)
    proven_at = stall.silence_proven_at(situation)
    if proven_at is not None and situation.now < proven_at:
        return elastic.trains(situation, wake=proven_at, is_suspect=True)
    if not silent:
        return fail(situation, Finding("Stalled", "Likely", text, step=situation.step))
    text += f" The agents of {', '.join(p.name for p in silent)} do not answer."
    blamed = tuple(p.node for p in silent if p.node) if len(silent) == 1 else ()
    return fail(situation, Finding("MemberSilent", "Likely", text, step=situation.step), blamed)


def fail(situation: Situation, finding: Finding, blamed: tuple[str, ...] = ()) -> Choice:
    """Close the attempt by the policy's ruling and take its devices back at once."""
    ruling = rule_on(finding, situation.spec, situation.status, situation.step)
    status = attempts.failed(situation, finding, ruling)
    if ruling.moves and not blamed and finding.node is not None:
        blamed = (finding.node,)
    if blamed:
        status = nodes.with_excluded(status, blamed)
    facts = {
        "attempt": situation.current.number,
        "cause": finding.cause,
        "evidence": finding.evidence,
        "action": ruling.action,
    }
    outcome = reasons.FAILED if ruling.fails_run else reasons.RESTARTING
    wake = None if ruling.fails_run else from_text(status.next_attempt_at) or situation.now
    return Choice(outcome, facts, status, abort(situation), wake=wake)


def abort(situation: Situation) -> tuple[Action, ...]:
    """Stop the open attempt's job without saving."""
    uid = situation.current.job_uid
    if uid is None:
        return ()
    return (StopJob(situation.current.job, uid, "abort", ABORT_GRACE_SECONDS),)


def _said_done(situation: Situation) -> TerminationMessage | None:
    has_job_succeeded = situation.job is not None and situation.job.has_succeeded
    is_training = situation.stage.kind == TRAIN
    return verdict.is_success(situation.pods, has_job_succeeded=has_job_succeeded, is_training=is_training)


def _ended_unheard(situation: Situation) -> Finding | None:
    """The job is over, and no pod said why, or proved success."""
    job = situation.job
    if job is None or not (job.has_failed or job.has_succeeded) or situation.living:
        return None
    if situation.pods:
        text = f"All pods of job {job.name} ended with exit 0, but none proves the target step and a final checkpoint."
        return Finding("Unexplained", "Unknown", text)
    text = f"Job {job.name} is over and no word of its pods is left. {job.message}".rstrip()
    return Finding("NoEvidence", "Unknown", text)


def _is_queued(situation: Situation) -> bool:
    """A queue takes the job's pods away; they save and stop."""
    return situation.job is not None and situation.job.is_suspended


def _is_job_gone(situation: Situation) -> bool:
    return situation.current.job_uid is not None and situation.job is None


def _leaves_by(situation: Situation) -> datetime | None:
    """When the last pod that still saves must be gone; None: no pod is left."""
    if not situation.living:
        return None
    started = [p.terminates_by or situation.now for p in situation.living]
    return max(started) + timedelta(seconds=SETTLE_SECONDS)
