"""Rules that end an open attempt: nodes, containers, jobs, standstill and the budget."""

from __future__ import annotations

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, StopJob
from trainrun_operator.core.observed import AgentFacts, NodeFacts, ProgressFacts

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    applied,
    ended_pod,
    fresh_attempt,
    lost_node,
    make_attempt,
    make_job,
    make_nodes,
    make_pod,
    make_progress,
    make_spec,
    make_status,
    running,
    silent,
    words,
)

ABORT = StopJob("a-a0", "job-0", "abort", 1)


def cause(decision) -> str:
    """The cause that the decision puts on record."""
    return decision.status["attempts"][-1]["cause"]


# -- nodes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "agent"),
    [(NodeFacts("n1", exists=False, ready=None), None), (lost_node("n1"), silent())],
    ids=["gone", "not ready, silent, standing"],
)
def test_a_lost_node_aborts_and_moves_the_run(node, agent):
    """Free of the budget, and the node is excluded."""
    agents = {0: silent(1) if agent else None, 1: agent}
    progress = make_progress(step_age_seconds=30.0, agents={k: v for k, v in agents.items() if v})
    decision = decide(running(nodes=make_nodes(node), progress=progress))
    assert (decision.rule, cause(decision)) == ("node_lost", "NodeLost")
    assert decision.actions[0] == ABORT
    assert decision.status["nodes"]["excluded"] == ["n1"]
    assert decision.status["restarts"] == 0
    assert decision.next_wake == NOW


def test_node_signals_come_before_pod_signals():
    """The peer of a lost node fails of it."""
    progress = make_progress(step_age_seconds=30.0, agents={1: silent()})
    pods = (ended_pod(0, 1, words(1)), make_pod(1))
    assert decide(running(nodes=make_nodes(lost_node("n1")), progress=progress, pods=pods)).rule == "node_lost"


# -- containers that do not start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "message", "age", "outcome"),
    [
        ("ErrImagePull", "manifest unknown", 1, "Failed"),
        ("ImagePullBackOff", "pull access denied", 1, "Failed"),
        ("InvalidImageName", "", 1, "Failed"),
        ("ErrImageNeverPull", "", 1, "Failed"),
        ("ErrImagePull", "i/o timeout", 1, "ImagePullRetried"),
        ("ErrImagePull", "i/o timeout", 900, "Failed"),
        ("CreateContainerConfigError", "secret x not there", 1, "ContainerRetried"),
        ("CreateContainerConfigError", "secret x not there", 60, "Failed"),
    ],
)  # fmt: skip
def test_what_cannot_start_fails_fast_by_name(reason, message, age, outcome):
    """A registry may come back, a Secret may be applied a moment later; a wrong name will not mend itself."""
    pod = make_pod(1, phase="Pending", scheduled_at=ago(age), waiting_reason=reason, waiting_message=message)
    attempt = make_attempt(first_step_at=None, scheduled_at=None)
    decision = decide(running(attempt=attempt, pods=(make_pod(0), pod), progress=ProgressFacts(0)))
    assert (decision.rule, decision.reason) == ("container_uncreatable", outcome)
    if outcome == "Failed" and "mage" in reason:
        assert "example/trainer:1" in decision.message
    if outcome == "Failed":
        assert message in decision.message
    else:
        assert decision.next_wake is not None


# -- the job is gone ----------------------------------------------------------------------------------------


def test_a_deleted_job_ends_the_attempt_free():
    """Uid recorded, job gone, no pod left."""
    decision = decide(running(jobs=(), pods=()))
    assert (decision.rule, cause(decision), decision.status["restarts"]) == ("job_deleted", "JobDeleted", 0)


def test_pods_of_a_deleted_job_may_finish_saving():
    """They got SIGTERM; the attempt ends when they are gone or their grace is over."""
    pods = (make_pod(0, terminates_by=ago(-60), deleted_at=ago(60)),)
    decision = decide(running(jobs=(), pods=pods))
    assert (decision.rule, decision.reason, decision.next_wake) == ("job_deleted", "Stopping", ago(-62))


def test_a_job_of_the_same_name_with_another_uid_is_not_ours():
    """Somebody deleted the job and made another."""
    decision = decide(running(jobs=(make_job(uid="other"),), pods=()))
    assert cause(decision) == "JobDeleted"


@pytest.mark.parametrize(
    "job", [make_job(has_failed=True, message="m."), make_job(has_succeeded=True)], ids=["failed", "succeeded"]
)
def test_a_job_that_is_over_without_any_word_is_no_verdict(job):
    """The operator was away for longer than evidence lasts: another attempt finds out, free."""
    decision = decide(running(jobs=(job,), pods=()))
    assert (decision.rule, cause(decision), decision.status["restarts"]) == ("attempt_failed", "NoEvidence", 0)
    assert decision.status["failure"]["confidence"] == "Unknown"


