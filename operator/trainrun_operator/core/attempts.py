"""Edits of the attempt history: start, stop request, end. Pure; the history keeps the last 20."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from trainrun_api.contract import Label
from trainrun_api.v1alpha1 import (
    AttemptStatus,
    CheckpointStatus,
    FailureStatus,
    ParentStatus,
    ProgressStatus,
    StageStatus,
    StopStatus,
    TrainingRunStatus,
)

from trainrun_operator.core.elastic import GANG_INCOMPLETE, nodes_for_all
from trainrun_operator.core.failure_policy import MESSAGE_LIMIT, Ruling
from trainrun_operator.core.observed import Observed, PodFacts
from trainrun_operator.core.pytorchjob import job_name
from trainrun_operator.core.situation import (
    Situation,
    checkpoint_from,
    reported,
    shown_loss,
    with_attempt,
)
from trainrun_operator.core.spares import REPLACED_KEPT
from trainrun_operator.core.times import from_text, to_text
from trainrun_operator.core.verdict import Finding

ATTEMPTS_KEPT = 20
"""Bound of status.attempts."""

DONE = "Done"
"""Cause of an attempt's end that reached its target."""


def next_number(observed: Observed) -> int:
    """1 + the highest number that status or any of our jobs ever used; the first attempt is 0."""
    used = [job.attempt for job in observed.jobs if job.is_owned]
    if observed.run.status.attempt is not None:
        used.append(observed.run.status.attempt)
    return max(used, default=-1) + 1


def started(situation: Situation, excluded: tuple[str, ...], replicas: int) -> tuple[TrainingRunStatus, AttemptStatus]:
    """The status with a new open attempt on that many workers, perhaps fewer than the spec wants."""
    observed, wanted = situation.observed, situation.spec.workers.replicas
    is_short = replicas < wanted  # only right after an attempt that lacked nodes
    number, stage = next_number(observed), situation.stage
    attempt = AttemptStatus(
        number=number,
        stage=stage.name if situation.is_chain else "",
        job=job_name(observed.run.name, number),
        generation=observed.run.generation,
        replicas=replicas,
        spares=0 if is_short else situation.spec.workers.spares,
        wanted_replicas=wanted if is_short else None,
        nodes_for_all=nodes_for_all(situation, excluded, situation.status.attempts[-1]) if is_short else None,
        started_at=to_text(situation.now),
        excluded=list(excluded),
        restart_token=situation.spec.restart_token,
    )
    history = [*situation.status.attempts, attempt][-ATTEMPTS_KEPT:]
    update = {
        "attempt": number,
        "stage": stage.name,
        "attempts": history,
        "next_attempt_at": None,
        "replicas": attempt.replicas,
        "selector": f"{Label.RUN}={observed.run.name}",
    }
    parent = observed.parent
    if parent is not None and situation.spec.resume.run is not None:
        # for good: it may be deleted, and made again with another result
        update["parent"] = ParentStatus(run=parent.name, uid=parent.uid, path=parent.path, stage=parent.stage)
    return situation.status.model_copy(update=update), attempt


def replaced(situation: Situation, pods: Sequence[PodFacts]) -> TrainingRunStatus:
    """The status after spares took the seats of pods that are lost: what becomes of those explains nothing now."""
    attempt = situation.current
    uids = [*attempt.replaced_pods, *(pod.uid for pod in pods)][-REPLACED_KEPT:]
    update = {"replaced_pods": uids, "replaced": attempt.replaced + len(pods)}
    return with_attempt(situation.status, attempt.model_copy(update=update))


def stop_requested(situation: Situation, reason: str, message: str) -> TrainingRunStatus:
    """The status with a save stop of the open attempt on record."""
    stop = StopStatus(reason=reason, message=message, requested_at=to_text(situation.now))
    return with_attempt(situation.status, situation.current.model_copy(update={"stop": stop}))


def ended(
    situation: Situation, cause: str, action: str, message: str = "", *, delay_seconds: float = 0.0
) -> TrainingRunStatus:
    """The status with the open attempt closed, and everything that its pods said last."""
    attempt = situation.current
    status = reported(situation.observed, situation.status, attempt, is_forced=True)
    status = _with_last_words(situation, status)
    closed = attempt.model_copy(
        update={
            "ended_at": to_text(situation.now),
            "end_step": _last_step(situation),
            "cause": cause,
            "action": action,
            "message": message[:MESSAGE_LIMIT],
            "replaced_pods": [],
        }
    )
    later = to_text(situation.now + timedelta(seconds=delay_seconds)) if delay_seconds else None
    return with_attempt(status, closed).model_copy(update={"next_attempt_at": later})


