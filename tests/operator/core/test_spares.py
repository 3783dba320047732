"""Rules of runs with warm spares: who is out, who may yet take over, and when the attempt ends after all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import ReplacePod, StopJob
from trainrun_operator.core.observed import AgentFacts, NodeFacts, Observed
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
    pending_pod,
    running,
    silent,
    words,
)

WORKERS = {"replicas": 2, "spares": 1, "accelerator": "cpu"}
REMOVE = [ReplacePod("a-a0-worker-1", "pod-0-1")]


def seat(rank: int, seconds_ago: float = 1.0) -> AgentFacts:
    """An agent that answers, with a worker of that rank."""
    return AgentFacts(ago(seconds_ago), ranks=frozenset({rank}))


WARM = AgentFacts(ago(1))
STANDING = {"step_age_seconds": 30.0}


def spared(agents: dict[int, AgentFacts], *nodes: NodeFacts, **changes) -> Observed:
    """Attempt 0 on two workers, with a spare; `agents` by pod index."""
    progress = make_progress(agents=agents, **changes.pop("record", {}))
    fields = {
        "attempt": make_attempt(spares=1),
        "spec": make_spec(workers=WORKERS),
        "pods": tuple(make_pod(i) for i in range(3)),
    }
    return running(progress=progress, nodes=make_nodes(*nodes), **(fields | changes))


def test_while_members_and_spares_are_well_nothing_is_done():
    """All ranks are held by the members; the spare waits."""
    decision = decide(spared({0: seat(0), 1: seat(1), 2: WARM}))
    assert (decision.rule, decision.reason) == ("attempt_runs", "Running")
    assert actions(decision, ReplacePod) == []
    assert decide(spared({0: seat(0), 1: seat(1), 2: WARM}, NodeFacts("n2", is_cordoned=True))).rule == "attempt_runs"


def test_a_lost_member_is_removed_once_its_seat_is_taken():
    """Recorded first; the node is avoided; the pod's end explains nothing afterwards, and is pursued after a crash."""
    agents = {0: seat(0), 1: silent(10), 2: seat(1)}
    observed = spared(agents, lost_node("n1"))
    decision = decide(observed)
    assert decision.rule == "members_replaced"
    assert decision.next_wake == NOW
    assert actions(decision, ReplacePod) == REMOVE
    attempt = decision.status["attempts"][0]
    assert (attempt["replaced"], attempt["replacedPods"]) == (1, ["pod-0-1"])
    assert decision.status["nodes"]["excluded"] == ["n1"]
    assert "a-a0-worker-1: its agent does not answer, and node n1 is not Ready" in decision.message

    again = decide(applied(observed, decision))
    assert actions(again, ReplacePod) == REMOVE
    gone = tuple(replace(p, is_departed=p.index == 1) for p in observed.pods)
    after = decide(applied(observed, decision, pods=gone))
    assert (after.rule, actions(after, ReplacePod)) == ("attempt_runs", [])


def test_a_new_pod_of_an_old_index_inherits_no_silence():
    """Agents are known by index."""
    observed = spared({0: seat(0), 1: silent(10), 2: seat(1)})
    young = (make_pod(0), make_pod(1, uid="new", created_at=ago(5)), make_pod(2))
    assert decide(replace(observed, pods=young)).rule == "attempt_runs"


@pytest.mark.parametrize(
    ("node", "seconds", "says"),
    [
        (NodeFacts("n1", exists=False, ready=None), 6, "its agent does not answer, and node n1 is gone"),
        (NodeFacts("n1", is_cordoned=True), 60, "its agent does not answer"),
    ],
    ids=["node gone", "cut off"],
)
def test_what_is_known_of_the_node_is_told(node, seconds, says):
    """Also a pod on a node that is well may be cut off; or the node has died, and nobody knows it yet."""
    decision = decide(spared({0: seat(0), 1: silent(seconds), 2: seat(1)}, node))
    assert decision.rule == "members_replaced"
    assert f"{says};" in decision.message


def test_a_member_that_went_with_its_node_is_left_behind():
    """The garbage collector took its pod: there is nothing to remove, and its end explains nothing."""
    gone = (make_pod(0), make_pod(1, is_departed=True), make_pod(2))
    node = NodeFacts("n1", exists=False, ready=None)
    decision = decide(spared({0: seat(0), 1: silent(3), 2: seat(1)}, node, pods=gone))
    assert (decision.rule, actions(decision, ReplacePod)) == ("members_replaced", [])
    assert decision.status["attempts"][0]["replacedPods"] == ["pod-0-1"]
    assert "a-a0-worker-1: it is gone, and node n1 is gone" in decision.message
    waiting = decide(spared({0: seat(0), 1: silent(3), 2: WARM}, node, pods=gone, record=STANDING))
    assert waiting.rule == "takeover_awaited"


