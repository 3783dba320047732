"""Packets that do not arrive: at one worker, and at the API server."""

from __future__ import annotations

import time

import pytest

from tests.nodes.trainee import BETWEEN_CHECKPOINTS, INTERVAL, LONG_STEPS, Traces
from tests.nodes.user import NodeUser

pytestmark = pytest.mark.timeout(900)

OUTAGE_SECONDS = 60.0


@pytest.mark.soak
@pytest.mark.parametrize("index", [0, 1], ids=["with the rendezvous", "the other worker"])
def test_a_worker_is_cut_off(user: NodeUser, calm: Traces, index: int) -> None:
    """The collective hangs, and no platform sees anything: its node stays Ready. The step that does not come tells."""
    name = f"cut-off-{index}"
    traces = user.create_run(name, {"spec": {"health": {"stallTimeoutSeconds": "auto"}}})
    user.wait_step(name, BETWEEN_CHECKPOINTS)
    pod = user.pods(name)[index]
    with user.pod_partitioned(pod):
        user.wait_status(name, attempt=1)
        assert user.node_of(pod).is_ready(user.api)
        user.wait_succeeded(name)
    assert user.attempts(name) == [(0, "MemberSilent"), (1, "Done")]
    attempt = user.run(name)["status"]["attempts"][1]
    assert pod["spec"]["nodeName"] not in attempt["nodes"]
    traces.assert_same_bits(calm)


def test_the_api_server_is_down_during_training(user: NodeUser) -> None:
    """For a minute nobody can be asked or told anything: training goes on, and nothing is restarted afterwards."""
    traces = user.create_run("unattended", {"spec": {"config": {"total_steps": LONG_STEPS}}})
    user.wait_step("unattended", BETWEEN_CHECKPOINTS)
    pods = user.pod_uids("unattended")
    with user.cluster.plane.without_apiserver():
        before = traces.step()
        time.sleep(OUTAGE_SECONDS)
        after = traces.step()
    assert after > before
    user.wait_observed("unattended")
    user.wait_step("unattended", after + 2 * INTERVAL)
    assert user.attempts("unattended") == [(0, None)]
    assert user.pod_uids("unattended") == pods
    assert [claim["generation"] for claim in traces.claims()] == [0]


def test_the_api_server_is_down_during_a_recovery(user: NodeUser, calm: Traces) -> None:
    """A node vanishes, and then the API server for a minute; the recovery is finished when it is back."""
    traces = user.create_run("doubly")
    user.wait_step("doubly", BETWEEN_CHECKPOINTS)
    with user.node_vanished(user.node_of(user.pods("doubly")[1])):
        user.wait_status("doubly", attempt=1)
        with user.cluster.plane.without_apiserver():
            time.sleep(OUTAGE_SECONDS)
        user.wait_succeeded("doubly")
    assert user.attempts("doubly") == [(0, "NodeLost"), (1, "Done")]
    traces.assert_same_bits(calm)
