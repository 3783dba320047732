"""Nodes, pods and processes that break, from `kubectl apply` to the final status.

Where the number of workers stays the same, every loss and every checkpoint is that of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import pytest

from tests.nodes.trainee import BETWEEN_CHECKPOINTS, TOTAL_STEPS, Traces, pod_template
from tests.nodes.user import NodeUser

pytestmark = pytest.mark.timeout(900)

TOO_LITTLE = "160Mi"
"""Less than a Python with torch needs."""


def test_an_undisturbed_run_succeeds(calm: Traces) -> None:
    """The yardstick of all other tests: each step once, in one start of its workers."""
    assert [step for step, _, _ in calm.losses()] == list(range(1, TOTAL_STEPS + 1))
    assert [claim["generation"] for claim in calm.claims()] == [0]


@pytest.mark.soak
@pytest.mark.parametrize("index", [0, 1], ids=["with the rendezvous", "with the other worker"])
def test_a_node_vanishes(user: NodeUser, calm: Traces, index: int) -> None:
    """Kubelet, pods and network at once, between two checkpoints; its pod stays Terminating and blocks nothing."""
    name = f"vanish-{index}"
    traces = user.create_run(name)
    user.wait_step(name, BETWEEN_CHECKPOINTS)
    lost = user.node_of(user.pods(name)[index])
    with user.node_vanished(lost):
        user.wait_succeeded(name)
        assert user.attempts(name) == [(0, "NodeLost"), (1, "Done")]
    traces.assert_same_bits(calm)


def test_a_worker_process_is_killed(user: NodeUser, calm: Traces) -> None:
    """The agents restart their workers in place: the attempt goes on."""
    traces = user.create_run("killed")
    user.wait_step("killed", BETWEEN_CHECKPOINTS)
    user.kill_worker(user.pods("killed")[1])
    user.wait_succeeded("killed")
    assert user.attempts("killed") == [(0, "Done")]
    assert [claim["generation"] for claim in traces.claims()] == [0, 1]
    traces.assert_same_bits(calm)


def test_a_memory_limit_is_exceeded(user: NodeUser) -> None:
    """The kernel kills in the trainer's container; a second time at the same step ends the run with what to do."""
    container = {"resources": {"requests": {"memory": TOO_LITTLE}, "limits": {"memory": TOO_LITTLE}}}
    user.create_run("greedy", {"spec": {"workers": {"template": pod_template(user.cluster.shared, container)}}})
    status = user.wait_status("greedy", phase="Failed")
    assert user.attempts("greedy") == [(0, "OOMKilled"), (1, "OOMKilled")]
    assert "killed for its memory limit" in str(status["failure"]["evidence"])
    assert "Raise the memory limit" in status["failure"]["action"]


@pytest.mark.soak
def test_a_node_comes_back_with_its_old_pod(user: NodeUser, calm: Traces) -> None:
    """It was cut off and paused; it wakes while the next attempt trains, and its pod can commit nothing."""
    traces = user.create_run("zombie")
    user.wait_step("zombie", BETWEEN_CHECKPOINTS)
    old = user.pods("zombie")[0]
    with user.node_paused(user.node_of(old)):
        user.wait_running("zombie", 1)
        user.wait(lambda: traces.claims()[-1]["attempt"] == 1, "zombie", "attempt 1 to claim the checkpoints")
    user.wait_succeeded("zombie")
    assert user.attempts("zombie") == [(0, "NodeLost"), (1, "Done")]
    old_claim, new_claim = traces.claims()
    assert (
        max(one["step"] for one in traces.checkpoints() if one["claim"] == old_claim["k"])
        == new_claim["parent"]["step"]
    )
    user.wait(lambda: old["metadata"]["uid"] not in user.pod_uids("zombie"), "zombie", "the old pod to be gone")
    traces.assert_same_bits(calm)
