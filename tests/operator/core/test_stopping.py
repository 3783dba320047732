"""Rules about stops: wanted, under way, done, or done by a queue."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_api.v1alpha1 import GoodputStatus, StopStatus
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, StopJob
from trainrun_operator.core.observed import NodeFacts, ProgressFacts, Rival
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    applied,
    ended_pod,
    fresh_attempt,
    idle,
    lost_node,
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

SAVE = StopJob("a-a0", "job-0", "save", 120)


def stopping(reason: str = "Suspended", seconds: float = 5.0, **changes):
    """An attempt whose save stop was asked for that long ago."""
    stop = StopStatus(reason=reason, message="because.", requested_at=to_text(ago(seconds)))
    return running(attempt=make_attempt(stop=stop), **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spec": make_spec(suspend=True)}, "Suspended"),
        ({"spec": make_spec(restartToken="2")}, "RestartRequested"),
        ({"spec": make_spec(workers={"replicas": 3, "accelerator": "cpu"})}, "WorkersChanged"),
        ({"rival": Rival("default", "older")}, "CheckpointPathInUse"),
        ({"nodes": make_nodes(NodeFacts("n1", mark="UnschedulablePendingReplacement"))}, "NodeMarked"),
        ({"nodes": make_nodes(NodeFacts("n1", mark="SomethingNew"))}, "NodeMarked"),
        ({"spec": make_spec(maxAttemptSeconds=600)}, "TimeLimit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wanted_stop_saves(changes, reason):
    """On record with the grace period; the job is deleted in the same pass, after the status."""
    decision = decide(running(**changes))
    assert (decision.rule, decision.reason) == ("stop_wanted", "Stopping")
    assert decision.status["attempts"][-1]["stop"]["reason"] == reason
    assert decision.actions[0] == SAVE
    assert decision.next_wake == ago(-150)
    assert "endedAt" not in decision.status["attempts"][-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": make_spec(maxAttemptSeconds=800)},
        {"spec": make_spec(image="other"), "attempt": make_attempt(generation=0)},
        {"nodes": make_nodes(NodeFacts("n3", mark="Unschedulable"))},
        {"nodes": make_nodes(NodeFacts("n1", is_cordoned=True))},
    ],
    ids=["the agent's own deadline comes first", "image edit", "another node's mark", "cordoned only"],
)
def test_what_can_wait_does_not_stop_a_run(changes):
    """Image, config, policy and health edits are taken at the next attempt."""
    assert decide(running(**changes)).rule == "attempt_runs"


def test_a_stop_of_an_attempt_without_a_job_touches_nothing():
    """Suspended between the status write and the creation of the job."""
    decision = decide(running(attempt=fresh_attempt(), jobs=(), pods=(), spec=make_spec(suspend=True)))
    assert decision.rule == "stop_wanted"
    assert not actions(decision, StopJob)


def test_a_stop_under_way_is_repeated_until_the_pods_are_gone():
    """A successor that knows only the status carries it on."""
    decision = decide(stopping())
    assert decision.rule == "stop_under_way"
    assert SAVE in decision.actions
    assert decision.next_wake == ago(-145)


@pytest.mark.parametrize(
    "observed",
    [
        stopping(jobs=(), pods=()),
        stopping(jobs=(), pods=(make_pod(0, is_departed=True),)),
        stopping(jobs=(), pods=(make_pod(1),), nodes=make_nodes(NodeFacts("n1", exists=False, ready=None))),
        stopping(seconds=150),
    ],
    ids=["all gone", "departed", "the rest is on a node that is gone", "time is over"],
)
def test_a_stop_is_done_when_nothing_can_save_any_more(observed):
    """The attempt ends with the wanted cause, and costs nothing."""
    decision = decide(observed)
    assert (decision.rule, decision.reason) == ("stop_done", "AttemptStopped")
    assert decision.status["attempts"][-1]["cause"] == "Suspended"
    assert decision.status["restarts"] == 0
    assert decision.next_wake == NOW


def test_a_pod_that_still_saves_is_waited_for():
    """The job is gone, one pod is left."""
    assert decide(stopping(jobs=(), pods=(make_pod(0),))).rule == "stop_under_way"


def test_leaving_a_marked_node_excludes_it():
    """The next attempt goes elsewhere although the label may vanish; the pods' ends do not hide it."""
    observed = running(nodes=make_nodes(NodeFacts("n1", mark="Unschedulable")))
    asked = decide(observed)
    assert (asked.rule, asked.status["nodes"]["excluded"]) == ("stop_wanted", ["n1"])
    left = applied(observed, asked, jobs=(), pods=(ended_pod(0, 10, words(10)), ended_pod(1, 10, words(10))))
    assert decide(left).status["nodes"]["excluded"] == ["n1"]


