"""A warm spare on real nodes: a lost worker's seat is taken within the attempt, and the next spare is made.

Three nodes for two workers and a spare, so that a node that comes back is where the next spare goes.
"""

from __future__ import annotations

import pytest
from trainrun_operator.cluster import Object

from tests.nodes.trainee import BETWEEN_CHECKPOINTS, LONG_STEPS, Traces
from tests.nodes.user import NodeUser, remove_run

pytestmark = pytest.mark.timeout(900)

WITH_SPARE = {"spec": {"workers": {"spares": 1}}}
LONG = {"spec": {"workers": {"spares": 1}, "config": {"total_steps": LONG_STEPS}}}


def wait_trained(user: NodeUser, name: str, traces: Traces, generation: int) -> None:
    """Until the group of that generation has made steps."""
    user.wait(lambda: traces.claims()[-1]["generation"] == generation, name, f"generation {generation} to begin")
    begun = traces.step()
    user.wait(lambda: traces.step() > begun, name, "steps of it")


def wait_replaced(user: NodeUser, name: str, pod: Object, count: int) -> None:
    """Until the operator has removed a lost pod."""
    user.wait(lambda: user.run(name)["status"]["attempts"][0].get("replaced") == count, name, "the pod to be replaced")
    user.wait(lambda: pod["metadata"]["uid"] not in user.pod_uids(name), name, "the lost pod to be gone")


def test_a_spare_takes_a_vanished_nodes_seat(user: NodeUser, calm: Traces) -> None:
    """One attempt, two generations, and not one bit is different."""
    traces = user.create_run("spared", WITH_SPARE)
    user.wait_step("spared", BETWEEN_CHECKPOINTS)
    with user.node_vanished(user.node_of(user.pods("spared")[1])):
        user.wait_succeeded("spared")
    assert user.attempts("spared") == [(0, "Done")]
    assert [claim["generation"] for claim in traces.claims()] == [0, 1]
    traces.assert_same_bits(calm)


def test_the_next_spare_is_made_where_the_node_returns_and_takes_the_next_seat(user: NodeUser) -> None:
    """A node vanishes and comes back; its old pod is gone and a new one waits there. Then the worker that took the seat
    is cut off, with its node well: that one takes over, and the pod that was cut off is removed before it ends."""
    name = "spared-twice"
    traces = user.create_run(name, LONG)
    user.wait_step(name, BETWEEN_CHECKPOINTS)
    _, first, taker = user.pods(name)
    user.wait_warm(taker)
    with user.node_vanished(user.node_of(first)):
        wait_trained(user, name, traces, 1)
        wait_replaced(user, name, first, 1)
    user.wait(lambda: user.pods(name)[1]["spec"].get("nodeName"), name, "the next spare to have the node")
    user.wait_warm(user.pods(name)[1])
    with user.pod_partitioned(taker):
        wait_trained(user, name, traces, 2)
        wait_replaced(user, name, taker, 2)
    assert user.attempts(name) == [(0, None)]
    remove_run(user, name)