def test_an_end_that_proves_nothing_is_no_success():
    """Every pod says 0, none names a final checkpoint: another attempt must find it."""
    pods = tuple(ended_pod(i, 0, words(0, final_checkpoint=None)) for i in range(2))
    decision = decide(running(jobs=(make_job(has_succeeded=True),), pods=pods))
    assert (decision.rule, cause(decision)) == ("attempt_failed", "Unexplained")


# -- startup and stall -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "rule"), [(1799, "attempt_runs"), (1800, "never_started")], ids=["in time", "late"])
def test_startup_has_a_limit_from_all_pods_scheduled(age, rule):
    """The clock starts when the last pod got its node."""
    attempt = make_attempt(first_step_at=None, scheduled_at=ago(age).isoformat())
    decision = decide(running(attempt=attempt, progress=ProgressFacts(0)))
    assert decision.rule == rule
    if rule == "attempt_runs":
        assert decision.next_wake == ago(-1)


@pytest.mark.parametrize(
    ("progress", "rule", "reason"),
    [
        (make_progress(step=None, step_age_seconds=None, phase="starting"), "attempt_runs", "Running"),
        (make_progress(step=None, step_age_seconds=None, phase="starting", workers=[{"rank": 0}]), "never_started", ""),
        (make_progress(1, step=None, step_age_seconds=None), "never_started", ""),
        (ProgressFacts(0), "never_started", ""),
    ],
    ids=["reports nothing", "reports, and no step", "of another attempt", "no agent answers"],
)
def test_a_users_program_that_reports_nothing_is_not_waited_for(progress, rule, reason):
    """Plain torchrun: nobody would ever tell its first step, so none is asked for once its agent answers."""
    attempt = make_attempt(first_step_at=None, scheduled_at=ago(1800).isoformat())
    decision = decide(running(attempt=attempt, progress=progress, spec=make_spec(command=["train.py"])))
    assert decision.rule == rule
    if reason:
        assert (decision.reason, decision.watch.is_suspect) == (reason, False)


def test_the_second_slow_start_fails_the_run():
    """One more try, then a person must look."""
    attempt = make_attempt(first_step_at=None, scheduled_at=ago(1800).isoformat())
    first = decide(
        running(attempt=attempt, progress=make_progress(step=None, step_age_seconds=None, phase="compiling"))
    )
    assert (first.reason, "compiling" in first.message) == ("Restarting", True)
    status = make_status(attempt, ledgers=first.status["ledgers"], restarts=1)
    second = decide(running(attempt=attempt, status=status, progress=ProgressFacts(0)))
    assert second.reason == "Failed"
    assert "startupTimeoutSeconds" in second.message


@pytest.mark.parametrize(
    ("progress", "spec", "rule"),
    [
        (make_progress(step_age_seconds=19.0), make_spec(), "attempt_runs"),
        (make_progress(step_age_seconds=21.0), make_spec(), "stalled"),
        (make_progress(step_age_seconds=21.0, seconds_ago=50), make_spec(), "attempt_runs"),
        (make_progress(step_age_seconds=21.0, phase="checkpointing"), make_spec(), "attempt_runs"),
        (make_progress(step_age_seconds=921.0, phase="checkpointing"), make_spec(), "stalled"),
        (make_progress(step_age_seconds=21.0, phase="starting"), make_spec(), "attempt_runs"),
        (make_progress(step_age_seconds=1801.0, phase="starting"), make_spec(), "stalled"),
        (make_progress(step_age_seconds=50.0, expected_next_within_seconds=40.0), make_spec(), "attempt_runs"),
        (make_progress(step_age_seconds=61.0, expected_next_within_seconds=40.0), make_spec(), "stalled"),
        (make_progress(step_age_seconds=99.0), make_spec(health={"stallTimeoutSeconds": 100}), "attempt_runs"),
        (make_progress(step_age_seconds=101.0), make_spec(health={"stallTimeoutSeconds": 100}), "stalled"),
        (make_progress(attempt=5, step_age_seconds=99.0), make_spec(), "attempt_runs"),
    ],
    ids=[
        "within", "over", "blind", "saving", "saving for ever", "starting again", "starting for ever", "announced",
        "announced and over", "own limit", "own limit over", "another attempt's",
    ],
)  # fmt: skip
def test_a_stall_is_proved_by_a_fresh_answer_and_the_phases_limit(progress, spec, rule):
    """20 x the slowest step here; blind is not stalled."""
    decision = decide(running(progress=progress, spec=spec))
    assert decision.rule == rule
    if rule == "stalled":
        assert decision.actions[0] == ABORT
        assert "after step 50" in decision.message


