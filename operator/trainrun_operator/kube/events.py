"""Events on runs: an Event that is told again is counted, and not more often than once a minute.

Nothing waits for an Event: once `start` was called, a thread writes them, and a recovery goes on meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import OrderedDict
from contextlib import suppress

from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Key, Object
from trainrun_operator.core.times import to_text
from trainrun_operator.errors import AlreadyExists, ClusterError
from trainrun_operator.kube.client import KubeClient
from trainrun_operator.rate_limit import RateLimit

SAME_EVENT_SECONDS = 60.0
"""An Event that is told again within this time is not written again."""
REMEMBERED = 4096
"""Events of which we know the last writing."""
MESSAGE_LIMIT = 1024
"""The API server's own limit."""

WAITING_LIMIT = 1000
"""Events that wait to be written; an API server that falls further behind gets no more of them."""
AT_ONCE, PER_SECOND = 20, 10.0
"""Events written without a pause, and then each second: when a rack takes many runs with it, the API server has
their jobs to see to."""
FLUSH_SECONDS = 5.0
"""For what waits at the end; below the pod's grace period."""

log = logging.getLogger(__name__)


class EventRecorder:
    """Thread-safe. An Event that cannot be written is logged and never fails a pass."""

    def __init__(self, client: KubeClient, clock: Clock, component: str, instance: str) -> None:
        self._client = client
        self._clock = clock
        self._component = component
        self._instance = instance
        self._written: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Object | None] = queue.Queue(WAITING_LIMIT)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Write in a thread from now on."""
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, without pauses, and end the thread."""
        self._stopping.set()
        if self._thread is not None:
            with suppress(queue.Full):
                self._waiting.put(None, timeout=FLUSH_SECONDS)
            self._thread.join(FLUSH_SECONDS)

    def record(self, run: Object, kind: str, reason: str, message: str) -> None:
        """Tell it, or count it."""
        name = _name(run, kind, reason, message)
        if not self._is_due(name):
            return
        event = self._event(run, name, kind, reason, message, to_text(self._clock.now()))
        if self._thread is None:
            self._write(event)
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            log.warning("event %s was not recorded: %d others wait", reason, WAITING_LIMIT)

    def _work(self) -> None:
        limit = RateLimit(PER_SECOND, AT_ONCE)
        while (event := self._waiting.get()) is not None:
            self._stopping.wait(limit.take(self._clock.monotonic()))
            try:
                self._write(event)
            except Exception:  # a bug that one Event brings out must not keep back the others
                log.exception("event %s was not recorded", event["reason"])

    def _write(self, event: Object) -> None:
        """Create it, or count the one that is there; never raises."""
        namespace = event["metadata"]["namespace"]
        try:
            try:
                self._client.create("Event", namespace, event)
            except AlreadyExists:
                self._count(Key(namespace, event["metadata"]["name"]), event["lastTimestamp"])
        except ClusterError as error:
            log.warning("event %s was not recorded: %s", event["reason"], error)

    def _is_due(self, name: str) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            last = self._written.get(name)
            if last is not None and now - last < SAME_EVENT_SECONDS:
                return False
            self._written[name] = now
            self._written.move_to_end(name)
            if len(self._written) > REMEMBERED:
                self._written.popitem(last=False)
        return True

    def _count(self, key: Key, now: str) -> None:
        event = self._client.get("Event", key)
        if event is not None:
            event |= {"count": int(event.get("count") or 1) + 1, "lastTimestamp": now}
            self._client.replace("Event", event)

    def _event(self, run: Object, name: str, kind: str, reason: str, message: str, now: str) -> Object:
        metadata = run["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": run["apiVersion"],
                "kind": run["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "...",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def _name(run: Object, kind: str, reason: str, message: str) -> str:
    """The same for the same news about the same run, so that every operator counts on one Event."""
    digest = hashlib.sha256("\0".join((run["metadata"]["uid"], kind, reason, message)).encode()).hexdigest()
    return f"{run['metadata']['name']}.{digest[:16]}"
