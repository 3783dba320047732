"""Rules for a run without an open attempt."""

from __future__ import annotations

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, StopJob
from trainrun_operator.core.observed import NodeFacts, Rival
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    applied,
    closed_attempt,
    idle,
    make_job,
    make_nodes,
    make_pod,
    make_spec,
    make_status,
)


def test_the_first_attempt_is_number_0():
    """On record and created in one pass; the next pass looks whether it is there."""
    decision = decide(idle())
    assert (decision.rule, decision.reason, decision.next_wake) == ("attempt_starts", "AttemptStarted", NOW)
    assert actions(decision, CreateJob) == [CreateJob(0, 2, ())]
    entry = decision.status["attempts"][0]
    assert (entry["number"], entry["job"], entry["generation"], entry["replicas"]) == (0, "a-a0", 1, 2)
    assert "jobUID" not in entry
    assert (decision.status["attempt"], decision.status["replicas"]) == (0, 2)
    assert decision.status["selector"] == "trainrun.dev/run=a"


@pytest.mark.parametrize(("replicas", "words"), [(1, "on 1 worker,"), (2, "on 2 workers,")])
def test_a_start_is_told_with_its_workers(replicas, words):
    """In English."""
    spec = make_spec(workers={"replicas": replicas, "devicesPerWorker": 1, "accelerator": "cpu"})
    assert words in decide(idle(spec=spec)).message


@pytest.mark.parametrize(
    ("history", "jobs", "number"),
    [
        ((closed_attempt(3),), (), 4),
        ((), (make_job(6),), 7),
        ((closed_attempt(3),), (make_job(6),), 7),
        ((closed_attempt(3),), (make_job(1),), 4),
    ],
    ids=["status", "jobs after a lost status", "jobs ahead", "old job"],
)
def test_numbers_are_never_used_twice(history, jobs, number):
    """1 + the highest of status and labels of owned jobs."""
    assert actions(decide(idle(*history, jobs=jobs)), CreateJob)[0].attempt == number


def test_an_old_job_is_deleted_before_the_new_one_is_created():
    """Never two live attempts."""
    decision = decide(idle(closed_attempt(0), jobs=(make_job(0),)))
    assert [type(a) for a in decision.actions[:2]] == [StopJob, CreateJob]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"spec": make_spec(suspend=True)}, "run_suspended"),
        ({"jobs": (make_job(is_owned=False),)}, "previous_run_terminating"),
        ({"pods": (make_pod(is_owned=False),)}, "previous_run_terminating"),
        ({"rival": Rival("default", "older")}, "checkpoint_path_in_use"),
        ({"status": make_status(closed_attempt(), next_attempt_at=to_text(ago(-7)))}, "restart_delayed"),
        ({"pods": (make_pod(is_owned=False, is_departed=True),)}, "attempt_starts"),
        ({"status": make_status(closed_attempt(), next_attempt_at=to_text(NOW))}, "attempt_starts"),
    ],
    ids=["suspended", "old job", "old pod", "rival", "back-off", "old pod gone", "back-off over"],
)
def test_what_stands_against_a_start(changes, rule):
    """Each has its own reason and creates nothing."""
    decision = decide(idle(**changes))
    assert decision.rule == rule
    assert bool(actions(decision, CreateJob)) == (rule == "attempt_starts")


def test_a_back_off_names_its_end():
    """And wakes the operator then."""
    decision = decide(idle(status=make_status(closed_attempt(), next_attempt_at=to_text(ago(-7)))))
    assert decision.next_wake == ago(-7)
    assert to_text(ago(-7)) in decision.message


def test_the_younger_of_two_runs_on_one_path_names_the_older():
    """Stalled, with what to do."""
    decision = decide(idle(rival=Rival("team", "older")))
    assert "team/older" in decision.message
    assert {c["type"]: c["status"] for c in decision.status["conditions"]}["Stalled"] == "True"


@pytest.mark.parametrize(
    ("node", "excluded"),
    [
        (None, ()),
        (NodeFacts("n1", ready=False, not_ready_since=ago(900)), ()),
        (NodeFacts("n1", ready_since=ago(599)), ("n1",)),
        (NodeFacts("n1", ready_since=ago(600)), ()),
        (NodeFacts("n1", ready_since=ago(600), mark="Unschedulable"), ("n1",)),
        (NodeFacts("n1", exists=False, ready=None), ()),
    ],
    ids=["unknown", "not ready", "ready again, young", "ready for 10 min", "marked", "gone"],
)
def test_a_blamed_node_is_avoided_until_it_is_well_for_10_minutes(node, excluded):
    """A flapping node must not get the run back at once; one that takes no pods now may end the wait of a run without
    a spare when it comes back."""
    status = make_status(closed_attempt(0, "NodeLost", ended_at=to_text(ago(800))), nodes={"excluded": ["n1"]})
    observed = idle(status=status, nodes=make_nodes(*([node] if node else [])))
    decision = decide(observed)
    assert actions(decision, CreateJob)[0].excluded_nodes == excluded
    assert decision.status["attempts"][-1].get("excluded", []) == list(excluded)


@pytest.mark.parametrize(("left", "excluded"), [(599, ("n1",)), (600, ())], ids=str)
def test_a_node_that_never_stopped_being_ready_is_avoided_for_10_minutes_too(left, excluded):
    """Kubernetes may not know yet that it is dead."""
    last = closed_attempt(0, "MemberSilent", ended_at=to_text(ago(left)))
    status = make_status(last, nodes={"excluded": ["n1"]})
    observed = idle(status=status, nodes=make_nodes(NodeFacts("n1", ready_since=ago(90_000))))
    assert actions(decide(observed), CreateJob)[0].excluded_nodes == excluded
    unknown = idle(status=make_status(nodes={"excluded": ["n1"]}), nodes=observed.nodes)
    assert actions(decide(unknown), CreateJob)[0].excluded_nodes == ()


@pytest.mark.parametrize(
    ("total", "deviating", "excluded"),
    [
        (4, (), ("n0", "n1")),
        (3, (), ("n0",)),
        (2, (), ()),
        (4, (NodeFacts("n3", ready=False),), ("n0",)),
        (4, (NodeFacts("n0", ready=False),), ("n1",)),
    ],
    ids=["room for all", "room for one", "no room", "a node less", "one is down already"],
)
def test_a_numerical_fault_is_replayed_elsewhere_as_far_as_there_is_room(total, deviating, excluded):
    """One replay on other nodes tells a bad device from a bad program; no room: it runs anyway."""
    observed = idle(closed_attempt(0, "NumericalFault"), nodes=make_nodes(*deviating, total=total))
    assert actions(decide(observed), CreateJob)[0].excluded_nodes == excluded


def test_a_start_is_decided_once():
    """The next pass finds the attempt open and only creates its job."""
    observed = idle()
    decision = decide(observed)
    again = decide(applied(observed, decision))
    assert again.rule == "job_missing"
    assert len(again.status["attempts"]) == 1


def test_history_keeps_the_last_20_attempts():
    """The number goes on, the list is bounded."""
    decision = decide(idle(*(closed_attempt(n) for n in range(20))))
    assert [a["number"] for a in decision.status["attempts"]] == list(range(1, 21))
