"""The seam to Kubernetes: what the operator reads and writes, and nothing about training.

Objects are plain JSON dicts shaped as the API serves them. Lists may come from a cache and belong to all of its
readers, who must not change them; `get_run` and `get_job` are live. Every write is preconditioned (resourceVersion or
uid), so that two operators at once are harmless. Calls are synchronous: the official client runs in threads
(docs/adr/0005).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


Kind = Literal["TrainingRun", "PyTorchJob", "Pod", "Node"]
"""What we watch."""


class Key(NamedTuple):
    """Namespace and name of an object."""

    namespace: str
    name: str


@dataclass(frozen=True)
class WatchEvent:
    """One change, as a watch would tell it."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    object: Object


@dataclass(frozen=True)
class ProgressAnswer:
    """What an agent said, or why it could not be asked. Blindness is neither health nor failure."""

    record: dict[str, Any] | None
    blind_because: str | None = None  # refused | timeout | no-route | bad-answer


class Cluster(Protocol):
    """KubeCluster, LocalCluster and FakeCluster; one contract test holds for all."""

    def get_run(self, key: Key) -> Object | None:
        """Live read of a TrainingRun; None if it is gone."""
        ...

    def known_run(self, key: Key) -> Object | None:
        """The run as the watch has shown it last: metadata, checkpoint path and status; None if it has not."""
        ...

    def note_run(self, run: Object) -> None:
        """The run as we have just written it: the watch will say nothing new with it."""
        ...

    def list_runs(self) -> list[Object]:
        """All TrainingRuns that we watch."""
        ...

    def runs_at(self, path: str) -> list[Object]:
        """TrainingRuns whose `checkpoint_path` this is."""
        ...

    def replace_run_status(self, run: Object) -> Object:
        """Replace status under `metadata.resourceVersion`. Raises Conflict, NotFound."""
        ...

    def delete_run(self, key: Key, *, uid: str) -> None:
        """Delete a finished run after its ttl. Raises NotFound."""
        ...

    def get_job(self, key: Key) -> Object | None:
        """Live read of a PyTorchJob."""
        ...

    def list_jobs(self, run: Key) -> list[Object]:
        """PyTorchJobs that carry the run's label, whoever owns them."""
        ...

    def create_job(self, job: Object) -> Object:
        """Create a PyTorchJob. Raises AlreadyExists, Refused."""
        ...

    def delete_job(self, key: Key, *, uid: str) -> None:
        """Delete a PyTorchJob (background propagation). Raises NotFound."""
        ...

    def job_warnings(self, job: Object) -> list[Object]:
        """The cluster's Warning Events on a PyTorchJob: they say why its pods do not appear."""
        ...

    def list_pods(self, run: Key) -> list[Object]:
        """Pods that carry the run's label."""
        ...

    def refresh_pods(self, run: Key) -> None:
        """Have `list_pods` show what is there now: watches may lag behind what was read live."""
        ...

    def departed_pods(self, run: Key) -> list[Object]:
        """Last sight of the run's pods that were deleted in the last 10 minutes: evidence outlives pods."""
        ...

    def delete_pod(self, key: Key, *, uid: str, grace_seconds: int) -> None:
        """Delete a pod; grace 0 removes the object at once (force). Raises NotFound."""
        ...

    def delete_pods(self, run: Key, *, run_uid: str, attempt: int, grace_seconds: int) -> None:
        """Delete all pods that carry these two labels, in one call. A pod that leaves earlier still does."""
        ...

    def detach_pod(self, key: Key, *, uid: str) -> None:
        """Take the label away by which a pod's job finds it: the job makes another one. Raises NotFound."""
        ...

    def list_nodes(self) -> list[Object]:
        """All nodes that may run our pods."""
        ...

    def record_event(self, run: Object, *, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """An Event on the run; repeated ones are counted, not piled up."""
        ...

    def read_fleet(self) -> Object | None:
        """The ConfigMap of fleet facts (node ledger, repair caps), or None."""
        ...

    def replace_fleet(self, fleet: Object) -> Object:
        """Create or replace the fleet ConfigMap under its resourceVersion. Raises Conflict."""
        ...

    def fetch_progress(self, pod: Object, *, timeout_seconds: float) -> ProgressAnswer:
        """Ask the agent of this pod. Never raises."""
        ...

    def subscribe(self, listener: Callable[[WatchEvent], None]) -> None:
        """Call `listener` for every change from now on, possibly from another thread."""
        ...


def checkpoint_path(run: Object) -> str | None:
    """Where a run says that it saves; None if it does not say so in words."""
    path = ((run.get("spec") or {}).get("checkpoint") or {}).get("path")
    return path.rstrip("/") if isinstance(path, str) else None