@pytest.mark.parametrize(
    ("agents", "excluded"),
    [({0: AgentFacts(NOW), 1: silent()}, ["n1"]), ({0: silent(), 1: silent()}, [])],
    ids=["one", "all but the one that spoke"],
)
def test_a_stall_with_silent_members_is_their_nodes_fault(agents, excluded):
    """Free; a node that died shows as a standstill before Kubernetes calls it not Ready. A single one is avoided."""
    decision = decide(running(progress=make_progress(step_age_seconds=30.0, agents=agents)))
    assert (decision.rule, cause(decision), decision.status["restarts"]) == ("stalled", "MemberSilent", 0)
    assert decision.status.get("nodes", {}).get("excluded", []) == excluded
    assert "a-a0-worker-1" in decision.message


def test_one_missed_answer_blames_no_node():
    """A busy machine misses an answer: the verdict waits for the next question, then it is a stall of the program."""
    fresh = AgentFacts(heard_at=ago(9), silent_since=ago(2), blind_because="timeout")
    progress = make_progress(step_age_seconds=30.0, agents={0: AgentFacts(NOW), 1: fresh})
    decision = decide(running(progress=progress))
    assert (decision.rule, decision.status["attempts"][-1].get("endedAt"), decision.next_wake) == (
        "stalled",
        None,
        ago(-4),
    )
    assert ABORT not in decision.actions
    assert decision.watch is not None and decision.watch.is_suspect


@pytest.mark.parametrize(
    ("deviating", "rule"),
    [
        ((lost_node("n1", is_stale=True),), "node_suspected"),
        (tuple(lost_node(f"n{i}") for i in range(3)), "node_suspected"),
        ((lost_node("n1"),), "stalled"),
        ((lost_node("n9", is_stale=True),), "stalled"),
        ((lost_node("n1", seconds=700), lost_node("n2", seconds=700), lost_node("n3", seconds=700)), "stalled"),
    ],
    ids=["stale", "held", "judged: its agent answers", "not ours", "held for too long"],
)
def test_a_standstill_waits_for_a_pending_verdict_on_its_nodes(deviating, rule):
    """A node fault must not be booked on the program because the API server was away."""
    assert decide(running(nodes=make_nodes(*deviating), progress=make_progress(step_age_seconds=30.0))).rule == rule


# -- budget ---------------------------------------------------------------------------------------------------


def test_a_spent_budget_ends_the_run():
    """maxRestarts restarts, not one more."""
    spec = make_spec(failurePolicy={"maxRestarts": 3})
    last = make_status(make_attempt(), restarts=2)
    assert decide(running(spec=spec, status=last, pods=(make_pod(0), ended_pod(1, 137)))).reason == "Restarting"
    spent = make_status(make_attempt(), restarts=3)
    decision = decide(running(spec=spec, status=spent, pods=(make_pod(0), ended_pod(1, 137))))
    assert (decision.reason, decision.status["result"]) == ("Failed", "Failed")
    assert "maxRestarts=3" in decision.message


def test_a_spent_budget_does_not_stop_a_free_restart():
    """Preemption and node faults go on."""
    spent = make_status(make_attempt(), restarts=10)
    assert (
        decide(running(status=spent, pods=(make_pod(0), ended_pod(1, 143, disruption="PreemptionByScheduler")))).reason
        == "Restarting"
    )


def test_a_verdict_is_not_repeated():
    """The next pass starts the next attempt instead of judging again."""
    observed = running(pods=(make_pod(0), ended_pod(1, 137)))
    decision = decide(observed)
    following = decide(applied(observed, decision))
    assert following.rule == "attempt_starts"
    assert actions(following, CreateJob)[0].attempt == 1
    assert following.status["restarts"] == 1


def test_an_attempt_without_a_job_has_nothing_to_abort():
    """A node of an attempt that never got a job cannot take it down with a StopJob."""
    decision = decide(running(attempt=fresh_attempt(), jobs=(), pods=(ended_pod(0, 20, words(20)),)))
    assert not actions(decision, StopJob)


def test_a_success_that_was_never_heard_of_before_names_its_steps():
    """The operator was away while the run trained; the last words are enough."""
    pods = (ended_pod(0, 0, words(0)), ended_pod(1, 0, words(0)))
    status = decide(running(pods=pods, progress=ProgressFacts(0))).status
    assert (status["progress"]["step"], status["progress"]["totalSteps"], status["checkpoint"]["step"]) == (
        100,
        100,
        100,
    )
