"""training-operator and scheduler in one, for the scale benchmark: a PyTorchJob's pods are made on nodes.

The real two write about eight times for each pod (Service, Events, binding, the job's counts), which for 8,000 pods
takes a machine of two cores most of an hour and tells nothing about the operator under test. Here a pod is one write;
kwok makes it run, and the real garbage collector takes it away with its job.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from trainrun_api.contract import Label
from trainrun_operator.job_controller import (
    JOB_NAME_LABEL,
    JOB_ROLE_LABEL,
    OPERATOR_LABEL,
    REPLICA_INDEX_LABEL,
    REPLICA_TYPE_LABEL,
)
from trainrun_operator.rate_limit import RateLimit

from bench.scale_agents import GONE_NODES, watch
from tests.controlplane.api import CORE, JOBS, Api, ApiError
from tests.controlplane.nodes import KUBELET, now

HANDS = 6
WRITES_PER_SECOND, WRITES_AT_ONCE = 20.0, 30
"""Limit of training-operator's client by default (`--kube-api-qps`, `--kube-api-burst`). First attempts are not held to
it: how long the ramp takes is not what is measured."""
NOT_FOUND, EXISTS = 404, 409


class Nodes:
    """Names in turn; those that are gone are left out."""

    def __init__(self, names: list[str]) -> None:
        self._ring = itertools.cycle(names)
        self._gone: set[str] = set()
        self._lock = threading.Lock()

    def see_gone(self, kind: str, node: Any) -> None:
        """No pod goes there any more."""
        with self._lock:
            self._gone.add(node["metadata"]["name"])

    def take(self, count: int) -> list[str]:
        """The next ones: members of a job lie apart."""
        with self._lock:
            return list(itertools.islice((name for name in self._ring if name not in self._gone), count))


class Writes:
    """Of pods, shared by all hands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit = RateLimit(WRITES_PER_SECOND, WRITES_AT_ONCE)

    def wait(self) -> None:
        """Until one may be made."""
        with self._lock:
            seconds = self._limit.take(time.monotonic())
        time.sleep(seconds)


def pods_of(job: Any, names: list[str]) -> list[Any]:
    """The pods as training-operator would make them, each on a node."""
    metadata, worker = job["metadata"], job["spec"]["pytorchReplicaSpecs"]["Worker"]
    owner = {
        "apiVersion": job["apiVersion"], "kind": "PyTorchJob", "name": metadata["name"], "uid": metadata["uid"],
        "controller": True,
    }  # fmt: skip
    pods = []
    for index, node in enumerate(names):
        pod = copy.deepcopy(worker["template"])
        own = {
            JOB_NAME_LABEL: metadata["name"], OPERATOR_LABEL: "pytorchjob-controller", REPLICA_TYPE_LABEL: "worker",
            REPLICA_INDEX_LABEL: str(index), **({JOB_ROLE_LABEL: "master"} if index == 0 else {}),
        }  # fmt: skip
        labels = {**(pod.get("metadata", {}).get("labels") or {}), **own}
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] = {
            **pod.get("metadata", {}), "name": f"{metadata['name']}-worker-{index}", "labels": labels,
            "ownerReferences": [owner],
        }  # fmt: skip
        pod["spec"] |= {"nodeName": node, "restartPolicy": "Never"}
        pods.append(pod)
    return pods


def serve(api: Api, jobs: SimpleQueue[Any], nodes: Nodes, writes: Writes) -> None:
    """Make the pods of each new job, and say that it runs."""
    while True:
        job = jobs.get()
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        replicas = int(job["spec"]["pytorchReplicaSpecs"]["Worker"].get("replicas", 1))
        try:
            for pod in pods_of(job, nodes.take(replicas)):
                if pod["metadata"]["labels"][Label.ATTEMPT] != "0":
                    writes.wait()
                _create(api, f"{CORE}/namespaces/{namespace}/pods", pod)
            moment = now()
            running = {"type": "Running", "status": "True", "reason": "PyTorchJobRunning", "message": "",
                       "lastTransitionTime": moment, "lastUpdateTime": moment}  # fmt: skip
            status = {"startTime": moment, "conditions": [running], "replicaStatuses": {"Worker": {"active": replicas}}}
            api.merge(f"{JOBS}/namespaces/{namespace}/pytorchjobs/{name}/status", {"status": status})
        except ApiError as error:
            if error.code != NOT_FOUND:  # a busy API server; the job is not gone
                jobs.put(job)


def _create(api: Api, path: str, pod: Any) -> None:
    """One that was made by an earlier try is fine."""
    try:
        api.create(path, pod)
    except ApiError as error:
        if error.code != EXISTS:
            raise


def main() -> None:
    """Until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig", type=Path)
    kubeconfig = parser.parse_args().kubeconfig
    listed = Api(kubeconfig).pages(f"{CORE}/nodes?labelSelector={KUBELET}=kwok")
    nodes = Nodes([node["metadata"]["name"] for page in listed for node in page["items"]])
    jobs: SimpleQueue[Any] = SimpleQueue()
    seen: set[str] = set()

    def see_job(kind: str, job: Any) -> None:
        if kind == "ADDED" and job["metadata"]["uid"] not in seen:
            seen.add(job["metadata"]["uid"])
            jobs.put(job)

    writes = Writes()
    for _ in range(HANDS):
        threading.Thread(target=serve, args=(Api(kubeconfig), jobs, nodes, writes), daemon=True).start()
    threading.Thread(target=watch, args=(Api(kubeconfig), GONE_NODES, nodes.see_gone), daemon=True).start()
    watch(Api(kubeconfig), f"{JOBS}/pytorchjobs", see_job)


if __name__ == "__main__":
    main()
