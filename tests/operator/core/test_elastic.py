"""`spec.workers.minReplicas`: on with fewer workers, and back to all of them."""

from __future__ import annotations

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import CreateJob, RecordEvent, StopJob
from trainrun_operator.core.elastic import GROW_LONGEST_SECONDS
from trainrun_operator.core.nodes import usable
from trainrun_operator.core.observed import NodeFacts, ProgressFacts
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    NOW,
    actions,
    ago,
    applied,
    closed_attempt,
    idle,
    lost_node,
    make_attempt,
    make_nodes,
    make_pod,
    make_run,
    make_spec,
    make_status,
    pending_pod,
    running,
)

GANG = {"replicas": 4, "minReplicas": 2, "accelerator": "cpu"}
SPEC = make_spec(workers=GANG)


def waiting(held: float, scheduled: int = 3, *history, spec=SPEC, attempt=None, **changes):
    """Attempt 2 has nodes for some of its workers, the newest since that long."""
    fields = {"replicas": 4, "scheduled_at": None, "first_step_at": None, "started_at": to_text(ago(400)), "nodes": []}
    current = make_attempt(2, **(fields | (attempt or {})))
    size = current.replicas
    pods = [make_pod(i, 2, scheduled_at=ago(held), phase="Pending") for i in range(scheduled)]
    pods += [pending_pod(i, number=2) for i in range(scheduled, size)]
    return running(
        attempt=current,
        status=make_status(*history, current),
        spec=spec,
        pods=tuple(pods),
        nodes=changes.pop("nodes", make_nodes(total=8)),
        progress=ProgressFacts(2),
        **changes,
    )


def short(**changes):
    """Attempt 2 trains on 3 of 4 workers since 880 s ago and waits for 4 good nodes."""
    fields = {"replicas": 3, "wanted_replicas": 4, "nodes_for_all": 4, "nodes": ["n0", "n1", "n2"]}
    current = make_attempt(2, **(fields | changes.pop("attempt", {})))
    history = changes.pop("history", (closed_attempt(1, "GangIncomplete", scheduled_replicas=3),))
    pods = tuple(make_pod(i, 2) for i in range(3))
    status = make_status(*history, current)
    return running(attempt=current, status=status, pods=pods, spec=changes.pop("spec", SPEC), **changes)


# -- fewer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "rule"), [(299, "waiting_for_capacity"), (300, "fewer_workers")])
def test_a_part_of_the_gang_goes_on_after_the_patience(held, rule):
    """Free, said as a warning, and at once."""
    decision = decide(waiting(held))
    assert decision.rule == rule
    if rule == "waiting_for_capacity":
        assert f"It goes on with 3 of 4 workers at {to_text(ago(-1))} if nothing changes." in decision.message
        assert decision.next_wake == ago(-1)
        return
    assert decision.actions[0] == StopJob("a-a2", "job-2", "abort", 1)
    assert (decision.next_wake, decision.status["restarts"]) == (NOW, 0)
    assert [(e.type, e.reason) for e in actions(decision, RecordEvent)] == [("Warning", "FewerWorkers")]
    assert decision.message == (
        "Attempt 2 got nodes for 3 of 4 workers; the run goes on with 3 (spec.workers.minReplicas=2). "
        "The scheduler says: 0/3 nodes are available."
    )
    closed = decision.status["attempts"][-1]
    assert (closed["cause"], closed["scheduledReplicas"]) == ("GangIncomplete", 3)
    assert closed["action"] == "Goes on with 3 of 4 workers."


def test_the_next_attempt_is_as_large_as_there_were_nodes():
    """And remembers what was wanted, and how many good nodes it takes to have that."""
    before = waiting(300)
    decision = decide(applied(before, decide(before), jobs=(), pods=()))
    assert decision.rule == "attempt_starts"
    assert actions(decision, CreateJob) == [CreateJob(3, 3, ())]
    newest = decision.status["attempts"][-1]
    assert (newest["replicas"], newest["wantedReplicas"], newest["nodesForAll"]) == (3, 4, 9)
    assert decision.status["replicas"] == 3
    assert "starts on 3 of 4 workers, after GangIncomplete of attempt 2." in decision.message


