"""LocalCluster: the operator's `Cluster` with slots for nodes and processes for pods.

Everything a control plane would do runs in one thread here, woken by changes and by ends of processes: job
controller, scheduler, kubelets, node life cycle. All of it is level-triggered and all objects are on disk, so the
process that holds it may be killed at any time; the next one goes on. It knows nothing about training.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from trainrun_api.contract import Label

from trainrun_operator.agent_client import ask
from trainrun_operator.cluster import Key, Object, ProgressAnswer, WatchEvent, checkpoint_path
from trainrun_operator.errors import Conflict, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL, JobController
from trainrun_operator.local.disk import ObjectFiles, read_json, write_json
from trainrun_operator.local.kubelet import Kubelet
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.pod_process import LOOPBACK
from trainrun_operator.local.pod_status import scheduled_status, unscheduled_status
from trainrun_operator.local.scheduler import schedule
from trainrun_operator.local.slots import Slots
from trainrun_operator.objects import ObjectKey, ObjectStore, timestamp

PASS_SECONDS = 0.1
"""Longest time between two passes: how fast files written by the supervisor are seen."""
EVIDENCE_SECONDS = 600.0
"""How long the last sight of a deleted pod is kept, as in a cluster."""
NAMESPACE = "default"


class LocalCluster:
    """Implements `trainrun_operator.cluster.Cluster`."""

    def __init__(
        self, run_dir: RunDir, now: Callable[[], datetime], *, journal: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._dir = run_dir
        self._now = now
        self._journal = journal
        self._files = ObjectFiles(run_dir.objects)
        self._store = ObjectStore(now, persist=self._persist)
        self._store.load(self._files.read())
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._slots = Slots(self._store, now, run_dir.lost_nodes)
        self._kubelet = Kubelet(self._store, now, run_dir, self._slots, self._selector)
        self._jobs = JobController(self._store, now)
        self._departed: dict[str, tuple[float, Object]] = {}
        self._desired_stamp: tuple[int, int] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="control-plane", daemon=True)
        self._store.subscribe(self._note)

    # -- life of the control plane ---------------------------------------------------------------

    def start(self) -> list[str]:
        """Apply what is desired, adopt living pods, start the control plane; returns the adopted pods' names."""
        self._apply_desired()
        self._slots.tick()  # what happened to nodes meanwhile is known before anybody asks
        adopted = self._kubelet.adopt()
        self._thread.start()
        return adopted

    def stop(self) -> None:
        """Stop the control plane; pods live on and are adopted by the next one. May be called twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()  # seen within PASS_SECONDS
        self._thread.join()
        self._kubelet.release()
        self._selector.close()
        os.close(self._wake_fd)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._pass()
            wait = min(PASS_SECONDS, self._kubelet.seconds_to_next_kill() or PASS_SECONDS)
            for key, _ in self._selector.select(wait):
                if key.fd == self._wake_fd:
                    with suppress(BlockingIOError):
                        os.eventfd_read(self._wake_fd)

    def _pass(self) -> None:
        """One round of everything; each part does nothing when nothing has changed."""
        self._apply_desired()
        self._slots.tick()
        self._jobs.reconcile_all()
        self._schedule()
        self._kubelet.sync()

    def _schedule(self) -> None:
        nodes = [n for n in self._store.list("Node") if not self._slots.is_lost(n["metadata"]["name"])]
        pods = self._store.list("Pod")
        bindings, messages = schedule(pods, nodes)
        now = timestamp(self._now())
        for pod in pods:
            uid = pod["metadata"]["uid"]
            with suppress(Conflict, NotFound):
                if uid in bindings:
                    pod["spec"]["nodeName"] = bindings[uid]
                    pod = self._store.replace(pod)
                    self._store.replace_status({**pod, "status": scheduled_status(pod, now)})
                elif uid in messages:
                    self._store.replace_status({**pod, "status": unscheduled_status(pod, messages[uid], now)})

    def _apply_desired(self) -> None:
        """Create or edit the TrainingRun as the supervisor wants it, when that has changed."""
        try:
            stat = self._dir.desired.stat()
        except FileNotFoundError:
            return
        stamp = (stat.st_mtime_ns, stat.st_ino)
        desired = read_json(self._dir.desired)
        if stamp == self._desired_stamp or desired is None:
            return
        self._kubelet.workdir = Path(desired["folder"])
        self._slots.ensure(int(desired["nodes"]))
        manifest: Object = desired["manifest"]
        metadata = manifest["metadata"]
        current = self._store.get("TrainingRun", Key(NAMESPACE, metadata["name"]))
        if current is None:
            self._store.create({**manifest, "metadata": {**metadata, "namespace": NAMESPACE}})
        else:
            current["spec"] = manifest["spec"]
            for name in ("labels", "annotations"):
                current["metadata"].pop(name, None)
                if name in metadata:
                    current["metadata"][name] = metadata[name]
            try:
                self._store.replace(current)
            except Conflict:
                return  # a status came between; the next pass tries again
        self._desired_stamp = stamp

    def _persist(self, key: ObjectKey, obj: Object | None) -> None:
        self._files(key, obj)
        if key.kind == "TrainingRun" and obj is not None:
            write_json(self._dir.status, obj)

    def _note(self, event: WatchEvent) -> None:
        if event.kind == "Pod" and event.type == "DELETED":
            self._departed[event.object["metadata"]["uid"]] = (time.monotonic(), event.object)
        if event.kind in ("Pod", "PyTorchJob") and not self._stopping.is_set():
            with suppress(BlockingIOError):
                os.eventfd_write(self._wake_fd, 1)

    # -- Cluster ---------------------------------------------------------------------------------

    def get_run(self, key: Key) -> Object | None:
        """Read the TrainingRun."""
        return self._store.get("TrainingRun", key)

    def known_run(self, key: Key) -> Object | None:
        """Reads are live here; another run is known by what it left in the same workdir."""
        if key.name != self._dir.name:
            found: Object | None = read_json(RunDir(self._dir.root.parent / key.name).status)
            return found
        return self._store.get("TrainingRun", key)

    def note_run(self, run: Object) -> None:
        """Reads are live here."""

    def list_runs(self) -> list[Object]:
        """Return the one run of this folder."""
        return self._store.list("TrainingRun")

    def runs_at(self, path: str) -> list[Object]:
        """Runs with this checkpoint path."""
        return [run for run in self.list_runs() if checkpoint_path(run) == path]

    def replace_run_status(self, run: Object) -> Object:
        """Replace status under the resourceVersion."""
        return self._store.replace_status(run)

    def delete_run(self, key: Key, *, uid: str) -> None:
        """Forget the run's object; its folder stays."""
        self._store.delete("TrainingRun", key, uid=uid)

    def get_job(self, key: Key) -> Object | None:
        """Read a PyTorchJob."""
        return self._store.get("PyTorchJob", key)

    def list_jobs(self, run: Key) -> list[Object]:
        """PyTorchJobs with the run's label."""
        return self._store.list("PyTorchJob", {Label.RUN: run.name}, namespace=run.namespace)

    def create_job(self, job: Object) -> Object:
        """Create a PyTorchJob."""
        return self._store.create(job)

    def delete_job(self, key: Key, *, uid: str) -> None:
        """Delete a PyTorchJob; its pods follow with their own grace."""
        self._store.delete("PyTorchJob", key, uid=uid)

    def job_warnings(self, job: Object) -> list[Object]:
        """Nobody refuses pods here."""
        return []

    def list_pods(self, run: Key) -> list[Object]:
        """Pods with the run's label."""
        return self._store.list("Pod", {Label.RUN: run.name}, namespace=run.namespace)

    def refresh_pods(self, run: Key) -> None:
        """Lists are live here."""

    def departed_pods(self, run: Key) -> list[Object]:
        """Last sight of pods deleted in the last 10 minutes."""
        oldest = time.monotonic() - EVIDENCE_SECONDS
        for uid, (seen, _) in list(self._departed.items()):
            if seen < oldest:
                self._departed.pop(uid, None)
        return [
            pod
            for _, pod in list(self._departed.values())
            if pod["metadata"]["namespace"] == run.namespace
            and (pod["metadata"].get("labels") or {}).get(Label.RUN) == run.name
        ]

    def delete_pod(self, key: Key, *, uid: str, grace_seconds: int) -> None:
        """Delete a pod; grace 0 removes the object at once."""
        self._store.delete("Pod", key, uid=uid, grace_seconds=grace_seconds)

    def delete_pods(self, run: Key, *, run_uid: str, attempt: int, grace_seconds: int) -> None:
        """By their labels."""
        for pod in self._store.list("Pod", {Label.RUN_UID: run_uid, Label.ATTEMPT: str(attempt)}):
            with suppress(NotFound):
                name = Key(run.namespace, pod["metadata"]["name"])
                self._store.delete("Pod", name, uid=pod["metadata"]["uid"], grace_seconds=grace_seconds)

    def detach_pod(self, key: Key, *, uid: str) -> None:
        """Without the label of its job."""
        self._store.unlabel("Pod", key, JOB_NAME_LABEL, uid=uid)

    def list_nodes(self) -> list[Object]:
        """The slots."""
        return self._store.list("Node")

    def record_event(self, run: Object, *, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Write the Event as a line of events.jsonl."""
        self._journal({"type": "event", "severity": type, "reason": reason, "message": message})

    def read_fleet(self) -> Object | None:
        """Fleet facts, kept beside the objects."""
        fleet: Object | None = read_json(self._dir.local / "fleet.json")
        return fleet

    def replace_fleet(self, fleet: Object) -> Object:
        """Create or replace the fleet facts under their resourceVersion."""
        current = self.read_fleet()
        seen = fleet.get("metadata", {}).get("resourceVersion")
        actual = current["metadata"]["resourceVersion"] if current is not None else None
        if seen != actual:
            raise Conflict("the fleet facts have changed since they were read")
        new = {**fleet, "metadata": {**fleet.get("metadata", {}), "resourceVersion": str(int(actual or 0) + 1)}}
        write_json(self._dir.local / "fleet.json", new)
        return new

    def fetch_progress(self, pod: Object, *, timeout_seconds: float) -> ProgressAnswer:
        """Ask the pod's agent; a node that is lost does not even refuse."""
        if self._slots.is_lost(pod["spec"].get("nodeName", "")):
            return ProgressAnswer(None, "no-route")
        port = self._kubelet.port_of(pod)
        if port is None:
            return ProgressAnswer(None, "no-route")
        return ask(LOOPBACK, port, timeout_seconds=timeout_seconds)

    def subscribe(self, listener: Callable[[WatchEvent], None]) -> None:
        """Call `listener` for every change from now on."""
        self._store.subscribe(listener)
