"""Nodes that are taken away from a run while they still work, and nodes that are not there."""

from __future__ import annotations

import pytest

from tests.nodes.trainee import BETWEEN_CHECKPOINTS, Traces
from tests.nodes.user import NodeUser

pytestmark = pytest.mark.timeout(900)


@pytest.mark.soak
def test_hyperpod_marks_a_node_that_still_works(user: NodeUser, calm: Traces) -> None:
    """The run saves where it is, leaves the node, and repeats no step."""
    traces = user.create_run("marked")
    user.wait_step("marked", BETWEEN_CHECKPOINTS)
    marked = user.node_of(user.pods("marked")[1])
    with user.node_marked(marked, "UnschedulablePendingReplacement"):
        pods = user.wait_running("marked", 1)
        assert marked.name not in {pod["spec"]["nodeName"] for pod in pods}
        user.wait_succeeded("marked")
    assert user.attempts("marked") == [(0, "NodeMarked"), (1, "Done")]
    traces.assert_no_step_repeated()
    traces.assert_same_bits(calm)


def test_a_node_is_drained(user: NodeUser, calm: Traces) -> None:
    """kubectl drain evicts one worker: all of them save before it goes, and repeat no step elsewhere."""
    traces = user.create_run("drained")
    user.wait_step("drained", BETWEEN_CHECKPOINTS)
    drained = user.node_of(user.pods("drained")[1])
    with user.node_drained(drained):
        user.wait_succeeded("drained")
    assert user.attempts("drained") == [(0, "Drained"), (1, "Done")]
    assert drained.name not in user.run("drained")["status"]["attempts"][1]["nodes"]
    traces.assert_no_step_repeated()
    traces.assert_same_bits(calm)


def test_no_node_to_spare(user: NodeUser, calm: Traces) -> None:
    """A node vanishes and none is left: the run waits, says for what, and goes on when the node is there again."""
    spare = user.cluster.nodes["node-3"]
    with user.node_cordoned(spare):
        traces = user.create_run("waiting")
        user.wait_step("waiting", BETWEEN_CHECKPOINTS)
        with user.node_vanished(user.node_of(user.pods("waiting")[1])):
            user.wait(lambda: is_told(waits_for(user)), "waiting", "one pod to wait for a node, and to be told why")
        user.wait_succeeded("waiting")
    assert user.attempts("waiting") == [(0, "NodeLost"), (1, "Done")]
    assert user.run("waiting")["status"]["restarts"] == 0
    traces.assert_same_bits(calm)


def waits_for(user: NodeUser) -> str:
    """What the run's condition says while it waits."""
    return str(user.wait_reason("waiting", "WaitingForCapacity")["message"])


def is_told(message: str) -> bool:
    """Who waits, and why in the scheduler's own words; these may be in a later message only."""
    return "1 of 2 pods have no node" in message and "nodes are available" in message
