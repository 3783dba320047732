"""Kubelets played by patching status: nodes that are Ready, pods that run, end with a termination message, or vanish.

The scheduler binds pods for real. A pod that is deleted is told to stop, ends as `on_stop` says, and is released, as a
kubelet would; on a node in `lost` nothing happens any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from trainrun_api.contract import SCHEMA, Env, TerminationMessage
from trainrun_operator.cluster import Object

from tests.controlplane.api import CORE, Api, ApiError

LOOK_SECONDS = 0.1
POD_RANGE = "127.77"
"""Pods get loopback addresses, so that a stub agent can answer there."""


class Kubelets:
    """All nodes of a control plane; a context manager around one thread."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.lost: set[str] = set()
        """Nodes whose kubelet has vanished."""
        self.held: Callable[[Object], bool] = lambda pod: False
        """Pods that shall not start."""
        self.on_stop: Callable[[Object], tuple[int, str]] = stopped_with_checkpoint
        self.troubles: list[str] = []
        self._addresses: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="kubelets", daemon=True)

    def __enter__(self) -> Kubelets:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def reset(self) -> None:
        """Forget what a test asked for."""
        self.lost.clear()
        self.held = lambda pod: False
        self.on_stop = stopped_with_checkpoint

    def add_node(self, name: str, labels: dict[str, str] | None = None) -> None:
        """A Ready node with room for 20 pods."""
        room = {"cpu": "64", "memory": "256Gi", "pods": "20", "nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4"}
        all_labels = {"kubernetes.io/hostname": name, **(labels or {})}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": all_labels}}
        self._api.create(f"{CORE}/nodes", node)
        status = {"capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
        self._api.merge(f"{CORE}/nodes/{name}/status", {"status": {**status, "conditions": [_ready("True")]}})

    def set_ready(self, name: str, status: str) -> None:
        """What the node life-cycle controller writes (Unknown) or the kubelet (True, False)."""
        self._api.merge(f"{CORE}/nodes/{name}/status", {"status": {"conditions": [_ready(status)]}})

    def label_node(self, name: str, key: str, value: str | None) -> None:
        """Set a label; None takes it away."""
        self._api.merge(f"{CORE}/nodes/{name}", {"metadata": {"labels": {key: value}}})

    def remove_node(self, name: str) -> None:
        """The Node object goes."""
        self._api.delete(f"{CORE}/nodes/{name}")

    def end(self, pod: Object, exit_code: int, message: str = "", reason: str = "") -> None:
        """The trainer container of this pod has ended."""
        why = reason or ("Completed" if exit_code == 0 else "Error")
        ended = {"exitCode": exit_code, "reason": why, "message": message, "startedAt": _now(), "finishedAt": _now()}
        phase = "Succeeded" if exit_code == 0 else "Failed"
        self._patch_status(pod, {"phase": phase, "containerStatuses": [_container({"terminated": ended}, pod)]})

    def _loop(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look()
            except ApiError as error:  # the API server is being restarted, or a pod went meanwhile
                self.troubles.append(str(error))

    def _look(self) -> None:
        for pod in self._api.get(f"{CORE}/pods?resourceVersion=0")["items"]:
            node, phase = pod["spec"].get("nodeName"), pod["status"].get("phase")
            if node is None or node in self.lost:
                continue
            try:
                if "deletionTimestamp" in pod["metadata"]:
                    self._release(pod)
                elif phase == "Pending" and not self.held(pod):
                    self._run(pod)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise

    def _run(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        count = len(self._addresses)
        address = self._addresses.setdefault(uid, f"{POD_RANGE}.{count // 250}.{count % 250 + 1}")
        running = _container({"running": {"startedAt": _now()}}, pod)
        conditions = [{"type": t, "status": "True", "lastTransitionTime": _now()} for t in ("Ready", "ContainersReady")]
        kept = [c for c in pod["status"].get("conditions") or [] if c["type"] == "PodScheduled"]
        self._patch_status(pod, {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1",
            "startTime": _now(), "conditions": [*kept, *conditions], "containerStatuses": [running],
        })  # fmt: skip

    def _release(self, pod: Object) -> None:
        if pod["status"].get("phase") == "Running":
            self.end(pod, *self.on_stop(pod))
        metadata = pod["metadata"]
        self._api.delete(_path(pod), gracePeriodSeconds=0, preconditions={"uid": metadata["uid"]})

    def _patch_status(self, pod: Object, status: dict[str, Any]) -> None:
        self._api.merge(f"{_path(pod)}/status", {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status})


def said(pod: Object, exit_code: int, cause: str, **words: Any) -> str:
    """A termination message of this pod's attempt."""
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    message = TerminationMessage(
        schema=SCHEMA,
        run=str(env[Env.RUN]),
        attempt=int(str(env[Env.ATTEMPT])),
        pod_index=int(pod["metadata"]["labels"]["training.kubeflow.org/replica-index"]),
        exit_code=exit_code,
        cause=cause,
        **words,
    )
    return message.to_bounded_json()


def checkpoint(step: int) -> dict[str, Any]:
    """A durable checkpoint as the trainer tells it."""
    return {"step": step, "claim": 0, "path": f"/checkpoints/x/step-{step}-c0", "state_digest": "0" * 16}


def stopped_with_checkpoint(pod: Object) -> tuple[int, str]:
    """What a good trainer does at SIGTERM: saves, exits 10."""
    return 10, said(pod, 10, "Stopped", step=20, target_step=100, final_checkpoint=checkpoint(20))


def _ready(status: str) -> dict[str, str]:
    said_by = {"True": "KubeletReady", "False": "KubeletNotReady", "Unknown": "NodeStatusUnknown"}
    return {
        "type": "Ready",
        "status": status,
        "reason": said_by[status],
        "lastHeartbeatTime": _now(),
        "lastTransitionTime": _now(),
    }


def _container(state: dict[str, Any], pod: Object) -> dict[str, Any]:
    container = pod["spec"]["containers"][0]
    return {
        "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
        "ready": "running" in state, "started": "running" in state, "state": state,
    }  # fmt: skip


def _path(pod: Object) -> str:
    return f"{CORE}/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251 - a kubelet has its own clock
