"""Pods, nodes and jobs, of which there are thousands: one complete list, then every change from its version on.

Each kind has a thread of its own; an event costs its JSON and little else. A watch that ends goes on where it ended.
Only when the API server has forgotten that version is everything listed anew, which finds what was missed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from trainrun_operator.cluster import Kind
from trainrun_operator.errors import ClusterError, Expired
from trainrun_operator.kube.backoff import Backoff
from trainrun_operator.kube.kube_cluster import KubeCluster
from trainrun_operator.kube.stream import Stream

KINDS: tuple[Kind, ...] = ("PyTorchJob", "Pod", "Node")
"""Runs are kopf's (`handlers.py`)."""

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
        except Expired as error:
            log.info("%s: %s; listing anew", self._kind, error)
            self._version = ""
        except Exception as error:  # the thread is the only eye for its kind: it ends with the process
            self._wait(error)

    def _list(self) -> None:
        self._version = self._cluster.relist(self._kind)
        self._backoff.worked()

    def _follow(self) -> None:
        """Take over one watch, from its first event until the server ends it."""
        with self._cluster.open_watch(self._kind, self._version) as stream:
            self._stream = stream
            if self._stopping.is_set():
                return
            for event in stream:
                self._version = self._cluster.take(self._kind, event)
                self._backoff.worked()

    def _wait(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        seconds = self._backoff.failed()
        is_ours = not isinstance(error, ClusterError)
        log.warning("%s cannot be watched, again in %.1f s: %s", self._kind, seconds, error, exc_info=is_ours)
        self._stopping.wait(seconds)
