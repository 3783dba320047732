"""What training-operator does to PyTorchJobs, as far as we rely on it.

Local mode needs it to run without Kubernetes; the fake cluster and the simulator need it to be as awkward as
the real one (kubeflow/trainer v1.9.4, Worker-only jobs): it replaces single pods and never the group, makes an
elastic job Succeeded at the first exit 0, counts a deleted pod as failed while it lingers, and may leave Failed
beside Succeeded. It must not know about TrainingRuns.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from trainrun_api.contract import RENDEZVOUS_PORT

from trainrun_operator.cluster import Key, Object
from trainrun_operator.errors import AlreadyExists, Conflict, NotFound
from trainrun_operator.objects import ObjectStore, copy_json, timestamp

JOB_NAME_LABEL = "training.kubeflow.org/job-name"
REPLICA_TYPE_LABEL = "training.kubeflow.org/replica-type"
REPLICA_INDEX_LABEL = "training.kubeflow.org/replica-index"
JOB_ROLE_LABEL = "training.kubeflow.org/job-role"
OPERATOR_LABEL = "training.kubeflow.org/operator-name"


class JobController:
    """Reconciles PyTorchJobs of a store into pods and conditions; it has no memory of its own."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def reconcile_all(self) -> None:
        """One pass over every job."""
        for job in self._store.list("PyTorchJob"):
            self.reconcile(Key(job["metadata"]["namespace"], job["metadata"]["name"]))

    def reconcile(self, key: Key) -> None:
        """One pass over one job; a pass that meets somebody else's write is left to the next one."""
        job = self._store.get("PyTorchJob", key)
        if job is None:
            return
        pods = [
            p for p in self._store.list("Pod", {JOB_NAME_LABEL: key.name}, namespace=key.namespace) if _owns(job, p)
        ]
        status = copy_json(job.get("status") or {})
        try:
            if _is_true(status, "Succeeded") or _is_true(status, "Failed"):
                self._clean(job, pods)
            elif job["spec"].get("runPolicy", {}).get("suspend"):
                self._suspend(job, status, pods)
            else:
                self._run(job, status, pods)
            job["status"] = status
            self._store.replace_status(job)
        except (AlreadyExists, Conflict, NotFound):
            return

    def _run(self, job: Object, status: Object, pods: list[Object]) -> None:
        name, now = job["metadata"]["name"], timestamp(self._now())
        self._set(status, "Created", "True", "PyTorchJobCreated", f"PyTorchJob {name} is created.")
        if _is_true(status, "Suspended"):
            self._set(status, "Suspended", "False", "PyTorchJobResumed", f"PyTorchJob {name} is resumed.")
            status["startTime"] = now
        replicas = int(job["spec"]["pytorchReplicaSpecs"]["Worker"].get("replicas", 1))
        present = {int(p["metadata"]["labels"][REPLICA_INDEX_LABEL]): p for p in pods}
        for index in range(replicas):
            if index not in present:
                self._store.create(_pod(job, index))
        for index, pod in present.items():
            if index >= replicas and "deletionTimestamp" not in pod["metadata"]:
                self._delete(pod)
        self._judge(job, status, pods, replicas)

    def _judge(self, job: Object, status: Object, pods: list[Object], replicas: int) -> None:
        """Conditions and counts from the pods that exist now; the first time also when the job started, which is after
        its pods were made."""
        name, now = job["metadata"]["name"], timestamp(self._now())
        status.setdefault("startTime", now)
        phases = [_counted_phase(p) for p in pods]
        active, succeeded, failed = (phases.count(x) for x in ("Running", "Succeeded", "Failed"))
        status["replicaStatuses"] = {
            "Worker": {
                "active": active, "succeeded": succeeded, "failed": failed,
                "selector": f"{JOB_NAME_LABEL}={name},{REPLICA_TYPE_LABEL}=worker",
            }
        }  # fmt: skip
        if succeeded == replicas or (job["spec"].get("elasticPolicy") and succeeded):
            status.setdefault("completionTime", now)
            self._set(status, "Succeeded", "True", "PyTorchJobSucceeded", f"PyTorchJob {name} successfully completed.")
        elif active:
            self._set(status, "Running", "True", "PyTorchJobRunning", f"PyTorchJob {name} is running.")
        if not failed or replicas <= succeeded + active:
            return
        if job["spec"]["pytorchReplicaSpecs"]["Worker"].get("restartPolicy") == "Never":
            status.setdefault("completionTime", now)
            message = f"PyTorchJob {name} is failed because {failed} Worker replica(s) failed."
            self._set(status, "Failed", "True", "PyTorchJobFailed", message)
        else:
            message = f"PyTorchJob {name} is restarting because {failed} Worker replica(s) failed."
            self._set(status, "Restarting", "True", "PyTorchJobRestarting", message)
            for pod in pods:
                if _counted_phase(pod) == "Failed" and "deletionTimestamp" not in pod["metadata"]:
                    self._delete(pod)

    def _suspend(self, job: Object, status: Object, pods: list[Object]) -> None:
        name = job["metadata"]["name"]
        self._set(status, "Created", "True", "PyTorchJobCreated", f"PyTorchJob {name} is created.")
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                self._delete(pod)
        if _is_true(status, "Running"):
            self._set(status, "Running", "False", "PyTorchJobSuspended", f"PyTorchJob {name} is suspended.")
        self._set(status, "Suspended", "True", "PyTorchJobSuspended", f"PyTorchJob {name} is suspended.")
        status["replicaStatuses"] = {"Worker": {}}

    def _clean(self, job: Object, pods: list[Object]) -> None:
        """cleanPodPolicy: looked at only once a job has ended."""
        policy = job["spec"].get("runPolicy", {}).get("cleanPodPolicy", "None")
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                continue
            is_unfinished = (pod.get("status") or {}).get("phase", "Pending") in ("Pending", "Running")
            if policy == "All" or (policy == "Running" and is_unfinished):
                self._delete(pod)

    def _delete(self, pod: Object) -> None:
        metadata = pod["metadata"]
        self._store.delete("Pod", Key(metadata["namespace"], metadata["name"]), uid=metadata["uid"])

    def _set(self, status: Object, kind: str, value: str, reason: str, message: str) -> None:
        """Set a condition as training-operator orders them: changed ones last; Running and Restarting exclude
        each other; an end makes Running False."""
        conditions: list[Any] = status.setdefault("conditions", [])
        old = next((c for c in conditions if c["type"] == kind), None)
        if old is not None and (old["status"], old["reason"]) == (value, reason):
            return
        now = timestamp(self._now())
        moved = old["lastTransitionTime"] if old is not None and old["status"] == value else now
        new = {
            "type": kind, "status": value, "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": moved,
        }  # fmt: skip
        kept = [c for c in conditions if c["type"] != kind]
        if value == "True":
            excluded = {"Running": "Restarting", "Restarting": "Running"}.get(kind)
            kept = [c for c in kept if c["type"] != excluded]
            if kind in ("Succeeded", "Failed"):
                kept = [c | {"status": "False"} if c["type"] == "Running" else c for c in kept]
        status["conditions"] = [*kept, new]


