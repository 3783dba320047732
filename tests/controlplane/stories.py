"""What happens to runs, told once: each story acts as a user, a node or a program would, and says what must come of it.

Whoever tells a story provides the operators: one, two, one that dies after every write, one behind a hostile network.
The outcome must be the same.
"""

from __future__ import annotations

from collections.abc import Callable

from trainrun_operator.cluster import Object

from tests.controlplane.api import JOBS
from tests.controlplane.pods import said
from tests.controlplane.queue import QUEUE_LABEL, Queue
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for

HEALTH = "sagemaker.amazonaws.com/node-health-status"
Story = Callable[[Stage], None]


def succeeds(stage: Stage) -> None:
    """Success comes from the members' messages."""
    stage.create_run("a")
    stage.trainers.finish(stage.wait_running("a", 0))
    status = stage.wait_status("a", phase="Succeeded")
    assert stage.attempts("a") == [(0, "Done")]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert (conditions["Ready"], conditions["Completed"]) == ("True", "True")
    assert status["observedGeneration"] == 1


def fails_and_goes_on(stage: Stage) -> None:
    """The job of the failed attempt goes, the next one resumes at once on other nodes: a device is suspect."""
    stage.create_run("a")
    first, _ = stage.wait_running("a", 0)
    stage.trainers.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
    pods = stage.wait_running("a", 1)
    assert first["spec"]["nodeName"] not in {pod["spec"]["nodeName"] for pod in pods}
    wait_for(lambda: len(stage.jobs("a")) == 1, "the first job to be gone")
    stage.trainers.finish(pods)
    stage.wait_status("a", phase="Succeeded", restarts=0)
    assert stage.attempts("a") == [(0, "DeviceSuspect"), (1, "Done")]


def has_a_bad_config(stage: Stage) -> None:
    """No retry would help; the trainer's sentence is in the status."""
    stage.create_run("a")
    for pod in stage.wait_running("a", 0):
        stage.trainers.end(pod, 20, said(pod, 20, "BadConfig", message="config.model.path does not exist"))
    status = stage.wait_status("a", phase="Failed")
    assert stage.attempts("a") == [(0, "BadConfig")]
    assert "config.model.path does not exist" in str(status["conditions"])


def loses_a_node(stage: Stage) -> None:
    """It vanishes; its pod stays Terminating for ever, and blocks nothing."""
    stage.create_run("a")
    stage.wait_running("a", 0)
    stage.wait_reason("a", "Running")
    lost = stage.pods("a")[1]["spec"]["nodeName"]
    stage.nodes.lose(lost)
    stage.trainers.hang(stage.pods("a"))  # the collective waits for the lost member
    stage.nodes.set_unreachable(lost)
    pods = stage.wait_running("a", 1)
    assert lost not in {pod["spec"]["nodeName"] for pod in pods}
    assert stage.attempts("a") == [(0, "NodeLost"), (1, None)]


def loses_a_node_object(stage: Stage) -> None:
    """As when HyperPod replaces an instance."""
    stage.create_run("a")
    lost = stage.wait_running("a", 0)[1]["spec"]["nodeName"]
    stage.nodes.lose(lost)
    stage.nodes.remove(lost)
    stage.wait_running("a", 1)
    assert stage.attempts("a") == [(0, "NodeLost"), (1, None)]


def leaves_a_marked_node(stage: Stage) -> None:
    """HyperPod's taint has no NoExecute, running pods would stay: the stop is a save, and the node is avoided."""
    stage.create_run("a")
    stage.wait_running("a", 0)
    stage.wait_reason("a", "Running")
    marked = stage.pods("a")[0]["spec"]["nodeName"]
    stage.nodes.label(marked, HEALTH, "UnschedulablePendingReplacement")
    pods = stage.wait_running("a", 1)
    assert marked not in {pod["spec"]["nodeName"] for pod in pods}
    assert stage.attempts("a") == [(0, "NodeMarked"), (1, None)]


def hangs(stage: Stage) -> None:
    """Agents answer and say that no step is made: found by progress, and spends a restart."""
    stage.create_run("a")
    pods = stage.wait_running("a", 0)
    stage.wait_reason("a", "Running")
    stage.trainers.hang(pods)
    stage.wait_running("a", 1)
    assert stage.attempts("a") == [(0, "Stalled"), (1, None)]
    assert stage.run("a")["status"]["restarts"] == 1


