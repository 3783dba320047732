"""Snapshots for table tests: a healthy running attempt, from which each case deviates by what it names."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from trainrun_api.contract import CAUSE_OF_EXIT, Progress, TerminationMessage
from trainrun_api.v1alpha1 import AttemptStatus, TrainingRunSpec, TrainingRunStatus
from trainrun_operator.core.choice import Choice
from trainrun_operator.core.decision import Action, Decision
from trainrun_operator.core.observed import (
    AgentFacts,
    JobFacts,
    NodeFacts,
    NodesFacts,
    Observed,
    PodFacts,
    ProgressFacts,
    RunFacts,
    Terminated,
)
from trainrun_operator.core.outcome import Outcome
from trainrun_operator.core.situation import situate
from trainrun_operator.core.status import settle
from trainrun_operator.core.times import to_text
from trainrun_operator.testing.manifests import small_spec

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
NOW = CREATED + timedelta(seconds=1000)
UID = "run-uid"


def ago(seconds: float) -> datetime:
    """That long before NOW."""
    return NOW - timedelta(seconds=seconds)


def make_spec(**changes: Any) -> TrainingRunSpec:
    """A valid spec with top-level fields replaced."""
    return TrainingRunSpec.model_validate(small_spec("a") | changes)


def make_attempt(number: int = 0, **changes: Any) -> AttemptStatus:
    """An attempt that was scheduled 900 s ago and has trained since 880 s ago."""
    fields: dict[str, Any] = {
        "number": number,
        "job": f"a-a{number}",
        "job_uid": f"job-{number}",
        "generation": 1,
        "replicas": 2,
        "started_at": to_text(ago(950)),
        "scheduled_at": to_text(ago(900)),
        "first_step_at": to_text(ago(880)),
        "start_step": 1,
        "nodes": ["n0", "n1"],
    }
    return AttemptStatus(**(fields | changes))


def fresh_attempt(number: int = 0, **changes: Any) -> AttemptStatus:
    """An attempt on record without a job."""
    fields: dict[str, Any] = {
        "job_uid": None,
        "scheduled_at": None,
        "first_step_at": None,
        "start_step": None,
        "nodes": [],
    }
    return make_attempt(number, **(fields | changes))


def closed_attempt(number: int = 0, cause: str = "Stopped", **changes: Any) -> AttemptStatus:
    """An attempt that has ended."""
    return make_attempt(number, **({"ended_at": to_text(ago(5)), "cause": cause} | changes))


def make_status(*attempts: AttemptStatus, **changes: Any) -> TrainingRunStatus:
    """A status with this history."""
    newest = attempts[-1].number if attempts else None
    return TrainingRunStatus(**({"attempt": newest, "attempts": list(attempts)} | changes))


def make_run(status: TrainingRunStatus, spec: TrainingRunSpec | None = None, **changes: Any) -> RunFacts:
    """The run's facts."""
    run = RunFacts("default", "a", UID, 1, CREATED, False, spec or make_spec(), None, status)
    return replace(run, **changes)


def make_job(number: int = 0, **changes: Any) -> JobFacts:
    """A living job of ours."""
    return replace(JobFacts(f"a-a{number}", f"job-{number}", number, True), **changes)


def make_pod(index: int = 0, number: int = 0, **changes: Any) -> PodFacts:
    """A running pod of ours."""
    pod = PodFacts(
        name=f"a-a{number}-worker-{index}",
        uid=f"pod-{number}-{index}",
        index=index,
        attempt=number,
        is_owned=True,
        job_uid=f"job-{number}",
        node=f"n{index}",
        phase="Running",
        created_at=ago(940),
        scheduled_at=ago(900),
        image="example/trainer:1",
    )
    return replace(pod, **changes)


def pending_pod(index: int = 0, because: str = "0/3 nodes are available.", **changes: Any) -> PodFacts:
    """A pod without a node."""
    fields: dict[str, Any] = {"node": None, "is_scheduled": False, "scheduled_at": None}
    return make_pod(index, phase="Pending", pending_because=because, **(fields | changes))


