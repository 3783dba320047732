"""KubeCluster: the `Cluster` seam on a real API server.

Lists come from the cache that the watches feed; what a decision hangs on is read live. Every write carries a
resourceVersion or uid. It knows nothing about training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trainrun_api.contract import AGENT_PORT, Env, Label
from trainrun_api.manifest import API_VERSION

from trainrun_operator.agent_client import ask
from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Key, Kind, Object, ProgressAnswer, WatchEvent
from trainrun_operator.errors import AlreadyExists, Conflict, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL
from trainrun_operator.kube.cache import Cache
from trainrun_operator.kube.client import KubeClient
from trainrun_operator.kube.events import EventRecorder
from trainrun_operator.kube.stream import Stream
from trainrun_operator.kube.trim import trimmed

WATCHED: dict[Kind, str] = {"TrainingRun": "", "PyTorchJob": Label.RUN, "Pod": Label.RUN, "Node": ""}
"""Kinds and the label by which the API server selects them for us."""

NODELESS_KEPT = 10_000
"""Pods on nodes that are gone of which we know so."""

FLEET = "trainrun-fleet"
"""Name of the ConfigMap of fleet facts."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where this operator works."""

    namespace: str
    """Its own: the fleet's ConfigMap lies there."""
    watched_namespace: str = ""
    """The one namespace that it serves; empty: all."""
    instance: str = "trainrun-operator"