def is_suspended_and_resumed(stage: Stage) -> None:
    """Suspended, nothing runs."""
    stage.create_run("a")
    stage.wait_running("a", 0)
    stage.edit_run("a", {"suspend": True})
    stage.wait_status("a", phase="Suspended")
    assert stage.jobs("a") == []
    wait_for(lambda: stage.pods("a") == [], "the pods to be gone")
    stage.edit_run("a", {"suspend": False})
    stage.wait_running("a", 1)
    assert stage.attempts("a") == [(0, "Suspended"), (1, None)]


def is_scaled(stage: Stage) -> None:
    """Through the scale subresource, as `kubectl scale` does it: saves, and starts with the new number."""
    stage.create_run("a")
    stage.wait_running("a", 0)
    path = f"/apis/trainrun.dev/v1alpha1/namespaces/{stage.namespace}/trainingruns/a/scale"
    stage.api.merge(path, {"spec": {"replicas": 1}})
    stage.wait_running("a", 1)
    assert stage.attempts("a") == [(0, "WorkersChanged"), (1, None)]


def is_restarted_by_token(stage: Stage) -> None:
    """A person asks for a new attempt."""
    stage.create_run("a")
    stage.wait_running("a", 0)
    stage.edit_run("a", {"restartToken": "1"})
    stage.wait_running("a", 1)
    assert stage.attempts("a") == [(0, "RestartRequested"), (1, None)]


def loses_its_job(stage: Stage) -> None:
    """Deleted by somebody else: free, by the next attempt."""
    stage.create_run("a")
    stage.wait_running("a", 0)
    # before its uid is on record the attempt has no job yet, and the same job is made again
    wait_for(lambda: "jobUID" in stage.run("a")["status"]["attempts"][0], "the job to be on record")
    stage.api.delete(f"{JOBS}/namespaces/{stage.namespace}/pytorchjobs/a-a0", propagationPolicy="Background")
    stage.wait_running("a", 1)
    assert stage.attempts("a") == [(0, "JobDeleted"), (1, None)]


def waits_in_a_queue(stage: Stage) -> None:
    """Held back, admitted, preempted, readmitted: always the same attempt, and we never write suspend."""
    with Queue(stage.api, stage.namespace, "research", slots=0) as queue:
        stage.create_run("a", {"metadata": {"labels": {QUEUE_LABEL: "research"}}})
        stage.wait_reason("a", "Queued")
        assert stage.pods("a") == []
        queue.slots = 1
        stage.wait_running("a", 0)
        stage.wait_reason("a", "Running")
        queue.slots = 0
        stage.wait_reason("a", "Preempted")
        wait_for(lambda: stage.pods("a") == [], "the pods to be gone")
        queue.slots = 1
        stage.trainers.finish(stage.wait_running("a", 0))
        stage.wait_status("a", phase="Succeeded", restarts=0)
    assert stage.attempts("a") == [(0, "Done")]


def waits_for_nodes(stage: Stage) -> None:
    """Free, in the scheduler's own words, until nodes come."""
    patch = {"workers": {"template": {"spec": {"nodeSelector": {"pool": stage.namespace}}}}}
    stage.create_run("a", {"spec": patch})
    stage.wait_sentence("a", "WaitingForCapacity", "didn't match")
    for node in stage.node_names[:2]:
        stage.nodes.label(node, "pool", stage.namespace)
    stage.wait_running("a", 0)
    assert stage.attempts("a") == [(0, None)]


def goes_on_with_fewer_workers(stage: Stage) -> None:
    """No spare node: two of three workers train on; the next attempt, whatever its cause, asks for all again."""
    whole_node = {"containers": [{"name": "pytorch", "resources": {"requests": {"cpu": "60"}}}]}
    workers = {"replicas": 3, "minReplicas": 2, "template": {"spec": whole_node}}
    stage.create_run("a", {"spec": {"workers": workers, "config": {"global_batch_rows": 12}}})
    lost = stage.wait_running("a", 0)[2]["spec"]["nodeName"]
    stage.nodes.lose(lost)
    stage.nodes.remove(lost)
    stage.wait_sentence("a", "WaitingForCapacity", "It goes on with 2 of 3 workers at")
    stage.wait_running("a", 2, workers=2)
    stage.wait_reason("a", "RunningOnFewerWorkers")
    status = stage.run("a")["status"]
    assert (status["replicas"], status["attempts"][2]["wantedReplicas"]) == (2, 3)
    stage.node_names.append(f"{lost}-next")
    stage.nodes.add(stage.node_names[-1])
    stage.edit_run("a", {"restartToken": "1"})
    stage.wait_running("a", 3)
    causes = ["NodeLost", "GangIncomplete", "RestartRequested", None]
    assert stage.attempts("a") == list(enumerate(causes))


