"""training-operator's behaviour, as docs and its v1.9.4 source say and the product relies on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from trainrun_operator.cluster import Key
from trainrun_operator.job_controller import JobController
from trainrun_operator.objects import ObjectStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = Key("default", "r-a0")


class World:
    """A store, the controller, and a hand that plays kubelet."""

    def __init__(self, **spec: object) -> None:
        self.store = ObjectStore(lambda: NOW)
        self.controller = JobController(self.store, lambda: NOW)
        self.store.create(job(**spec))
        self.step()

    def step(self) -> None:
        self.controller.reconcile_all()

    def pods(self) -> list[str]:
        return [p["metadata"]["name"] for p in self.store.list("Pod")]

    def phase(self, index: int, phase: str) -> None:
        pod = self.store.get("Pod", Key("default", f"r-a0-worker-{index}"))
        pod["spec"]["nodeName"] = f"slot-{index}"
        pod = self.store.replace(pod)
        self.store.replace_status({**pod, "status": {"phase": phase}})
        self.step()

    def conditions(self) -> dict[str, str]:
        status = self.store.get("PyTorchJob", JOB)["status"]
        return {c["type"]: c["status"] for c in status["conditions"]}


def job(*, policy: str = "Never", clean: str = "Running", elastic: bool = True, suspend: bool = False) -> dict:
    template = {
        "metadata": {"labels": {"trainrun.dev/run": "r"}, "annotations": {"a": "b"}},
        "spec": {"containers": [{"name": "pytorch", "image": "i", "env": [{"name": "A", "value": "1"}]}]},
    }
    spec = {
        "runPolicy": {"cleanPodPolicy": clean, "suspend": suspend},
        "nprocPerNode": "2",
        "pytorchReplicaSpecs": {"Worker": {"replicas": 2, "restartPolicy": policy, "template": template}},
    }
    if elastic:
        spec["elasticPolicy"] = {"minReplicas": 2, "maxReplicas": 2, "rdzvBackend": "c10d", "rdzvId": "u-a0"}
    return {"kind": "PyTorchJob", "metadata": {"name": "r-a0"}, "spec": spec}


def test_a_job_becomes_pods_with_names_labels_and_environment() -> None:
    """What the agent and the operator read from pods is there, PET_* after the template's own."""
    world = World()
    assert world.pods() == ["r-a0-worker-0", "r-a0-worker-1"]
    pod = world.store.get("Pod", Key("default", "r-a0-worker-1"))
    assert pod["metadata"]["labels"] == {
        "trainrun.dev/run": "r",
        "training.kubeflow.org/job-name": "r-a0",
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
        "training.kubeflow.org/replica-type": "worker",
        "training.kubeflow.org/replica-index": "1",
    }
    assert pod["metadata"]["annotations"] == {"a": "b"}
    assert pod["spec"]["restartPolicy"] == "Never"
    env = [(e["name"], e["value"]) for e in pod["spec"]["containers"][0]["env"]]
    assert env == [
        ("A", "1"),
        ("PYTHONUNBUFFERED", "1"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_RDZV_BACKEND", "c10d"),
        ("PET_RDZV_ENDPOINT", "r-a0-worker-0:23456"),
        ("PET_NNODES", "2:2"),
        ("PET_RDZV_ID", "u-a0"),
    ]
    first = world.store.get("Pod", Key("default", "r-a0-worker-0"))
    assert first["metadata"]["labels"]["training.kubeflow.org/job-role"] == "master"


def test_running_needs_one_pod_only() -> None:
    """Running does not mean that all pods are up."""
    world = World()
    assert world.conditions() == {"Created": "True"}
    world.phase(0, "Running")
    assert world.conditions() == {"Created": "True", "Running": "True"}


def test_missing_pod_of_a_living_job_is_made_again() -> None:
    """Whoever force-deletes a pod must delete its job first."""
    world = World()
    old = world.store.get("Pod", Key("default", "r-a0-worker-1"))
    world.store.delete("Pod", Key("default", "r-a0-worker-1"), grace_seconds=0)
    world.step()
    new = world.store.get("Pod", Key("default", "r-a0-worker-1"))
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


def test_first_success_ends_an_elastic_job_and_the_rest_is_deleted() -> None:
    """The first exit 0 is enough; with cleanPodPolicy Running others are told to go, ended ones stay."""
    world = World()
    world.phase(1, "Running")
    world.phase(0, "Succeeded")
    world.step()
    assert world.conditions() == {"Created": "True", "Running": "False", "Succeeded": "True"}
    pods = {p["metadata"]["name"]: "deletionTimestamp" in p["metadata"] for p in world.store.list("Pod")}
    assert pods == {"r-a0-worker-0": False, "r-a0-worker-1": True}


def test_job_without_elastic_policy_needs_every_success() -> None:
    """Only the elastic policy makes one success enough."""
    world = World(elastic=False)
    world.phase(1, "Running")
    world.phase(0, "Succeeded")
    assert "Succeeded" not in world.conditions()
    world.phase(1, "Succeeded")
    assert world.conditions()["Succeeded"] == "True"


def test_failed_pod_under_never_fails_the_job() -> None:
    """The survivor is cleaned up; nothing is made again."""
    world = World()
    world.phase(0, "Running")
    world.phase(1, "Failed")
    world.step()
    assert world.conditions()["Failed"] == "True"
    assert "deletionTimestamp" in world.store.get("Pod", Key("default", "r-a0-worker-0"))["metadata"]
    world.store.remove("Pod", Key("default", "r-a0-worker-0"))
    world.step()
    assert world.pods() == ["r-a0-worker-1"]


def test_failed_may_stand_beside_succeeded() -> None:
    """One pod done, one failed, seen in one pass: both conditions; readers need the messages."""
    world = World()
    store = world.store
    for index, phase in ((0, "Succeeded"), (1, "Failed")):
        pod = store.get("Pod", Key("default", f"r-a0-worker-{index}"))
        store.replace_status({**pod, "status": {"phase": phase}})
    world.step()
    assert world.conditions() == {"Created": "True", "Succeeded": "True", "Failed": "True"}


def test_pod_lingering_on_a_dead_node_counts_as_failed() -> None:
    """Running with a deletionTimestamp is a failure, and its index is not filled."""
    world = World()
    world.phase(0, "Running")
    world.phase(1, "Running")
    world.store.delete("Pod", Key("default", "r-a0-worker-1"))
    world.step()
    assert world.conditions()["Failed"] == "True"
    assert world.pods() == ["r-a0-worker-0", "r-a0-worker-1"]


def test_restart_policy_on_failure_replaces_single_pods() -> None:
    """Why our jobs use Never: the group is not restarted, only the pod."""
    world = World(policy="OnFailure")
    world.phase(0, "Running")
    world.phase(1, "Failed")
    assert world.conditions() == {"Created": "True", "Restarting": "True"}
    world.step()
    assert world.store.get("Pod", Key("default", "r-a0-worker-1"))["status"]["phase"] == "Pending"


def test_suspended_job_has_no_pods_and_starts_anew() -> None:
    """Kueue's handle: suspend takes the pods away, and admission makes new ones."""
    world = World(suspend=True)
    assert (world.pods(), world.conditions()) == ([], {"Created": "True", "Suspended": "True"})
    job = world.store.get("PyTorchJob", JOB)
    job["spec"]["runPolicy"]["suspend"] = False
    job = world.store.replace(job)
    world.step()
    assert world.conditions()["Suspended"] == "False"
    world.phase(0, "Running")
    job = world.store.get("PyTorchJob", JOB)
    job["spec"]["runPolicy"]["suspend"] = True
    world.store.replace(job)
    world.step()
    assert world.conditions() == {"Created": "True", "Running": "False", "Suspended": "True"}
    assert "deletionTimestamp" in world.store.get("Pod", Key("default", "r-a0-worker-0"))["metadata"]


@pytest.mark.parametrize("clean", ["None", "Running", "All"])
def test_clean_pod_policy_decides_what_stays(clean: str) -> None:
    """None leaves a running worker on its devices for ever."""
    world = World(clean=clean)
    world.phase(1, "Running")
    world.phase(0, "Succeeded")
    world.step()
    alive = [p["metadata"]["name"][-1] for p in world.store.list("Pod") if "deletionTimestamp" not in p["metadata"]]
    assert alive == {"None": ["0", "1"], "Running": ["0"], "All": []}[clean]


def test_repeated_passes_come_to_rest() -> None:
    """A pass over an unchanged job writes nothing."""
    world = World()
    world.phase(0, "Running")
    before = world.store.get("PyTorchJob", JOB)
    world.step()
    assert world.store.get("PyTorchJob", JOB) == before
