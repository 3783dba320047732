"""Rules that end an open attempt on the words of its pods: success, failure, unknown contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_api.v1alpha1 import ProgressStatus
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import StopJob
from trainrun_operator.core.observed import NodeFacts, ProgressFacts, Terminated
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    actions,
    ago,
    ended_pod,
    make_attempt,
    make_job,
    make_nodes,
    make_pod,
    make_progress,
    make_spec,
    make_status,
    running,
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


def test_a_stop_is_possible_although_the_contract_is_unknown():
    """SIGTERM needs no schema."""
    decision = decide(running(progress=ProgressFacts(0, unknown_schema=7), spec=make_spec(suspend=True)))
    assert (decision.rule, decision.reason) == ("contract_unknown", "Stopping")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"nodes": make_nodes(NodeFacts("n1", exists=False, ready=None))}, "node_lost"),
        ({"pods": (), "jobs": ()}, "job_deleted"),
    ],
    ids=["node gone", "job and pods gone"],
)
def test_what_needs_no_words_is_judged_under_an_unknown_contract_too(changes, rule):
    """A last word that nobody can repeat does not hold a run for ever."""
    assert decide(running(progress=ProgressFacts(0, unknown_schema=7), **changes)).rule == rule


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
        (ended_pod(1, 127, words(127)), "CommandNotFound", "Failed", 0),
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


def test_a_command_that_cannot_be_found_is_named():
    """The agent knows its name; a container that ended without the agent leaves the code alone."""
    said = words(127, message="cannot start 'train.py': no such file")
    assert "cannot start 'train.py'" in decide(running(pods=(make_pod(0), ended_pod(1, 127, said)))).message
    assert "its command cannot be run" in decide(running(pods=(make_pod(0), ended_pod(1, 127)))).message


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


def test_a_survivors_word_waits_for_the_word_of_the_other():
    """The lost node is called not Ready a moment after its peer ended; only then is the cause known."""
    survivor = ended_pod(0, 1, words(1, cause="PeerLost"), seconds_ago=3)
    assert decide(running(pods=(survivor, make_pod(1)))).reason == "FailureSettling"
    late = ended_pod(0, 1, words(1, cause="PeerLost"), seconds_ago=4)
    assert cause(decide(running(pods=(late, make_pod(1))))) == "PeerLost"


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


EVICTED = {"disruption": "EvictionByEvictionAPI", "deleted_at": ago(6), "terminates_by": ago(-114)}


@pytest.mark.parametrize(
    "echo",
    [
        ended_pod(0, 10, words(10), seconds_ago=3),
        ended_pod(0, 143, seconds_ago=3),
        ended_pod(0, 1, words(1, cause="PeerLost"), seconds_ago=5),
        make_pod(0, is_departed=True),
    ],
    ids=["stopped", "terminated", "peer lost", "gone"],
)
def test_a_drained_pod_whose_end_is_not_reported_yet_is_the_cause_of_its_peers_ends(echo):
    """All have saved; the kubelet tells of a pod's end when its last container and its network are gone."""
    decision = decide(running(pods=(echo, make_pod(1, **EVICTED))))
    assert (decision.rule, cause(decision), decision.reason) == ("attempt_failed", "Drained", "Restarting")
    assert decision.status["failure"]["evidence"] == ["Pod a-a0-worker-1 was disrupted (EvictionByEvictionAPI)."]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ((ended_pod(0, 1, words(1)), make_pod(1, **EVICTED)), "ProgramError"),
        ((ended_pod(0, 22, words(22)), make_pod(1, **EVICTED)), "DeviceOutOfMemory"),
        ((ended_pod(0, 10, words(10)), make_pod(1, disruption="EvictionByEvictionAPI")), "Stopped"),
        ((ended_pod(0, 10, words(10)), make_pod(1, deleted_at=ago(6))), "Stopped"),
        ((ended_pod(0, 10, words(10)), make_pod(1, 7, **EVICTED)), "Stopped"),
    ],
    ids=["program error", "contract code", "not deleted so far", "deleted by somebody", "another attempt"],
)
def test_a_drain_that_is_under_way_explains_only_what_it_brings_about(pods, expected):
    """An error is the program's own, and a pod that nobody has told to end stops none of its peers."""
    assert cause(decide(running(pods=pods))) == expected


def test_a_program_error_beside_a_drain_has_the_usual_time_to_be_told():
    """The lost peer may have raised: of that the price is another."""
    survivor = ended_pod(0, 1, words(1, cause="PeerLost"), seconds_ago=3)
    assert decide(running(pods=(survivor, make_pod(1, **EVICTED)))).reason == "FailureSettling"


def test_pods_of_a_deleted_job_may_save_also_when_one_is_drained():
    """Aborting them at once would cost their last steps."""
    pods = (ended_pod(0, 10, words(10)), make_pod(1, **EVICTED))
    assert decide(running(pods=pods, jobs=())).rule == "job_deleted"


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
    ("said", "measured"),
    [
        ({"loss": 2.5, "tokens": 6000}, (60, 2.5, 6000)),
        ({"loss": 2.5188610553741455, "tokens": 6000}, (60, 2.5189, 6000)),
        ({}, (60, None, None)),
    ],
    ids=["said with the step", "said with all digits", "not said"],
)
def test_the_last_step_comes_with_its_own_loss_or_none(said, measured):
    """Those of an earlier record do not belong to it."""
    early = ProgressStatus(step=14, loss=6.1, tokens=1400, updated_at=to_text(ago(30)))
    pods = (make_pod(0), ended_pod(1, 22, words(22, step=60, **said)))
    progress = decide(running(status=make_status(make_attempt(), progress=early), pods=pods)).status["progress"]
    assert (progress["step"], progress.get("loss"), progress.get("tokens")) == measured


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


def test_pods_that_a_queue_stops_end_no_attempt():
    """They save and exit 10 while the job is suspended."""
    pods = (ended_pod(0, 10, words(10)), ended_pod(1, 10, words(10)))
    assert decide(running(jobs=(make_job(is_suspended=True),), pods=pods)).rule == "job_queued"


def test_a_pod_made_before_the_job_says_it_started_counts():
    """training-operator 1.9 writes startTime after it has created the first pods."""
    jobs = (make_job(started_at=ago(930)),)
    failed = ended_pod(0, 30, words(30), created_at=ago(935))
    decision = decide(running(jobs=jobs, pods=(failed, make_pod(1, created_at=ago(930)))))
    assert decision.status["attempts"][-1]["cause"] == "DeviceSuspect"