@pytest.mark.parametrize(
    ("scheduled", "least", "rule"),
    [(1, 2, "gang_incomplete"), (1, 1, "fewer_workers"), (3, None, "gang_incomplete")],
    ids=["fewer than minReplicas", "one is enough", "no minReplicas"],
)
def test_too_few_give_their_nodes_back(scheduled, least, rule):
    """As without minReplicas."""
    spec = make_spec(workers=GANG | {"minReplicas": least})
    assert decide(waiting(300, scheduled, spec=spec)).rule == rule


def test_a_size_that_the_batch_cannot_be_shared_over_is_left_out():
    """24 rows go to 4 and to 3 workers, not to 5: of 5 nodes 4 are used, and one good node suffices for all 6."""
    spec = make_spec(workers=GANG | {"replicas": 6})
    before = waiting(300, 5, spec=spec, attempt={"replicas": 6})
    decision = decide(before)
    assert "got nodes for 5 of 6 workers; the run goes on with 4" in decision.message
    started = decide(applied(before, decision, jobs=(), pods=())).status["attempts"][-1]
    assert (started["replicas"], started["nodesForAll"]) == (4, 9)


def test_a_program_of_the_user_s_own_takes_any_size():
    """It is its own judge."""
    spec = make_spec(workers=GANG | {"replicas": 6}, config=None, command=["train.py"])
    assert "the run goes on with 5" in decide(waiting(300, 5, spec=spec, attempt={"replicas": 6})).message


THREE = make_nodes(total=3)
MANY_NOT_READY = make_nodes(*(lost_node(f"x{i}") for i in range(5)), total=8)
BEFORE = closed_attempt(1, "NodeLost", replicas=3, wanted_replicas=4)


@pytest.mark.parametrize(
    ("held", "changes", "history", "rule"),
    [
        (29, {"nodes": THREE}, (), "waiting_for_capacity"),
        (30, {"nodes": THREE}, (), "fewer_workers"),
        (30, {"nodes": MANY_NOT_READY}, (), "waiting_for_capacity"),
        (30, {}, (BEFORE,), "fewer_workers"),
        (30, {"attempt": {"wanted_replicas": 5}}, (), "fewer_workers"),
        (30, {"nodes": THREE, "spec": make_spec(workers=GANG | {"minReplicas": None})}, (), "waiting_for_capacity"),
    ],
    ids=["young", "fewer good nodes than workers", "an outage hides nodes", "short before", "short now", "no min"],
)
def test_what_cannot_be_had_is_not_waited_for_long(held, changes, history, rule):
    """30 s instead of 5 minutes."""
    assert decide(waiting(held, 3, *history, **changes)).rule == rule


@pytest.mark.parametrize(
    ("last", "replicas"),
    [
        (closed_attempt(0, "GangIncomplete", scheduled_replicas=3), 3),
        (closed_attempt(0, "GangIncomplete"), 4),
        (closed_attempt(0, "NodeLost", scheduled_replicas=3, replicas=3, wanted_replicas=4), 4),
        (closed_attempt(0, "GangIncomplete", scheduled_replicas=1), 4),
    ],
    ids=["lacked nodes", "gave nodes back", "another cause", "minReplicas was raised since"],
)
def test_every_other_attempt_asks_for_all(last, replicas):
    """So capacity that returned is taken with the next attempt, whatever its cause."""
    decision = decide(idle(last, spec=SPEC))
    assert actions(decision, CreateJob)[0].replicas == replicas
    assert decision.status["attempts"][-1].get("wantedReplicas") == (None if replicas == 4 else 4)


# -- and back ------------------------------------------------------------------------------------------


def test_training_on_fewer_is_told():
    """Ready, with both numbers, and looked at every minute."""
    decision = decide(short(nodes=THREE))
    assert (decision.rule, decision.reason) == ("attempt_runs", "RunningOnFewerWorkers")
    assert decision.message == "Attempt 2 trains on 3 of 4 workers; the next attempt asks for all."
    assert decision.next_wake == ago(-60)


