"""FakeCluster: the `Cluster` seam over the in-memory store, with every fault a test can ask for.

`before` and `after` see each call by name and may raise: an error of errors.py, or `OperatorKilled` to die between
any two writes. `deliveries` decides how often a watch event arrives: 0 is lost, 2 is duplicated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal

from trainrun_api.contract import Label

from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Key, Object, ProgressAnswer, WatchEvent, checkpoint_path
from trainrun_operator.core.observed import REFUSED
from trainrun_operator.errors import Conflict, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL
from trainrun_operator.objects import ObjectStore

EVIDENCE = timedelta(seconds=600)
"""How long the last sight of a deleted pod is kept."""

Hook = Callable[[str], None]


class OperatorKilled(BaseException):
    """SIGKILL: nothing catches it but the test."""


class FakeCluster:
    """Implements `trainrun_operator.cluster.Cluster`; `store` is the API server behind it."""

    def __init__(self, clock: Clock, store: ObjectStore | None = None) -> None:
        self._clock = clock
        self.store = store or ObjectStore(clock.now)
        self.events: list[tuple[str, str, str]] = []
        """(run, reason, message) of each Event."""
        self.writes: list[str] = []
        """Names of the writing calls that took effect."""
        self.before: Hook = lambda call: None
        self.after: Hook = lambda call: None
        self.deliveries: Callable[[WatchEvent], int] = lambda event: 1
        self.answer: Callable[[Object], ProgressAnswer] = lambda pod: ProgressAnswer(None, REFUSED)
        self.while_deleting: Callable[[], None] = lambda: None
        """What others do while a pod is removed by force."""
        self.warnings: dict[str, list[Object]] = {}
        """Warning Events on jobs, by the job's name."""
        self._departed: dict[str, tuple[datetime, Object]] = {}
        self._fleet: Object | None = None
        self.store.subscribe(self._remember)

    def get_run(self, key: Key) -> Object | None:
        """Live read."""
        self.before("get_run")
        return self.store.get("TrainingRun", key)

    def known_run(self, key: Key) -> Object | None:
        """Reads are live here."""
        return self.store.get("TrainingRun", key)

    def note_run(self, run: Object) -> None:
        """Reads are live here."""

    def list_runs(self) -> list[Object]:
        """All runs."""
        self.before("list_runs")
        return self.store.list("TrainingRun")

    def runs_at(self, path: str) -> list[Object]:
        """Runs with this checkpoint path."""
        return [run for run in self.list_runs() if checkpoint_path(run) == path]

    def replace_run_status(self, run: Object) -> Object:
        """Under its resourceVersion."""
        self.before("replace_run_status")
        result = self.store.replace_status(run)
        self._wrote("replace_run_status")
        return result

    def delete_run(self, key: Key, *, uid: str) -> None:
        """With its uid."""
        self.before("delete_run")
        self.store.delete("TrainingRun", key, uid=uid)
        self._wrote("delete_run")

    def get_job(self, key: Key) -> Object | None:
        """Live read."""
        self.before("get_job")
        return self.store.get("PyTorchJob", key)

    def list_jobs(self, run: Key) -> list[Object]:
        """Jobs with the run's label."""
        self.before("list_jobs")
        return self.store.list("PyTorchJob", {Label.RUN: run.name}, namespace=run.namespace)

    def create_job(self, job: Object) -> Object:
        """AlreadyExists if there is one."""
        self.before("create_job")
        result = self.store.create(job)
        self._wrote("create_job")
        return result

    def delete_job(self, key: Key, *, uid: str) -> None:
        """Its pods follow."""
        self.before("delete_job")
        self.store.delete("PyTorchJob", key, uid=uid)
        self._wrote("delete_job")

    def job_warnings(self, job: Object) -> list[Object]:
        """Whatever `warnings` says."""
        self.before("job_warnings")
        return self.warnings.get(job["metadata"]["name"], [])

    def list_pods(self, run: Key) -> list[Object]:
        """Pods with the run's label."""
        self.before("list_pods")
        return self.store.list("Pod", {Label.RUN: run.name}, namespace=run.namespace)

    def refresh_pods(self, run: Key) -> None:
        """Lists are live here."""
        self.before("refresh_pods")

    def departed_pods(self, run: Key) -> list[Object]:
        """Last sight of pods that went in the last 10 minutes."""
        self.before("departed_pods")
        oldest = self._clock.now() - EVIDENCE
        self._departed = {uid: entry for uid, entry in self._departed.items() if entry[0] >= oldest}
        return [
            pod
            for _, pod in self._departed.values()
            if pod["metadata"]["namespace"] == run.namespace and pod["metadata"]["labels"].get(Label.RUN) == run.name
        ]

    def delete_pod(self, key: Key, *, uid: str, grace_seconds: int) -> None:
        """Grace 0 removes the object at once, but not without a moment in which others see it being deleted."""
        self.before("delete_pod")
        self.store.delete("Pod", key, uid=uid, grace_seconds=grace_seconds or 1)
        if grace_seconds == 0:
            self.while_deleting()
            self.store.remove("Pod", key, uid=uid)
        self._wrote("delete_pod")

    def delete_pods(self, run: Key, *, run_uid: str, attempt: int, grace_seconds: int) -> None:
        """One by one, as the API server does: an operator that dies meanwhile leaves some."""
        self.before("delete_pods")
        labels = {Label.RUN_UID: run_uid, Label.ATTEMPT: str(attempt)}
        for pod in self.store.list("Pod", labels, namespace=run.namespace):
            metadata = pod["metadata"]
            with suppress(NotFound):
                name = Key(run.namespace, metadata["name"])
                self.store.delete("Pod", name, uid=metadata["uid"], grace_seconds=grace_seconds)
            self._wrote("delete_pods")

    def detach_pod(self, key: Key, *, uid: str) -> None:
        """Without the label of its job."""
        self.before("detach_pod")
        self.store.unlabel("Pod", key, JOB_NAME_LABEL, uid=uid)
        self._wrote("detach_pod")

    def list_nodes(self) -> list[Object]:
        """All nodes."""
        self.before("list_nodes")
        return self.store.list("Node")

    def record_event(self, run: Object, *, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Kept in `events`."""
        self.before("record_event")
        self.events.append((run["metadata"]["name"], reason, message))
        self._wrote("record_event")

    def read_fleet(self) -> Object | None:
        """The fleet ConfigMap."""
        self.before("read_fleet")
        return self._fleet

    def replace_fleet(self, fleet: Object) -> Object:
        """Under its resourceVersion."""
        self.before("replace_fleet")
        actual = self._fleet["metadata"]["resourceVersion"] if self._fleet is not None else None
        if fleet.get("metadata", {}).get("resourceVersion") != actual:
            raise Conflict("the fleet facts have changed since they were read")
        self._fleet = {**fleet, "metadata": {**fleet.get("metadata", {}), "resourceVersion": str(int(actual or 0) + 1)}}
        self._wrote("replace_fleet")
        return self._fleet

    def fetch_progress(self, pod: Object, *, timeout_seconds: float) -> ProgressAnswer:
        """Whatever `answer` says."""
        return self.answer(pod)

    def subscribe(self, listener: Callable[[WatchEvent], None]) -> None:
        """Deliver events as often as `deliveries` says."""

        def deliver(event: WatchEvent) -> None:
            for _ in range(self.deliveries(event)):
                listener(event)

        self.store.subscribe(deliver)

    def _remember(self, event: WatchEvent) -> None:
        if event.kind == "Pod" and event.type == "DELETED":
            self._departed[event.object["metadata"]["uid"]] = (self._clock.now(), event.object)

    def _wrote(self, call: str) -> None:
        self.writes.append(call)
        self.after(call)
