"""The operator under kopf with nothing but its own rights: whole runs on a real API server and training-operator.

Pods end, nodes vanish and people interfere; each must give exactly the right attempts.
"""

from __future__ import annotations

from trainrun_operator.cluster import Object

from tests.controlplane.api import JOBS
from tests.controlplane.kubelets import checkpoint, said
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for

HEALTH = "sagemaker.amazonaws.com/node-health-status"


def finish(stage: Stage, pods: list[Object]) -> None:
    """All members reach the target, as a good trainer ends."""
    for pod in pods:
        message = said(pod, 0, "Done", step=200, target_step=200, final_checkpoint=checkpoint(200))
        stage.kubelets.end(pod, 0, message)


def test_a_run_succeeds_in_one_attempt(stage: Stage) -> None:
    """The job passes the real webhook; success comes from the members' messages; what is left is tidy."""
    with stage.operator() as operator:
        stage.create_run("a")
        finish(stage, stage.wait_running("a", 0))
        status = stage.wait_status("a", phase="Succeeded")
        assert stage.attempts("a") == [(0, "Done")]
        conditions = {c["type"]: c["status"] for c in status["conditions"]}
        assert (conditions["Ready"], conditions["Completed"]) == ("True", "True")
        assert status["observedGeneration"] == 1

        def told() -> list[str]:  # events come after the status
            reasons = [event["reason"] for event in stage.events("a")]
            return reasons if {"AttemptStarted", "Succeeded"} <= set(reasons) else []

        reasons = wait_for(told, "events of its start and its end")
        assert len(reasons) == len(set(reasons)), "events pile up"
        lines = [line for line in operator.lines() if line.get("run") == "a" and line.get("type") == "action"]
        assert {"attempt", "rule", "reason", "message"} <= set(lines[0])


def test_a_failed_pod_gives_a_new_attempt(stage: Stage) -> None:
    """The job of the failed attempt is gone, the next one resumes at once: the device is suspect, not the program."""
    with stage.operator():
        stage.create_run("a")
        first, _ = stage.wait_running("a", 0)
        stage.kubelets.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
        pods = stage.wait_running("a", 1)
        assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, None)]
        assert first["spec"]["nodeName"] not in {pod["spec"]["nodeName"] for pod in pods}
        wait_for(lambda: len(stage.jobs("a")) == 1, "the first job to be gone")
        finish(stage, pods)
        stage.wait_status("a", phase="Succeeded")


def test_a_bad_config_fails_the_run_at_once(stage: Stage) -> None:
    """No retry would help; the trainer's sentence is in the status."""
    with stage.operator():
        stage.create_run("a")
        for pod in stage.wait_running("a", 0):
            stage.kubelets.end(pod, 20, said(pod, 20, "BadConfig", message="config.model.path does not exist"))
        status = stage.wait_status("a", phase="Failed")
        assert stage.attempts("a") == [(0, "BadConfig")]
        assert "config.model.path does not exist" in str(status["conditions"])


def test_a_vanished_node_gives_a_new_attempt_elsewhere(stage: Stage) -> None:
    """Its pod stays Terminating for ever, and blocks nothing."""
    with stage.operator():
        stage.create_run("a")
        lost = stage.wait_running("a", 0)[1]["spec"]["nodeName"]
        stage.kubelets.lost.add(lost)
        stage.kubelets.set_ready(lost, "Unknown")
        pods = stage.wait_running("a", 1)
        assert lost not in {pod["spec"]["nodeName"] for pod in pods}
        assert stage.attempts("a") == [(0, "NodeLost"), (1, None)]


def test_a_removed_node_object_gives_a_new_attempt(stage: Stage) -> None:
    """As when HyperPod replaces an instance."""
    with stage.operator():
        stage.create_run("a")
        lost = stage.wait_running("a", 0)[1]["spec"]["nodeName"]
        stage.kubelets.lost.add(lost)
        stage.kubelets.remove_node(lost)
        stage.wait_running("a", 1)
        assert stage.attempts("a") == [(0, "NodeLost"), (1, None)]


