"""The snapshot seen from the run's open attempt: what belongs to it, and what the facts add to its status.

`situate` folds plain facts (uids, nodes, first step, checkpoint) into the status whatever rule applies next;
it must not judge them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from trainrun_api.stages import is_chain, spec_of, stage_of
from trainrun_api.v1alpha1 import (
    AttemptStatus,
    CheckpointStatus,
    ProgressStatus,
    StageSpec,
    TrainingRunSpec,
    TrainingRunStatus,
)

from trainrun_operator.core.observed import AgentFacts, JobFacts, Observed, PodFacts
from trainrun_operator.core.times import from_text, seconds_between, to_text

PROGRESS_WRITE_SECONDS = 60.0
"""status.progress is written at most this often: a status per run and minute is what an API server bears."""


LOSS_DIGITS = 5
"""Significant ones: a column of `kubectl get` is to be read."""


@dataclass(frozen=True)
class Situation:
    """What the rules look at."""

    observed: Observed
    status: TrainingRunStatus
    """The status with the facts of this pass folded in."""

    @property
    def now(self) -> datetime:
        """The instant of the snapshot."""
        return self.observed.now

    @cached_property
    def spec(self) -> TrainingRunSpec:
        """The user's wish, as the present stage has it; rules before `spec_unworkable` must not ask for it."""
        assert self.observed.run.spec is not None
        return spec_of(self.observed.run.spec, self.status.stage)

    @property
    def stage(self) -> StageSpec:
        """The stage that the open attempt, or the next one, is of."""
        assert self.observed.run.spec is not None
        return stage_of(self.observed.run.spec, self.status.stage)

    @property
    def is_chain(self) -> bool:
        """Whether the run has several stages, each with a folder of its own."""
        return is_chain(self.spec)

    @cached_property
    def attempt(self) -> AttemptStatus | None:
        """The open attempt: started and not ended."""
        return open_attempt(self.status)

    @property
    def current(self) -> AttemptStatus:
        """The open attempt, where a rule knows that there is one."""
        assert self.attempt is not None
        return self.attempt

    @cached_property
    def job(self) -> JobFacts | None:
        """The open attempt's job, if it exists and is ours."""
        return _job_of(self.observed, self.attempt)

    @cached_property
    def pods(self) -> tuple[PodFacts, ...]:
        """The open attempt's pods by index, departed ones before their successors."""
        return _pods_of(self.observed, self.attempt, self.job)

    @cached_property
    def living(self) -> tuple[PodFacts, ...]:
        """Those that may still run."""
        return tuple(p for p in self.pods if not p.has_ended)

    @property
    def replicas(self) -> int:
        """Members of the open attempt."""
        return self.current.replicas or self.spec.workers.replicas

    @property
    def step(self) -> int | None:
        """Newest completed step that is known."""
        record = self.observed.progress.record
        return record.step if record is not None and record.attempt == self.current.number else None

    @property
    def is_mute(self) -> bool:
        """A user's own program that runs and reports nothing: its agent answers, and knows of no worker's record."""
        record = self.observed.progress.record
        is_ours = record is not None and record.attempt == self.current.number and not record.workers
        return is_ours and bool(self.spec.command)

    @property
    def last_step_at(self) -> datetime | None:
        """When the newest known step was completed; steps made before a queue took the nodes do not count."""
        return _step_at(self.observed, self.current)

    def agent(self, index: int) -> AgentFacts | None:
        """What is known of one pod's agent; None: never asked."""
        return self.observed.progress.agents.get(index)

    def silent_since(self, pod: PodFacts) -> datetime | None:
        """Since when a pod's agent does not answer; None: it does, or was not asked since this pod exists. Silence is
        known by index, and a pod may have had a predecessor."""
        agent = self.agent(pod.index)
        since = agent.silent_since if agent is not None else None
        return None if since is None or since < pod.created_at else since


def situate(observed: Observed) -> Situation:
    """Fold the facts of this pass into the status."""
    status = observed.run.status
    attempt = open_attempt(status)
    if attempt is not None:
        attempt = _noted(observed, attempt)
        status = with_attempt(status, attempt)
        is_first_step = attempt.first_step_at is not None and open_attempt(observed.run.status) != attempt
        status = reported(observed, status, attempt, is_forced=is_first_step)
    return Situation(observed, status)


def open_attempt(status: TrainingRunStatus) -> AttemptStatus | None:
    """The newest attempt, unless it has ended."""
    if not status.attempts or status.attempts[-1].ended_at is not None:
        return None
    return status.attempts[-1]


def with_attempt(status: TrainingRunStatus, attempt: AttemptStatus) -> TrainingRunStatus:
    """Replace the newest attempt's entry."""
    return status.model_copy(update={"attempts": [*status.attempts[:-1], attempt]})


def reported(
    observed: Observed, status: TrainingRunStatus, attempt: AttemptStatus, *, is_forced: bool
) -> TrainingRunStatus:
    """Take over progress and checkpoint from the newest record, at most once a minute unless forced."""
    record, received = observed.progress.record, observed.progress.received_at
    if record is None or received is None or record.attempt != attempt.number:
        return status
    written = from_text(status.progress.updated_at)
    if not is_forced and written is not None and seconds_between(written, received) < PROGRESS_WRITE_SECONDS:
        return status
    progress = ProgressStatus(
        step=record.step,
        total_steps=record.total_steps,
        tokens=record.tokens,
        loss=shown_loss(record.loss),
        tokens_per_second=record.tokens_per_second,
        updated_at=to_text(received),
    )
    checkpoint = checkpoint_from(record.durable_checkpoint, received) or status.checkpoint
    return status.model_copy(update={"progress": progress, "checkpoint": checkpoint})