def test_pods_of_a_job_that_is_over_are_judged_as_ever():
    """training-operator takes its pods down."""
    gone = (make_pod(0), ended_pod(1, 31, words(31)), make_pod(2, is_departed=True))
    jobs = (make_job(0, has_failed=True),)
    decision = decide(spared({0: seat(0), 1: seat(1), 2: silent(10)}, pods=gone, jobs=jobs))
    assert decision.rule == "attempt_failed"


@pytest.mark.parametrize("node", [lost_node("n1"), NodeFacts("n1", exists=False, ready=None)], ids=["lost", "gone"])
def test_steps_since_a_pods_silence_say_that_another_trains_for_it(node):
    """Also while it cannot be told who: an agent has just missed an answer."""
    decision = decide(spared({0: silent(1), 1: silent(10), 2: seat(1)}, node))
    assert decision.rule == "node_suspected"


@pytest.mark.parametrize("nodes", [(), (NodeFacts("n1", exists=False, ready=None),)], ids=["deleted", "with its node"])
@pytest.mark.parametrize("missed", [0, 2])
def test_a_pod_that_is_gone_explains_nothing_while_another_trains_for_it(nodes, missed):
    """A busy machine misses one answer just when the pod goes: who has the seat is known a round later."""
    agents = {0: seat(0), 1: silent(10), 2: seat(1)} | {missed: silent(1)}
    gone = (make_pod(0), make_pod(1, is_departed=True), make_pod(2))
    decision = decide(spared(agents, *nodes, pods=gone))
    assert decision.rule in ("attempt_runs", "node_suspected")
    heard = decide(spared({0: seat(0), 1: silent(11), 2: seat(1)}, *nodes, pods=gone))
    assert heard.rule == "members_replaced"
    stands = decide(spared(agents, *nodes, pods=gone, record=STANDING))
    assert stands.rule != "attempt_runs", "no step since then: nobody has taken over"


def test_silence_must_last():
    """One missed answer is a busy machine; it is looked at again when it will be long enough."""
    decision = decide(spared({0: seat(0), 1: silent(2), 2: seat(1)}))
    assert (decision.rule, decision.next_wake) == ("attempt_runs", ago(-58))
    assert decision.watch is not None and decision.watch.is_suspect
    suspected = decide(spared({0: seat(0), 1: silent(2), 2: seat(1)}, lost_node("n1", seconds=3)))
    assert (suspected.rule, suspected.next_wake) == ("node_suspected", ago(-4))


@pytest.mark.parametrize(("seconds", "rule"), [(5, "node_suspected"), (6, "members_replaced")])
def test_a_spare_that_was_placed_on_a_lost_node_is_made_again(seconds, rule):
    """It does not run, so nobody asks its agent; and it tolerates the node for ever."""
    pods = (make_pod(0), make_pod(1), pending_pod(2, node="n2", is_scheduled=True))
    observed = spared({0: seat(0), 1: seat(1)}, lost_node("n2", seconds=seconds))
    decision = decide(replace(observed, pods=pods))
    assert decision.rule == rule
    assert rule == "node_suspected" or "it cannot start, and node n2 is not Ready" in decision.message


def test_a_member_that_is_silent_but_not_replaced_is_left_alone():
    """Nobody else says that it holds the rank."""
    decision = decide(spared({0: seat(0), 1: silent(10), 2: WARM}))
    assert (decision.rule, actions(decision, ReplacePod)) == ("attempt_runs", [])


def test_a_spare_on_a_marked_node_is_removed_and_a_member_on_one_is_stopped_with_all():
    """The spare has nothing to save."""
    mark = {"mark": "UnschedulablePendingReplacement"}
    well = {0: seat(0), 1: seat(1), 2: WARM}
    decision = decide(spared(well, NodeFacts("n2", **mark)))
    assert (decision.rule, actions(decision, ReplacePod)) == (
        "members_replaced", [ReplacePod("a-a0-worker-2", "pod-0-2")],
    )  # fmt: skip
    assert decide(spared(well, NodeFacts("n1", **mark))).rule == "stop_wanted"


MARKED = NodeFacts("n2", mark="UnschedulablePendingReplacement")


@pytest.mark.parametrize(
    ("agents", "wake"),
    [
        ({}, ago(-6)),
        ({0: seat(0)}, ago(-6)),
        ({0: seat(0), 1: silent(2), 2: WARM}, ago(-4)),
        ({0: seat(0), 1: silent(20), 2: silent(5)}, ago(-1)),
    ],
    ids=["nobody asked yet", "not all asked yet", "a member missed an answer", "it missed one itself"],
)
def test_a_mark_waits_for_answers_that_may_tell_who_holds_the_seats(agents, wake):
    """To stop all of them for the sake of a spare would be vain; everybody is asked meanwhile."""
    decision = decide(spared(agents, MARKED))
    assert (decision.rule, decision.next_wake) == ("attempt_runs", wake)
    assert decision.watch is not None
    assert decision.watch.ask_all


