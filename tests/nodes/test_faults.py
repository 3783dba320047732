"""What happens to real nodes, pods and processes, from `kubectl apply` to the final status.

Where the number of workers stays the same, every loss and every checkpoint is that of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import pytest

from tests.nodes import release
from tests.nodes.trainee import INTERVAL, TOTAL_STEPS, Traces
from tests.nodes.user import NodeUser, remove_run

pytestmark = pytest.mark.timeout(900)

BETWEEN_CHECKPOINTS = INTERVAL + INTERVAL // 4


def assert_same_bits(traces: Traces, calm: Traces) -> None:
    """Losses and rows of every step, states of every checkpoint that both have; no replay differed."""
    assert traces.losses() == calm.losses()
    assert traces.diverged() == []
    ours, theirs = traces.digests(), calm.digests()
    common = ours.keys() & theirs.keys()
    assert TOTAL_STEPS in common
    assert {step: ours[step] for step in common} == {step: theirs[step] for step in common}


def test_an_undisturbed_run_succeeds(user: NodeUser, calm: Traces) -> None:
    """Twice the same: the yardstick of all other tests."""
    traces = user.create_run("again")
    user.wait_succeeded("again")
    assert user.attempts("again") == [(0, "Done")]
    assert [step for step, _, _ in traces.losses()] == list(range(1, TOTAL_STEPS + 1))
    assert_same_bits(traces, calm)


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
    assert_same_bits(traces, calm)


def test_a_worker_process_is_killed(user: NodeUser, calm: Traces) -> None:
    """The agents restart their workers in place: the attempt goes on."""
    traces = user.create_run("killed")
    user.wait_step("killed", BETWEEN_CHECKPOINTS)
    user.kill_worker(user.pods("killed")[1])
    user.wait_succeeded("killed")
    assert user.attempts("killed") == [(0, "Done")]
    assert [claim["generation"] for claim in traces.claims()] == [0, 1]
    assert_same_bits(traces, calm)


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
    assert saved_between_intervals(traces)
    assert_same_bits(traces, calm)


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
    assert_same_bits(traces, calm)


def test_suspend_and_resume(user: NodeUser, calm: Traces) -> None:
    """Suspending saves and gives the nodes back; resuming repeats no step."""
    traces = user.create_run("pause")
    user.wait_step("pause", BETWEEN_CHECKPOINTS)
    user.edit_run("pause", {"suspend": True})
    user.wait_status("pause", phase="Suspended")
    user.wait(lambda: not user.pods("pause"), "pause", "its pods to be gone")
    assert saved_between_intervals(traces)
    user.edit_run("pause", {"suspend": False})
    user.wait_succeeded("pause")
    assert user.attempts("pause") == [(0, "Suspended"), (1, "Done")]
    assert_same_bits(traces, calm)


def test_kubectl_delete_saves(user: NodeUser, calm: Traces) -> None:
    """A deleted run's pods save before they go; created again under its name, it goes on from there."""
    traces = user.create_run("deleted")
    user.wait_step("deleted", BETWEEN_CHECKPOINTS)
    remove_run(user, "deleted")
    assert saved_between_intervals(traces)
    user.create_run("deleted")
    user.wait_succeeded("deleted")
    assert user.attempts("deleted") == [(0, "Done")]
    assert_same_bits(traces, calm)


def test_the_operators_pod_is_deleted(user: NodeUser, calm: Traces) -> None:
    """The other replica leads on; the run does not notice."""
    traces = user.create_run("headless")
    user.wait_step("headless", BETWEEN_CHECKPOINTS)
    before = release.wait_leading(user.cluster.plane)
    release.delete_leader(user.cluster.plane)
    user.wait_succeeded("headless")
    assert release.wait_leading(user.cluster.plane) != before
    assert user.attempts("headless") == [(0, "Done")]
    assert_same_bits(traces, calm)


def test_an_image_that_does_not_exist(user: NodeUser) -> None:
    """The run fails, and the sentence names the image."""
    image = "localhost/trainrun/trainer:missing"
    user.create_run("imageless", {"spec": {"image": image}})
    status = user.wait_status("imageless", phase="Failed")
    assert image in str(status["conditions"])


def saved_between_intervals(traces: Traces) -> bool:
    """Whether a checkpoint lies between those of the interval: one that somebody asked for."""
    return any(step % INTERVAL for step in traces.digests())
