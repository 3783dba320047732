"""Rules that end an open attempt on evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_api.v1alpha1 import ProgressStatus
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, StopJob
from trainrun_operator.core.observed import AgentFacts, NodeFacts, ProgressFacts, Terminated
from trainrun_operator.core.times import to_text

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


# -- contract version -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "observed",
    [
        running(progress=ProgressFacts(0, unknown_schema=7)),
        running(pods=(make_pod(0), make_pod(1, phase="Failed", terminated=Terminated(1, unknown_schema=7)))),
    ],
    ids=["progress", "termination message"],
)
def test_an_unknown_contract_schema_is_blindness_with_both_versions_named(observed):
    """No verdict, no action."""
    decision = decide(observed)
    assert decision.rule == "contract_unknown"
    assert "schema 7" in decision.message
    assert "understands 0 and 1" in decision.message
    assert not actions(decision, StopJob)


# -- success --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pods", "job"),
    [
        ((ended_pod(0, 0, words(0)), ended_pod(1, 0, words(0))), make_job(has_succeeded=True)),
        ((ended_pod(0, 0, words(0)), make_pod(1)), make_job()),
        ((ended_pod(0, 0, words(0)), ended_pod(1, 137)), make_job(has_succeeded=True, has_failed=True)),
        ((ended_pod(0, 0, words(0, target_step=None)),), make_job(has_succeeded=True)),
        ((replace(ended_pod(0, 0, words(0)), is_departed=True),), None),
    ],
    ids=["all", "one word is enough", "failed beside it", "no target: the job's word", "job and pods gone"],
)
def test_success_is_proved_by_a_termination_message(pods, job):
    """One member's word carries the whole run's result."""
    decision = decide(running(pods=pods, jobs=(job,) if job else ()))
    assert (decision.rule, decision.reason) == ("attempt_succeeded", "Succeeded")
    assert decision.status["result"] == "Succeeded"
    assert decision.status["attempts"][-1]["cause"] == "Done"
    assert {c["type"]: c["status"] for c in decision.status["conditions"]}["Ready"] == "True"


@pytest.mark.parametrize(
    ("pods", "job", "why"),
    [
        ((ended_pod(0, 0), make_pod(1)), make_job(has_succeeded=True), "Unexplained"),
        ((ended_pod(0, 0, words(0, step=40)),), make_job(has_succeeded=True), "EndedEarly"),
        (
            (ended_pod(0, 0, words(0, role="spare")), ended_pod(1, 1, words(1))),
            make_job(has_succeeded=True),
            "ProgramError",
        ),
        ((ended_pod(0, 1, words(0)), ended_pod(1, 1, words(1))), make_job(has_succeeded=True), "ProgramError"),
    ],
    ids=["no message", "before the target", "a spare's word", "another exit code than it says"],
)
def test_the_job_condition_alone_is_no_success(pods, job, why):
    """Succeeded of the job without proof ends the attempt as a failure."""
    decision = decide(running(pods=pods, jobs=(job,)))
    assert (decision.rule, cause(decision)) == ("attempt_failed", why)


@pytest.mark.parametrize(
    "said",
    [words(0, target_step=None), words(0, final_checkpoint=None)],
    ids=["no target, job runs", "no final checkpoint"],
)
def test_an_unproved_end_waits_for_more_words(said):
    """Exit 0 that proves nothing yet is neither success nor failure."""
    decision = decide(running(pods=(ended_pod(0, 0, said), make_pod(1))))
    assert decision.rule == "attempt_runs"


# -- failure by exit code ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pod", "expected", "reason", "spends"),
    [
        (ended_pod(1, 1, words(1)), "ProgramError", "Restarting", 1),
        (ended_pod(1, 1), "ProgramError", "Restarting", 1),
        (ended_pod(1, 31), "ProgramError", "Restarting", 1),
        (ended_pod(1, 10, words(10)), "Stopped", "Restarting", 0),
        (ended_pod(1, 11, words(11)), "TimeLimit", "Restarting", 0),
        (ended_pod(1, 20, words(20)), "BadConfig", "Failed", 0),
        (ended_pod(1, 21, words(21)), "BadData", "Failed", 0),
        (ended_pod(1, 22, words(22)), "DeviceOutOfMemory", "Restarting", 1),
        (ended_pod(1, 30, words(30)), "DeviceSuspect", "Restarting", 0),
        (ended_pod(1, 31, words(31)), "NumericalFault", "Restarting", 1),
        (ended_pod(1, 40, words(40)), "NoUsableCheckpoint", "Failed", 0),
        (ended_pod(1, 41, words(41)), "StorageRefused", "Restarting", 1),
        (ended_pod(1, 137, reason="OOMKilled"), "OOMKilled", "Restarting", 1),
        (ended_pod(1, 137), "Killed", "Restarting", 1),
        (ended_pod(1, 139), "SegmentationFault", "Restarting", 1),
        (ended_pod(1, 134), "Aborted", "Restarting", 1),
        (ended_pod(1, 143), "Terminated", "Restarting", 0),
        (ended_pod(1, 127), "CommandNotFound", "Failed", 0),
        (ended_pod(1, 1, words(1, cause="PeerLost")), "PeerLost", "Restarting", 0),
        (ended_pod(1, 1, words(1, signal=11)), "SegmentationFault", "Restarting", 1),
        (make_pod(1, phase="Failed", reason="Evicted", message="node was low on memory"), "Evicted", "Restarting", 0),
        (make_pod(1, phase="Failed", reason="Evicted", message="ephemeral-storage"), "StorageEvicted", "Restarting", 1),
        (make_pod(1, phase="Failed", reason="NodeShutdown"), "NodeLost", "Restarting", 0),
        (make_pod(1, phase="Failed"), "Unknown", "Restarting", 1),
        (ended_pod(1, 143, disruption="PreemptionByScheduler"), "Preempted", "Restarting", 0),
        (ended_pod(1, 10, words(10), disruption="EvictionByEvictionAPI"), "Drained", "Restarting", 0),
        (ended_pod(1, 143, disruption="SomethingNew"), "Preempted", "Restarting", 0),
        (make_pod(1, is_departed=True), "PodDeleted", "Restarting", 0),
        (make_pod(1, is_departed=True, disruption="DeletionByTaintManager"), "NodeLost", "Restarting", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_way_of_failing_has_its_cause_and_its_price(pod, expected, reason, spends):
    """Preemption and node faults spend nothing of the user's budget; what cannot be mended ends the run."""
    observed = running(pods=(make_pod(0), pod))
    decision = decide(observed)
    assert (decision.rule, cause(decision), decision.reason) == ("attempt_failed", expected, reason)
    assert decision.status.get("restarts", 0) == spends
    assert decision.actions[0] == ABORT
    assert decision.status["failure"]["cause"] == expected