class KubeCluster:
    """Implements `trainrun_operator.cluster.Cluster`."""

    def __init__(self, client: KubeClient, clock: Clock, place: Place) -> None:
        self._client = client
        self._place = place
        self.cache = Cache(clock.monotonic)
        self.events = EventRecorder(client, clock, "trainrun-operator", place.instance)
        self._nodeless: set[str] = set()
        """Pods by uid whose node is gone, as was read live: should one of its name come, a watch will tell."""

    def relist(self, kind: Kind) -> str:
        """A complete list: fills the cache, and corrects it where a watch was cut.

        Returns the version of the list, from which a watch can go on. Raises ClusterError.
        """
        objects: list[Object] = []
        version = ""
        for page in self._client.pages(kind, self._namespace_of(kind), WATCHED[kind]):
            version = version or page["metadata"]["resourceVersion"]
            objects.extend(trimmed(kind, item) for item in page["items"])  # a page of whole pods is 30 MB
        missed = self.cache.replace_all(kind, objects, version)
        if missed:
            log.info("the watch had missed %d deletions of %s", missed, kind)
        return version

    def open_watch(self, kind: Kind, version: str) -> Stream:
        """All changes after that version, to be handed to `take`. Raises Expired and other ClusterErrors."""
        return self._client.watch(kind, self._namespace_of(kind), WATCHED[kind], version)

    def take(self, kind: Kind, event: Object) -> str:
        """Take over an event of a watch; returns the version up to which the cache is complete now."""
        obj = event["object"]
        if event["type"] == "BOOKMARK":
            self.cache.heard(kind)
        elif event["type"] == "DELETED":
            self.cache.drop(kind, obj)
        else:
            self.cache.put(kind, obj)
        return str(obj["metadata"]["resourceVersion"])

    def get_run(self, key: Key) -> Object | None:
        """Live read."""
        return self._client.get("TrainingRun", key)

    def known_run(self, key: Key) -> Object | None:
        """Trimmed."""
        return self.cache.get("TrainingRun", key)

    def note_run(self, run: Object) -> None:
        """Into the cache, and nobody is told."""
        self.cache.note("TrainingRun", run)

    def list_runs(self) -> list[Object]:
        """All runs that we watch, trimmed."""
        return self.cache.all("TrainingRun")

    def runs_at(self, path: str) -> list[Object]:
        """By an index."""
        return self.cache.at_path(path)

    def replace_run_status(self, run: Object) -> Object:
        """Under its resourceVersion. Nothing but status is sent: the API server takes nothing else from it."""
        identity = {n: run["metadata"][n] for n in ("namespace", "name", "uid", "resourceVersion")}
        bare = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": identity, "status": run["status"]}
        return self._client.replace("TrainingRun", bare, subresource="status")

    def delete_run(self, key: Key, *, uid: str) -> None:
        """With its uid."""
        self._client.delete("TrainingRun", key, uid=uid)

    def get_job(self, key: Key) -> Object | None:
        """Live read."""
        return self._client.get("PyTorchJob", key)

    def list_jobs(self, run: Key) -> list[Object]:
        """PyTorchJobs with the run's label."""
        return self.cache.of_run("PyTorchJob", run)

    def create_job(self, job: Object) -> Object:
        """Raises AlreadyExists, Refused (the webhook's or the quota's own sentence)."""
        return self._client.create("PyTorchJob", job["metadata"]["namespace"], job)

    def delete_job(self, key: Key, *, uid: str) -> None:
        """Its pods follow in the background."""
        self._client.delete("PyTorchJob", key, uid=uid)

    def job_warnings(self, job: Object) -> list[Object]:
        """By its uid, live; the API server keeps them for an hour."""
        fields = f"involvedObject.uid={job['metadata']['uid']},type=Warning"
        pages = self._client.pages("Event", job["metadata"]["namespace"], fields=fields)
        return [event for page in pages for event in page["items"]]

    def list_pods(self, run: Key) -> list[Object]:
        """Pods with the run's label. A node that one of them names and no watch has shown is read live first, once:
        the watches are apart, and a node that is merely news must not count as gone."""
        pods = self.cache.of_run("Pod", run)
        for pod in pods:
            name, uid = pod["spec"].get("nodeName"), pod["metadata"]["uid"]
            if name is None or uid in self._nodeless or self.cache.has("Node", Key("", name)):
                continue
            node = self._client.get("Node", Key("", name))
            if node is not None:
                self.cache.put("Node", node)
                continue
            if len(self._nodeless) >= NODELESS_KEPT:
                self._nodeless.clear()
            self._nodeless.add(uid)
        return pods

    def refresh_pods(self, run: Key) -> None:
        """A live list of the run's pods into the cache."""
        for page in self._client.pages("Pod", run.namespace, f"{Label.RUN}={run.name}"):
            for pod in page["items"]:
                self.cache.put("Pod", pod)

    def departed_pods(self, run: Key) -> list[Object]:
        """Last sight of pods that went in the last 10 minutes."""
        return self.cache.departed(run)

    def delete_pod(self, key: Key, *, uid: str, grace_seconds: int) -> None:
        """Grace 0 removes the object at once."""
        self._client.delete("Pod", key, uid=uid, grace_seconds=grace_seconds)

    def delete_pods(self, run: Key, *, run_uid: str, attempt: int, grace_seconds: int) -> None:
        """By their labels, which no other pod ever has: as good as a uid for each."""
        selector = f"{Label.RUN_UID}={run_uid},{Label.ATTEMPT}={attempt}"
        self._client.delete_selected("Pod", run.namespace, selector, grace_seconds=grace_seconds)

    def detach_pod(self, key: Key, *, uid: str) -> None:
        """A merge patch with the uid as its precondition."""
        self._client.merge("Pod", key, {"metadata": {"uid": uid, "labels": {JOB_NAME_LABEL: None}}})

    def list_nodes(self) -> list[Object]:
        """All nodes."""
        return self.cache.all("Node")

    def record_event(self, run: Object, *, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Counted when told again; never raises."""
        self.events.record(run, type, reason, message)

    def read_fleet(self) -> Object | None:
        """The ConfigMap in our own namespace, live."""
        return self._client.get("ConfigMap", Key(self._place.namespace, FLEET))

    def replace_fleet(self, fleet: Object) -> Object:
        """Create it, or replace it under its resourceVersion."""
        known = {"namespace": self._place.namespace, "name": FLEET, "labels": {"app.kubernetes.io/name": "trainrun"}}
        whole = {"apiVersion": "v1", "kind": "ConfigMap", **fleet, "metadata": {**fleet.get("metadata", {}), **known}}
        try:
            if whole["metadata"].get("resourceVersion"):
                return self._client.replace("ConfigMap", whole)
            return self._client.create("ConfigMap", self._place.namespace, whole)
        except (AlreadyExists, NotFound) as error:
            raise Conflict(f"the fleet facts have changed since they were read: {error}") from error

    def fetch_progress(self, pod: Object, *, timeout_seconds: float) -> ProgressAnswer:
        """Ask the agent at the pod's address; never raises."""
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            return ProgressAnswer(None, "no-route")
        return ask(address, _agent_port(pod), timeout_seconds=timeout_seconds)

    def subscribe(self, listener: Callable[[WatchEvent], None]) -> None:
        """Call `listener` for every change that a watch shows."""
        self.cache.subscribe(listener)

    def _namespace_of(self, kind: Kind) -> str:
        return "" if kind == "Node" else self._place.watched_namespace


def _agent_port(pod: Object) -> int:
    """The port that the pod's environment names."""
    environment = (e for c in pod["spec"].get("containers") or () for e in c.get("env") or ())
    port = next((str(e.get("value")) for e in environment if e["name"] == Env.AGENT_PORT), "")
    return int(port) if port.isdigit() else AGENT_PORT
