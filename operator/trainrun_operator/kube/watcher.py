"""Pods, nodes and jobs, of which there are thousands: one complete list, then every change from its version on.

Each kind has a thread of its own; an event costs its JSON and little else. A watch that ends goes on where it ended.
Only when the API server has forgotten that version, or watches do not live, is everything listed anew, which finds what
was missed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from trainrun_operator.cluster import Kind
from trainrun_operator.errors import ClusterError, Expired, Unavailable
from trainrun_operator.kube.backoff import Backoff
from trainrun_operator.kube.kube_cluster import KubeCluster
from trainrun_operator.kube.stream import Stream

KINDS: tuple[Kind, ...] = ("PyTorchJob", "Pod", "Node")
"""Runs are kopf's (`handlers.py`)."""

ALIVE_SECONDS = 1.0
"""A watch that lived so long was one, though nothing happened; what ends sooner is tried again ever less often."""
DEAD_LIMIT = 3
"""Such watches in a row, then the kind is listed anew: something between us and the API server may cut them always."""
STOP_SECONDS = 2.0
"""For the thread to see that; one that waits for a silent API server ends with the process."""

log = logging.getLogger(__name__)


class Watcher:
    """Keeps the cache true for one kind."""

    def __init__(self, cluster: KubeCluster, kind: Kind) -> None:
        self._cluster = cluster
        self._kind = kind
        self._version = ""
        """Everything until there is in the cache; empty: not even a list is."""
        self._backoff = Backoff()
        self._dead = 0
        """Watches in a row that could not be opened, or ended before they said anything."""
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._loop, name=f"watch {kind}", daemon=True)

    def prime(self) -> None:
        """List until that succeeds: what is not yet known must not look as if it were gone."""
        while not self._version and not self._stopping.is_set():
            self._try(self._list)

    def start(self) -> None:
        """Go on in a thread until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch and the thread."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.shut()
        self._thread.join(STOP_SECONDS)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._try(self._follow if self._version else self._list)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # the thread is the only eye for its kind: it ends with the process
            if isinstance(error, Expired):
                self._version = ""
            self._wait(error)

    def _list(self) -> None:
        self._version = self._cluster.relist(self._kind)

    def _follow(self) -> None:
        """Take over one watch, from its first event until the server ends it. One that ends at once is none."""
        began = math.inf
        try:
            with self._cluster.open_watch(self._kind, self._version) as stream:
                self._stream, began = stream, time.monotonic()
                if self._stopping.is_set():
                    return
                for event in stream:
                    self._version = self._cluster.take(self._kind, event)
                    began = -math.inf
        finally:
            self._judge(time.monotonic() - began >= ALIVE_SECONDS)
        if self._dead:
            raise Unavailable("the watch ended without a word")

    def _judge(self, is_alive: bool) -> None:
        """What a watch was good for; a list tells what a few in a row could not."""
        if is_alive:
            self._dead = 0
            self._backoff.worked()
            return
        self._dead += 1
        if self._dead % DEAD_LIMIT == 0:
            self._version = ""

    def _wait(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        seconds = self._backoff.failed()
        is_ours = not isinstance(error, ClusterError)
        log.warning("%s cannot be watched, again in %.1f s: %s", self._kind, seconds, error, exc_info=is_ours)
        self._stopping.wait(seconds)