def test_a_contract_code_outranks_a_peers_earlier_error():
    """Exit 31 of one pod explains the exit 1 of another that was noticed first."""
    pods = (ended_pod(0, 1, words(1), seconds_ago=9), ended_pod(1, 31, words(31), seconds_ago=5))
    assert cause(decide(running(pods=pods))) == "NumericalFault"


def test_the_platforms_word_outranks_a_program_error():
    """A peer of an OOM-killed pod dies of the lost connection."""
    pods = (ended_pod(0, 1, words(1), seconds_ago=9), ended_pod(1, 137, reason="OOMKilled", seconds_ago=5))
    assert cause(decide(running(pods=pods))) == "OOMKilled"


def test_a_lost_peer_never_hides_what_it_was_lost_to():
    """The pod that only saw a connection close ends first; the error of the other is the cause."""
    pods = (ended_pod(0, 1, words(1, cause="PeerLost"), seconds_ago=9), ended_pod(1, 1, words(1), seconds_ago=5))
    assert cause(decide(running(pods=pods))) == "ProgramError"


def test_among_equals_the_earliest_counts():
    """The second failure is the echo of the first."""
    pods = (
        ended_pod(0, 1, words(1, fingerprint="second"), seconds_ago=5),
        ended_pod(1, 1, words(1, fingerprint="first"), seconds_ago=9),
    )
    assert "ProgramError/first" in decide(running(pods=pods)).status["ledgers"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (make_pod(0, is_departed=True, deleted_at=ago(4), terminates_by=ago(3)), "ProgramError"),
        (make_pod(0, is_departed=True), "ProgramError"),
        (make_pod(0, is_departed=True, deleted_at=ago(8), terminates_by=ago(7)), "PodDeleted"),
        (ended_pod(0, 10, words(10), seconds_ago=3, deleted_at=ago(4)), "ProgramError"),
        (ended_pod(0, 143, seconds_ago=3), "ProgramError"),
    ],
    ids=["deleted after it", "deletion time unknown", "deleted before it", "stopped after it", "terminated, no time"],
)
def test_pods_cleaned_up_after_a_failure_explain_nothing(other, expected):
    """training-operator deletes the rest of a failed job's pods."""
    pods = (other, ended_pod(1, 1, words(1), seconds_ago=5))
    assert cause(decide(running(pods=pods, jobs=(make_job(has_failed=True),)))) == expected


