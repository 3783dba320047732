"""When a node is lost, marked or only suspected."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.nodes import (
    EXCLUDED_KEPT,
    NodeVerdicts,
    is_held,
    judge,
    wake_for,
    with_excluded,
)
from trainrun_operator.core.observed import AgentFacts, NodeFacts, ProgressFacts
from trainrun_operator.core.situation import situate

from tests.operator.builders import (
    NOW,
    ago,
    ended_pod,
    lost_node,
    make_nodes,
    make_pod,
    make_progress,
    make_status,
    running,
    silent,
    words,
)

STANDING = make_progress(step_age_seconds=30.0, agents={0: AgentFacts(ago(1)), 1: silent()})
MOVING = make_progress(agents={0: AgentFacts(ago(1)), 1: silent()})

REFUSING = make_progress(step_age_seconds=30.0, agents={0: AgentFacts(ago(1)), 1: silent(why="refused")})
UNASKED = make_progress(step_age_seconds=30.0, agents={0: AgentFacts(ago(1))})


def verdicts(**changes) -> NodeVerdicts:
    """Judge the nodes of a running attempt."""
    return judge(situate(running(**changes)))


@pytest.mark.parametrize(
    ("node", "progress", "why_not"),
    [
        (lost_node("n1"), STANDING, None),
        (lost_node("n1", ready=None), STANDING, None),
        (lost_node("n1"), MOVING, "the run made steps since then"),
        (lost_node("n1", seconds=1), make_progress(step_age_seconds=1.0, agents={1: silent()}), None),
        (lost_node("n1"), make_progress(step_age_seconds=30.0), "its agent answers, or was not asked yet"),
        (lost_node("n1"), UNASKED, "its agent answers, or was not asked yet"),
        (lost_node("n1"), REFUSING, "it refuses connections, so it is there: no agent listens on it yet, or no longer"),
        (lost_node("n1", is_stale=True), STANDING, "nothing was heard of it since the API server answers again"),
        (lost_node("n1", seconds=29), ProgressFacts(0), "no agent of this attempt was heard yet"),
        (lost_node("n1", seconds=30), ProgressFacts(0), None),
        (lost_node("n1", seconds=30), ProgressFacts(0, agents={1: AgentFacts(None, ago(20))}), None),
        (NodeFacts("n1", ready=False), ProgressFacts(0), "no agent of this attempt was heard yet"),
    ],
    ids=[
        "lost", "Ready unknown", "steps since", "step within the clocks' tolerance", "agent answers", "agent not asked",
        "connection refused",
        "stale", "mute image, young", "mute image", "agents never up", "no transition time",
    ],
)  # fmt: skip
def test_not_ready_is_lost_only_with_a_silent_agent_and_a_standing_step(node, progress, why_not):
    """Each missing piece of evidence has its own words."""
    result = verdicts(nodes=make_nodes(node), progress=progress)
    if why_not is None:
        assert (set(result.lost), result.suspect) == ({"n1"}, {})
    else:
        assert (result.lost, result.suspect) == ({}, {"n1": why_not})


@pytest.mark.parametrize(
    ("node", "progress", "sentence"),
    [
        (NodeFacts("n1", mark="Unschedulable"), STANDING, "node n1: HyperPod marks it Unschedulable."),
        (
            NodeFacts("n1", mark="UnschedulablePendingReplacement", fault="XidFault: XID 74", instance_group="workers"),
            STANDING,
            "node n1 (instance group workers): HyperPod marks it UnschedulablePendingReplacement, XidFault: XID 74.",
        ),
        (
            lost_node("n1", fault="XidFault: XID 74", instance_group="workers"),
            STANDING,
            "Node n1 (instance group workers) is lost: it is not Ready, its agent does not answer and the step stands "
            "still; HyperPod reports XidFault: XID 74.",
        ),
        (
            lost_node("n1", fault="XidFault: XID 74", instance_group="workers"),
            MOVING,
            "n1 (instance group workers) not Ready, but that is no ground for a verdict yet: the run made steps since "
            "then; HyperPod reports XidFault: XID 74.",
        ),
    ],
    ids=["marked", "marked with a fault", "lost", "suspected"],
)
def test_what_hyperpod_says_of_a_node_is_evidence(node, progress, sentence):
    """Told where it is known."""
    assert sentence in decide(running(nodes=make_nodes(node), progress=progress)).message


@pytest.mark.parametrize(("seconds", "is_lost"), [(29, False), (30, True)])
def test_a_pod_that_just_came_to_a_node_has_had_no_time_to_be_heard(seconds, is_lost):
    """After an API outage the scheduler placed it on a node that was not Ready for a minute already."""
    pods = (make_pod(0), make_pod(1, scheduled_at=ago(seconds)))
    observed = running(pods=pods, nodes=make_nodes(lost_node("n1", seconds=60)), progress=ProgressFacts(0))
    assert bool(judge(situate(observed)).lost) == is_lost
    assert is_lost or wake_for(situate(observed)) == ago(-1)


@pytest.mark.parametrize("node", [NodeFacts("n1"), lost_node("n1"), NodeFacts("n1", mark="Unschedulable")])
def test_what_hyperpod_says_of_a_fault_decides_nothing(node):
    """With it and without it, the same is done."""
    told = replace(node, fault="XidFault: XID 74", instance_group="workers")
    plain, with_words = (decide(running(nodes=make_nodes(n), progress=MOVING)) for n in (node, told))
    assert (plain.rule, plain.reason, plain.next_wake) == (with_words.rule, with_words.reason, with_words.next_wake)
    assert [type(a) for a in plain.actions] == [type(a) for a in with_words.actions]


def test_a_node_whose_object_is_gone_is_lost_at_once():
    """Also if its pod went with it."""
    gone = make_nodes(NodeFacts("n1", exists=False, ready=None))
    assert set(verdicts(nodes=gone).lost) == {"n1"}
    assert set(verdicts(nodes=gone, pods=(make_pod(0), make_pod(1, is_departed=True))).lost) == {"n1"}


@pytest.mark.parametrize(
    ("pods", "mark"),
    [
        ((make_pod(0), ended_pod(1, 1, words(1))), "Unschedulable"),
        ((make_pod(0), make_pod(1, node="n0")), "Unschedulable"),
        ((make_pod(0), make_pod(1, is_departed=True)), "Unschedulable"),
    ],
    ids=["pod has ended", "no pod on it", "pod has gone"],
)
def test_nodes_that_the_run_does_not_use_do_not_matter(pods, mark):
    """Nothing to move."""
    assert verdicts(pods=pods, nodes=make_nodes(NodeFacts("n1", mark=mark))) == NodeVerdicts({}, {}, {})


@pytest.mark.parametrize(
    ("not_ready", "total", "seconds", "held"),
    [
        (2, 4, 10, False), (3, 4, 10, True), (3, 100, 10, False),
        (10, 100, 10, False), (11, 100, 10, True), (11, 100, 600, False),
    ],
)  # fmt: skip
def test_many_nodes_at_once_hold_every_verdict(not_ready, total, seconds, held):
    """More than max(2, 10%), for 10 minutes: then it is real."""
    nodes = make_nodes(*(lost_node(f"n{i}", seconds=seconds) for i in range(not_ready)), total=total)
    assert is_held(nodes, NOW) == held
    result = verdicts(
        nodes=nodes, progress=make_progress(step_age_seconds=700, agents={0: silent(650), 1: silent(650)})
    )
    assert bool(result.lost) != held


def test_nodes_that_are_gone_or_only_marked_do_not_hold_verdicts():
    """Somebody took them on purpose."""
    gone = [NodeFacts(f"n{i}", exists=False, ready=None) for i in range(3)]
    marked = [NodeFacts(f"m{i}", mark="Unschedulable") for i in range(3)]
    assert not is_held(make_nodes(*gone, *marked), NOW)


def test_a_common_cause_without_times_is_held():
    """No transition time: as if it had just begun."""
    assert is_held(make_nodes(*(NodeFacts(f"n{i}", ready=False) for i in range(3))), NOW)


@pytest.mark.parametrize(("seconds", "wake"), [(10, ago(-20)), (100, ago(-500)), (700, None)])
def test_time_alone_may_turn_a_suspicion_into_a_verdict(seconds, wake):
    """After 30 s for a mute image, after 10 min for a common cause."""
    assert wake_for(situate(running(nodes=make_nodes(lost_node("n1", seconds=seconds))))) == wake


def test_the_list_of_excluded_nodes_is_bounded_and_has_no_doubles():
    """The newest last."""
    status = with_excluded(make_status(), ("a", "b"))
    assert with_excluded(status, ("a",)).nodes.excluded == ["b", "a"]
    many = with_excluded(status, tuple(f"n{i}" for i in range(EXCLUDED_KEPT)))
    assert many.nodes.excluded == [f"n{i}" for i in range(EXCLUDED_KEPT)]