@pytest.mark.parametrize(
    ("nodes", "rule"),
    [
        (make_nodes(total=4), "stop_wanted"),
        (make_nodes(total=3), "attempt_runs"),
        (make_nodes(NodeFacts("x", mark="Unschedulable"), total=4), "attempt_runs"),
        (make_nodes(NodeFacts("x", is_cordoned=True), total=4), "attempt_runs"),
    ],
    ids=["enough", "too few", "one is marked", "one is cordoned"],
)
def test_good_nodes_for_all_stop_the_attempt(nodes, rule):
    """A save: nothing is lost."""
    decision = decide(short(nodes=nodes))
    assert decision.rule == rule
    if rule == "stop_wanted":
        assert decision.status["attempts"][-1]["stop"]["reason"] == "CapacityReturned"
        assert "it runs on 3 of 4 workers, and enough good nodes for all are there (4)." in decision.message
        assert actions(decision, StopJob)[0].mode == "save"


@pytest.mark.parametrize(
    ("seconds", "times", "rule"),
    [(599, 0, "attempt_runs"), (600, 0, "stop_wanted"), (1199, 1, "attempt_runs"), (1200, 1, "stop_wanted")],
)
def test_an_attempt_on_fewer_trains_for_a_while(seconds, times, rule):
    """10 minutes, doubled by each stop after which the nodes could not be had."""
    vain = [closed_attempt(n, c) for n, c in enumerate(("CapacityReturned", "GangIncomplete") * times)]
    decision = decide(
        short(history=(*vain, closed_attempt(1, "NodeLost")), attempt={"first_step_at": to_text(ago(seconds))})
    )
    assert decision.rule == rule
    if rule == "attempt_runs":
        assert decision.next_wake == ago(-60)  # rather than in a second


def test_the_time_between_stops_is_bounded():
    """However often it was in vain."""
    vain = [closed_attempt(n, c) for n, c in enumerate(("CapacityReturned", "GangIncomplete") * 9)]
    first = to_text(ago(GROW_LONGEST_SECONDS))
    assert decide(short(history=vain, attempt={"first_step_at": first})).rule == "stop_wanted"


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": {"nodes_for_all": None}},
        {"attempt": {"last_queued_at": to_text(ago(900))}},
        {"run": {"has_queue": True}},
        {"spec": make_spec(workers=GANG | {"replicas": 3})},
    ],
    ids=["another version's", "was queued", "has a queue", "no more are wanted now"],
)
def test_what_could_not_get_more_is_not_stopped_for_it(changes):
    """A queue may not give what the nodes could."""
    run = changes.pop("run", {})
    observed = short(**changes)
    observed = short(run=make_run(observed.run.status, observed.run.spec, **run), **changes)
    assert decide(observed).rule == "attempt_runs"


@pytest.mark.parametrize(
    ("replicas", "rule"), [(3, "attempt_runs"), (4, "attempt_runs"), (5, "stop_wanted"), (2, "stop_wanted")]
)
def test_a_changed_number_of_workers_still_stops_it(replicas, rule):
    """But not the number that it runs on, nor the one that it waits for."""
    decision = decide(
        short(spec=make_spec(workers=GANG | {"replicas": replicas}, config=None, command=["x"]), nodes=THREE)
    )
    assert decision.rule == rule
    if rule == "stop_wanted":
        assert f"spec.workers.replicas went from 4 to {replicas}." in decision.message


def test_usable_nodes_are_those_that_exist_and_are_good():
    """An avoided node that is gone is not subtracted from those that are there."""
    nodes = make_nodes(
        lost_node("a"),
        NodeFacts("b", mark="Odd"),
        NodeFacts("c", is_cordoned=True),
        NodeFacts("avoided"),
        NodeFacts("well again"),
        NodeFacts("gone", exists=False, ready=None),
        total=8,
    )
    assert usable(nodes, ("avoided", "gone", "never seen")) == 4
