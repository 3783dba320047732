"""What holds for every snapshot, not for chosen ones: decide is total, pure, and carries its memory in the status."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from trainrun_api.v1alpha1 import StopStatus
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, RecordEvent, StopJob
from trainrun_operator.core.failure_policy import CAUSES
from trainrun_operator.core.observed import AgentFacts, NodeFacts, Observed, ProgressFacts, Refusal, Rival
from trainrun_operator.core.times import from_text, to_text

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    applied,
    closed_attempt,
    ended_pod,
    fresh_attempt,
    lost_node,
    make_attempt,
    make_job,
    make_nodes,
    make_pod,
    make_progress,
    make_run,
    make_spec,
    make_status,
    pending_pod,
    silent,
    words,
)

STOP = StopStatus(reason="Suspended", requested_at=to_text(ago(20)))
CODES = st.sampled_from([0, 1, 10, 11, 20, 21, 22, 30, 31, 40, 41, 126, 134, 137, 139, 143, 7])
REASONS = st.sampled_from(["", "Evicted", "Preempting", "NodeShutdown", "Odd"])
DISRUPTIONS = st.sampled_from(["", "PreemptionByScheduler", "DeletionByPodGC", "Odd"])


@st.composite
def pods(draw, index: int, number: int):
    """A pod in any condition."""
    kind = draw(
        st.sampled_from(["running", "pending", "ended", "mute end", "failed", "departed", "waiting", "leaving"])
    )
    if kind == "running":
        return make_pod(index, number)
    if kind == "pending":
        return pending_pod(index, number=number)
    if kind == "ended":
        code = draw(CODES)
        said = words(
            code, fingerprint=draw(st.sampled_from([None, "f"])), signal=draw(st.sampled_from([None, 9, 11, 2]))
        )
        reason = draw(st.sampled_from(["Error", "OOMKilled"]))
        return ended_pod(index, code, said, number=number, reason=reason, seconds_ago=draw(st.integers(0, 9)))
    if kind == "mute end":
        return ended_pod(index, draw(CODES), number=number, seconds_ago=draw(st.integers(0, 9)))
    if kind == "failed":
        return make_pod(index, number, phase="Failed", reason=draw(REASONS), disruption=draw(DISRUPTIONS))
    if kind == "departed":
        return make_pod(
            index,
            number,
            is_departed=True,
            disruption=draw(DISRUPTIONS),
            deleted_at=draw(st.sampled_from([None, ago(3)])),
        )
    if kind == "waiting":
        reason = draw(st.sampled_from(["ErrImagePull", "CreateContainerConfigError", "ContainerCreating"]))
        return make_pod(
            index, number, phase="Pending", waiting_reason=reason, waiting_message=draw(st.sampled_from(["", "denied"]))
        )
    return make_pod(index, number, terminates_by=ago(draw(st.integers(-20, 20))), deleted_at=ago(30))


@st.composite
def snapshots(draw) -> Observed:
    """A run in any situation that the store could show."""
    causes = st.sampled_from([*CAUSES, "Odd", "GangIncomplete", "CapacityReturned"])
    had = st.sampled_from([None, 1])
    closed = [closed_attempt(n, draw(causes), scheduled_replicas=draw(had)) for n in range(draw(st.integers(0, 2)))]
    number = len(closed)
    attempt = draw(
        st.sampled_from(
            [
                None,
                make_attempt(number),
                fresh_attempt(number),
                make_attempt(number, stop=STOP),
                make_attempt(number, scheduled_at=None, first_step_at=None),
                make_attempt(number, replicas=1, wanted_replicas=2, nodes_for_all=4),
            ]
        )
    )
    attempts = [*closed, attempt] if attempt else closed
    status = make_status(
        *attempts,
        restarts=draw(st.integers(0, 11)),
        next_attempt_at=draw(st.sampled_from([None, to_text(ago(-5)), to_text(ago(5))])),
    )
    spec = make_spec(
        workers={"replicas": 2, "minReplicas": draw(had), "accelerator": "cpu"},
        suspend=draw(st.booleans()),
        restartToken=draw(st.sampled_from(["", "x"])),
        failurePolicy={"maxRestarts": draw(st.integers(0, 10))},
    )
    node = st.sampled_from(
        [
            None,
            lost_node("n1"),
            lost_node("n0", seconds=500),
            NodeFacts("n1", exists=False, ready=None),
            NodeFacts("n0", mark="Odd"),
        ]
    )
    progress = st.sampled_from(
        [
            ProgressFacts(number),
            make_progress(number),
            make_progress(number, step_age_seconds=500.0),
            make_progress(number, step=None, step_age_seconds=None, phase="starting"),
            make_progress(number, step_age_seconds=90.0, agents={0: silent(), 1: silent()}),
            ProgressFacts(number, unknown_schema=9, agents={0: AgentFacts(NOW)}),
        ]
    )
    job = make_job(
        number, is_suspended=draw(st.booleans()), has_failed=draw(st.booleans()), is_deleting=draw(st.booleans())
    )
    jobs = draw(st.sampled_from([(), (job,), (job, make_job(0)), (replace(job, is_owned=False),)]))
    count = draw(st.integers(0, 2))
    deviating = draw(node)
    return Observed(
        run=make_run(status, spec),
        now=NOW,
        jobs=jobs,
        pods=tuple(draw(pods(i, number)) for i in range(count)),
        nodes=make_nodes(*([deviating] if deviating else [])),
        progress=draw(progress),
        rival=draw(st.sampled_from([None, Rival("default", "older")])),
        refusal=draw(st.sampled_from([None, Refusal(number, "no.", ago(3))])),
    )


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_decide_is_total_and_deterministic(observed):
    """An answer with a reason and a message for every snapshot, and the same one twice."""
    decision = decide(observed)
    assert decision == decide(observed)
    assert decision.message
    assert decision.status["phase"]


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_a_pass_never_creates_beside_a_living_job(observed):
    """What is left of other attempts is deleted before; never more than one job is created."""
    decision = decide(observed)
    created = [n for n, a in enumerate(decision.actions) if isinstance(a, CreateJob)]
    assert len(created) <= 1
    if created:
        alive = {j.name for j in observed.jobs if j.is_owned and not j.is_deleting}
        stopped = {a.name for a in decision.actions[: created[0]] if isinstance(a, StopJob)}
        assert alive <= stopped
        assert actions(decision, CreateJob)[0].attempt == decision.status["attempt"]


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_no_attempt_is_smaller_than_may_be(observed):
    """And a smaller one says how many were wanted."""
    workers = observed.run.spec.workers
    decision = decide(observed)
    for attempt in decision.status.get("attempts", [])[len(observed.run.status.attempts) :]:
        assert (workers.min_replicas or workers.replicas) <= attempt["replicas"] <= workers.replicas
        assert (attempt["replicas"] < workers.replicas) == ("wantedReplicas" in attempt) == ("nodesForAll" in attempt)


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_the_budget_is_never_exceeded_and_moves_by_one(observed):
    """restarts grows by at most one per pass and never past maxRestarts."""
    before, limit = observed.run.status.restarts, observed.run.spec.failure_policy.max_restarts
    after = decide(observed).status["restarts"]
    assert before <= after <= max(before, limit)
    assert after <= before + 1


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_passes_over_an_unchanged_cluster_settle(observed):
    """The status that one pass wrote, decided again: where the same rule answers, nothing is written or told twice."""
    decisions = [decide(observed)]
    for _ in range(4):
        observed = applied(observed, decisions[-1])
        decisions.append(decide(observed))
    for earlier, later in pairwise(decisions):
        assert later.status["restarts"] - earlier.status["restarts"] in (0, 1)
        if earlier.rule == later.rule:
            assert later.status == earlier.status
            assert not actions(later, RecordEvent)


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_a_wake_time_that_has_come_means_that_the_status_changed(observed):
    """No busy loop."""
    decision = decide(observed)
    if decision.next_wake is not None and decision.next_wake <= observed.now:
        following = decide(applied(observed, decision))
        assert following.rule != decision.rule or following.next_wake != decision.next_wake


@settings(max_examples=200, deadline=None)
@given(snapshots(), st.integers(1, 100_000))
def test_goodput_closes_after_any_pass(observed, seconds):
    """Classes add up to the time from creation to the last booking."""
    first = decide(observed)
    later = replace(applied(observed, first), now=NOW + timedelta(seconds=seconds))
    for decision in (first, decide(later)):
        ledger = decision.status["goodput"]
        until = from_text(ledger["accountedUntil"])
        total = round(sum(ledger["secondsByClass"].values()) * 1000)
        assert total == (until - observed.run.created_at) // timedelta(milliseconds=1)


@settings(max_examples=200, deadline=None)
@given(snapshots())
def test_blindness_alone_destroys_nothing(observed):
    """With healthy pods and nodes, silence of all agents never stops a job."""
    blind = replace(
        observed,
        run=make_run(make_status(make_attempt())),
        jobs=(make_job(),),
        pods=(make_pod(0), make_pod(1)),
        nodes=make_nodes(),
        progress=make_progress(seconds_ago=5000, agents={0: silent(5000), 1: silent(5000)}),
        rival=None,
    )
    assert not actions(decide(blind), StopJob)


@settings(max_examples=200, deadline=None)
@given(snapshots(), st.booleans())
def test_an_attempt_whose_job_and_pods_are_over_does_not_stay_open(observed, has_failed):
    """Whatever the pods said or left unsaid, some rule ends it or says why it waits."""
    job = make_job(0, has_failed=has_failed, has_succeeded=not has_failed)
    over = tuple(p for p in observed.pods if p.has_ended)
    run = make_run(make_status(make_attempt(0)), observed.run.spec)
    pods_of_0 = tuple(replace(p, attempt=0, job_uid="job-0") for p in over)
    decision = decide(replace(observed, run=run, jobs=(job,), pods=pods_of_0, progress=ProgressFacts(0)))
    assert decision.rule in {"attempt_succeeded", "node_lost", "attempt_failed"}