def words(exit_code: int, **changes: Any) -> TerminationMessage:
    """A termination message of a member."""
    fields: dict[str, Any] = {
        "exit_code": exit_code,
        "cause": CAUSE_OF_EXIT.get(exit_code, "ProgramError"),
        "step": 40,
        "target_step": 100,
        "message": "because",
    }
    if exit_code == 0:
        fields |= {"step": 100, "final_checkpoint": {"step": 100, "claim": 1}}
    return TerminationMessage(**(fields | changes))


def ended_pod(
    index: int,
    code: int,
    message: TerminationMessage | None = None,
    *,
    seconds_ago: float = 5.0,
    reason: str = "Error",
    **changes: Any,
) -> PodFacts:
    """A pod whose container has ended."""
    end = Terminated(code, reason, ago(seconds_ago), message)
    return make_pod(index, phase="Succeeded" if code == 0 else "Failed", terminated=end, **changes)


def make_progress(
    attempt: int = 0, *, seconds_ago: float = 1.0, agents: dict[int, AgentFacts] | None = None, **changes: Any
) -> ProgressFacts:
    """A fresh record of a run that makes a step per second; both agents answer."""
    fields: dict[str, Any] = {
        "attempt": attempt,
        "phase": "training",
        "step": 50,
        "total_steps": 100,
        "step_age_seconds": 0.5,
        "slowest_step_seconds": 1.0,
        "durable_checkpoint": {"step": 40, "age_seconds": 10.0},
    }
    heard = {0: AgentFacts(ago(seconds_ago)), 1: AgentFacts(ago(seconds_ago))}
    return ProgressFacts(
        attempt, Progress(**(fields | changes)), ago(seconds_ago), None, heard if agents is None else agents
    )


def silent(seconds: float = 10.0, why: str = "timeout") -> AgentFacts:
    """An agent that was heard once and has been silent for that long."""
    return AgentFacts(ago(seconds + 5), ago(seconds), why)


def lost_node(name: str, *, seconds: float = 10.0, **changes: Any) -> NodeFacts:
    """A node that is not Ready since that long."""
    return replace(NodeFacts(name, ready=False, not_ready_since=ago(seconds)), **changes)


def make_nodes(*deviating: NodeFacts, total: int = 4) -> NodesFacts:
    """That many nodes, of which some deviate."""
    return NodesFacts(total, {n.name: n for n in deviating})


def running(**changes: Any) -> Observed:
    """Attempt 0 trains on two nodes; keyword arguments replace fields of Observed, `attempt` and `spec` parts of it."""
    attempt = changes.pop("attempt", make_attempt())
    spec = changes.pop("spec", make_spec())
    status = changes.pop("status", make_status(attempt))
    base = Observed(
        run=make_run(status, spec),
        now=NOW,
        jobs=(make_job(attempt.number),),
        pods=(make_pod(0, attempt.number), make_pod(1, attempt.number)),
        nodes=make_nodes(),
        progress=make_progress(attempt.number),
    )
    return replace(base, **changes)


def idle(*attempts: AttemptStatus, **changes: Any) -> Observed:
    """No open attempt, nothing in the cluster."""
    spec = changes.pop("spec", make_spec())
    status = changes.pop("status", make_status(*attempts))
    return replace(Observed(run=make_run(status, spec), now=NOW, nodes=make_nodes()), **changes)


def actions(decision: Decision, kind: type[Action]) -> list[Any]:
    """The decision's actions of one kind."""
    return [a for a in decision.actions if isinstance(a, kind)]


def applied(observed: Observed, decision: Decision, **changes: Any) -> Observed:
    """The next snapshot, if nothing but the status changes."""
    status = TrainingRunStatus.model_validate(decision.status)
    return replace(observed, run=replace(observed.run, status=status), **changes)


def settled(outcome: Outcome, observed: Observed | None = None) -> Decision:
    """The decision that comes of an outcome, its sentence filled with the names of its facts."""
    names = [name for _, name, _, _ in string.Formatter().parse(outcome.template) if name]
    return settle(situate(observed or running()), "a_rule", Choice(outcome, {name: name for name in names}), ())