def _pod(job: Object, index: int) -> Object:
    """The pod that training-operator makes for one index: the template, its own labels and environment."""
    metadata, worker = job["metadata"], job["spec"]["pytorchReplicaSpecs"]["Worker"]
    template = copy_json(worker["template"])
    labels = dict(template.get("metadata", {}).get("labels") or {})
    labels |= {
        JOB_NAME_LABEL: metadata["name"],
        OPERATOR_LABEL: "pytorchjob-controller",
        REPLICA_TYPE_LABEL: "worker",
        REPLICA_INDEX_LABEL: str(index),
    }
    if index == 0:
        labels[JOB_ROLE_LABEL] = "master"  # without a Master, worker 0 carries the role
    spec = template["spec"]
    if worker.get("restartPolicy") in ("Never", "ExitCode"):
        spec["restartPolicy"] = "Never"
    for container in spec["containers"]:
        if container["name"] == "pytorch":
            container["env"] = [*(container.get("env") or []), *_environment(job)]
    owner = {
        "apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": metadata["name"], "uid": metadata["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    pod_metadata: dict[str, Any] = {
        "name": f"{metadata['name']}-worker-{index}",
        "namespace": metadata["namespace"],
        "labels": labels,
        "ownerReferences": [owner],
    }
    annotations = template.get("metadata", {}).get("annotations")
    if annotations:
        pod_metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod_metadata, "spec": spec}


def _environment(job: Object) -> list[dict[str, str]]:
    """PET_* and PYTHONUNBUFFERED: appended after the template's own, so that the last duplicate wins."""
    spec, name = job["spec"], job["metadata"]["name"]
    policy = spec.get("elasticPolicy")
    nproc = spec.get("nprocPerNode", (policy or {}).get("nProcPerNode", "auto"))
    values = {"PYTHONUNBUFFERED": "1", "PET_NPROC_PER_NODE": str(nproc)}
    if policy:
        replicas = int(spec["pytorchReplicaSpecs"]["Worker"].get("replicas", 1))
        low = policy.get("minReplicas", policy.get("maxReplicas", replicas))
        high = policy.get("maxReplicas", policy.get("minReplicas", replicas))
        host = policy.get("rdzvHost", f"{name}-worker-0")
        values |= {
            "PET_RDZV_BACKEND": policy.get("rdzvBackend", "c10d"),
            "PET_RDZV_ENDPOINT": f"{host}:{policy.get('rdzvPort', RENDEZVOUS_PORT)}",
            "PET_NNODES": f"{low}:{high}",
        }
        if "rdzvId" in policy:
            values["PET_RDZV_ID"] = policy["rdzvId"]
        if "maxRestarts" in policy:
            values["PET_MAX_RESTARTS"] = str(policy["maxRestarts"])
    return [{"name": k, "value": v} for k, v in values.items()]


def _counted_phase(pod: Object) -> str:
    """Phase as training-operator counts it: a pod that is being deleted while Running counts as failed."""
    phase = str((pod.get("status") or {}).get("phase", "Pending"))
    return "Failed" if phase == "Running" and "deletionTimestamp" in pod["metadata"] else phase


def _owns(job: Object, pod: Object) -> bool:
    return any(ref["uid"] == job["metadata"]["uid"] for ref in pod["metadata"].get("ownerReferences") or [])


def _is_true(status: Object, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or [])
