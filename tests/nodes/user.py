"""What tests on real nodes say: a user's hands and eyes, and what may happen to a node."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from trainrun_api.contract import Label, LauncherState, ProgressFile
from trainrun_operator.cluster import Object

from tests.api.manifests import merged
from tests.controlplane.api import CORE
from tests.controlplane.kubectl import Kubectl
from tests.controlplane.stage import User
from tests.controlplane.waiting import wait_for
from tests.nodes import cgroups, network, trainee
from tests.nodes.cluster import NodeCluster
from tests.nodes.daemons import HEALTH
from tests.nodes.machine import CGROUP, CGROUPS
from tests.nodes.node import Node
from tests.nodes.trainee import Traces

T = TypeVar("T")

NAMESPACE = "default"
LOOK_SECONDS = 0.2


class NodeUser(User):
    """With real nodes under them; runs may take minutes on a busy machine."""

    patience_seconds = 300.0

    def __init__(self, cluster: NodeCluster) -> None:
        super().__init__(cluster.api, NAMESPACE)
        self.cluster = cluster
        self.kubectl = Kubectl(cluster.plane.kubeconfig(), NAMESPACE)

    def create_run(self, name: str, patch: dict[str, Any] | None = None) -> Traces:
        """kubectl apply of the trainee, patched; what it will leave on the volume."""
        run = trainee.manifest(name, self.namespace, self.cluster.images.trainer, self.cluster.shared)
        self.api.create(f"{self.runs_path}?fieldValidation=Strict", merged(run, patch or {}))
        return Traces(self.cluster.shared, name)

    def create_program(self, name: str, command: list[str]) -> None:
        """kubectl apply of a user's own image with this command, with the same pods but no configuration of ours."""
        own = {"image": self.cluster.images.program, "command": command, "config": None}
        self.create_run(name, {"spec": own})

    def wait_step(self, name: str, step: int) -> None:
        """Until this step is done."""
        traces = Traces(self.cluster.shared, name)
        self._wait(lambda: traces.step() >= step, f"{name} to do step {step}", name)

    def wait_succeeded(self, name: str) -> Object:
        """To the end; the status. Fails at once where the run does."""

        def look() -> Object | None:
            status: Object = self.run(name)["status"]
            assert status.get("phase") != "Failed", self.story(name)
            return status if status.get("phase") == "Succeeded" else None

        found = self._wait(look, f"{name} to succeed", name)
        assert found is not None
        return found

    def wait_warm(self, pod: Object) -> None:
        """Until a spare has imported everything and waits for a seat."""

        def is_warm() -> bool:
            return any(told.get("state") == LauncherState.SPARE for _, told in self._told(pod, ProgressFile.LAUNCHER))

        self._wait(is_warm, f"{pod['metadata']['name']} to wait warm", pod["metadata"]["labels"][Label.RUN])

    def wait_observed(self, name: str) -> None:
        """Until an operator has taken note of an edit that changes nothing for the attempt that runs."""
        self.edit_run(name, {"failurePolicy": {"maxRestarts": 10 + self.run(name)["metadata"]["generation"]}})
        wanted = self.run(name)["metadata"]["generation"]
        self._wait(lambda: self.run(name)["status"].get("observedGeneration") == wanted, "an edit to be seen", name)

    def wait(self, look: Callable[[], object], name: str, what: str) -> None:
        """Until it is so."""
        self._wait(look, what, name)

    def pod_uids(self, name: str) -> set[str]:
        """Of all its pods, also of those that are being deleted."""
        return {pod["metadata"]["uid"] for pod in self.pods(name)}

    def node_of(self, pod: Object) -> Node:
        """Where it runs."""
        return self.cluster.nodes[pod["spec"]["nodeName"]]

    @contextmanager
    def node_vanished(self, node: Node) -> Iterator[None]:
        """Without power; afterwards it comes back, as after a reboot."""
        node.power_off()
        try:
            yield
            node.wait_missed(self.api)
        finally:
            node.power_on()
            node.wait_ready(self.api)
            node.advertise_device(self.api)

    @contextmanager
    def node_paused(self, node: Node) -> Iterator[None]:
        """Cut off and frozen, as a machine that its hypervisor stops; afterwards it goes on where it was."""
        node.pause()
        try:
            yield
        finally:
            node.unpause()
            node.wait_ready(self.api)

    @contextmanager
    def node_marked(self, node: Node, health: str) -> Iterator[None]:
        """As HyperPod marks it: label and taint."""
        path = f"{CORE}/nodes/{node.name}"
        taint = {"key": HEALTH, "value": health, "effect": "NoSchedule"}
        self.api.merge(path, {"metadata": {"labels": {HEALTH: health}}, "spec": {"taints": [taint]}})
        try:
            yield
        finally:
            self.api.merge(path, {"metadata": {"labels": {HEALTH: "Schedulable"}}, "spec": {"taints": None}})

    @contextmanager
    def node_cordoned(self, node: Node) -> Iterator[None]:
        """kubectl cordon: what runs there goes on, and nothing new comes."""
        self.kubectl("cordon", node.name)
        try:
            yield
        finally:
            self.kubectl("uncordon", node.name)

    @contextmanager
    def node_drained(self, node: Node) -> Iterator[None]:
        """kubectl drain, until its pods are gone; afterwards new ones may come."""
        with self.node_cordoned(node):
            self.kubectl("drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data")
            yield

    @contextmanager
    def pod_partitioned(self, pod: Object) -> Iterator[None]:
        """Packets from and to it are dropped, without a word to either side; its node is well."""
        node, address = self.node_of(pod), pod["status"]["podIP"]
        network.cut_pod(node.place, address, is_cut=True)
        try:
            yield
        finally:
            network.cut_pod(node.place, address, is_cut=False)

    def kill_worker(self, pod: Object) -> None:
        """SIGKILL to the pod's one training process."""
        os.kill(self._worker(pod), signal.SIGKILL)

    def story(self, name: str) -> str:
        """Also what the pods' containers said."""
        return f"{super().story(name)}\n{self._logs(name)}"

    def _wait(self, look: Callable[[], T], what: str, name: str) -> T:
        # seldom: the looks themselves would be most of the API server's work
        return wait_for(look, what, self.patience_seconds, seen=lambda: self.story(name), every=LOOK_SECONDS)

    def _worker(self, pod: Object) -> int:
        for pids, record in self._told(pod, ProgressFile.rank(0)):
            return next(one for one in pids if _inner_pid(one) == record["pid"])
        raise AssertionError(f"{pod['metadata']['name']} has no worker")

    def _told(self, pod: Object, file: str) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """What a file of the pod's progress folder says, with the pids of the pod; nothing while there is none."""
        node = CGROUPS / "freezer" / CGROUP / pod["spec"]["nodeName"]
        for own in (one for one in cgroups.groups(node) if one.name == f"pod{pod['metadata']['uid']}"):
            pids = cgroups.processes(own)
            for pid in pids:
                with suppress(OSError):  # the pause process has no such folder; another one may just have ended
                    yield pids, json.loads(Path(f"/proc/{pid}/root/trainrun/progress/{file}").read_text())
                    return

    def _logs(self, name: str) -> str:
        ends = []
        for pod in self.pods(name):
            folder = self.node_of(pod).folder / "varlog" / "pods" if pod["spec"].get("nodeName") else None
            logs = sorted(folder.glob(f"*_{pod['metadata']['uid']}/*/*.log")) if folder else []
            ends += [f"--- {pod['metadata']['name']} {log.name}\n{log.read_text()[-2000:]}" for log in logs]
        return "\n".join(ends)


def _inner_pid(pid: int) -> int:
    """The process's number in its own namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


def remove_run(user: NodeUser, name: str) -> None:
    """kubectl delete, until its pods are gone."""
    user.delete_run(name)
    wait_for(lambda: not user.pods(name), f"the pods of {name} to be gone", user.patience_seconds)
