"""Nodes and their kubelets, played by kwok: nodes stay Ready, bound pods run, pods that have ended go.

A node whose kubelet vanishes is let go by kwok: nothing happens on it any more. Whether and when the cluster notices is
for the test to say (`set_unreachable`, `remove`); the controller-manager's own grace period is a day.
"""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

from tests.controlplane.api import CORE, Api, ApiError
from tests.controlplane.binaries import ensure
from tests.controlplane.control_plane import ControlPlane
from tests.controlplane.processes import KeptAlive, Process
from tests.controlplane.waiting import wait_for

STAGES = Path(__file__).with_name("stages.yaml")
KUBELET = "trainrun.test/kubelet"
"""kwok plays the nodes that carry this label."""
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
"""What the node life-cycle controller adds to a node that is Unknown, and takes away when it is Ready."""
ROOM = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4"}


_RANGES = itertools.count(os.getpid() * 4)


def kwok(plane: ControlPlane, stages: Path = STAGES) -> KeptAlive:
    """To enter. It panics when a node was deleted while it had no watch (client-go then hands it a tombstone); real
    kubelets survive that, and would be started again."""
    command = [
        str(ensure("kwok")), f"--kubeconfig={plane.kubeconfig()}", f"--config={stages}", f"--cidr={pod_range()}",
        f"--manage-nodes-with-label-selector={KUBELET}=kwok", "--node-ip=127.0.0.1",
        "--node-lease-duration-seconds=0",
    ]  # fmt: skip
    return KeptAlive(Process("kwok", command, plane.folder, env={**os.environ, "HOME": str(plane.folder)}))


def pod_range() -> str:
    """Addresses of pods: a part of loopback, so that a stub agent can answer there; each cluster gets another one."""
    return f"127.{64 + next(_RANGES) % 128}.0.1/16"


class Nodes:
    """The nodes of a control plane, as their owner and their kubelets see them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.lost: set[str] = set()
        """Nodes whose kubelet has vanished."""

    def add(self, name: str, labels: dict[str, str] | None = None, room: dict[str, str] | None = None) -> None:
        """A node with room for 110 pods, and more if given; Ready in a moment."""
        all_labels = {"kubernetes.io/hostname": name, KUBELET: "kwok", **(labels or {})}
        metadata = {"name": name, "labels": all_labels}
        whole = {**ROOM, **(room or {})}
        status = {"capacity": whole, "allocatable": whole}
        self._api.create(f"{CORE}/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status})

    def takes_pods(self, name: str) -> bool:
        """Whether it is Ready, and the taint of a node that is not yet is gone, which is what schedulers look at."""
        node = self._api.get(f"{CORE}/nodes/{name}")
        conditions = node.get("status", {}).get("conditions") or []
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return is_ready and not node["spec"].get("taints")

    def lose(self, name: str) -> None:
        """Its kubelet and everything on it vanish at once, unseen."""
        self.lost.add(name)
        self.label(name, KUBELET, "gone")

    def set_unreachable(self, name: str) -> None:
        """What the node life-cycle controller does when a kubelet is silent: Unknown, and at once the taint that keeps
        new pods away. It adds that to our Unknown, too, but perhaps too late for the next attempt's pods."""
        self.set_ready(name, "Unknown")
        wait_for(lambda: self._taint(name), f"{name} to be tainted")

    def _taint(self, name: str) -> bool:
        """False if the node has changed meanwhile, perhaps by that controller."""
        node = self._api.get(f"{CORE}/nodes/{name}")
        taints = node["spec"].get("taints") or []
        if any(UNREACHABLE.items() <= taint.items() for taint in taints):
            return True
        version = {"resourceVersion": node["metadata"]["resourceVersion"]}
        try:
            self._api.merge(f"{CORE}/nodes/{name}", {"metadata": version, "spec": {"taints": [*taints, UNREACHABLE]}})
        except ApiError as error:
            if error.code != 409:
                raise
            return False
        return True

    def set_ready(self, name: str, status: str) -> None:
        """The condition alone, as the node life-cycle controller (Unknown) or the kubelet (True, False) writes it."""
        said_by = {"True": "KubeletReady", "False": "KubeletNotReady", "Unknown": "NodeStatusUnknown"}
        moment = now()
        condition = {
            "type": "Ready", "status": status, "reason": said_by[status],
            "lastHeartbeatTime": moment, "lastTransitionTime": moment,
        }  # fmt: skip
        self._api.merge(f"{CORE}/nodes/{name}/status", {"status": {"conditions": [condition]}})

    def label(self, name: str, key: str, value: str | None) -> None:
        """Set a label; None takes it away."""
        self._api.merge(f"{CORE}/nodes/{name}", {"metadata": {"labels": {key: value}}})

    def remove(self, name: str) -> None:
        """The Node object goes."""
        self._api.delete(f"{CORE}/nodes/{name}")


def now() -> str:
    """As the API writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251 - a kubelet has its own clock
