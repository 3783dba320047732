"""What people do to runs and to the operator, while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.rendering import CHART
from tests.nodes import release
from tests.nodes.cluster import SYSTEM_NODE
from tests.nodes.trainee import BETWEEN_CHECKPOINTS, LONG_STEPS, Traces
from tests.nodes.user import NodeUser, remove_run

pytestmark = pytest.mark.timeout(900)


def test_suspend_and_resume(user: NodeUser, calm: Traces) -> None:
    """Suspending saves and gives the nodes back; resuming repeats no step."""
    traces = user.create_run("pause")
    user.wait_step("pause", BETWEEN_CHECKPOINTS)
    user.edit_run("pause", {"suspend": True})
    user.wait_status("pause", phase="Suspended")
    user.wait(lambda: not user.pods("pause"), "pause", "its pods to be gone")
    assert traces.step() in traces.digests()
    user.edit_run("pause", {"suspend": False})
    user.wait_succeeded("pause")
    assert user.attempts("pause") == [(0, "Suspended"), (1, "Done")]
    traces.assert_no_step_repeated()
    traces.assert_same_bits(calm)


def test_kubectl_delete_saves(user: NodeUser, calm: Traces) -> None:
    """A deleted run's pods save before they go; created again under its name, it goes on from there."""
    traces = user.create_run("deleted")
    user.wait_step("deleted", BETWEEN_CHECKPOINTS)
    remove_run(user, "deleted")
    assert traces.step() in traces.digests()
    user.create_run("deleted")
    user.wait_succeeded("deleted")
    assert user.attempts("deleted") == [(0, "Done")]
    traces.assert_no_step_repeated()
    traces.assert_same_bits(calm)


@pytest.mark.soak
def test_the_operators_pod_is_deleted(user: NodeUser, calm: Traces) -> None:
    """The other replica leads on; the run does not notice."""
    traces = user.create_run("headless")
    user.wait_step("headless", BETWEEN_CHECKPOINTS)
    plane = user.cluster.plane
    before = release.delete_leader(plane)
    user.wait(lambda: release.wait_leading(plane) != before, "headless", "the other replica to lead")
    user.wait_succeeded("headless")
    assert user.attempts("headless") == [(0, "Done")]
    traces.assert_same_bits(calm)


@pytest.mark.soak
def test_all_operators_are_deleted_during_a_recovery(user: NodeUser, calm: Traces) -> None:
    """The verdict is on record, and nobody is left who made it: whoever comes next starts the same attempt."""
    traces = user.create_run("orphaned")
    user.wait_step("orphaned", BETWEEN_CHECKPOINTS)
    with user.node_vanished(user.node_of(user.pods("orphaned")[1])):
        user.wait(lambda: (0, "NodeLost") in user.attempts("orphaned"), "orphaned", "the verdict")
        release.delete_all(user.cluster.plane)
        user.wait_succeeded("orphaned")
    assert user.attempts("orphaned") == [(0, "NodeLost"), (1, "Done")]
    assert [claim["attempt"] for claim in traces.claims()] == [0, 1]
    traces.assert_same_bits(calm)


def test_the_operator_is_upgraded_and_rolled_back(user: NodeUser, tmp_path: Path) -> None:
    """By Helm, from this chart one version lower; the run trains on, and each next operator sees to it."""
    plane, images = user.cluster.plane, user.cluster.images
    release.upgrade(plane, images, release.older_chart(tmp_path), node=SYSTEM_NODE)
    traces = user.create_run("upgraded", {"spec": {"config": {"total_steps": LONG_STEPS}}})
    user.wait_step("upgraded", BETWEEN_CHECKPOINTS)
    pods = user.pod_uids("upgraded")
    release.upgrade(plane, images, CHART, node=SYSTEM_NODE)
    user.wait_observed("upgraded")
    release.rollback(plane)
    user.wait_observed("upgraded")
    assert user.attempts("upgraded") == [(0, None)]
    assert user.pod_uids("upgraded") == pods
    assert [claim["generation"] for claim in traces.claims()] == [0]
    release.upgrade(plane, images, CHART, node=SYSTEM_NODE)