def gave_up(situation: Situation, scheduled: int, action: str, why: str) -> TrainingRunStatus:
    """The status after an attempt that had nodes for a part of its workers only, which the next one goes on with."""
    status = ended(situation, GANG_INCOMPLETE, action, why)
    closed = status.attempts[-1].model_copy(update={"scheduled_replicas": scheduled})
    return with_attempt(status, closed)


def failed(situation: Situation, finding: Finding, ruling: Ruling) -> TrainingRunStatus:
    """The status after a verdict: attempt closed, failure named, ledgers and budget updated."""
    status = ended(situation, finding.cause, ruling.action, finding.evidence, delay_seconds=ruling.delay_seconds)
    failure = FailureStatus(
        cause=finding.cause,
        confidence=finding.confidence,
        evidence=[finding.evidence[:MESSAGE_LIMIT]],
        action=ruling.action,
    )
    update: dict[str, object] = {"failure": failure, "ledgers": ruling.ledgers}
    if ruling.spends:
        update["restarts"] = status.restarts + 1
    if ruling.fails_run:
        update |= {"result": "Failed", "ended_at": to_text(situation.now), "next_attempt_at": None}
    return status.model_copy(update=update)


def stage_completed(situation: Situation, following: str) -> TrainingRunStatus:
    """The status of a run whose stage is complete: steps and checkpoints of the one that follows are its own."""
    attempt, stage = situation.current, situation.stage
    status = ended(situation, DONE, f"Stage {stage.name} is complete.")
    done = StageStatus(
        name=stage.name,
        kind=stage.kind,
        attempt=attempt.number,
        step=status.progress.step,
        loss=status.progress.loss,
        ended_at=to_text(situation.now),
    )
    update = {
        "stage": following,
        "stages": [*status.stages, done],
        "progress": ProgressStatus(),
        "checkpoint": CheckpointStatus(),
        "ledgers": {},
    }
    return status.model_copy(update=update)


def succeeded(situation: Situation) -> TrainingRunStatus:
    """The status of a run that reached its target."""
    status = ended(situation, DONE, "The run is complete.")
    return status.model_copy(update={"result": "Succeeded", "ended_at": to_text(situation.now)})


def _last_step(situation: Situation) -> int | None:
    """The furthest step that is known of the attempt; a group that restarted in place reports earlier ones again."""
    known = [p.terminated.message.step for p in situation.pods if p.terminated and p.terminated.message]
    known.append(situation.step)
    progress, started = situation.observed.run.status.progress, from_text(situation.current.started_at)
    written = from_text(progress.updated_at)
    if written is not None and started is not None and written >= started:
        known.append(progress.step)
    return max([s for s in known if s is not None], default=None)


def _measured_at(situation: Situation, step: int) -> tuple[float | None, int | None]:
    """Loss and tokens of this very step, if somebody said them; those of an earlier one would be a lie."""
    said = [p.terminated.message for p in situation.pods if p.terminated and p.terminated.message]
    for one in (*said, situation.observed.progress.record):
        if one is not None and one.step == step and one.loss is not None:
            return shown_loss(one.loss), one.tokens
    return None, None


def _with_last_words(situation: Situation, status: TrainingRunStatus) -> TrainingRunStatus:
    """Termination messages may name a newer checkpoint than the last progress record did."""
    best, target = status.checkpoint, status.progress.total_steps
    for pod in situation.pods:
        said = pod.terminated.message if pod.terminated else None
        if said is None:
            continue
        target = said.target_step if said.target_step is not None else target
        seen: datetime = (pod.terminated.finished_at if pod.terminated else None) or situation.now
        for durable in (said.durable_checkpoint, said.final_checkpoint):
            found = checkpoint_from(durable, seen)
            if found is not None and (best.step is None or (found.step or 0) > best.step):
                best = found
    progress = status.progress
    last = _last_step(situation)
    if last is not None and last > (progress.step or -1):
        loss, tokens = _measured_at(situation, last)
        update = {"step": last, "total_steps": target, "loss": loss, "tokens": tokens}
        progress = progress.model_copy(update={**update, "updated_at": to_text(situation.now)})
    return status.model_copy(update={"checkpoint": best, "progress": progress})