def test_suspension_and_resumption_are_two_attempts():
    """Suspended: nothing runs; false again: the next attempt starts, with nothing spent."""
    observed = stopping(jobs=(), pods=(), spec=make_spec(suspend=True))
    stopped = applied(observed, decide(observed))
    waiting = decide(stopped)
    assert (waiting.rule, waiting.reason) == ("run_suspended", "Suspended")
    resumed = replace(stopped, run=replace(stopped.run, spec=make_spec()))
    assert actions(decide(resumed), CreateJob)[0].attempt == 1


@pytest.mark.parametrize(("nodes", "reason"), [([], "Queued"), (["n0", "n1"], "Preempted")], ids=["before", "after"])
def test_a_queue_stops_all_clocks(nodes, reason):
    """Kueue suspends the job: free, no limit runs, the attempt stays open."""
    attempt = make_attempt(nodes=nodes, first_step_at=None)
    observed = running(attempt=attempt, jobs=(make_job(is_suspended=True),), pods=())
    decision = decide(observed)
    assert (decision.rule, decision.reason, decision.next_wake) == ("job_queued", reason, None)
    entry = decision.status["attempts"][-1]
    assert entry["isQueued"]
    assert "scheduledAt" not in entry
    assert decision.status["goodput"]["currentClass"] == "waitingCapacity"


def test_readmission_keeps_the_attempt_and_starts_its_clocks_anew():
    """Pods that the queue took away are no failure; an old answer is no first step."""
    queued = make_attempt(is_queued=True, last_queued_at=to_text(ago(100)), scheduled_at=None, first_step_at=None)
    old = make_pod(0, uid="old", is_departed=True, created_at=ago(500))
    pods = (
        old,
        make_pod(0, created_at=ago(20), scheduled_at=ago(10)),
        make_pod(1, created_at=ago(20), scheduled_at=ago(9)),
    )
    progress = make_progress(seconds_ago=40, step_age_seconds=70.0)
    decision = decide(running(attempt=queued, pods=pods, progress=progress))
    entry = decision.status["attempts"][-1]
    assert (decision.rule, entry["number"], entry.get("isQueued", False)) == ("attempt_runs", 0, False)
    assert entry["scheduledAt"] == to_text(ago(9))
    assert "firstStepAt" not in entry
    assert decision.next_wake == ago(9 - 1800)


def test_pods_that_end_while_the_queue_holds_the_job_are_no_failure():
    """training-operator may be late: it makes pods, or ends them, after the queue has suspended the job."""
    pods = (ended_pod(0, 10, words(10), created_at=ago(1)), make_pod(1, created_at=ago(1)))
    queued = make_attempt(is_queued=True, last_queued_at=to_text(ago(5)))
    decision = decide(running(attempt=queued, jobs=(make_job(is_suspended=True),), pods=pods))
    assert decision.rule == "job_queued"


@pytest.mark.parametrize("is_departed", [False, True], ids=["leaving", "gone"])
def test_pods_that_a_queue_took_in_the_second_in_which_they_were_made_are_no_failure(is_departed):
    """Creation times have whole seconds: of that second's pods the deleted ones are of the time before."""
    queued = make_attempt(is_queued=True, last_queued_at=to_text(ago(19.1)), scheduled_at=None, first_step_at=None)
    asked = None if is_departed else ago(19)
    taken = ended_pod(0, 10, words(10), uid="taken", created_at=ago(20), deleted_at=asked, is_departed=is_departed)
    pods = (taken, make_pod(0, created_at=ago(20)), make_pod(1, created_at=ago(20)))
    decision = decide(running(attempt=queued, pods=pods, progress=ProgressFacts(0)))
    assert (decision.rule, decision.status["attempt"]) == ("attempt_runs", 0)


MADE_BEFORE_START = {"created_at": ago(20), "scheduled_at": ago(19)}
"""training-operator makes the pods first where it has not written of the suspension, or has to write startTime anew."""


def admitted(*pods, started=18.0):
    """A queue held the job 100 s ago; it started `started` seconds ago, by its own word."""
    queued = make_attempt(is_queued=True, last_queued_at=to_text(ago(100)), scheduled_at=None, first_step_at=None)
    return running(attempt=queued, jobs=(make_job(started_at=ago(started)),), pods=pods, progress=ProgressFacts(0))


