"""A world of nodes, a scheduler, kubelets and trainers for FakeCluster, moved by hand.

It models what the operator can see: pods get nodes, start, answer for progress, save on SIGTERM, write termination
messages, hang, or vanish with their node. Faults are methods. Time comes from the FakeClock; `tick` does all that
is due. Nothing in it looks at what the operator thinks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from trainrun_api.contract import CAUSE_OF_EXIT, Label

from trainrun_operator.cluster import Key, Object, WatchEvent
from trainrun_operator.core.times import from_text
from trainrun_operator.job_controller import REPLICA_INDEX_LABEL, JobController
from trainrun_operator.objects import timestamp
from trainrun_operator.testing.clock import FakeClock
from trainrun_operator.testing.cluster import FakeCluster
from trainrun_operator.testing.manifests import key_of, may_run_on, phase_of, small_spec
from trainrun_operator.testing.trainers import Pace, Trainers

NOT_READY_AFTER_SECONDS = 40.0
"""Kubernetes' node-monitor-grace-period."""


class World(Trainers):
    """Everything but the operator."""

    def __init__(self, clock: FakeClock, cluster: FakeCluster, pace: Pace | None = None) -> None:
        super().__init__(clock, cluster.store, pace)
        self.cluster = cluster
        self.jobs = JobController(self.store, clock.now)
        self.interleave = False
        """Schedule pods by index across runs, so that gangs meet half way."""
        self.unpullable: str | None = None
        """An image pull error that every new pod meets."""
        self.taken: set[str] = set()
        """Nodes that something else holds."""
        self._is_changed = True
        self._is_leaving = False
        cluster.answer = self.answer
        cluster.while_deleting = self.jobs.reconcile_all
        self.store.subscribe(self._note)

    # -- making things -------------------------------------------------------------------------

    def add_node(self, name: str) -> None:
        """A healthy node."""
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
        }
        self.store.create(node)
        self._set_ready(name, "True")

    def add_run(self, name: str, *, namespace: str = "default", **spec: Any) -> Key:
        """A TrainingRun with a small valid spec; `spec` is merged into it."""
        run: Object = {
            "apiVersion": "trainrun.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": name, "namespace": namespace},
            "spec": small_spec(name) | spec,
        }
        self.store.create(run)
        return Key(namespace, name)

    def edit_run(self, key: Key, **spec: Any) -> None:
        """Change fields of a run's spec, as a user does."""
        run = self.store.get("TrainingRun", key)
        assert run is not None
        run["spec"] = run["spec"] | spec
        self.store.replace(run)

    def status(self, key: Key) -> dict[str, Any]:
        """The run's status now."""
        run = self.store.get("TrainingRun", key)
        assert run is not None
        status: dict[str, Any] = run.get("status") or {}
        return status

    # -- faults --------------------------------------------------------------------------------

    def kill_node(self, name: str) -> None:
        """The node vanishes without a word: pods on it answer nothing and write nothing."""
        self.dead.setdefault(name, self.clock.monotonic())
        self._is_changed = True

    def revive_node(self, name: str) -> None:
        """The node comes back; what ran on it has died meanwhile."""
        if self.dead.pop(name, None) is None:
            return
        self._set_ready(name, "True")
        for pod in self.store.list("Pod"):
            if pod["spec"].get("nodeName") == name and phase_of(pod) == "Running":
                self._end_pod(pod, 137, "Error", None)

    def remove_node(self, name: str) -> None:
        """The Node object goes; the pod garbage collector follows."""
        self.dead.setdefault(name, self.clock.monotonic())
        self.store.remove("Node", Key("", name))

    def mark_node(self, name: str, value: str | None) -> None:
        """HyperPod's health label; None takes it away."""
        node = self.store.get("Node", Key("", name))
        if node is None:
            return
        node["metadata"]["labels"].pop("sagemaker.amazonaws.com/node-health-status", None)
        if value is not None:
            node["metadata"]["labels"]["sagemaker.amazonaws.com/node-health-status"] = value
        self.store.replace(node)

    def fail_pod(self, pod: Object, exit_code: int, *, reason: str = "Error", said: bool = True, **words: Any) -> None:
        """One pod ends; its group breaks."""
        group = self._group_of(pod)
        message = self._message(group, pod, exit_code, **words) if said and group is not None else None
        code = exit_code if exit_code in (0, 137, 139, 143, *CAUSE_OF_EXIT) else 1
        self._end_pod(pod, code, reason, message)
        if group is not None:
            self._break(group)

    def evict_pod(self, pod: Object, *, reason: str = "PreemptionByScheduler") -> None:
        """Mark the pod as a disruption's target and delete it with its own grace."""
        current = self.store.get("Pod", key_of(pod))
        if current is None:
            return
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        current.setdefault("status", {}).setdefault("conditions", []).append(condition)
        self.store.replace_status(current)
        self.store.delete("Pod", key_of(pod), uid=pod["metadata"]["uid"])

    def hang(self, job_uid: str) -> None:
        """The group stands still; its agents answer."""
        if job_uid in self.groups:
            self.groups[job_uid].is_hung = True

    def suspend_job(self, key: Key, *, is_suspended: bool) -> None:
        """What Kueue does to a job."""
        job = self.store.get("PyTorchJob", key)
        if job is None:
            return
        job["spec"].setdefault("runPolicy", {})["suspend"] = is_suspended
        self.store.replace(job)

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due now."""
        self._age_nodes()
        for _ in range(3):  # controllers answer each other's changes
            if not self._is_changed:
                break
            self._is_changed = False
            self.jobs.reconcile_all()
            self._schedule()
            self._run_pods()
            for group in self.groups.values():
                if not group.is_over and self._is_torn(group):
                    self._break(group)
        for group in self.groups.values():
            if not group.is_over:
                self._run_group(group)
        if self._is_leaving:
            self._reap()

    def is_busy(self) -> bool:
        """Whether the next second may bring something by itself."""
        is_aging = any(self.clock.monotonic() - died <= NOT_READY_AFTER_SECONDS for died in self.dead.values())
        return self._is_changed or self._is_leaving or is_aging or any(not g.is_over for g in self.groups.values())

    def _note(self, event: WatchEvent) -> None:
        self._is_changed = True
        if event.kind == "Pod" and "deletionTimestamp" in event.object["metadata"]:
            self._is_leaving = True

    def living_jobs(self, key: Key) -> list[Object]:
        """Jobs of a run that are not being deleted."""
        jobs = self.store.list("PyTorchJob", {Label.RUN: key.name}, namespace=key.namespace)
        return [j for j in jobs if "deletionTimestamp" not in j["metadata"]]

    def pods(self, key: Key) -> list[Object]:
        """Pods of a run, by name."""
        return self.store.list("Pod", {Label.RUN: key.name}, namespace=key.namespace)

    # -- nodes, scheduler, kubelet -----------------------------------------------------------------

    def _age_nodes(self) -> None:
        for name, died in self.dead.items():
            if self.clock.monotonic() - died >= NOT_READY_AFTER_SECONDS:
                self._set_ready(name, "Unknown")

    def _set_ready(self, name: str, value: str) -> None:
        node = self.store.get("Node", Key("", name))
        if node is None:
            return
        conditions = (node.get("status") or {}).get("conditions") or [{}]
        if conditions[0].get("status") == value:
            return
        now = timestamp(self.clock.now())
        beat = now if value == "True" else conditions[0].get("lastHeartbeatTime", now)
        condition = {"type": "Ready", "status": value, "lastTransitionTime": now, "lastHeartbeatTime": beat}
        self.store.replace_status({**node, "status": {"conditions": [condition]}})

    def _schedule(self) -> None:
        """One pod per node; each pod for itself, as the default scheduler does it."""
        pods = self.store.list("Pod")
        taken = {p["spec"].get("nodeName") for p in pods if phase_of(p) in ("Pending", "Running")} | self.taken
        free = [n for n in self.store.list("Node") if n["metadata"]["name"] not in taken and self._takes_pods(n)]
        for pod in sorted(pods, key=self._turn):
            if pod["spec"].get("nodeName") or phase_of(pod) != "Pending" or "deletionTimestamp" in pod["metadata"]:
                continue
            node = next((n for n in free if may_run_on(pod, n)), None)
            now = timestamp(self.clock.now())
            if node is None:
                condition = {"type": "PodScheduled", "status": "False", "message": "0 nodes are available."}
            else:
                free.remove(node)
                pod["spec"]["nodeName"] = node["metadata"]["name"]
                pod = self.store.replace(pod)
                condition = {"type": "PodScheduled", "status": "True"}
            old: dict[str, Any] = next(iter((pod.get("status") or {}).get("conditions") or []), {})
            if old.get("status") != condition["status"]:
                status = {"phase": "Pending", "conditions": [condition | {"lastTransitionTime": now}]}
                self.store.replace_status({**pod, "status": status})

    def _turn(self, pod: Object) -> tuple[str, str]:
        """Order in which the scheduler takes pods."""
        metadata = pod["metadata"]
        first = metadata["labels"][REPLICA_INDEX_LABEL] if self.interleave else metadata["creationTimestamp"]
        return first, metadata["name"]

    def _takes_pods(self, node: Object) -> bool:
        label = node["metadata"]["labels"].get("sagemaker.amazonaws.com/node-health-status", "Schedulable")
        ready = (node.get("status") or {}).get("conditions") or [{}]
        return label == "Schedulable" and ready[0].get("status") == "True" and not node["spec"].get("unschedulable")

    def _run_pods(self) -> None:
        """Kubelets of living nodes start containers; a full set of Running pods is a group."""
        for pod in self.store.list("Pod"):
            node = pod["spec"].get("nodeName")
            if (
                node is None
                or node in self.dead
                or phase_of(pod) != "Pending"
                or "deletionTimestamp" in pod["metadata"]
            ):
                continue
            status = dict(pod["status"])
            if self.unpullable is not None:
                state = {"waiting": {"reason": "ErrImagePull", "message": self.unpullable}}
            else:
                state = {"running": {"startedAt": timestamp(self.clock.now())}}
                status["phase"] = "Running"
            status["containerStatuses"] = [{"name": "pytorch", "state": state}]
            self.store.replace_status({**pod, "status": status})
        for job in self.store.list("PyTorchJob"):
            self._form_group(job)

    def _reap(self) -> None:
        """Kubelets end pods that are being deleted: their group saves within the grace, or they are killed."""
        now = self.clock.now()
        leaving = [p for p in self.store.list("Pod") if "deletionTimestamp" in p["metadata"]]
        self._is_leaving = any(p["spec"].get("nodeName") not in self.dead for p in leaving)
        for pod in leaving:
            metadata = pod["metadata"]
            node = pod["spec"].get("nodeName")
            if self.store.get("Node", Key("", node or "")) is None:
                self.store.remove("Pod", key_of(pod))  # pod garbage collector
                continue
            if node in self.dead:
                continue
            if phase_of(pod) in ("Succeeded", "Failed"):
                self.store.remove("Pod", key_of(pod))
                continue
            group = self._group_of(pod)
            if group is not None and group.claim is not None and not (group.is_hung or group.is_over):
                if group.stops_at is None and group.breaks_at is None:
                    group.stops_at = self.clock.monotonic() + self.pace.save
            ends_by = from_text(metadata["deletionTimestamp"])
            if ends_by is not None and now >= ends_by + timedelta(seconds=1):
                self._end_pod(pod, 137, "Error", None)
                self._break(group)