def shown_loss(loss: float | None) -> float | None:
    """As `kubectl get` shall print it; the exact one is in the run's metrics."""
    return None if loss is None else float(f"{loss:.{LOSS_DIGITS}g}")


def checkpoint_from(durable: dict[str, object] | None, seen_at: datetime) -> CheckpointStatus | None:
    """A durable checkpoint as a trainer reports it, with its age turned into a time."""
    if not durable or not isinstance(durable.get("step"), int):
        return None
    age = durable.get("age_seconds")
    committed = seen_at - timedelta(seconds=float(age)) if isinstance(age, (int, float)) else None
    return CheckpointStatus.model_validate(
        {
            "step": durable["step"],
            "path": durable.get("path"),
            "committed_at": to_text(committed) if committed else None,
            "size_bytes": durable.get("size_bytes"),
        }
    )


def _noted(observed: Observed, attempt: AttemptStatus) -> AttemptStatus:
    """The attempt with what the objects and the trainer tell about it."""
    job = _job_of(observed, attempt)
    changes: dict[str, object] = {}
    if job is not None and attempt.job_uid is None:
        changes["job_uid"] = job.uid
    if job is not None and job.is_suspended and not attempt.is_queued:
        changes |= {
            "is_queued": True,
            "last_queued_at": to_text(observed.now),
            "scheduled_at": None,
            "first_step_at": None,
        }
    elif job is not None and not job.is_suspended and attempt.is_queued:
        changes["is_queued"] = False
    pods = [p for p in _pods_of(observed, attempt, job) if not p.is_departed]
    nodes = [p.node for p in pods if p.node]
    if nodes != attempt.nodes and _has_gang(pods, attempt):
        changes["nodes"] = nodes  # not one by one as pods get theirs: each would be a write
    image = next((p.image_id for p in pods if p.image_id), "")
    if image and not attempt.image:
        changes["image"] = image
    if attempt.scheduled_at is None and "scheduled_at" not in changes and _has_gang(pods, attempt):
        changes["scheduled_at"] = to_text(max(_scheduled_at(p, attempt, observed.now) for p in pods))
    attempt = attempt.model_copy(update=changes)
    return attempt.model_copy(update=_noted_progress(observed, attempt))


def _noted_progress(observed: Observed, attempt: AttemptStatus) -> dict[str, object]:
    record, received = observed.progress.record, observed.progress.received_at
    if record is None or received is None or record.attempt != attempt.number:
        return {}
    changes: dict[str, object] = {}
    if record.inplace_restarts != attempt.inplace_restarts:
        changes["inplace_restarts"] = record.inplace_restarts
    if attempt.start_step is None and record.step is not None:
        changes["start_step"] = record.step
    step_at = _step_at(observed, attempt)
    if attempt.first_step_at is None and step_at is not None:
        changes["first_step_at"] = to_text(step_at)
    return changes


def _step_at(observed: Observed, attempt: AttemptStatus) -> datetime | None:
    record, received = observed.progress.record, observed.progress.received_at
    if record is None or received is None or record.attempt != attempt.number or record.step_age_seconds is None:
        return None
    step_at = received - timedelta(seconds=record.step_age_seconds)
    queued = from_text(attempt.last_queued_at)
    return step_at if queued is None or step_at > queued else None


def _scheduled_at(pod: PodFacts, attempt: AttemptStatus, now: datetime) -> datetime:
    """When the attempt got the pod's node; one that it had kept while a queue held the job it gets back now."""
    queued_at, at = from_text(attempt.last_queued_at), pod.scheduled_at
    return now if at is None or (queued_at is not None and at <= queued_at) else at


def _has_gang(pods: list[PodFacts], attempt: AttemptStatus) -> bool:
    """Whether the gang has its nodes: as many pods as there are seats, with the one that hosts the rendezvous."""
    scheduled = [p.index for p in pods if p.is_scheduled]
    return len(scheduled) >= (attempt.replicas or 1) and 0 in scheduled


def _job_of(observed: Observed, attempt: AttemptStatus | None) -> JobFacts | None:
    if attempt is None:
        return None
    for job in observed.jobs:
        if job.attempt == attempt.number and job.is_owned and attempt.job_uid in (None, job.uid):
            return job
    return None


def _pods_of(observed: Observed, attempt: AttemptStatus | None, job: JobFacts | None) -> tuple[PodFacts, ...]:
    """Pods of the attempt's job without those that a queue took; none while it waits."""
    if attempt is None or (job is not None and job.is_suspended):
        return ()  # whatever ends now, the queue ends
    queued_at = from_text(attempt.last_queued_at)
    uid = attempt.job_uid
    mine = [
        p
        for p in observed.pods
        if p.attempt == attempt.number
        and p.is_owned
        and (uid is None or p.job_uid in (None, uid))
        and (queued_at is None or not _was_taken(p, queued_at, job.started_at if job is not None else None))
        and p.uid not in attempt.replaced_pods
    ]
    return tuple(sorted(mine, key=lambda p: (p.index, p.created_at, not p.is_departed)))


def _was_taken(pod: PodFacts, queued_at: datetime, started_at: datetime | None) -> bool:
    """Whether a pod went because a queue held its job: it was there by then, or left before the job started again.

    Age alone tells nothing. A late training-operator makes pods of a job that is held and deletes them, or misses that
    it is held and leaves its pods alone; it may write startTime after it has made the pods. All has whole seconds.
    """
    if pod.deleted_at is None and not pod.is_departed:
        return False
    left_at = pod.deleted_at or pod.created_at
    return pod.created_at <= queued_at or (started_at is not None and left_at <= started_at)