def test_pods_made_before_an_admitted_job_says_it_started_count():
    """They train; that they are older than startTime is training-operator's order of writing."""
    decision = decide(admitted(make_pod(0, **MADE_BEFORE_START), make_pod(1, **MADE_BEFORE_START)))
    assert (decision.rule, decision.status["attempts"][-1].get("scheduledAt")) == ("attempt_runs", to_text(ago(19)))


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (ended_pod(0, 0, words(0), **MADE_BEFORE_START), "Done"),
        (ended_pod(0, 30, words(30), **MADE_BEFORE_START), "DeviceSuspect"),
        (
            make_pod(0, disruption="EvictionByEvictionAPI", deleted_at=ago(9), is_departed=True, **MADE_BEFORE_START),
            "Drained",
        ),
    ],
    ids=["success", "failure", "drained"],
)
def test_what_such_pods_come_to_is_heard(end, cause):
    """A queue takes nothing after the start, so whatever ends then is the attempt's end."""
    decision = decide(admitted(end, make_pod(1, **MADE_BEFORE_START)))
    assert decision.status["attempts"][-1].get("cause") == cause


@pytest.mark.parametrize("deleted_at", [ago(40), None], ids=["deletion seen", "only gone"])
def test_pods_that_were_made_and_taken_while_the_queue_held_the_job_are_no_failure(deleted_at):
    """A late training-operator makes pods of a suspended job, sees that it is, and deletes them."""
    taken = ended_pod(0, 10, words(10), uid="taken", created_at=ago(50), deleted_at=deleted_at, is_departed=True)
    pods = (taken, make_pod(0, **MADE_BEFORE_START), make_pod(1, **MADE_BEFORE_START))
    decision = decide(admitted(*pods, started=30))
    assert (decision.rule, decision.status["attempt"]) == ("attempt_runs", 0)


def test_pods_that_nobody_took_from_a_job_that_a_queue_held_count_from_its_admission():
    """Suspended and readmitted before training-operator saw it: they train on, and have all their time for a step."""
    pods = tuple(make_pod(i, created_at=ago(5000), scheduled_at=ago(4990)) for i in (0, 1))
    decision = decide(admitted(*pods, started=4980))
    assert (decision.rule, decision.status["attempts"][-1].get("scheduledAt")) == ("attempt_runs", to_text(NOW))


def test_a_queued_run_that_is_suspended_by_its_user_stops():
    """The user's wish holds while a queue holds the job: stop first, then nothing waits in the queue."""
    observed = running(jobs=(make_job(is_suspended=True),), pods=(), spec=make_spec(suspend=True))
    assert decide(observed).rule == "stop_wanted"


def test_success_during_a_stop_is_success():
    """The last step was made while the stop was asked for."""
    decision = decide(stopping(pods=(ended_pod(0, 0, words(0)), make_pod(1))))
    assert decision.reason == "Succeeded"


def test_a_finished_stop_is_not_blamed_on_progress():
    """Nothing is booked as lost."""
    observed = stopping(jobs=(), pods=(), nodes=make_nodes(lost_node("n9")))
    assert "lost" not in decide(observed).status["goodput"]["secondsByClass"]


@pytest.mark.parametrize(("saved", "kept"), [(26, 60.0), (20, 0.0)], ids=["its last step", "an earlier step"])
def test_a_stop_loses_nothing_when_its_last_step_was_saved(saved, kept):
    """The poller heard of the last step long before; the pods' own words count."""
    stop = StopStatus(reason="NodeMarked", message="because.", requested_at=to_text(ago(5)))
    attempt = make_attempt(stop=stop, first_step_at=to_text(ago(65)))
    ledger = GoodputStatus(seconds_by_class={"training": 60.0}, current_class="stopping", accounted_until=to_text(NOW))
    said = words(10, step=26, durable_checkpoint={"step": saved, "age_seconds": 1.0})
    observed = running(
        status=make_status(attempt, goodput=ledger), jobs=(), pods=(ended_pod(0, 10, said),),
        progress=make_progress(step=7, durable_checkpoint=None, seconds_ago=60),
    )  # fmt: skip
    decision = decide(observed)
    assert decision.rule == "stop_done"
    assert decision.status["goodput"]["secondsByClass"]["training"] == kept


def test_no_attempt_no_stop():
    """Without an open attempt there is nothing to stop."""
    assert decide(idle(status=make_status(), spec=make_spec(suspend=True))).rule == "run_suspended"
