"""What every pass tidies up."""

from __future__ import annotations

import pytest
from trainrun_operator.core.decide import decide
from trainrun_operator.core.decision import ForceDeletePod, StopJob
from trainrun_operator.core.observed import NodeFacts
from trainrun_operator.core.times import to_text

from tests.operator.builders import (
    actions,
    ago,
    closed_attempt,
    ended_pod,
    idle,
    lost_node,
    make_job,
    make_nodes,
    make_pod,
    make_spec,
    make_status,
    running,
)

GONE = NodeFacts("n1", exists=False, ready=None)


def test_jobs_of_earlier_attempts_are_deleted_in_every_pass():
    """A stale operator may have made one late."""
    from tests.operator.builders import make_attempt

    observed = running(attempt=make_attempt(2), jobs=(make_job(0), make_job(1), make_job(2)))
    stopped = [a.name for a in actions(decide(observed), StopJob)]
    assert stopped == ["a-a0", "a-a1"]


@pytest.mark.parametrize(
    "job",
    [make_job(0, is_owned=False), make_job(0, is_deleting=True), make_job(5)],
    ids=["foreign", "deleting", "newer"],
)
def test_other_jobs_are_not_touched(job):
    """Not ours, already going, or unknown to this status."""
    from tests.operator.builders import make_attempt

    assert not actions(decide(running(attempt=make_attempt(2), jobs=(make_job(2), job))), StopJob)


@pytest.mark.parametrize(
    ("pod", "jobs", "stopped"),
    [
        (make_pod(1, 0), (make_job(2),), ["a-a0"]),
        (make_pod(1, 0), (make_job(2), make_job(0, is_deleting=True)), []),
        (make_pod(1, 0, deleted_at=ago(1)), (make_job(2),), []),
        (make_pod(1, 0, is_departed=True), (make_job(2),), []),
        (make_pod(1, 0, is_owned=False), (make_job(2),), []),
        (ended_pod(1, 1), (make_job(2),), []),
        (make_pod(1, 2), (), []),
    ],
    ids=["orphan", "job is going", "going", "gone", "foreign", "ended", "of the open attempt"],
)
def test_pods_that_outlived_their_job_give_their_nodes_back(pod, jobs, stopped):
    """The call that deletes them failed after the one that deleted the job, or the job made them in between."""
    from tests.operator.builders import make_attempt

    decision = decide(running(attempt=make_attempt(2), jobs=jobs, pods=(make_pod(0, 2), pod)))
    assert [a.name for a in actions(decision, StopJob)] == stopped


@pytest.mark.parametrize(("result", "stopped"), [("Succeeded", []), ("Failed", ["a-a0"])], ids=str)
def test_the_job_of_a_succeeded_run_stays_for_people_to_look_at(result, stopped):
    """A failed run's pods may still hold devices."""
    status = make_status(closed_attempt(0, "Done"), result=result, ended_at=to_text(ago(5)))
    assert [a.name for a in actions(decide(idle(status=status, jobs=(make_job(0),))), StopJob)] == stopped


@pytest.mark.parametrize(
    ("pod", "nodes", "jobs", "is_freed"),
    [
        (make_pod(1, terminates_by=ago(5)), make_nodes(GONE), (), True),
        (make_pod(1, terminates_by=ago(5)), make_nodes(lost_node("n1")), (), True),
        (make_pod(1, terminates_by=ago(5)), make_nodes(lost_node("n1")), (make_job(0, is_deleting=True),), True),
        (make_pod(1, terminates_by=ago(4)), make_nodes(GONE), (), False),
        (make_pod(1, terminates_by=ago(5)), make_nodes(), (), False),
        (make_pod(1, terminates_by=ago(5)), make_nodes(NodeFacts("n1", is_cordoned=True)), (), False),
        (make_pod(1, terminates_by=ago(5)), make_nodes(lost_node("n1", is_stale=True)), (), False),
        (make_pod(1), make_nodes(GONE), (), False),
        (make_pod(1, terminates_by=ago(5), is_departed=True), make_nodes(GONE), (), False),
        (make_pod(1, terminates_by=ago(5), is_owned=False), make_nodes(GONE), (), False),
    ],
    ids=[
        "node gone", "node down", "job going", "within its time", "node fine", "node cordoned", "node stale",
        "not deleted", "departed", "foreign",
    ],
)  # fmt: skip
def test_a_pod_stuck_on_a_dead_node_is_removed_once_its_job_is_not_alive(pod, nodes, jobs, is_freed):
    """Clean-up 5 s after its grace; never while training-operator would make it again."""
    decision = decide(idle(closed_attempt(0), spec=make_spec(suspend=True), pods=(pod,), nodes=nodes, jobs=jobs))
    freed = actions(decision, ForceDeletePod)
    assert freed == ([ForceDeletePod(pod.name, pod.uid)] if is_freed else [])


def test_a_stuck_pod_of_a_living_job_is_left():
    """Force-deleting it would only make training-operator create it again."""
    pods = (make_pod(0), make_pod(1, terminates_by=ago(60)))
    decision = decide(running(pods=pods, nodes=make_nodes(lost_node("n1"))))
    assert not actions(decision, ForceDeletePod)


def test_the_operator_wakes_when_a_pod_may_turn_out_stuck():
    """Nothing else would remind it."""
    decision = decide(
        idle(closed_attempt(0), spec=make_spec(suspend=True), pods=(make_pod(1, terminates_by=ago(-10)),))
    )
    assert decision.next_wake == ago(-15)
