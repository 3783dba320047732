"""Slots, shown as Node objects: they can be lost, and come back as new nodes.

A loss looks as it does in a cluster: nothing answers, some time later the node is not Ready, later still its
object is gone and a replacement with another name joins (HyperPod replaces broken instances that way).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from trainrun_operator.cluster import Key, Object
from trainrun_operator.objects import ObjectStore, timestamp

NOT_READY_AFTER_SECONDS = 1.0
"""Silence after which a node counts as not Ready. Kubernetes takes 40 s (its lab setting here: 6 s) because networks
hiccup; a slot has no network."""
REPLACED_AFTER_SECONDS = 6.0
"""Then a new node takes the place. HyperPod needs minutes; a demo has not got them, but the operator must have had
time to see the old node not Ready."""
HEARTBEAT_SECONDS = 10.0
"""A kubelet's own period for its lease."""
SLOT_LABEL = "trainrun.dev/slot"
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


class Slots:
    """Keeps Node objects in step with the number of slots and with the losses asked for on disk."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime], lost: Path) -> None:
        self._store = store
        self._now = now
        self._lost = lost
        self._beat_at = float("-inf")

    def is_lost(self, node: str) -> bool:
        """Whether somebody marked the node as lost: nothing on it is started, and what ended on it is not told."""
        return (self._lost / node).exists()

    def ensure(self, count: int) -> None:
        """Have a node for each of `count` slots; a slot above it goes when no pod is on it."""
        nodes = self._store.list("Node")
        present = {int(n["metadata"]["labels"][SLOT_LABEL]) for n in nodes}
        for slot in set(range(count)) - present:
            self._join(slot, f"slot-{slot}")
        used = {p["spec"].get("nodeName") for p in self._store.list("Pod")}
        for node in nodes:
            name = node["metadata"]["name"]
            if int(node["metadata"]["labels"][SLOT_LABEL]) >= count and name not in used:
                self._store.delete("Node", Key("", name))

    def tick(self) -> None:
        """Heartbeats of the living; the lost turn NotReady and are replaced. Pods of departed nodes are collected."""
        moment = time.monotonic()
        is_beat_due = moment - self._beat_at >= HEARTBEAT_SECONDS
        for node in self._store.list("Node"):
            name = node["metadata"]["name"]
            if not self.is_lost(name):
                if is_beat_due:
                    self._set_ready(node, "True", "KubeletReady", "the slot takes pods")
                continue
            silence = self._now().timestamp() - (self._lost / name).stat().st_mtime  # outlives this process
            if silence >= REPLACED_AFTER_SECONDS:
                self._replace(node)
            elif silence >= NOT_READY_AFTER_SECONDS:
                self._set_ready(node, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        if is_beat_due:
            self._beat_at = moment
        names = {n["metadata"]["name"] for n in self._store.list("Node")}
        for pod in self._store.list("Pod"):
            if pod["spec"].get("nodeName", "") not in ("", *names):
                self._store.remove("Pod", Key(pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def _replace(self, node: Object) -> None:
        name, slot = node["metadata"]["name"], int(node["metadata"]["labels"][SLOT_LABEL])
        head, _, generation = name.partition("-r")
        self._store.delete("Node", Key("", name))
        self._join(slot, f"{head}-r{int(generation or 0) + 1}")

    def _join(self, slot: int, name: str) -> None:
        labels = {
            "kubernetes.io/hostname": name,
            SLOT_LABEL: str(slot),
            "sagemaker.amazonaws.com/node-health-status": "Schedulable",
        }
        node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}
        self._set_ready(self._store.create(node), "True", "KubeletReady", "the slot takes pods")

    def _set_ready(self, node: Object, value: str, reason: str, message: str) -> None:
        """Write the Ready condition, and the taint that goes with its loss."""
        now = timestamp(self._now())
        old: dict[str, Any] = next(iter(node.get("status", {}).get("conditions") or []), {})
        if value != "True" and old.get("status") == value:
            return
        changed = now if old.get("status") != value else old["lastTransitionTime"]
        heartbeat = now if value == "True" else old.get("lastHeartbeatTime", now)
        condition = {
            "type": "Ready", "status": value, "reason": reason, "message": message,
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": changed,
        }  # fmt: skip
        if value != "True":
            node["spec"]["taints"] = [UNREACHABLE | {"timeAdded": now}]
            node = self._store.replace(node)
        self._store.replace_status({**node, "status": {"conditions": [condition]}})