@pytest.mark.parametrize(
    ("agents", "changes"),
    [
        ({0: seat(0), 1: silent(6), 2: WARM}, {}),
        ({0: seat(0), 1: silent(2), 2: seat(1)}, {}),
        ({0: seat(0), 1: WARM, 2: WARM}, {}),
        ({}, {"attempt": make_attempt(spares=1, first_step_at=None), "record": {"step_age_seconds": None}}),
    ],
    ids=["silence lasts", "it says that it has one", "answers do not tell", "nothing is trained yet"],
)
def test_a_mark_does_not_wait_for_what_answers_will_not_tell(agents, changes):
    """The pod may hold a seat, so all save."""
    assert decide(spared(agents, MARKED, **changes)).rule == "stop_wanted"


@pytest.mark.parametrize(
    ("agents", "nodes", "changes"),
    [
        ({0: seat(0), 1: silent(10), 2: WARM}, [lost_node("n1")], {}),
        ({0: seat(0), 1: seat(1), 2: WARM}, [NodeFacts("n1", exists=False, ready=None)], {}),
        ({0: silent(2), 1: silent(10), 2: silent(2)}, [lost_node("n1")], {}),
    ],
    ids=["not ready", "gone and not asked since", "others missed one answer"],
)
def test_a_lost_member_gives_the_spare_a_moment(agents, nodes, changes):
    """Nothing is aborted meanwhile."""
    decision = decide(spared(agents, *nodes, record=STANDING, **changes))
    assert decision.rule == "takeover_awaited"
    assert actions(decision, StopJob) == []
    assert decision.next_wake is not None and decision.next_wake > NOW


@pytest.mark.parametrize(
    ("agents", "node", "changes"),
    [
        ({0: seat(0), 1: silent(25), 2: WARM}, "n1", {}),
        ({0: silent(10), 1: seat(1), 2: WARM}, "n0", {}),
        ({0: seat(0), 1: silent(10), 2: silent(10)}, "n1", {}),
        ({0: seat(0), 1: silent(10)}, "n1", {"pods": (make_pod(0), make_pod(1), pending_pod(2))}),
        ({0: seat(0), 1: silent(10), 2: WARM}, "n1", {"pods": (make_pod(0), make_pod(1), ended_pod(2, 1, words(1)))}),
    ],
    ids=["its time is over", "worker 0", "the spare is silent too", "the spare has no node", "the spare has failed"],
)
def test_where_no_spare_can_take_over_the_attempt_ends(agents, node, changes):
    """As without spares."""
    decision = decide(spared(agents, lost_node(node, seconds=26), record=STANDING, **changes))
    assert decision.rule == "node_lost"
    assert len(actions(decision, StopJob)) == 1
    assert "replacedPods" not in decision.status["attempts"][0]


@pytest.mark.parametrize(("seconds", "rule"), [(49, "node_suspected"), (50, "takeover_awaited")])
def test_an_operator_that_has_just_begun_asks_before_it_judges(seconds, rule):
    """It has heard no agent yet: without spares 30 s of NotReady would do."""
    decision = decide(spared({}, lost_node("n1", seconds=seconds), record={"step_age_seconds": 15.0}))
    assert decision.rule == rule


def test_a_failure_that_can_be_explained_is_not_waited_over():
    """A pod failed with a contract code while a node is lost: its word comes first in due course, the wait does not."""
    pods = (make_pod(0), make_pod(1), make_pod(2), ended_pod(3, 31, words(31)))
    decision = decide(
        spared({0: seat(0), 1: silent(10), 2: WARM}, lost_node("n1", seconds=26), record=STANDING, pods=pods)
    )
    assert decision.rule == "node_lost"


def test_standstill_waits_for_the_spare_and_then_is_judged():
    """A member is silent, its node is well: a stall, but first the spare's turn."""
    waiting = decide(spared({0: seat(0), 1: silent(10), 2: WARM}, record=STANDING))
    assert (waiting.rule, waiting.reason, waiting.next_wake) == ("stalled", "Running", ago(-10))
    judged = decide(spared({0: seat(0), 1: silent(21), 2: WARM}, record=STANDING))
    assert judged.status["attempts"][0]["cause"] == "MemberSilent"


def test_two_pods_beside_a_missing_worker_0_are_no_gang():
    """The spare has a node, worker 0 has none: it waits for capacity all the same."""
    pods = (pending_pod(0), make_pod(1, scheduled_at=ago(90)), make_pod(2, scheduled_at=ago(90)))
    attempt = fresh_attempt(spares=1, job_uid="job-0", started_at=to_text(ago(100)))
    decision = decide(spared({}, attempt=attempt, pods=pods))
    assert decision.rule == "waiting_for_capacity"
    assert decision.message.startswith("1 of 2 pods have no node")