def test_a_node_marked_by_hyperpod_is_left_with_a_save(stage: Stage) -> None:
    """Its running pods would stay: the taint has no NoExecute. The stop is a save, and the node is avoided."""
    with stage.operator():
        stage.create_run("a")
        marked = stage.wait_running("a", 0)[0]["spec"]["nodeName"]
        stage.kubelets.label_node(marked, HEALTH, "UnschedulablePendingReplacement")
        pods = stage.wait_running("a", 1)
        assert marked not in {pod["spec"]["nodeName"] for pod in pods}
        assert stage.attempts("a") == [(0, "NodeMarked"), (1, None)]


def test_suspend_deletes_the_job_and_resume_starts_the_next_attempt(stage: Stage) -> None:
    """Suspended, nothing runs."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
        stage.edit_run("a", {"suspend": True})
        stage.wait_status("a", phase="Suspended")
        assert stage.jobs("a") == []
        wait_for(lambda: stage.pods("a") == [], "the pods to be gone")
        stage.edit_run("a", {"suspend": False})
        stage.wait_running("a", 1)
        assert stage.attempts("a") == [(0, "Suspended"), (1, None)]


def test_kubectl_scale_saves_and_starts_with_the_new_number(stage: Stage) -> None:
    """Through the scale subresource, as kubectl does it."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
        path = f"/apis/trainrun.dev/v1alpha1/namespaces/{stage.namespace}/trainingruns/a/scale"
        stage.api.merge(path, {"spec": {"replicas": 1}})
        stage.wait_running("a", 1)
        assert stage.attempts("a") == [(0, "WorkersChanged"), (1, None)]


def test_a_deleted_run_takes_its_job_and_pods_along(stage: Stage) -> None:
    """By owner references; the operator may even be away."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
    stage.delete_run("a")
    wait_for(
        lambda: not stage.jobs("a") and not stage.pods("a"), "job and pods to be gone", seen=lambda: stage.pods("a")
    )


def test_a_job_deleted_by_somebody_else_is_replaced(stage: Stage) -> None:
    """Free, by the next attempt."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_running("a", 0)
        # before its uid is on record the attempt has no job yet, and the same job is made again
        wait_for(lambda: "jobUID" in stage.run("a")["status"]["attempts"][0], "the job to be on record")
        stage.api.delete(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs/a-a0", propagationPolicy="Background")
        stage.wait_running("a", 1)
        assert stage.attempts("a") == [(0, "JobDeleted"), (1, None)]


def test_a_queue_may_suspend_and_readmit_the_job(stage: Stage) -> None:
    """As Kueue does it: the attempt stays the same, and we never write suspend."""
    with stage.operator():
        stage.create_run("a", {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "research"}}})
        stage.wait_running("a", 0)
        job = f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs/a-a0"
        assert stage.api.get(job)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
        stage.api.merge(job, {"spec": {"runPolicy": {"suspend": True}}})
        stage.wait_reason("a", "Preempted")
        wait_for(lambda: stage.pods("a") == [], "the pods to be gone")
        stage.api.merge(job, {"spec": {"runPolicy": {"suspend": False}}})
        stage.wait_running("a", 0)
        assert stage.attempts("a") == [(0, None)]


def test_waiting_for_capacity_shows_the_schedulers_words(stage: Stage) -> None:
    """Free, until a node comes."""
    with stage.operator():
        patch = {"workers": {"template": {"spec": {"nodeSelector": {"pool": stage.namespace}}}}}
        stage.create_run("a", {"spec": patch})
        condition = stage.wait_reason("a", "WaitingForCapacity")
        assert "didn't match" in condition["message"]
        for node in {f"node-{stage.namespace.removeprefix('test-')}-{letter}" for letter in "ab"}:
            stage.kubelets.label_node(node, "pool", stage.namespace)
        stage.wait_running("a", 0)
        assert stage.attempts("a") == [(0, None)]


def test_a_refused_job_is_told_in_the_cluster_s_words(stage: Stage) -> None:
    """A quota on jobs, said in the condition, with no attempt lost."""
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"count/pytorchjobs.kubeflow.org": "0"}},
    }  # fmt: skip
    path = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    stage.api.create(path, quota)
    wait_for(lambda: stage.api.get(f"{path}/none").get("status", {}).get("hard"), "the quota to be counted")
    with stage.operator():
        stage.create_run("a")
        condition = stage.wait_reason("a", "CreationRefused")
        assert "exceeded quota: none" in condition["message"]
        assert stage.attempts("a") == [(0, None)]
