"""A queue that treats PyTorchJobs as Kueue does: it alone writes `runPolicy.suspend`, by the label of its queue.

Kueue sets it with a webhook when a job is created; this one does so a moment later.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType

from trainrun_operator.cluster import Object

from tests.controlplane.api import JOBS, Api, ApiError

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
LOOK_SECONDS = 0.1


class Queue:
    """A context manager around one thread; the oldest `slots` jobs of the namespace that carry the label may run."""

    def __init__(self, api: Api, namespace: str, name: str, slots: int) -> None:
        self._api = api
        self._jobs = f"{JOBS}/namespaces/{namespace}/pytorchjobs"
        self._selector = f"{QUEUE_LABEL}={name}"
        self.slots = slots
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="queue")

    def __enter__(self) -> Queue:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            with suppress(ApiError):  # the job went meanwhile, or the API server is away
                self._admit()

    def _admit(self) -> None:
        jobs = self._api.get(f"{self._jobs}?labelSelector={self._selector}")["items"]
        waiting = sorted((job for job in jobs if not _is_over(job)), key=_age)
        for place, job in enumerate(waiting):
            shall_wait = place >= self.slots
            if bool(job["spec"].get("runPolicy", {}).get("suspend")) != shall_wait:
                path = f"{self._jobs}/{job['metadata']['name']}"
                self._api.merge(path, {"spec": {"runPolicy": {"suspend": shall_wait}}})


def _is_over(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    ended = any(c["type"] in ("Succeeded", "Failed") and c["status"] == "True" for c in conditions)
    return ended or "deletionTimestamp" in job["metadata"]


def _age(job: Object) -> tuple[str, str]:
    return job["metadata"]["creationTimestamp"], job["metadata"]["name"]