def is_made_again_under_its_name(stage: Stage) -> None:
    """The second run of the name waits until nothing of the first is left."""
    stage.create_run("a")
    first = stage.wait_running("a", 0)
    stage.delete_run("a")
    stage.create_run("a")
    pods = stage.wait_running("a", 0, but_not=first)
    assert {pod["metadata"]["uid"] for pod in pods}.isdisjoint(pod["metadata"]["uid"] for pod in first)
    assert stage.attempts("a") == [(0, None)]


def loses_a_node_while_a_spare_waits(stage: Stage) -> None:
    """The spare trains in the lost worker's place: its pod goes by force, the job lives, and makes the next spare."""
    stage.create_run("a", {"spec": {"workers": {"spares": 1}}})
    pods = stage.wait_running("a", 0)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == len(pods), stage.story("a")
    _, lost, spare = pods
    stage.wait_reason("a", "Running")
    stage.nodes.lose(lost["spec"]["nodeName"])
    stage.trainers.take_seat(lost, spare)
    stage.nodes.set_unreachable(lost["spec"]["nodeName"])

    def next_spare() -> Object | None:
        pods = stage.pods("a", 0)
        fresh = [pod for pod in pods if pod["metadata"]["name"] == lost["metadata"]["name"]]
        return next((pod for pod in fresh if pod["metadata"]["uid"] != lost["metadata"]["uid"]), None)

    wait_for(next_spare, "the next spare to be made", stage.patience_seconds, seen=lambda: stage.story("a"))
    assert stage.attempts("a") == [(0, None)]
    stage.trainers.finish([pod for pod in stage.pods("a", 0) if pod["metadata"]["name"] != lost["metadata"]["name"]])
    status = stage.wait_status("a", phase="Succeeded", restarts=0)
    assert stage.attempts("a") == [(0, "Done")]
    assert status["attempts"][0]["replaced"] == 1


def goes_through_stages(stage: Stage) -> None:
    """Each with a shape of its own; one that fails is tried again, and the run is over with the last."""
    base = {"name": "base", "kind": "train", "workers": {"replicas": 2}}
    whole = {"name": "whole", "kind": "consolidate", "config": {"checkpoint": "stage:base/checkpoints"}}
    stage.create_run("a", {"spec": {"stages": [{"name": "texts", "kind": "prepare"}, base, whole]}})
    stage.trainers.finish(stage.wait_running("a", 0, workers=1))
    first, _ = stage.wait_running("a", 1, workers=2)
    wait_for(lambda: len(stage.jobs("a")) == 1, "the first stage's job to be gone")
    stage.trainers.end(first, 30, said(first, 30, "DeviceSuspect", step=7))
    stage.trainers.finish(stage.wait_running("a", 2, workers=2))
    stage.trainers.finish(stage.wait_running("a", 3, workers=1))
    status = stage.wait_status("a", phase="Succeeded", restarts=0, stage="whole")
    assert stage.attempts("a") == [(0, "Done"), (1, "DeviceSuspect"), (2, "Done"), (3, "Done")]
    assert [attempt["stage"] for attempt in status["attempts"]] == ["texts", "base", "base", "whole"]
    assert [(done["name"], done["attempt"]) for done in status["stages"]] == [("texts", 0), ("base", 2)]


STORIES: dict[str, Story] = {
    story.__name__: story
    for story in (
        succeeds,
        fails_and_goes_on,
        has_a_bad_config,
        loses_a_node,
        loses_a_node_object,
        loses_a_node_while_a_spare_waits,
        leaves_a_marked_node,
        hangs,
        is_suspended_and_resumed,
        is_scaled,
        is_restarted_by_token,
        loses_its_job,
        waits_in_a_queue,
        waits_for_nodes,
        goes_on_with_fewer_workers,
        is_made_again_under_its_name,
        goes_through_stages,
    )
}
