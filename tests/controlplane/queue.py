"""A queue that treats PyTorchJobs as Kueue does: it alone writes `runPolicy.suspend`, by the label of its queue.

As with Kueue's webhook a job is held back in the request that creates it, so that training-operator makes no pod of a
job that has not been admitted; here an admission policy of the API server does it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

from trainrun_operator.cluster import Object

from tests.controlplane.api import JOBS, Api, ApiError
from tests.controlplane.waiting import wait_for

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
LOOK_SECONDS = 0.1
ADMISSION = "/apis/admissionregistration.k8s.io/v1alpha1"
ADMISSION_FLAGS = [
    "--feature-gates=MutatingAdmissionPolicy=true",
    "--runtime-config=admissionregistration.k8s.io/v1alpha1=true",
]
"""What `hold_back_queued_jobs` needs of the API server."""
HOLDS_BACK = "hold-back-queued-jobs"


class Queue:
    """A context manager around one thread; the oldest `slots` jobs of the namespace that carry the label may run."""

    def __init__(self, api: Api, namespace: str, name: str, slots: int) -> None:
        self._api = api
        self._jobs = f"{JOBS}/namespaces/{namespace}/pytorchjobs"
        self._selector = f"{QUEUE_LABEL}={name}"
        self.slots = slots
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="queue")

    def __enter__(self) -> Queue:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            with suppress(ApiError):  # the job went meanwhile, or the API server is away
                self._admit()

    def _admit(self) -> None:
        jobs = self._api.get(f"{self._jobs}?labelSelector={self._selector}")["items"]
        waiting = sorted((job for job in jobs if not _is_over(job)), key=_age)
        for place, job in enumerate(waiting):
            shall_wait = place >= self.slots
            if bool(job["spec"].get("runPolicy", {}).get("suspend")) != shall_wait:
                path = f"{self._jobs}/{job['metadata']['name']}"
                self._api.merge(path, {"spec": {"runPolicy": {"suspend": shall_wait}}})


def hold_back_queued_jobs(api: Api) -> None:
    """Suspend every new PyTorchJob that carries a queue's label; returns when the API server does so."""
    kinds = {"apiGroups": ["kubeflow.org"], "apiVersions": ["v1"], "resources": ["pytorchjobs"]}
    suspend = '[JSONPatch{op: "add", path: "/spec/runPolicy/suspend", value: true}]'
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [{**kinds, "operations": ["CREATE"]}]},
        "matchConditions": [
            {"name": "queued", "expression": f'"{QUEUE_LABEL}" in object.metadata.?labels.orValue({{}})'},
        ],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": suspend}}],
    }
    for kind, spec in (
        ("MutatingAdmissionPolicy", policy),
        ("MutatingAdmissionPolicyBinding", {"policyName": HOLDS_BACK}),
    ):
        path = f"{ADMISSION}/{'mutatingadmissionpolicies' if spec is policy else 'mutatingadmissionpolicybindings'}"
        obj = {"apiVersion": f"{ADMISSION.removeprefix('/apis/')}", "kind": kind, "metadata": {"name": HOLDS_BACK}}
        api.create(path, {**obj, "spec": spec})
    wait_for(lambda: _is_held_back(api), "new jobs of a queue to be held back")


def _is_held_back(api: Api) -> bool:
    container = {"name": "pytorch", "image": "x"}
    job: Object = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "held-back", "labels": {QUEUE_LABEL: "any"}},
        "spec": {
            "runPolicy": {},
            "pytorchReplicaSpecs": {"Worker": {"template": {"spec": {"containers": [container]}}}},
        },
    }
    try:
        made = api.create(f"{JOBS}/namespaces/default/pytorchjobs?dryRun=All", job)
    except ApiError as error:
        if error.code == 503:  # the policy looks for new kinds every now and then
            return False
        raise
    return bool(made["spec"]["runPolicy"].get("suspend"))


def _is_over(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    ended = any(c["type"] in ("Succeeded", "Failed") and c["status"] == "True" for c in conditions)
    return ended or "deletionTimestamp" in job["metadata"]


def _age(job: Object) -> tuple[str, str]:
    return job["metadata"]["creationTimestamp"], job["metadata"]["name"]