def test_a_replaced_pod_is_the_cause_of_its_peers_errors():
    """The job was alive when the pod went: somebody deleted it."""
    pods = (make_pod(0, is_departed=True), make_pod(0, uid="new"), ended_pod(1, 1, words(1)))
    assert cause(decide(running(pods=pods))) == "PodDeleted"


@pytest.mark.parametrize(
    ("seconds_ago", "rule"), [(1, "failure_settles"), (2, "attempt_failed")], ids=["young", "settled"]
)
def test_a_bare_program_error_waits_for_other_pods_words(seconds_ago, rule):
    """Two seconds, while another pod lives."""
    decision = decide(running(pods=(make_pod(0), ended_pod(1, 1, words(1), seconds_ago=seconds_ago))))
    if rule == "failure_settles":
        assert (decision.reason, decision.next_wake) == ("FailureSettling", ago(-1))
        assert decision.watch.is_suspect
    else:
        assert decision.reason == "Restarting"


@pytest.mark.parametrize(
    "pods",
    [
        (ended_pod(0, 1, words(1), seconds_ago=0), ended_pod(1, 1, words(1), seconds_ago=0)),
        (make_pod(0), ended_pod(1, 22, words(22), seconds_ago=0)),
        (make_pod(0), ended_pod(1, 137, seconds_ago=0)),
    ],
    ids=["all have spoken", "contract code", "signal"],
)
def test_a_telling_failure_is_judged_at_once(pods):
    """Waiting would only cost time."""
    assert decide(running(pods=pods)).reason == "Restarting"


def test_last_words_update_progress_and_checkpoint():
    """A termination message may be newer than the last progress record."""
    said = words(22, step=60, durable_checkpoint={"step": 55, "age_seconds": 2.0})
    status = decide(running(pods=(make_pod(0), ended_pod(1, 22, said)))).status
    assert (status["progress"]["step"], status["checkpoint"]["step"], status["attempts"][-1]["endStep"]) == (60, 55, 60)


@pytest.mark.parametrize(
    ("updated", "end"), [(ago(30), 80), (ago(5000), 3)], ids=["in this attempt", "in an earlier one"]
)
def test_an_attempts_last_step_is_the_furthest_that_was_known(updated, end):
    """A group that restarted in place says earlier steps again."""
    progress = ProgressStatus(step=80, updated_at=to_text(updated))
    status = make_status(make_attempt(), progress=progress)
    pods = (make_pod(0), ended_pod(1, 137))
    observed = running(status=status, pods=pods, progress=make_progress(step=3, phase="starting", seconds_ago=20))
    assert decide(observed).status["attempts"][-1]["endStep"] == end


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


# -- startup and stall -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "rule"), [(1799, "attempt_runs"), (1800, "never_started")], ids=["in time", "late"])
def test_startup_has_a_limit_from_all_pods_scheduled(age, rule):
    """The clock starts when the last pod got its node."""
    attempt = make_attempt(first_step_at=None, scheduled_at=ago(age).isoformat())
    decision = decide(running(attempt=attempt, progress=ProgressFacts(0)))
    assert decision.rule == rule
    if rule == "attempt_runs":
        assert decision.next_wake == ago(-1)


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
    assert decision.status["nodes"]["excluded"] == excluded
    assert "a-a0-worker-1" in decision.message


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
