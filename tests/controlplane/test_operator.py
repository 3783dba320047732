"""The operator under kopf with nothing but its own rights: whole runs on a real API server and training-operator."""

from __future__ import annotations

import pytest

from tests.controlplane.stage import Stage
from tests.controlplane.stories import STORIES, succeeds
from tests.controlplane.waiting import wait_for


@pytest.mark.parametrize("story", STORIES)
def test_a_story_ends_as_it_must(stage: Stage, story: str) -> None:
    """Pods end, nodes vanish and people interfere; each gives exactly the right attempts."""
    with stage.operator():
        STORIES[story](stage)


def test_what_happened_is_told_once(stage: Stage) -> None:
    """Events do not pile up; log lines carry run, attempt and rule."""
    with stage.operator() as operator:
        succeeds(stage)

        def told() -> list[str]:  # events come after the status
            reasons = [event["reason"] for event in stage.events("a")]
            return reasons if {"AttemptStarted", "Succeeded"} <= set(reasons) else []

        reasons = wait_for(told, "events of its start and its end")
        assert len(reasons) == len(set(reasons)), "events pile up"
        lines = [line for line in operator.lines() if line.get("run") == "a" and line.get("type") == "action"]
        assert {"attempt", "rule", "reason", "message"} <= set(lines[0])


def test_progress_reaches_the_status(stage: Stage) -> None:
    """One call to worker 0's agent; what it says about steps, loss and the newest checkpoint is shown."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
        status = stage.run("a")["status"]
        assert status["progress"]["totalSteps"] == 200
        assert status["progress"]["loss"] > 0
        assert status["checkpoint"]["path"].startswith("/checkpoints/")
        assert status["attempts"][0]["firstStepAt"] <= status["progress"]["updatedAt"]


def test_a_deleted_run_takes_its_job_and_pods_along(stage: Stage) -> None:
    """By owner references; the operator is away."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
    stage.delete_run("a")
    wait_for(
        lambda: not stage.jobs("a") and not stage.pods("a"), "job and pods to be gone", seen=lambda: stage.pods("a")
    )


def test_a_refused_job_is_told_in_the_cluster_s_words(stage: Stage) -> None:
    """A quota on jobs, said in the condition, with no attempt lost."""
    stage.create_quota({"count/pytorchjobs.kubeflow.org": "0"})
    with stage.operator():
        stage.create_run("a")
        condition = stage.wait_reason("a", "CreationRefused")
        assert "exceeded quota: small" in condition["message"]
        assert stage.attempts("a") == [(0, None)]


def test_refused_pods_are_told_in_the_cluster_s_words(stage: Stage) -> None:
    """A quota on what pods need, as teams have it on devices: the job is taken, its pods are not."""
    stage.create_quota({"pods": "1"})
    with stage.operator():
        stage.create_run("a")
        stage.wait_sentence("a", "WaitingForCapacity", "1 of 2 pods have no node", "exceeded quota: small")
        assert stage.attempts("a") == [(0, None)]
